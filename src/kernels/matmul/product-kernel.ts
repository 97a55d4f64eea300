import type { KernelStyle } from "../../tensor/device-info.ts";
import type { Product } from "./matmul-product.ts";

/** One way to compute a product. */
export interface ProductKernel {
  readonly name: string;
  /** What it is written for: CPU cores or GPUs. */
  readonly style: KernelStyle;
  /** Whether it takes this product. */
  fits(product: Product): boolean;
  /** Records the dispatch. */
  launch(product: Product): void;
}
