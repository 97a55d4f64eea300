import { CheckpointError } from "../../../errors.ts";
import { refuseLfsPointer } from "../../../platform/lfs-pointer.ts";
import type { ByteSource } from "../../../platform/platform.ts";
import { type Shape, showShape } from "../../../tensor/shape.ts";
import { JsonReader } from "../json/json-reader.ts";
import { STORED_DTYPES, storedBits } from "./stored-dtype.ts";

/** The reference implementation's limit. */
const MAX_HEADER_BYTES = 100_000_000;
/** Of a file that is something else, the bytes that a message shows. */
const SHOWN_BYTES = 40;
/** "version ", with which a Git LFS pointer begins, as a length. */
const LFS_BEGINNING = 0x206e6f6973726576n;

export interface StoredTensor {
  readonly name: string;
  /** A dtype of the format, which may be one that is not read. */
  readonly stored: string;
  /** Of an {@link inexact} one, the nearest doubles. */
  readonly shape: Shape;
  /** The sizes of an empty tensor some of which a double does not hold. */
  readonly inexact?: readonly bigint[];
  /** Where its bytes are, counted from the start of the file. */
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly metadata: ReadonlyMap<string, string>;
  /** In the order of their bytes. */
  readonly tensors: readonly StoredTensor[];
}

/**
 * Reads and checks the header of a safetensors file (https://huggingface.co/docs/safetensors): eight bytes of length, a
 * JSON object, then the tensors' bytes without gaps, overlaps or a rest. As strict as the Rust reference, fields that are
 * unknown are passed over as there; stricter with duplicate keys, which are refused. Throws CheckpointError.
 */
export async function readSafetensorsHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const { name: file, size } = source;
  const fail = (what: string) => new CheckpointError(`${file}: not a valid safetensors file: ${what}`);
  if (size < 8) throw fail(`${size} bytes are too few for a header`);
  const prefix = await source.read(0, 8);
  const headerBytes = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (headerBytes > MAX_HEADER_BYTES) {
    if (headerBytes === LFS_BEGINNING) await refuseLfsPointer(source);
    if (otherKind(prefix)) throw fail(otherKind(await source.read(0, Math.min(size, SHOWN_BYTES)))!);
    throw fail(`header of ${headerBytes} bytes, over the limit of ${MAX_HEADER_BYTES}`);
  }
  const dataStart = 8 + Number(headerBytes);
  if (dataStart > size) throw fail(`header of ${headerBytes} bytes in a file of ${size}`);
  const header = await source.read(8, dataStart - 8);
  if (header[0] !== 0x7b) throw fail("the header does not begin with {");
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(header);
  } catch {
    throw fail("the header is not UTF-8");
  }

  const metadata = new Map<string, string>();
  const tensors: StoredTensor[] = [];
  const json = new JsonReader(text, `${file}: safetensors header`);
  json.object((name) => {
    if (name === "__metadata__") {
      if (!json.isNull()) json.object((key) => metadata.set(key, json.string()));
    } else tensors.push(readStoredTensor(json, name, dataStart, file, fail));
  });
  json.end();

  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let at = dataStart;
  for (const { name, begin, end } of tensors) {
    if (begin !== at) {
      const problem = begin < at ? "overlaps the tensor before it" : "leaves a gap before it";
      throw fail(`${name} at [${begin}, ${end}) ${problem}, which ends at ${at}`);
    }
    at = end;
  }
  if (at !== size) throw fail(`its tensors end at byte ${at}, the file at ${size}`);
  return { metadata, tensors };
}

/** What a file is, by its first bytes, that has no length of a header there: text, or a zip archive. */
function otherKind(beginning: Uint8Array): string | undefined {
  const text = String.fromCharCode(...beginning);
  if (text.startsWith("PK\x03\x04")) {
    return "it is a zip archive, as PyTorch's pickles are; load the model in Python and save it with save_pretrained(folder)";
  }
  if (!/^[\t\n\r\x20-\x7e]{8}/.test(text)) return undefined;
  const shown = JSON.stringify(text.length < SHOWN_BYTES ? text : `${text}…`);
  return `it is text that begins with ${shown}: perhaps what a server said in place of the file`;
}

function readStoredTensor(
  json: JsonReader,
  name: string,
  dataStart: number,
  file: string,
  fail: (what: string) => CheckpointError,
): StoredTensor {
  let stored: string | undefined;
  let shape: bigint[] | undefined;
  let offsets: number[] | undefined;
  const list = <T>(item: () => T): T[] => {
    const out: T[] = [];
    json.array(() => out.push(item()));
    return out;
  };
  json.object((field) => {
    if (field === "dtype") stored = json.string();
    else if (field === "shape") shape = list(() => json.unsigned64());
    else if (field === "data_offsets") offsets = list(() => json.integer());
    else json.skip();
  });
  if (stored === undefined || shape === undefined || offsets === undefined) {
    throw fail(`${name} lacks dtype, shape or data_offsets`);
  }
  const bitsEach = storedBits(stored);
  if (bitsEach === undefined) {
    const known = [...STORED_DTYPES.keys()].join(", ");
    throw new CheckpointError(`${file}: ${name} has dtype ${stored}; supported are ${known}`);
  }
  const [begin, end] = offsets;
  if (offsets.length !== 2 || begin! > end!) throw fail(`${name} has data_offsets ${showShape(offsets)}`);
  const shown = `[${shape.join(", ")}]`;
  let bits = 1n;
  // Elements first, then their bits, each of which 64 bits have to hold: in this order, as the reference does.
  for (const n of [...shape, BigInt(bitsEach)]) {
    bits *= n;
    if (bits >= 2n ** 64n) throw fail(`${name} has an impossible shape ${shown}`);
  }
  if (bits !== 8n * BigInt(end! - begin!)) {
    const bytes = bits % 8n === 0n ? bits / 8n : Number(bits) / 8;
    throw fail(`${name} is ${stored} ${shown}, ${bytes} bytes, but has ${end! - begin!}`);
  }
  const exact = shape.every((n) => n <= Number.MAX_SAFE_INTEGER);
  return {
    name,
    stored,
    shape: shape.map(Number),
    ...(!exact && { inexact: shape }),
    begin: dataStart + begin!,
    end: dataStart + end!,
  };
}
