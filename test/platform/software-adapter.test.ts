import { expect, test } from "vitest";
import { isSoftware } from "../../src/platform/software-adapter.ts";

test.each([
  [{ isFallbackAdapter: true }, true],
  [{ vendor: "google", architecture: "swiftshader" }, true],
  [{ description: "Google SwiftShader" }, true],
  [{ vendor: "mesa", description: "llvmpipe: Mesa 25.0.7 (LLVM 15.0.6)", isFallbackAdapter: false }, true],
  [{ device: "Microsoft Basic Render Driver" }, true],
  [{ vendor: "nvidia", architecture: "hopper", description: "NVIDIA H100 80GB HBM3" }, false],
  [{ vendor: "intel", architecture: "xe-2lpg", description: "Mesa Intel(R) Arc(tm) Graphics" }, false],
  [{ vendor: "apple", architecture: "metal-3" }, false],
  [{}, false],
])("%o: %s, whether the browser says so or not", (info, software) => {
  expect(isSoftware(info)).toBe(software);
});
