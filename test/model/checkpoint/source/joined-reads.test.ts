import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { joinedReads } from "../../../../src/model/checkpoint/source/joined-reads.ts";
import { randomInt } from "../../../helpers/bytes.ts";

const BYTES = Uint8Array.from({ length: 4000 }, (_, i) => (i * 2654435761) >>> 24);
const LIMITS = { ahead: 480, gap: 80, held: 640 };

/** Joined reads of BYTES, and where each request went. */
function watched() {
  const requests: [offset: number, end: number][] = [];
  const source = joinedReads(
    {
      name: "watched",
      size: BYTES.length,
      async read(offset, length) {
        if (offset < 0 || length < 0 || offset + length > BYTES.length) throw new RangeError("outside");
        requests.push([offset, offset + length]);
        return BYTES.slice(offset, offset + length);
      },
      async close() {},
    },
    LIMITS,
  );
  return { source, requests };
}

type Piece = readonly [offset: number, length: number];
async function readAll(pieces: readonly Piece[], announced = pieces) {
  const { source, requests } = watched();
  for (const [offset, length] of announced) source.expect!(offset, length);
  for (const [offset, length] of pieces) {
    expect(await source.read(offset, length)).toEqual(BYTES.slice(offset, offset + length));
  }
  return requests;
}

describe("reads that were announced are joined", () => {
  test("in file order", async () => {
    const pieces = Array.from({ length: 40 }, (_, i): Piece => [100 + 24 * i, 24]);
    expect(await readAll(pieces)).toEqual([
      [100, 580],
      [580, 1060],
    ]);
  });

  test("in any order that stays near, as layers are read", async () => {
    const layer = (begin: number): Piece[] => [
      [begin + 60, 20],
      [begin + 40, 20],
      [begin, 40],
    ];
    const pieces = [0, 1, 2, 3, 10, 11].flatMap((i) => layer(80 * i));
    expect(await readAll(pieces)).toEqual([
      [0, 320],
      [800, 960],
    ]);
  });

  test("and one in between whose turn comes later is read along", async () => {
    const pieces: Piece[] = [
      [0, 200],
      [260, 200],
      [1000, 150],
      [200, 60],
    ];
    expect(await readAll(pieces)).toEqual([
      [0, 460],
      [1000, 1150],
    ]);
  });

  test("but nothing that nobody is going to read", async () => {
    const pieces: Piece[] = [
      [0, 100],
      [101, 100],
    ];
    expect(await readAll(pieces)).toEqual([
      [0, 100],
      [101, 201],
    ]);
    expect(await readAll(pieces.slice(0, 1), [])).toEqual([[0, 100]]);
  });

  test("a long one in parts of bounded length, whatever is read of it at once", async () => {
    const chunks = Array.from({ length: 15 }, (_, i): Piece => [7 + 70 * i, 70]);
    expect(await readAll(chunks, [[7, 1050]])).toEqual([
      [7, 487],
      [487, 967],
      [967, 1057],
    ]);
  });

  test("and read again where that is wanted", async () => {
    const piece: Piece = [10, 100];
    const requests = await readAll([piece, piece, piece], [piece, piece]);
    expect(requests).toEqual([
      [10, 110],
      [10, 110],
      [10, 110],
    ]);
  });
});

test("whatever is announced and read, the bytes are right, and none is fetched more than twice", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer(), fc.integer({ min: 1, max: 60 }), async (seed, count) => {
      const random = randomInt(seed);
      const cuts = [...new Set(Array.from({ length: count * 2 }, () => random(BYTES.length)))].sort(
        (a, b) => a - b,
      );
      const pieces = cuts.slice(1).map((end, i): Piece => [cuts[i]!, end - cuts[i]!]);
      const announced = pieces.filter(() => random(4) > 0).sort(() => random(3) - 1);
      const read = pieces.sort(() => random(3) - 1);
      const requests = await readAll(read, announced);
      const times = new Uint8Array(BYTES.length);
      for (const [begin, end] of requests) {
        expect(end - begin).toBeLessThanOrEqual(Math.max(LIMITS.ahead * 2, ...pieces.map(([, n]) => n)));
        for (let i = begin; i < end; i++) times[i]!++;
      }
      expect(Math.max(...times)).toBeLessThanOrEqual(2);
    }),
    { numRuns: 300 },
  );
});

test("reads across what was announced and what was not", async () => {
  const { source, requests } = watched();
  source.expect!(100, 50);
  source.expect!(200, 50);
  expect(await source.read(0, 400)).toEqual(BYTES.slice(0, 400));
  expect(
    requests
      .flat()
      .sort((a, b) => a - b)
      .filter((x, i, all) => x !== all[i - 1]),
  ).toEqual([0, 100, 150, 200, 250, 400]);
  expect(await source.read(5, 0)).toEqual(new Uint8Array(0));
});
