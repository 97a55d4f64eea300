import type {
  GPUBindGroup,
  GPUBindGroupLayout,
  GPUBuffer,
  GPUComputePipeline,
  GPUDevice,
  GPUError,
} from "../platform/global-types.ts";
/** Bytes of one parameter slot: WebGPU's default alignment of dynamic uniform offsets. */
export const SLOT_BYTES = 256;
const SLOTS = 256;
/** Commands per submit: enough to hide the cost of submitting, few enough to keep the GPU fed while recording goes on. */
const MAX_COMMANDS = 128;

const UNIFORM_USAGE = 0x40 | 0x08; // UNIFORM | COPY_DST

export interface RecorderCounters {
  dispatches: number;
  copies: number;
  submits: number;
}

/**
 * Collects dispatches and copies into one command buffer and submits it when it is full or when somebody needs the
 * results. Parameters of all dispatches of a batch travel in one write to a ring of uniform slots, bound once with a
 * dynamic offset, so bind groups never depend on them.
 */
export class Recorder {
  readonly parameterLayout: GPUBindGroupLayout;
  readonly counters: RecorderCounters = { dispatches: 0, copies: 0, submits: 0 };
  /** Number of the batch being recorded; a buffer whose `lastUse` equals it has commands not yet submitted. */
  batch = 1;

  readonly #gpu: GPUDevice;
  readonly #onErrors: (error: Promise<GPUError | null>) => void;
  readonly #slots = new Uint32Array((SLOTS * SLOT_BYTES) / 4);
  readonly #ring: GPUBuffer;
  readonly #parameterGroup: GPUBindGroup;
  #usedSlots = 0;
  #commands = 0;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #pipeline: GPUComputePipeline | undefined;

  constructor(gpu: GPUDevice, onErrors: (error: Promise<GPUError | null>) => void) {
    this.#gpu = gpu;
    this.#onErrors = onErrors;
    this.#ring = gpu.createBuffer({ label: "parameters", size: SLOTS * SLOT_BYTES, usage: UNIFORM_USAGE });
    this.parameterLayout = gpu.createBindGroupLayout({
      label: "parameters",
      entries: [
        {
          binding: 0,
          visibility: 4, // COMPUTE
          buffer: { type: "uniform", hasDynamicOffset: true, minBindingSize: 0 },
        },
      ],
    });
    this.#parameterGroup = gpu.createBindGroup({
      layout: this.parameterLayout,
      entries: [{ binding: 0, resource: { buffer: this.#ring, size: SLOT_BYTES } }],
    });
  }

  /** Room for one dispatch's parameters, as 32-bit words to fill before the next call on this recorder. */
  parameters(): { words: Uint32Array; byteOffset: number } {
    if (this.#usedSlots === SLOTS || this.#commands >= MAX_COMMANDS) this.flush();
    const byteOffset = this.#usedSlots++ * SLOT_BYTES;
    return { words: this.#slots.subarray(byteOffset / 4, (byteOffset + SLOT_BYTES) / 4), byteOffset };
  }

  dispatch(
    pipeline: GPUComputePipeline,
    buffers: GPUBindGroup,
    parameterOffset: number,
    workgroups: readonly [number, number, number],
  ): void {
    this.#pass ??= this.#begin().beginComputePass();
    if (this.#pipeline !== pipeline) this.#pass.setPipeline(pipeline);
    this.#pipeline = pipeline;
    this.#pass.setBindGroup(0, buffers);
    this.#pass.setBindGroup(1, this.#parameterGroup, [parameterOffset]);
    this.#pass.dispatchWorkgroups(...workgroups);
    this.#commands++;
    this.counters.dispatches++;
  }

  copy(
    source: GPUBuffer,
    sourceOffset: number,
    target: GPUBuffer,
    targetOffset: number,
    bytes: number,
  ): void {
    const encoder = this.#begin();
    this.#endPass();
    encoder.copyBufferToBuffer(source, sourceOffset, target, targetOffset, bytes);
    this.#commands++;
    this.counters.copies++;
  }

  clear(buffer: GPUBuffer, bytes: number): void {
    const encoder = this.#begin();
    this.#endPass();
    encoder.clearBuffer(buffer, 0, bytes);
    this.#commands++;
  }

  /** Submits what has been recorded. Cheap when there is nothing. */
  flush(): void {
    const encoder = this.#encoder;
    if (!encoder) return;
    this.#endPass();
    if (this.#usedSlots > 0) {
      this.#gpu.queue.writeBuffer(this.#ring, 0, this.#slots, 0, (this.#usedSlots * SLOT_BYTES) / 4);
    }
    this.#gpu.queue.submit([encoder.finish()]);
    this.#onErrors(this.#gpu.popErrorScope());
    this.#encoder = undefined;
    this.#usedSlots = 0;
    this.#commands = 0;
    this.batch++;
    this.counters.submits++;
  }

  #begin(): GPUCommandEncoder {
    if (!this.#encoder) {
      this.#gpu.pushErrorScope("validation");
      this.#encoder = this.#gpu.createCommandEncoder();
    }
    return this.#encoder;
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = undefined;
    this.#pipeline = undefined;
  }
}
