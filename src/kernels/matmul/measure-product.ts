import type { Device } from "../../tensor/device.ts";
import type { Operand } from "../../tensor/packed/packed.ts";
import { Packed } from "../../tensor/packed/packed.ts";
import { formatKey, partsOf } from "../../tensor/packed/packed-format.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Product } from "./matmul-product.ts";
import type { ProductKernel } from "./product-kernel.ts";

/** Numbers of rows that are measured together: up to so many are of one class. */
const ROW_CLASSES = [1, 2, 4, 8, 16, 64] as const;
/** What more rows are measured with. */
const MANY_ROWS = 256;
/** How long a kernel is run over and over, at least twice. */
const ENOUGH_MS = 2;

/** Larger matrices are left to the rules: a second one of their size would be needed. */
const MOST_BYTES = 128 * 2 ** 20;

/** Whether a product is of a kind that is measured. */
export function isMeasured({ b, out }: Product): boolean {
  return out.rank <= 2 && b.bytes <= MOST_BYTES;
}

/** What a product has in common with others that the same kernel is best at. */
export function productClass(product: Product): string {
  const { a, b, bias, residual, parts, gate } = product;
  const rows = rowsOfClass(a.dim(0));
  const [depth, columns] = b.shape as [number, number];
  const format = b instanceof Packed ? formatKey(b.format) : b.dtype;
  const along = b.strides[0] === 1 ? "depth" : b.strides[1] === 1 ? "columns" : "strided";
  const extras = [bias && "bias", residual && "residual", parts && `${parts.length} parts`, gate].filter(
    Boolean,
  );
  const { kernels, features } = product.out.device.info;
  const style =
    kernels === "workgroup" && !features.includes("subgroups") ? "workgroup without subgroups" : kernels;
  return [style, `${rows}·${depth}·${columns}`, `${a.dtype}·${format}`, along, ...extras].join(" ");
}

function rowsOfClass(rows: number): number {
  return ROW_CLASSES.find((most) => rows <= most) ?? MANY_ROWS;
}

/** Microseconds of each kernel, by name, for products like this one: of its shapes and formats, on numbers of no meaning. */
export function measurement(
  product: Product,
  kernels: readonly ProductKernel[],
): () => Promise<ReadonlyMap<string, number>> {
  const { a, b, bias, residual, parts, gate } = product;
  const { device } = product.out;
  const rows = rowsOfClass(a.dim(0));
  const depth = a.dim(1);
  const columns = b.shape[1]! / (gate ? 2 : 1);
  const likeB = memoryLike(b); // what it is like has to be known when it is gone
  const kinds = {
    a: a.dtype,
    bias: bias && { dtype: bias.dtype, size: bias.size },
    residual: residual?.dtype,
  };
  return async () => {
    const scope = device.openScope();
    try {
      const own: Product = scope.enter(() => ({
        a: device.zeros([rows, depth], kinds.a),
        b: likeB(device),
        bias: kinds.bias && device.zeros([kinds.bias.size], kinds.bias.dtype),
        residual: kinds.residual && device.zeros([rows, columns], kinds.residual),
        out: device.empty(parts ? [rows * columns] : [rows, columns], "f32", "measurement"),
        ...(parts && { parts }),
        ...(gate && { gate }),
      }));
      const times = new Map<string, number>();
      for (const kernel of kernels) if (kernel.fits(own)) times.set(kernel.name, await timeOf(kernel, own));
      const flat = scope.enter(() => own.out.reshape([own.out.size]).slice(0, 0, 1));
      await flat.read(); // throws where memory ran out, and nobody else hears of it
      return times;
    } finally {
      scope.dispose();
    }
  };
}

async function timeOf(kernel: ProductKernel, product: Product): Promise<number> {
  const { device } = product.out;
  // Not `sync`, which would report the errors of others here.
  const done = async () => {
    device.recorder.flush();
    await device.wait(device.gpu.queue.onSubmittedWorkDone());
  };
  const run = async (count: number) => {
    await done();
    const began = performance.now();
    for (let i = 0; i < count; i++) kernel.launch(product);
    await done();
    return performance.now() - began;
  };
  await run(1); // compiles
  const once = await run(1);
  const count = Math.max(2, Math.min(32, Math.ceil(ENOUGH_MS / once)));
  const times = [await run(count), await run(count)];
  return (Math.min(...times) / count) * 1000;
}

/** Makes a matrix of the same shape, format and layout. */
function memoryLike(b: Operand): (device: Device) => Operand {
  if (b instanceof Packed) {
    const { format, shape, strides } = b.layout;
    const elements = Math.max(...shape.map((n, i) => n * strides[i]!));
    return (device) => {
      const parts = new Map(
        partsOf(format, elements).map(({ name, dtype, length }) => [name, device.zeros([length], dtype)]),
      );
      return new Packed({ format, shape, strides, offset: 0 }, parts);
    };
  }
  const { shape, dtype } = b;
  const [depth, columns] = shape as [number, number];
  const isTurned = b.strides[0] === 1;
  return (device): Tensor =>
    isTurned ? device.zeros([columns, depth], dtype).transpose() : device.zeros([depth, columns], dtype);
}
