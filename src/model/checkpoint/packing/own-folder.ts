import { CheckpointError } from "../../../errors.ts";
import { DTYPE_BYTES } from "../../../tensor/dtype.ts";
import { type PackedFormat, type PartName, partsOf } from "../../../tensor/packed/packed-format.ts";
import { fourBit, GGML_FORMATS, int4, int8, int8Rows } from "../../../tensor/packed/packed-formats.ts";
import { showShape } from "../../../tensor/shape.ts";
import { collected, type PackedSource } from "../entries/packed-source.ts";
import type { TensorEntry } from "../entries/tensor-entry.ts";
import { isObject, type JsonObject } from "../json/config-reader.ts";
import { packedEntry } from "./packed-entry.ts";

/** The `quant_method` of folders that `xpatch quantise` writes. */
export const OWN_METHOD = "xpatch";

/** What config.json says of a packed matrix, by the name of its weight. */
interface StoredMatrix {
  readonly format: string;
  readonly group: number;
  readonly scales: string;
  readonly shape: readonly [number, number];
  readonly row_stride: number;
}

/** `quantization_config` for matrices that are stored packed. */
export function ownConfig(
  matrices: ReadonlyMap<string, { readonly source: PackedSource; readonly shape: readonly [number, number] }>,
): JsonObject {
  const entries = [...matrices].map(([name, { source, shape }]): [string, StoredMatrix] => {
    const { kind, group, scales } = source.format;
    return [name, { format: kind, group, scales, shape, row_stride: source.rowStride }];
  });
  return { quant_method: OWN_METHOD, version: 1, matrices: Object.fromEntries(entries) };
}

/** A tensor to write for each part, `<weight>.<part>` in words of 32 bits. One matrix at a time is in memory. */
export function ownTensors(name: string, source: PackedSource) {
  const parts = partsOf(source.format, source.rows * source.rowStride);
  let whole: ReturnType<typeof collected> | undefined;
  let left = parts.length;
  return parts.map((part) => ({
    name: `${name}.${part.name}`,
    stored: "U32",
    shape: [wordsOf(part)],
    async *data() {
      whole ??= collected(source);
      yield (await whole).get(part.name)!;
      if (--left === 0) whole = undefined;
    },
  }));
}

function wordsOf({ dtype, length }: ReturnType<typeof partsOf>[number]): number {
  return Math.ceil((length * DTYPE_BYTES[dtype]) / 4);
}

/** The tensors with the parts of each packed matrix as one. Throws CheckpointError for a config that is damaged. */
export function withOwnMatrices(
  entries: ReadonlyMap<string, TensorEntry>,
  config: JsonObject,
): Map<string, TensorEntry> {
  const given = config["quantization_config"];
  if (!isObject(given) || given["quant_method"] !== OWN_METHOD) return new Map(entries);
  const { matrices, version } = given;
  if (version !== 1 || !isObject(matrices)) {
    throw new CheckpointError(
      `quantization_config of xpatch: expected version 1 and matrices, found version ${JSON.stringify(version)}`,
    );
  }
  const out = new Map(entries);
  for (const [name, stored] of Object.entries(matrices)) {
    const where = `quantization_config.matrices: ${name}`;
    const { format, shape, rowStride } = readMatrix(stored, where);
    const files = new Map<PartName, TensorEntry>();
    for (const part of partsOf(format, shape[0] * rowStride)) {
      const entry = entries.get(`${name}.${part.name}`);
      if (entry?.stored !== "U32" || entry.storedBytes !== 4 * wordsOf(part)) {
        const found = entry ? `${entry.stored} ${showShape(entry.shape)}` : "nothing";
        throw new CheckpointError(`${where}: expected ${part.name} U32 [${wordsOf(part)}], found ${found}`);
      }
      files.set(part.name, entry);
      out.delete(entry.name);
    }
    const source: PackedSource = {
      format,
      rows: shape[0],
      rowStride,
      async *pieces() {
        for (const [part, entry] of files) {
          for await (const bytes of entry.raw!(2 ** 23)) yield { part, bytes };
        }
      },
    };
    out.set(name, packedEntry(name, shape, source, { dtype: "f32", files: [...files.values()] }));
  }
  return out;
}

function readMatrix(stored: unknown, where: string) {
  const { format: kind, group, scales, shape, row_stride: rowStride } = isObject(stored) ? stored : {};
  const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;
  if (
    !(Array.isArray(shape) && shape.length === 2 && shape.every(isSize) && isSize(group) && isSize(rowStride))
  ) {
    throw new CheckpointError(
      `${where}: expected format, group, scales, shape and row_stride, found ${JSON.stringify(stored)}`,
    );
  }
  const format = formats(group).find(
    (known) => known.kind === kind && known.scales === scales && known.group === group,
  );
  if (!format || group % 4 !== 0 || rowStride < shape[1]!) {
    throw new CheckpointError(
      `${where}: there is no format ${JSON.stringify(kind)} with ${JSON.stringify(scales)} scales for groups of ${group} in ` +
        `rows of ${rowStride}`,
    );
  }
  return { format, shape: shape as [number, number], rowStride };
}

function formats(group: number): PackedFormat[] {
  return [
    ...[false, true].flatMap((zeros) => [int8({ group, zeros }), int4({ group, zeros })]),
    int8Rows(group),
    ...(["nf4", "fp4"] as const).flatMap((kind) =>
      [true, false].map((nested) => fourBit(kind, { group, nested })),
    ),
    ...Object.values(GGML_FORMATS),
  ];
}
