import { DeviceError } from "../../errors.ts";
import type { Device } from "../../tensor/device.ts";
import type { Product } from "./matmul-product.ts";
import { REGISTER_SIZES, registerTiles } from "./matmul-register.ts";
import { WORKGROUP_SIZES, workgroupTiles } from "./matmul-workgroup.ts";
import { matvecColumns, matvecDepth } from "./matvec.ts";
import { isMeasured, measurement, productClass } from "./measure-product.ts";
import { MOST_PACKED_ROWS, packedRegister } from "./packed-register.ts";
import type { ProductKernel } from "./product-kernel.ts";

/**
 * All kernels that compute products. Those that a device's style has and that fit are candidates; by the rules it is the first of
 * them. A kernel's variants in other sizes than it would take follow at the end.
 */
export const PRODUCT_KERNELS: readonly ProductKernel[] = [
  packedRegister,
  registerTiles,
  matvecDepth,
  matvecColumns,
  workgroupTiles,
  ...REGISTER_SIZES,
  ...WORKGROUP_SIZES,
];

/** The kernel for a product on its device; undefined where none takes it (one with a gate). */
export function productKernel(product: Product): ProductKernel | undefined {
  const { choices, info } = product.out.device;
  const isCandidate = (kernel: ProductKernel) => kernel.style === info.kernels && kernel.fits(product);
  const byRule = PRODUCT_KERNELS.find(isCandidate);
  if (!choices.measures && choices.forced === undefined) return byRule;
  // Packed weights add up in an order of their own, which is not to change from one choice to the next.
  if (!byRule || byRule === packedRegister) return byRule;
  const candidates = PRODUCT_KERNELS.filter(isCandidate);
  const named = (name: string | undefined) => candidates.find((kernel) => kernel.name === name);
  const forced = named(choices.forced);
  if (forced || candidates.length === 1 || !isMeasured(product)) return forced ?? byRule;
  return named(choices.kernelFor(productClass(product), measurement(product, candidates))) ?? byRule;
}

/** Computes a product with the kernel that suits the device and the shapes. Throws DeviceError where none fits. */
export function launchProduct(product: Product): void {
  const kernel = productKernel(product);
  if (!kernel) throw new DeviceError("no kernel of this device computes such a product");
  kernel.launch(product);
}

/**
 * Up to how many rows a row of a product has the same bits whatever the number of rows computed with it. Register tiles add up in
 * the order of the depth, however many rows there are; packed weights have a kernel of their own for a few rows, and kernels for
 * GPUs share out a single row in another way than many.
 */
export function rowsAlike(device: Device, hasPacked: boolean): number {
  if (device.info.kernels !== "register") return 1;
  return hasPacked ? MOST_PACKED_ROWS : Number.POSITIVE_INFINITY;
}
