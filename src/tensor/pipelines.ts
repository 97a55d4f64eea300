import type {
  GPUBindGroup,
  GPUBindGroupLayout,
  GPUComputePipeline,
  GPUDevice,
} from "../platform/global-types.ts";
import type { Storage } from "./buffer-pool.ts";
import { Fate, type Guard } from "./fate.ts";

/** One storage binding of a dispatch: a buffer, or a window of a buffer too large to bind whole. */
export interface BoundBuffer {
  storage: Storage;
  writable: boolean;
  /** Absent: the whole buffer. */
  window?: { offset: number; size: number };
}

/**
 * Far more than a steady state needs; a bound so that ever-changing shapes cannot grow the cache for ever. Lavapipe maps
 * memory for every group, of which Linux gives a process 65,530 pieces.
 */
const MAX_GROUPS = 8192;
/** Groups given up between two collections of garbage: only then does the driver get them back. */
const GIVEN_UP = 2048;

/** Kernels times dtypes times layouts: a model has some dozens, the tests of all kernels some hundreds. */
const MAX_PIPELINES = 2048;

export interface CompiledPipeline {
  readonly pipeline: GPUComputePipeline;
  readonly fate: Fate;
}

interface CachedGroup {
  readonly group: GPUBindGroup;
  readonly storages: readonly Storage[];
}

/** Caches layouts, pipelines and bind groups; in a steady state a dispatch creates no WebGPU object at all. */
export class PipelineCache {
  readonly #gpu: GPUDevice;
  readonly #parameterLayout: GPUBindGroupLayout;
  readonly #guard: Guard;
  readonly #layouts = new Map<string, { buffers: GPUBindGroupLayout; pipeline: GPUPipelineLayout }>();
  /** The one unused for longest first. */
  readonly #pipelines = new Map<string, CompiledPipeline>();
  /** By what they bind; the one unused for longest first. */
  readonly #groups = new Map<string, CachedGroup>();
  readonly #collectGarbage: () => void;
  #givenUp = 0;
  /** Bind groups made so far. */
  bindGroupCount = 0;

  constructor(gpu: GPUDevice, parameterLayout: GPUBindGroupLayout, guard: Guard, collectGarbage: () => void) {
    this.#gpu = gpu;
    this.#parameterLayout = parameterLayout;
    this.#guard = guard;
    this.#collectGarbage = collectGarbage;
  }

  get pipelineCount(): number {
    return this.#pipelines.size;
  }

  /** The pipeline for `key`, compiled from `source()` when it is new. `modes` has r or w for each storage binding. */
  pipeline(key: string, modes: string, source: () => string): CompiledPipeline {
    let compiled = this.#pipelines.get(key);
    // One that failed is tried again: a driver short of memory may have recovered.
    if (!compiled || compiled.fate.failure) {
      const fate = new Fate();
      const pipeline = this.#guard("compiling a kernel", fate, () =>
        this.#gpu.createComputePipeline({
          label: key,
          layout: this.#layout(modes).pipeline,
          compute: {
            module: this.#gpu.createShaderModule({ label: key, code: source() }),
            entryPoint: "main",
          },
        }),
      );
      compiled = { pipeline, fate };
      if (this.#pipelines.size >= MAX_PIPELINES) this.#pipelines.delete(this.#pipelines.keys().next().value!);
    }
    this.#pipelines.delete(key);
    this.#pipelines.set(key, compiled);
    return compiled;
  }

  bindGroup(modes: string, buffers: readonly BoundBuffer[]): GPUBindGroup {
    let key = modes;
    for (const { storage, window } of buffers) {
      key += window ? ` ${storage.id}+${window.offset}:${window.size}` : ` ${storage.id}`;
    }
    let cached = this.#groups.get(key);
    if (cached) {
      this.#groups.delete(key);
    } else {
      if (this.#groups.size >= MAX_GROUPS) this.#giveUp(this.#groups.keys().next().value!);
      const group = this.#gpu.createBindGroup({
        layout: this.#layout(modes).buffers,
        entries: buffers.map(({ storage, window }, binding) => ({
          binding,
          resource: { buffer: storage.buffer, ...window },
        })),
      });
      cached = { group, storages: buffers.map(({ storage }) => storage) };
      for (const storage of cached.storages) storage.bindGroups.add(key);
      this.bindGroupCount++;
    }
    this.#groups.set(key, cached);
    return cached.group;
  }

  /** Drops the bind groups of a buffer that is about to be destroyed. */
  forget(storage: Storage): void {
    for (const key of storage.bindGroups) this.#giveUp(key);
  }

  #giveUp(key: string): void {
    for (const storage of this.#groups.get(key)!.storages) storage.bindGroups.delete(key);
    this.#groups.delete(key);
    if (++this.#givenUp < GIVEN_UP) return;
    this.#givenUp = 0;
    this.#collectGarbage();
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
