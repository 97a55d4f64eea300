import fc from "fast-check";
import { expect, test } from "vitest";
import { SessionError } from "../../src/errors.ts";
import { decodeMessage, encodeMessage } from "../../src/session/messages/message-codec.ts";

const leaf = fc.oneof(
  fc.constant(null),
  fc.boolean(),
  fc.string(),
  fc.double(),
  fc.uint8Array(),
  fc.float32Array(),
  fc.uint32Array(),
  fc.int32Array(),
  fc.float64Array(),
);
const value = fc.letrec((tie) => ({
  any: fc.oneof({ depthSize: "small" }, leaf, fc.array(tie("any"), { maxLength: 4 }), tie("object")),
  object: fc.dictionary(
    fc.oneof(fc.string(), fc.constant("$")).filter((key) => key !== "__proto__"),
    tie("any"),
    {
      maxKeys: 4,
      noNullPrototype: true,
    },
  ),
})).any;

/** JSON has no −0. */
const plain = (message: unknown): unknown => {
  if (Object.is(message, -0)) return 0;
  if (Array.isArray(message)) return message.map(plain);
  if (typeof message !== "object" || message === null || ArrayBuffer.isView(message)) return message;
  return Object.fromEntries(Object.entries(message).map(([key, each]) => [key, plain(each)]));
};

test("what is encoded is decoded, whatever it holds", () => {
  fc.assert(
    fc.property(value, (message) => {
      expect(decodeMessage(encodeMessage(message))).toEqual(plain(message));
    }),
    { numRuns: 300 },
  );
});

test("Node's buffers, which lie in others, are decoded alike", () => {
  const frame = encodeMessage({ v: Float32Array.of(1, 2, 3) }) as Uint8Array;
  const pool = Buffer.alloc(frame.length + 13, 0xff);
  pool.set(frame, 13);
  expect(decodeMessage(pool.subarray(13))).toEqual({ v: Float32Array.of(1, 2, 3) });
});

const refused = (frame: string | Uint8Array) => {
  try {
    decodeMessage(frame);
  } catch (error) {
    expect(error).toBeInstanceOf(SessionError);
    return (error as SessionError).code;
  }
  return undefined;
};

test("random bytes, cut frames and damaged ones are refused or read, and nothing else", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      expect([undefined, "message"]).toContain(refused(bytes));
    }),
    { numRuns: 500 },
  );
  fc.assert(
    fc.property(value, fc.nat(), fc.nat(255), (message, at, byte) => {
      const frame = encodeMessage({ message, v: Float64Array.of(1) }) as Uint8Array;
      expect(refused(frame.subarray(0, at % frame.length))).toBe("message");
      const damaged = Uint8Array.from(frame);
      damaged[at % frame.length] = byte;
      expect([undefined, "message"]).toContain(refused(damaged));
    }),
    { numRuns: 300 },
  );
});

test.each([
  "",
  "{",
  "nul",
  '{"__proto__": {"x": 1}}',
  '{"a": {"$": "object", "value": {"__proto__": 1}}}',
  '{"$": "Float32Array", "at": 0, "length": 1}',
  '{"$": "Float32Array", "at": -8, "length": 0}',
  '{"$": "BigInt64Array", "at": 0, "length": 0}',
  '{"$": "constructor", "at": 0, "length": 0}',
  '{"$": "number", "value": "12"}',
  '{"$": 7}',
  "[".repeat(100) + "]".repeat(100),
  "[".repeat(1_000_000),
  Uint8Array.of(),
  Uint8Array.of(1, 0, 0),
  Uint8Array.of(255, 255, 255, 255, 123, 125),
])("the frame %# is refused", (frame) => {
  expect(refused(frame)).toBe("message");
});

test("a Blob is refused where nothing carries it, with what to do instead", () => {
  expect(() => encodeMessage({ image: new Blob(["x"]) })).toThrow(/blob\.bytes/);
});
