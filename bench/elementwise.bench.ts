import { add, exp } from "#src/kernels/elementwise/elementwise";
import { randomNormal } from "#src/kernels/elementwise/random";
import { concat } from "#src/kernels/movement/concat";
import { cast, copy } from "#src/kernels/movement/copy";
import { gatherRows } from "#src/kernels/movement/gather";
import { projectOutRows, setRows } from "#src/kernels/movement/row-edits";
import { argmax, sum } from "#src/kernels/reduction/reduce";
import { topK } from "#src/kernels/reduction/top-k";
import type { Tensor } from "#src/tensor/tensor";
import type { BenchCase, Suite } from "./harness.ts";

/** Shapes of SmolLM2: hidden 576, vocabulary 49152, 128 tokens; and one size that no cache holds. */
const [rows, width, vocabulary, large] = [128, 576, 49_152, 4_194_304];

/** Elementwise operations, reductions, top-k, gathering and row edits. */
export const elementwise: Suite = (device) => {
  const hidden = randomNormal(device, [rows, width], { seed: 1 });
  const direction = randomNormal(device, [width], { seed: 2 });
  const logits = randomNormal(device, [1, vocabulary], { seed: 3 });
  const long = randomNormal(device, [large], { seed: 4 });
  const square = long.reshape([2048, 2048]);
  const embedding = cast(randomNormal(device, [vocabulary, width], { seed: 5 }), "f16");
  const ids = device.tensor(Uint32Array.from({ length: rows }, (_, i) => (i * 379) % vocabulary));
  const indices = device.tensor(Uint32Array.of(5, 127));
  const one = device.tensor([1]);
  return [
    bench("add, one element (a dispatch)", 12, one, () => add(one, one)),
    bench("add, residual", 12 * hidden.size, hidden, () => add(hidden, hidden)),
    bench("add, row broadcast", 8 * hidden.size, hidden, () => add(hidden, direction)),
    bench("add, large", 12 * large, long, () => add(long, long)),
    bench("exp, large", 8 * large, long, () => exp(long)),
    bench("copy of a transpose", 8 * large, square, () => copy(square.transpose())),
    bench("copy of one row (a tap)", 8 * width, hidden, () => copy(hidden.rows(127))),
    bench("cast to f16", 6 * large, long, () => cast(long, "f16")),
    bench("concat of rows", 16 * hidden.size, hidden, () => concat([hidden, hidden])),
    bench("gatherRows", 6 * rows * width, embedding, () => gatherRows(embedding, ids)),
    bench("setRows, range", 8 * hidden.size, hidden, () => setRows(hidden, [127], direction)),
    bench("setRows, indices", 8 * hidden.size, hidden, () => setRows(hidden, indices, direction)),
    bench("projectOutRows", 8 * hidden.size, hidden, () => projectOutRows(hidden, [127], direction)),
    bench("sum of rows", 4 * hidden.size, hidden, () => sum(hidden, 1)),
    bench("sum of columns", 4 * large, square, () => sum(square, 0)),
    bench("sum of all", 4 * large, long, () => sum(long)),
    bench("argmax of logits", 4 * vocabulary, logits, () => argmax(logits, -1)),
    bench("topK of logits, k = 10", 4 * vocabulary, logits, () => topK(logits, 10).values),
    bench("topK of logits, k = 100", 4 * vocabulary, logits, () => topK(logits, 100).values),
    bench("randomNormal", 4 * large, long, () => randomNormal(device, [large], { seed: 6 })),
  ];
};

function bench(name: string, bytes: number, input: Tensor, run: () => Tensor): BenchCase {
  return { name, dtype: input.dtype, shapes: { x: input.shape }, bytes, run };
}
