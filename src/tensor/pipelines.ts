import type {
  GPUBindGroup,
  GPUBindGroupLayout,
  GPUComputePipeline,
  GPUDevice,
  GPUError,
} from "../platform/global-types.ts";
import type { Storage } from "./buffer-pool.ts";

/** One storage binding of a dispatch: a buffer, or a window of a buffer too large to bind whole. */
export interface BoundBuffer {
  storage: Storage;
  writable: boolean;
  /** Absent: the whole buffer. */
  window?: { offset: number; size: number };
}

/** Far more than a steady state needs; a bound so that ever-changing shapes cannot grow the cache for ever. */
const MAX_GROUPS = 16_384;

/** Caches layouts, pipelines and bind groups; in a steady state a dispatch creates no WebGPU object at all. */
export class PipelineCache {
  readonly #gpu: GPUDevice;
  readonly #parameterLayout: GPUBindGroupLayout;
  readonly #onErrors: (error: Promise<GPUError | null>) => void;
  readonly #layouts = new Map<string, { buffers: GPUBindGroupLayout; pipeline: GPUPipelineLayout }>();
  readonly #pipelines = new Map<string, GPUComputePipeline>();
  readonly #groups = new Map<string, GPUBindGroup>();
  bindGroupCount = 0;

  constructor(
    gpu: GPUDevice,
    parameterLayout: GPUBindGroupLayout,
    onErrors: (error: Promise<GPUError | null>) => void,
  ) {
    this.#gpu = gpu;
    this.#parameterLayout = parameterLayout;
    this.#onErrors = onErrors;
  }

  get pipelineCount(): number {
    return this.#pipelines.size;
  }

  /** The pipeline for `key`, compiled from `source()` when it is new. `modes` has r or w for each storage binding. */
  pipeline(key: string, modes: string, source: () => string): GPUComputePipeline {
    let pipeline = this.#pipelines.get(key);
    if (!pipeline) {
      this.#gpu.pushErrorScope("validation");
      pipeline = this.#gpu.createComputePipeline({
        label: key,
        layout: this.#layout(modes).pipeline,
        compute: { module: this.#gpu.createShaderModule({ label: key, code: source() }), entryPoint: "main" },
      });
      this.#onErrors(this.#gpu.popErrorScope());
      this.#pipelines.set(key, pipeline);
    }
    return pipeline;
  }

  bindGroup(modes: string, buffers: readonly BoundBuffer[]): GPUBindGroup {
    let key = modes;
    for (const { storage, window } of buffers) {
      key += window ? ` ${storage.id}+${window.offset}:${window.size}` : ` ${storage.id}`;
    }
    let group = this.#groups.get(key);
    if (!group) {
      if (this.#groups.size >= MAX_GROUPS) this.#groups.clear();
      group = this.#gpu.createBindGroup({
        layout: this.#layout(modes).buffers,
        entries: buffers.map(({ storage, window }, binding) => ({
          binding,
          resource: { buffer: storage.buffer, ...window },
        })),
      });
      this.#groups.set(key, group);
      for (const { storage } of buffers) storage.bindGroups.add(key);
      this.bindGroupCount++;
    }
    return group;
  }

  /** Drops the bind groups of a buffer that is about to be destroyed. */
  forget(storage: Storage): void {
    for (const key of storage.bindGroups) this.#groups.delete(key);
    storage.bindGroups.clear();
  }

  #layout(modes: string): { buffers: GPUBindGroupLayout; pipeline: GPUPipelineLayout } {
    let layout = this.#layouts.get(modes);
    if (!layout) {
      const buffers = this.#gpu.createBindGroupLayout({
        label: modes,
        entries: [...modes].map((mode, binding) => ({
          binding,
          visibility: 4, // COMPUTE
          buffer: { type: mode === "w" ? "storage" : "read-only-storage" },
        })),
      });
      const pipeline = this.#gpu.createPipelineLayout({
        bindGroupLayouts: [buffers, this.#parameterLayout],
      });
      layout = { buffers, pipeline };
      this.#layouts.set(modes, layout);
    }
    return layout;
  }
}
