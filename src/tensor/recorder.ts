import type {
  GPUBindGroup,
  GPUBindGroupLayout,
  GPUBuffer,
  GPUCommandEncoder,
  GPUComputePassEncoder,
  GPUComputePipeline,
  GPUDevice,
} from "../platform/global-types.ts";
import { Fate, type Guard } from "./fate.ts";
import type { BoundBuffer } from "./pipelines.ts";

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

export interface Dispatch {
  readonly kind: "dispatch";
  readonly pipeline: GPUComputePipeline;
  /** r or w for each of `buffers`. */
  readonly modes: string;
  readonly buffers: readonly BoundBuffer[];
  readonly parameterOffset: number;
  readonly workgroups: readonly [number, number, number];
}

interface Copy {
  readonly kind: "copy";
  readonly source: GPUBuffer;
  readonly sourceOffset: number;
  readonly target: GPUBuffer;
  readonly targetOffset: number;
  readonly bytes: number;
}

interface Clear {
  readonly kind: "clear";
  readonly buffer: GPUBuffer;
  readonly bytes: number;
}

export type Command = Dispatch | Copy | Clear;

/** Encodes a batch in another way than usual: each dispatch in a pass of its own. */
export interface OwnPasses {
  begin(encoder: GPUCommandEncoder, command: Dispatch): GPUComputePassEncoder;
  /** Called when all is encoded. */
  end?(encoder: GPUCommandEncoder): void;
}

/** Commands that are to be submitted together. */
export interface Batch {
  readonly commands: readonly Command[];
  /** Encodes and submits commands of the batch (default all), which are to be taken in order. */
  submit(passes?: OwnPasses, commands?: readonly Command[]): void;
}

/** Submits batches in the recorder's place, to time what is in them. */
export interface BatchTimer {
  submit(batch: Batch): void;
  /** What the host does to buffers that commands submitted so far may use: at once, or when they have been. */
  afterwards(work: () => void): void;
  /** Waits until everything given to {@link submit} is the queue's. */
  drain(): Promise<void>;
}

/**
 * Collects commands, and encodes and submits them when there are enough or when somebody needs the results: all in one
 * go, so that no encoder or error scope stays open while other code uses the GPUDevice. Parameters of all dispatches of a
 * batch travel in one write to a ring of uniform slots, bound once with a dynamic offset, so bind groups never depend on
 * them.
 */
export class Recorder {
  readonly parameterLayout: GPUBindGroupLayout;
  readonly counters: RecorderCounters = { dispatches: 0, copies: 0, submits: 0 };
  /** Number of the batch being recorded; a buffer whose `lastUse` equals it has commands not yet submitted. */
  batch = 1;
  /** What will become of that batch. */
  fate = new Fate();

  readonly #gpu: GPUDevice;
  readonly #guard: Guard;
  readonly #slots = new Uint32Array((SLOTS * SLOT_BYTES) / 4);
  readonly #ring: GPUBuffer;
  readonly #parameterGroup: GPUBindGroup;
  #usedSlots = 0;
  #commands: Command[] = [];
  /** Set while somebody profiles. */
  timer: BatchTimer | undefined;

  readonly #bindGroup: (modes: string, buffers: readonly BoundBuffer[]) => GPUBindGroup;

  constructor(
    gpu: GPUDevice,
    guard: Guard,
    bindGroup: (modes: string, buffers: readonly BoundBuffer[]) => GPUBindGroup,
  ) {
    this.#gpu = gpu;
    this.#guard = guard;
    this.#bindGroup = bindGroup;
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
    if (this.#usedSlots === SLOTS || this.#commands.length >= MAX_COMMANDS) this.flush();
    const byteOffset = this.#usedSlots++ * SLOT_BYTES;
    return { words: this.#slots.subarray(byteOffset / 4, (byteOffset + SLOT_BYTES) / 4), byteOffset };
  }

  dispatch(
    pipeline: GPUComputePipeline,
    modes: string,
    buffers: readonly BoundBuffer[],
    parameterOffset: number,
    workgroups: readonly [number, number, number],
  ): void {
    this.#commands.push({ kind: "dispatch", pipeline, modes, buffers, parameterOffset, workgroups });
    this.counters.dispatches++;
  }

  copy(
    source: GPUBuffer,
    sourceOffset: number,
    target: GPUBuffer,
    targetOffset: number,
    bytes: number,
  ): void {
    this.#commands.push({ kind: "copy", source, sourceOffset, target, targetOffset, bytes });
    this.counters.copies++;
  }

  clear(buffer: GPUBuffer, bytes: number): void {
    this.#commands.push({ kind: "clear", buffer, bytes });
  }

  /** Submits what has been recorded. Cheap when there is nothing. */
  flush(): void {
    if (this.#commands.length === 0) return;
    const commands = this.#commands;
    if (this.timer) this.timer.submit(this.#timedBatch(commands));
    else {
      const parameters = this.#slots.subarray(0, (this.#usedSlots * SLOT_BYTES) / 4);
      this.#guard("running a batch of commands", this.fate, () => this.#submit(commands, parameters));
    }
    this.#usedSlots = 0;
    this.#commands = [];
    this.batch++;
    this.fate = new Fate();
    this.counters.submits++;
  }

  /** The batch being recorded as something that can be submitted later. */
  #timedBatch(all: readonly Command[]): Batch {
    const { fate } = this;
    let parameters = this.#slots.slice(0, (this.#usedSlots * SLOT_BYTES) / 4);
    return {
      commands: all,
      submit: (passes, commands = all) => {
        this.#guard("running a batch of commands", fate, () => this.#submit(commands, parameters, passes));
        parameters = parameters.subarray(0, 0); // they are in the ring by now
      },
    };
  }

  #submit(commands: readonly Command[], parameters: Uint32Array<ArrayBuffer>, passes?: OwnPasses): void {
    if (parameters.length > 0) this.#gpu.queue.writeBuffer(this.#ring, 0, parameters);
    const encoder = this.#gpu.createCommandEncoder();
    let pass: GPUComputePassEncoder | undefined;
    let pipeline: GPUComputePipeline | undefined;
    const endPass = () => {
      pass?.end();
      pass = undefined;
      pipeline = undefined;
    };
    for (const command of commands) {
      if (command.kind === "dispatch") {
        pass ??= passes ? passes.begin(encoder, command) : encoder.beginComputePass();
        if (pipeline !== command.pipeline) pass.setPipeline(command.pipeline);
        pipeline = command.pipeline;
        pass.setBindGroup(0, this.#bindGroup(command.modes, command.buffers));
        pass.setBindGroup(1, this.#parameterGroup, [command.parameterOffset]);
        pass.dispatchWorkgroups(...command.workgroups);
        if (passes) endPass();
        continue;
      }
      endPass();
      if (command.kind === "clear") {
        encoder.clearBuffer(command.buffer, 0, command.bytes);
      } else {
        const { source, sourceOffset, target, targetOffset, bytes } = command;
        encoder.copyBufferToBuffer(source, sourceOffset, target, targetOffset, bytes);
      }
    }
    endPass();
    passes?.end?.(encoder);
    this.#gpu.queue.submit([encoder.finish()]);
  }
}
