/**
 * Whether a driver computes what it is asked to: a handful of kernels of the built library, compared with f64 on the CPU. Drivers have
 * crashed on such kernels, or computed something else.
 *
 *   node scripts/self-test.mjs <adapter>      prints a line of JSON: adapter, and what each kernel came to
 */
import { pathToFileURL } from "node:url";
import * as x from "../dist/index.js";
import { toPreferredLayout } from "../dist/kernels/matmul/linear.js";

/** Numbers in [-1, 1) that are the same each time. */
function numbers(count, seed) {
  let state = seed * 2654435761 + 1;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

const range = (n) => Array.from({ length: n }, (_, i) => i);
const sum = (values) => values.reduce((a, b) => a + b, 0);

/** a [rows, depth] @ b [columns, depth]^T in f64. */
function product(a, b, rows, depth, columns) {
  return range(rows * columns).map((i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    return sum(range(depth).map((k) => a[row * depth + k] * b[column * depth + k]));
  });
}

function softmaxOf(values) {
  const most = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - most));
  const total = sum(powers);
  return powers.map((power) => power / total);
}

/** Each gives a tensor and what it should hold. Shapes are odd on purpose: edges of tiles are where code goes wrong. */
const CASES = {
  "product of a row and f16 weights"(device) {
    const [a, b] = [numbers(96, 1), numbers(72 * 96, 2).map((v) => Math.round(v * 64) / 64)];
    const weight = device.tensor(b, { shape: [72, 96], dtype: "f16" });
    const out = x.linear(device.tensor(a, { shape: [1, 96] }), toPreferredLayout(weight));
    return [out, product(a, b, 1, 96, 72)];
  },
  "product with bias and sum"(device) {
    const [a, b, bias, add] = [numbers(19 * 40, 3), numbers(33 * 40, 4), numbers(33, 5), numbers(19 * 33, 6)];
    const out = x.linear(device.tensor(a, { shape: [19, 40] }), device.tensor(b, { shape: [33, 40] }), {
      bias: device.tensor(bias),
      add: device.tensor(add, { shape: [19, 33] }),
    });
    return [out, product(a, b, 19, 40, 33).map((v, i) => v + bias[i % 33] + add[i])];
  },
  "product of matrices"(device) {
    const [a, b] = [numbers(130 * 37, 7), numbers(37 * 66, 8)];
    const out = x.matmul(device.tensor(a, { shape: [130, 37] }), device.tensor(b, { shape: [37, 66] }));
    const turned = Float32Array.from(range(66 * 37), (i) => b[(i % 37) * 66 + Math.floor(i / 37)]);
    return [out, product(a, turned, 130, 37, 66)];
  },
  softmax(device) {
    const values = numbers(5 * 77, 9).map((v) => 40 * v);
    const rows = range(5).map((row) => softmaxOf([...values.subarray(77 * row, 77 * row + 77)]));
    return [x.softmax(device.tensor(values, { shape: [5, 77] })), rows.flat()];
  },
  "attention, causal, heads sharing keys"(device) {
    const [rows, heads, kvHeads, size] = [19, 4, 2, 16];
    const [q, k, v] = [heads, kvHeads, kvHeads].map((n, i) => numbers(rows * n * size, 10 + i));
    const tensor = (values) => device.tensor(values, { shape: [rows, values.length / rows] });
    const segments = device.tensor(x.causalSegments([rows]), { shape: [rows, 4], dtype: "u32" });
    const out = x.attention(
      { q: tensor(q), k: tensor(k), v: tensor(v), segments },
      { headDim: size, scale: size ** -0.5 },
    );
    const expected = range(rows).flatMap((row) =>
      range(heads).flatMap((head) => {
        const at = (key) => (key * kvHeads + Math.floor(head / (heads / kvHeads))) * size;
        const query = q.subarray((row * heads + head) * size, (row * heads + head + 1) * size);
        const scores = range(row + 1).map(
          (key) => sum(range(size).map((d) => query[d] * k[at(key) + d])) * size ** -0.5,
        );
        const pattern = softmaxOf(scores);
        return range(size).map((d) => sum(pattern.map((weight, key) => weight * v[at(key) + d])));
      }),
    );
    return [out, expected];
  },
  "RMS norm"(device) {
    const [values, weight] = [numbers(7 * 52, 13), numbers(52, 14)];
    const out = x.rmsNorm(device.tensor(values, { shape: [7, 52] }), device.tensor(weight), { eps: 1e-5 });
    const expected = range(7).flatMap((row) => {
      const own = [...values.subarray(52 * row, 52 * row + 52)];
      const scale = 1 / Math.sqrt(sum(own.map((v) => v * v)) / 52 + 1e-5);
      return own.map((v, i) => v * scale * weight[i]);
    });
    return [out, expected];
  },
  "layer norm"(device) {
    const [values, weight, bias] = [numbers(7 * 45, 15), numbers(45, 16), numbers(45, 17)];
    const rows = device.tensor(values, { shape: [7, 45] });
    const out = x.layerNorm(rows, device.tensor(weight), device.tensor(bias), { eps: 1e-5 });
    const expected = range(7).flatMap((row) => {
      const own = [...values.subarray(45 * row, 45 * row + 45)];
      const mean = sum(own) / 45;
      const scale = 1 / Math.sqrt(sum(own.map((v) => (v - mean) ** 2)) / 45 + 1e-5);
      return own.map((v, i) => (v - mean) * scale * weight[i] + bias[i]);
    });
    return [out, expected];
  },
  "gated activation"(device) {
    const [gate, up] = [numbers(6 * 50, 18).map((v) => 9 * v), numbers(6 * 50, 19)];
    const tensor = (values) => device.tensor(values, { shape: [6, 50] });
    const out = x.gatedActivation(tensor(gate), tensor(up), "silu");
    return [out, [...gate].map((g, i) => (g / (1 + Math.exp(-g))) * up[i])];
  },
  "rows of an f16 table"(device) {
    const table = numbers(50 * 12, 20).map((v) => Math.round(v * 64) / 64);
    const ids = Uint32Array.of(49, 0, 7, 7, 31);
    const out = x.gatherRows(
      device.tensor(table, { shape: [50, 12], dtype: "f16" }),
      device.tensor(ids, { dtype: "u32" }),
    );
    return [out, [...ids].flatMap((id) => [...table.subarray(12 * id, 12 * id + 12)])];
  },
  "the largest of a row"(device) {
    const values = numbers(3 * 999, 21);
    const expected = range(3).map((row) => {
      const own = values.subarray(999 * row, 999 * row + 999);
      return own.indexOf(Math.max(...own));
    });
    return [x.argmax(device.tensor(values, { shape: [3, 999] }), -1), expected];
  },
  "sums over an axis in between"(device) {
    const values = numbers(4 * 29 * 6, 22);
    const expected = range(24).map((i) =>
      sum(range(29).map((k) => values[(Math.floor(i / 6) * 29 + k) * 6 + (i % 6)])),
    );
    return [x.sum(device.tensor(values, { shape: [4, 29, 6] }), 1), expected];
  },
  "a turned copy"(device) {
    const values = numbers(5 * 7 * 9, 23);
    const out = x.contiguous(device.tensor(values, { shape: [5, 7, 9] }).permute([2, 0, 1]));
    return [
      out,
      range(315).map((i) => values[(Math.floor(i / 7) % 5) * 63 + (i % 7) * 9 + Math.floor(i / 35)]),
    ];
  },
};

/** Of the largest value; sums of some dozen f32 are within it, wrong code is not. */
const TOLERANCE = 2e-5;

/** What is wrong with each kernel; undefined for one that is right. */
export async function selfTest(device) {
  const results = [];
  for (const [name, make] of Object.entries(CASES))
    results.push({ name, wrong: await wrongWith(device, make) });
  return results;
}

async function wrongWith(device, make) {
  try {
    const [out, expected] = make(device);
    const found = await out.read();
    if (found.length !== expected.length) return `${found.length} numbers in place of ${expected.length}`;
    const most = Math.max(...expected.map(Math.abs));
    const at = expected.findIndex((value, i) => !(Math.abs(found[i] - value) <= TOLERANCE * most));
    return at < 0 ? undefined : `number ${at} is ${found[at]}, should be ${expected[at]}`;
  } catch (error) {
    return error.message;
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const device = await x.openDevice({ adapter: process.argv[2] });
  const kernels = await selfTest(device);
  console.log(JSON.stringify({ adapter: device.info.description, kernels }));
  await device.destroy();
}
