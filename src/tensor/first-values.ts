import type { Tensor } from "./tensor.ts";

/** Elements that the text of a tensor shows. */
export const SHOWN = 8;

/** "Tensor f32 [2, 3]: 1, 2, 3, 4, 5, 6", from the first elements as far as they are known. */
export function showTensor(tensor: Tensor, values: readonly number[] | undefined): string {
  const name = `Tensor ${tensor.dtype} [${tensor.shape.join(", ")}]`;
  if (tensor.disposed) return `${name} (disposed of)`;
  if (tensor.size === 0) return name;
  if (!values) return `${name} (values on the device: await tensor.show())`;
  const first = values.map(showNumber);
  return `${name}: ${[...first, ...(tensor.size > values.length ? ["…"] : [])].join(", ")}`;
}

/** Four digits, but whole numbers (ids, counts) whole. */
function showNumber(value: number): string {
  const whole = Number.isInteger(value) && Math.abs(value) < 2 ** 32;
  return String(whole ? value : Number(value.toPrecision(4)));
}

/** A view that has the first elements in their order, and few others. */
export function leadingView(tensor: Tensor): Tensor {
  let view = tensor.alias();
  while (view.size > SHOWN) {
    const whole = view;
    const rows = Math.ceil((SHOWN * whole.dim(0)) / whole.size);
    view = rows === 1 ? whole.at(0) : whole.rows(0, rows);
    whole.dispose();
    if (rows > 1) break;
  }
  return view;
}
