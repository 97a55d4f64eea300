/**
 * Types of the host that the public API mentions: browsers' and WebGPU's. They are those of the project that uses this
 * package where it has them (TypeScript's DOM library, @webgpu/types, @types/node). Where it does not, its own code could
 * not name them either; the declarations still compile.
 *
 * Files whose declarations mention one import it from here. `test/project/outside-project.test.ts` finds forgotten ones.
 */
type Global<Name extends string> =
  typeof globalThis extends Record<Name, { prototype: infer Type }> ? Type : never;

export type Fetch = typeof globalThis extends { fetch: infer Type }
  ? Type
  : (input: string, init?: object) => Promise<unknown>;

export type AbortController = Global<"AbortController">;
export type AbortSignal = Global<"AbortSignal">;
export type Blob = Global<"Blob">;
export type ErrorEvent = Global<"ErrorEvent">;
export type HTMLCanvasElement = Global<"HTMLCanvasElement">;
export type ImageBitmap = Global<"ImageBitmap">;
export type ImageData = Global<"ImageData">;
export type MessageEvent = Global<"MessageEvent">;
export type OffscreenCanvas = Global<"OffscreenCanvas">;
export type TextDecoder = Global<"TextDecoder">;
export type URL = Global<"URL">;
export type WebSocket = Global<"WebSocket">;

export type GPUAdapter = Global<"GPUAdapter">;
export type GPUBindGroup = Global<"GPUBindGroup">;
export type GPUBindGroupLayout = Global<"GPUBindGroupLayout">;
export type GPUBuffer = Global<"GPUBuffer">;
export type GPUAdapterInfo = Global<"GPUAdapterInfo">;
export type GPUCommandEncoder = Global<"GPUCommandEncoder">;
export type GPUComputePassEncoder = Global<"GPUComputePassEncoder">;
export type GPUComputePipeline = Global<"GPUComputePipeline">;
export type GPUDevice = Global<"GPUDevice">;
export type GPUError = Global<"GPUError">;
export type GPUQuerySet = Global<"GPUQuerySet">;
