/**
 * onnxruntime-node, with its WebGPU provider (a Dawn of its own) or its CPU provider (native code). A chain of products
 * in one model keeps intermediate results on the device.
 */
import { installedDriver } from "../../dist/platform/node-drivers.js";
import { preload } from "../../dist/platform/node-native.js";

const CHAIN = 16;

export const openWebGPU = (n, a, b, driverName) => {
  // Its Dawn takes the driver that the Vulkan loader finds.
  const driver = driverName && installedDriver(driverName);
  if (driver) {
    for (const library of [driver.loader, ...driver.libraries]) preload(library);
    process.env.VK_DRIVER_FILES = driver.icd;
    process.env.VK_ICD_FILENAMES = driver.icd;
  }
  return open("webgpu", n, a, b);
};

export const openCPU = (n, a, b) => open("cpu", n, a, b);

async function open(provider, n, a, b) {
  const { InferenceSession, Tensor } = await import("onnxruntime-node");
  const create = (chain) =>
    InferenceSession.create(chainOfProducts(n, b, chain), { executionProviders: [provider] });
  const session = await create(CHAIN);
  const x = new Tensor("float32", a, [n, n]);
  // One run after the other: at once they would compete for the cores.
  let last = Promise.resolve();
  return {
    productsPerRun: CHAIN,
    run() {
      last = last.then(() => session.run({ x }));
    },
    sync: () => last,
    async result() {
      const { y } = await (await create(1)).run({ x });
      return y.data;
    },
  };
}

/** An ONNX model, y = x b b … b, as the bytes of its protocol buffer (onnx.proto3 has the field numbers). */
function chainOfProducts(n, b, length) {
  const matrix = (name) => [
    field(1, name),
    field(2, field(1, varint(1, 1), field(2, field(1, varint(1, n)), field(1, varint(1, n))))),
  ];
  const nodes = Array.from({ length }, (_, i) =>
    field(
      1,
      field(1, i === 0 ? "x" : `x${i}`),
      field(1, "b"),
      field(2, i === length - 1 ? "y" : `x${i + 1}`),
      field(4, "MatMul"),
    ),
  );
  const values = new Uint8Array(b.buffer, b.byteOffset, b.byteLength);
  const weight = field(5, varint(1, n), varint(1, n), varint(2, 1), field(8, "b"), field(9, values));
  const graph = [
    ...nodes,
    field(2, "products"),
    weight,
    field(11, ...matrix("x")),
    field(12, ...matrix("y")),
  ];
  return Buffer.concat([varint(1, 8), field(7, ...graph), field(8, varint(2, 13))]);
}

/** A length-delimited field: text, bytes, or fields within. */
function field(number, ...parts) {
  const body = Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)));
  return Buffer.concat([base128(number * 8 + 2), base128(body.length), body]);
}

function varint(number, value) {
  return Buffer.concat([base128(number * 8), base128(value)]);
}

function base128(value) {
  const bytes = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return Buffer.from([...bytes, value]);
}
