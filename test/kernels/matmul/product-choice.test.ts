import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { linear, toPreferredLayout } from "../../../src/kernels/matmul/linear.ts";
import { gatedLinear, linearParts } from "../../../src/kernels/matmul/linear-parts.ts";
import { PRODUCT_KERNELS, productKernel } from "../../../src/kernels/matmul/product-kernels.ts";
import { cast } from "../../../src/kernels/movement/copy.ts";
import type { Device } from "../../../src/tensor/device.ts";
import { type DeviceOptions, openDevice } from "../../../src/tensor/open-device.ts";
import type { PackedFormat } from "../../../src/tensor/packed/packed-format.ts";
import { fourBit, GGML_FORMATS, int4, int8 } from "../../../src/tensor/packed/packed-formats.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { randomPacked } from "../../helpers/packed.ts";

let cache: string;
let before: string | undefined;
beforeEach(async () => {
  cache = await mkdtemp(join(tmpdir(), "xpatch-choices-"));
  before = process.env["XPATCH_NOTES"];
  process.env["XPATCH_NOTES"] = cache;
});
afterEach(async () => {
  if (before === undefined) delete process.env["XPATCH_NOTES"];
  else process.env["XPATCH_NOTES"] = before;
  await rm(cache, { recursive: true });
});

const styles: [string, DeviceOptions][] = [
  ["register", { kernels: "register" }],
  ["workgroup", { kernels: "workgroup" }],
];

/** Products of each kind that a model has. */
function products(device: Device, rows: number): Tensor[] {
  const random = (shape: readonly [number, number], seed: number) =>
    device.tensor(randomArray(shape[0] * shape[1], seed), { shape });
  const x = random([rows, 64], 1);
  const weight = toPreferredLayout(cast(random([48, 64], 2), "f16"));
  return [
    linear(x, weight),
    linear(x, weight, { add: random([rows, 48], 3) }),
    ...linearParts(x, weight, [24, 12, 12]),
    gatedLinear(x, weight, "silu"),
  ];
}

describe.each(styles)("%s kernels", (style, options) => {
  it("every candidate can be forced, and gives the same numbers", async () => {
    const device = await openDevice({ ...options, measure: false });
    for (const rows of [1, 3, 20]) {
      const expected = await device.read(products(device, rows));
      for (const { name, style: of } of PRODUCT_KERNELS) {
        if (of !== style) continue;
        device.choices.forced = name;
        const found = await device.read(products(device, rows));
        device.choices.forced = undefined;
        for (const [i, values] of found.entries()) {
          expectClose(values as Float32Array, expected[i] as Float32Array, { atol: 1e-5, rtol: 1e-5 });
        }
      }
    }
    await device.destroy();
  });

  it("kinds of work are measured once, kept, and known to a later device", async () => {
    const device = await openDevice({ ...options, measure: true });
    expect(device.choices.measured.size).toBe(0);
    const expected = await device.read(products(device, 3));
    const { measured } = device.choices;
    expect(measured.size).toBeGreaterThan(2);
    for (const { kernel, us, rule, ruleUs } of measured.values()) {
      expect(PRODUCT_KERNELS.find(({ name }) => name === kernel)?.style).toBe(style);
      expect(kernel === rule ? us === ruleUs : us < 0.95 * ruleUs).toBe(true);
    }
    const live = device.memory.liveBuffers;
    const again = await device.read(products(device, 3));
    again.forEach((values, i) => {
      expectClose(values as Float32Array, expected[i] as Float32Array, { atol: 1e-5, rtol: 1e-5 });
    });
    expect(device.choices.measured.size).toBe(measured.size);
    expect(device.memory.liveBuffers).toBeGreaterThan(live);

    const later = await openDevice({ ...options, measure: true });
    expect([...later.choices.measured]).toEqual([...measured]);
    const { dispatches } = later.counters;
    await later.read(products(later, 3));
    expect(later.choices.measured.size).toBe(measured.size);
    const ruled = await openDevice({ ...options, measure: false });
    await ruled.read(products(ruled, 3));
    expect(later.counters.dispatches - dispatches).toBe(ruled.counters.dispatches);
    expect(ruled.choices.measured.size).toBe(0);
    for (const each of [device, later, ruled]) await each.destroy();
  });
});

it("few rows of packed weights have a kernel of their own where groups are whole loads, and by no measurement", async () => {
  const device = await openDevice({ kernels: "register", measure: true });
  const kernelOf = (rows: number, width: number, format: PackedFormat) => {
    const b = randomPacked(device, format, [16, width], 1).packed.transpose();
    const product = {
      a: device.zeros([rows, width]),
      b,
      bias: undefined,
      residual: undefined,
      out: device.zeros([rows, 16]),
    };
    return productKernel(product)?.name;
  };
  for (const format of [int8(), int4(), fourBit("nf4"), fourBit("fp4", { nested: false })]) {
    for (const rows of [1, 2, 3, 4]) expect(kernelOf(rows, 256, format), format.kind).toBe("packed_register");
    expect(kernelOf(5, 256, format), format.kind).toBe("matmul_register");
  }
  expect(kernelOf(1, 96, fourBit("nf4"))).toBe("packed_register"); // groups run on from row to row
  expect(kernelOf(1, 72, int8())).toBe("matmul_register"); // the last load of a row would be half empty
  expect(kernelOf(1, 256, GGML_FORMATS.q6_k)).toBe("matmul_register");
  await device.destroy();
});

it("a note that is damaged, old, or of another adapter is measured anew", async () => {
  const device = await openDevice({ measure: true });
  await device.read(products(device, 1));
  const [file] = await readdir(cache);
  const path = join(cache, file!);
  const note = JSON.parse(await readFile(path, "utf8"));
  const count = device.choices.measured.size;
  expect(Object.keys(note.choices)).toHaveLength(count);
  for (const text of [
    "{",
    "null",
    JSON.stringify({ ...note, version: note.version - 1 }),
    JSON.stringify({ ...note, adapter: "another" }),
    JSON.stringify({ ...note, choices: { [Object.keys(note.choices)[0]!]: { kernel: 3 } } }),
  ]) {
    await writeFile(path, text);
    const again = await openDevice({ measure: true });
    expect(again.choices.measured.size).toBe(0);
    await again.destroy();
  }
  await device.destroy();
});

it("a measurement that fails leaves it to the rules, once and for all, and no read fails by it", async () => {
  const device = await openDevice({ measure: true });
  let tries = 0;
  const fail = async () => {
    tries++;
    throw new Error("no memory");
  };
  for (let i = 0; i < 3; i++) {
    expect(device.choices.kernelFor("work", fail)).toBeUndefined();
    expect([...(await device.zeros([2]).read())]).toEqual([0, 0]);
  }
  expect(tries).toBe(1);
  expect(device.choices.measured.size).toBe(0);
  await device.destroy();
});

it("software drivers go by rules unless asked to measure", async () => {
  const device = await openDevice();
  expect(device.info.fallback).toBe(true);
  expect(device.choices.measures).toBe(false);
  await device.destroy();
});
