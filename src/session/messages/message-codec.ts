import { SessionError } from "../../errors.ts";
import { isObject } from "../../model/checkpoint/json/config-reader.ts";

/*
 * Messages as frames of a WebSocket. Without binary parts a frame is text: JSON. Else it is bytes: the length of the JSON as u32,
 * little-endian, the JSON, zeros up to a multiple of 8, and the parts, each padded likewise. What JSON lacks stands in it as an
 * object with the key `$`:
 *
 *   { "$": "Float32Array", "at": 0, "length": 12 }   a part: its first byte behind the JSON, its number of elements
 *   { "$": "number", "value": "NaN" }                or Infinity, -Infinity
 *   { "$": "object", "value": { "$": … } }           an object that has such a key itself
 */

const ARRAYS = {
  Uint8Array,
  Uint8ClampedArray,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
} as const;

type Part = InstanceType<(typeof ARRAYS)[keyof typeof ARRAYS]>;

const MARK = "$";
/** Lists and objects within each other; no message has half as many. */
const MAX_DEPTH = 64;
const HEADER_BYTES = 4;

/** Throws SessionError for what no frame carries, such as a Blob. */
export function encodeMessage(message: unknown): string | Uint8Array<ArrayBuffer> {
  const parts: { readonly part: Part; readonly at: number }[] = [];
  let end = 0;
  const plain = (value: unknown): unknown => {
    if (typeof value === "number" && !Number.isFinite(value)) return { [MARK]: "number", value: `${value}` };
    if (typeof value !== "object" || value === null) return value;
    const kind = value.constructor?.name;
    if (ArrayBuffer.isView(value) && Object.hasOwn(ARRAYS, kind)) {
      const part = value as Part;
      parts.push({ part, at: end });
      const at = end;
      end += padded(part.byteLength);
      return { [MARK]: kind, at, length: part.length };
    }
    if (Array.isArray(value)) return value.map(plain);
    if (Object.getPrototypeOf(value) !== Object.prototype && Object.getPrototypeOf(value) !== null) {
      throw new SessionError(
        `a WebSocket does not carry a ${kind}; expected numbers, strings, lists, objects and typed arrays` +
          (kind === "Blob" || kind === "File" ? " (await blob.bytes())" : ""),
        { code: "refused" },
      );
    }
    const object = Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]));
    return Object.hasOwn(object, MARK) ? { [MARK]: "object", value: object } : object;
  };
  const json = JSON.stringify(plain(message));
  if (parts.length === 0) return json;
  const text = new TextEncoder().encode(json);
  const start = padded(HEADER_BYTES + text.length);
  const frame = new Uint8Array(start + end);
  new DataView(frame.buffer).setUint32(0, text.length, true);
  frame.set(text, HEADER_BYTES);
  for (const { part, at } of parts) {
    frame.set(new Uint8Array(part.buffer, part.byteOffset, part.byteLength), start + at);
  }
  return frame;
}

/** The inverse. Parts are copies, so that no more of the frame stays than they are. Throws SessionError for other frames. */
export function decodeMessage(frame: string | Uint8Array): unknown {
  try {
    if (typeof frame === "string") return revive(JSON.parse(frame), new Uint8Array(), 0);
    const { buffer, byteOffset, byteLength } = frame;
    if (byteLength < HEADER_BYTES) throw new RangeError("shorter than its header");
    const length = new DataView(buffer, byteOffset, byteLength).getUint32(0, true);
    if (HEADER_BYTES + length > byteLength) throw new RangeError("shorter than its JSON");
    // A Buffer of Node's would give views where others give copies.
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    const text = bytes.subarray(HEADER_BYTES, HEADER_BYTES + length);
    const parts = bytes.subarray(Math.min(byteLength, padded(HEADER_BYTES + length)));
    return revive(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text)), parts, 0);
  } catch (cause) {
    throw new SessionError(`expected a message of the session protocol: ${(cause as Error).message}`, {
      code: "message",
      cause,
    });
  }
}

function revive(value: unknown, parts: Uint8Array, depth: number): unknown {
  if (depth > MAX_DEPTH) throw new RangeError(`more than ${MAX_DEPTH} lists and objects within each other`);
  if (Array.isArray(value)) return value.map((each) => revive(each, parts, depth + 1));
  if (!isObject(value)) return value;
  if (!Object.hasOwn(value, MARK)) return revived(value, parts, depth);
  const kind = value[MARK];
  if (kind === "number") return numberOf(value["value"]);
  if (kind === "object" && isObject(value["value"])) return revived(value["value"], parts, depth);
  if (typeof kind === "string" && Object.hasOwn(ARRAYS, kind)) {
    return partOf(ARRAYS[kind as keyof typeof ARRAYS], value["at"], value["length"], parts);
  }
  throw new RangeError(`an unknown kind of value ${JSON.stringify(kind)?.slice(0, 40)}`);
}

function revived(value: Record<string, unknown>, parts: Uint8Array, depth: number): unknown {
  if (Object.hasOwn(value, "__proto__")) throw new RangeError('a key "__proto__"');
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [key, revive(each, parts, depth + 1)]),
  );
}

function numberOf(text: unknown): number {
  if (text === "NaN" || text === "Infinity" || text === "-Infinity") return Number(text);
  throw new RangeError("a number that is none");
}

function partOf(
  type: (typeof ARRAYS)[keyof typeof ARRAYS],
  at: unknown,
  length: unknown,
  parts: Uint8Array,
): Part {
  const isWhole = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
  if (!isWhole(at) || !isWhole(length) || at + length * type.BYTES_PER_ELEMENT > parts.length) {
    throw new RangeError("a part beyond the end of the frame");
  }
  const bytes = parts.slice(at, at + length * type.BYTES_PER_ELEMENT);
  return new type(bytes.buffer as ArrayBuffer, 0, length);
}

function padded(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}
