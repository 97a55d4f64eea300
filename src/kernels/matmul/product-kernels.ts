import { DeviceError } from "../../errors.ts";
import type { Device } from "../../tensor/device.ts";
import type { Product } from "./matmul-product.ts";
import { registerTiles } from "./matmul-register.ts";
import { workgroupTiles } from "./matmul-workgroup.ts";
import { matvecColumns, matvecDepth } from "./matvec.ts";
import { MOST_PACKED_ROWS, packedRegister } from "./packed-register.ts";
import type { ProductKernel } from "./product-kernel.ts";

/** All kernels that compute products, in the order in which they are preferred where several of a device's style fit. */
export const PRODUCT_KERNELS: readonly ProductKernel[] = [
  packedRegister,
  registerTiles,
  matvecDepth,
  matvecColumns,
  workgroupTiles,
];

/** The kernel for a product on its device; undefined where none takes it (one with a gate). */
export function productKernel(product: Product): ProductKernel | undefined {
  const { kernels } = product.out.device.info;
  return PRODUCT_KERNELS.find((kernel) => kernel.style === kernels && kernel.fits(product));
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
