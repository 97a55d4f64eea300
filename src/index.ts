/** The public API of xpatch, the same in Node and browsers. */
export type { AdapterChoice, ByteSource } from "./platform/platform.ts";
export * from "./tensor/errors.ts";
export {
  type Device,
  type DeviceInfo,
  type DeviceOptions,
  type Feature,
  type KernelStyle,
  openDevice,
} from "./tensor/device.ts";
export type { DType, HostArray } from "./tensor/dtype.ts";
export type { OperationRecord } from "./tensor/operation.ts";
export type { Shape } from "./tensor/shape.ts";
export type { Tensor } from "./tensor/tensor.ts";
