import type { GPUAdapterInfo } from "./global-types.ts";

/** What drivers that compute on CPU cores call themselves: SwiftShader, Mesa's lavapipe (llvmpipe), Microsoft's WARP. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|\bwarp\b|basic render/i;

/**
 * Whether an adapter is a software driver. Browsers hand one out without a word where they do not trust the GPU's driver, and
 * some say so only by its name.
 */
export function isSoftware(
  info: Partial<
    Pick<GPUAdapterInfo, "vendor" | "architecture" | "device" | "description" | "isFallbackAdapter">
  >,
): boolean {
  const { vendor = "", architecture = "", device = "", description = "" } = info;
  return (
    Boolean(info.isFallbackAdapter) || SOFTWARE.test([vendor, architecture, device, description].join("\n"))
  );
}
