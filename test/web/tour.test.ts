import { expect, test } from "vitest";
import { EMPTY, type ExplorerDocument, readDocument } from "../../web/src/document/document.ts";
import { decodeLink, encodeLink } from "../../web/src/document/link.ts";
import { differences } from "../../web/src/keep/difference.ts";
import { partOf } from "../../web/src/keep/questions.ts";
import { SHELF } from "../../web/src/vectors/shelf.ts";
import { layOut } from "../../web/src/views/see/plane.ts";
import { CHAPTERS, isDone } from "../../web/src/views/tour/chapters.ts";
import { TOUR } from "../../web/src/views/tour/tour-slice.ts";
import { VECTORS } from "../../web/src/views/vectors/vectors-slice.ts";

const LAYERS = 30;
const steps = CHAPTERS.flatMap(({ steps }) => steps);

test("each step's change is done once, fits a link, and can begin anywhere", async () => {
  let walked: ExplorerDocument = EMPTY;
  for (const step of steps) {
    if (!step.change) continue;
    expect(isDone(step, walked, LAYERS), step.title).toBe(false);
    walked = { ...step.change(walked, LAYERS), view: step.view };
    expect(isDone(step, walked, LAYERS), step.title).toBe(true);
    expect(await decodeLink(await encodeLink(walked))).toEqual(walked);
    // Of a reader who begins here.
    expect(isDone(step, step.change(EMPTY, LAYERS), LAYERS)).toBe(true);
  }
  const { vectors } = partOf(walked, SHELF);
  expect(vectors.map(({ name, layer }) => [name, layer])).toEqual([
    ["capital", 21],
    ["language", 21],
    ["capital, in words", 21],
  ]);
  expect(partOf(walked, VECTORS).drops).toHaveLength(9);
  // A model with fewer layers has its own.
  expect(partOf(steps[1]!.change!(EMPTY, 3), SHELF).vectors[0]!.layer).toBe(2);
});

test("words of the tour tell no answers: those are computed", () => {
  const answers = /warsaw|cairo|copenhagen|polish|arabic|danish|%|\b\d+ of \d+\b/i;
  for (const { title, words } of steps) expect(`${title} ${words}`).not.toMatch(answers);
});

test("a place on the tour is kept", () => {
  const place = { on: true, chapter: 1, step: 3 };
  expect(readDocument({ ...EMPTY, slices: { tour: place } }).slices["tour"]).toEqual(place);
  expect(() => TOUR.read({ ...place, step: -1 }, "tour")).toThrow(/tour\.step/);
});

test("two states are told apart by place, vectors by their id", () => {
  const [one, two] = steps;
  const a = two!.change!(one!.change!(EMPTY, LAYERS), LAYERS);
  const b = steps[3]!.change!(a, LAYERS);
  expect(differences(a, a)).toEqual([]);
  const found = differences(a, b);
  expect(found.map(({ at }) => at)).toContain("shelf.vectors.v2");
  expect(found.filter(({ at }) => at === "vectors.drops")).toHaveLength(3);
  const shelf = partOf(a, SHELF);
  const moved = {
    ...a,
    slices: { ...a.slices, shelf: { vectors: shelf.vectors.map((each) => ({ ...each, layer: 4 })) } },
  };
  expect(differences(a, moved)).toEqual([{ at: "shelf.vectors.v1.layer", was: "21", is: "4" }]);
  expect(differences(EMPTY, { ...EMPTY, model: { kind: "hub", ref: "a/b" } })).toEqual([
    { at: "model", was: undefined, is: "kind: hub, ref: a/b" },
  ]);
});

test("points lie within their field on one scale, those of one place too", () => {
  const field = { width: 100, height: 60, room: 10 };
  const [a, b, c] = layOut(
    [
      { x: 0, y: 0 },
      { x: 2, y: 0 },
      { x: 0, y: 1 },
    ],
    field,
  );
  expect([a, b, c]).toEqual([
    { x: 10, y: 50 },
    { x: 90, y: 50 },
    { x: 10, y: 10 },
  ]);
  expect(layOut([{ x: 3, y: 3 }], field)).toEqual([{ x: 50, y: 30 }]);
});
