import { anArray, checkArgument, checkOptions, type Options } from "../arguments.ts";
import { PromptError } from "../errors.ts";
import { INSPECT } from "../inspect.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { checkContext, type Prompt } from "../model/prompt/prompt.ts";
import type { Addition } from "../model/walk/additions.ts";
import { enter, takeRows, unembed } from "../model/walk/forward.ts";
import {
  type Context,
  ContextKeys,
  type KeysAndValues,
  type RecordedContext,
  RecordedKeys,
} from "../model/walk/key-value-store.ts";
import { Pass } from "../model/walk/pass.ts";
import { RowMap } from "../model/walk/row-map.ts";
import type { Walk } from "../model/walk/site-events.ts";
import type { SiteName } from "../model/walk/sites.ts";
import { drive } from "../model/walk/walk.ts";
import type { Scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { aModel, checkEdits, checkPrompts } from "./arguments.ts";
import type { Edit } from "./edit.ts";
import { rowLayersOf } from "./row-layers.ts";
import { batchOf } from "./site-targets.ts";
import { resolveEdits, Watcher } from "./watcher.ts";

/** Edits of a recorded run. */
export interface RecordOptions {
  /** What to change in the recorded run. Runs that are resumed from it keep these edits and have their own on top. */
  edits?: readonly Edit[];
}

const OPTIONS: Options<RecordOptions> = { edits: anArray };

interface Kept {
  readonly edits: readonly Edit[];
  readonly sequences: readonly Prompt[];
  readonly rows: RowMap;
  readonly keys: readonly KeysAndValues[];
  readonly stream: readonly Tensor[];
  readonly context: (Context & RecordedContext) | undefined;
  readonly additions: readonly Addition[];
  readonly logits: Tensor;
}

/**
 * A run of which everything is kept that patched runs can start from: keys and values of every layer, and the residual
 * stream between layers; where there is cross-attention also what it reads, with its keys and values. Dispose of it when done: for T tokens it holds about T * layers * (width + 2 * kvWidth) floats.
 */
export class Recording {
  readonly model: LanguageModel;
  readonly prompts: readonly Prompt[];
  /** What was changed in it. */
  readonly edits: readonly Edit[];
  /** What the layers ran over: the prompts, or what the decoder of an encoder-decoder reads for each. */
  readonly sequences: readonly Prompt[];
  /** @internal Where the rows of each sequence lie. */
  readonly rows: RowMap;
  /** @internal Keys and values by layer. */
  readonly keys: readonly KeysAndValues[];
  /** `stream[l]` enters layer l: stream[0] is the embedding, the last one leaves the last layer. Each [rows, width]. */
  readonly stream: readonly Tensor[];
  /** @internal What cross-attention reads, and its keys and values by layer. Undefined where it reads nothing. */
  readonly context: (Context & RecordedContext) | undefined;
  /** @internal What is added to the stream between layers, before any edits of it. */
  readonly additions: readonly Addition[];
  /** [prompts, vocab], at each prompt's last token. */
  readonly logits: Tensor;
  readonly #memory: Scope;

  /** Use {@link record}. */
  constructor(model: LanguageModel, prompts: readonly Prompt[], kept: Kept, memory: Scope) {
    this.model = model;
    this.prompts = prompts;
    this.sequences = kept.sequences;
    this.edits = kept.edits;
    this.rows = kept.rows;
    this.keys = kept.keys;
    this.stream = kept.stream;
    this.context = kept.context;
    this.additions = kept.additions;
    this.logits = kept.logits;
    this.#memory = memory;
  }

  /** The residual stream that enters `layer` at these positions of a prompt: [positions, width]. */
  entering(layer: number, prompt: number, positions: readonly number[]): Tensor {
    return takeRows(
      this.stream[layer]!,
      positions.map((position) => this.rows.row(prompt, position)!),
    );
  }

  /** Rows times layers that were computed; a forward pass over T tokens is T * layers. An encoder's are counted as well. */
  get rowLayers(): number {
    return this.sequences.reduce((sum, sequence) => sum + rowLayersOf(this.model, sequence), 0);
  }

  [INSPECT](): string {
    const { length } = this.prompts;
    const { length: edits } = this.edits;
    const edited = edits > 0 ? `, ${edits} ${edits === 1 ? "edit" : "edits"}` : "";
    const state = this.logits.disposed ? " (disposed of)" : "";
    return `Recording of ${length === 1 ? "a prompt" : `${length} prompts`} on ${this.model.name}: ${this.rows.length} tokens, ${this.keys.length} layers${edited}${state}`;
  }

  /** Frees all that was recorded. */
  dispose(): void {
    this.#memory.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Runs prompts, with edits if there are any, and keeps what {@link resume} needs. Throws PromptError for prompts beyond the
 * context, and like `run` for edits.
 */
export function record(
  model: LanguageModel,
  prompts: readonly Prompt[],
  options: RecordOptions = {},
): Recording {
  checkArgument("record", "model", model, aModel);
  checkPrompts("record", prompts);
  if (prompts.length === 0) throw new PromptError("record: expected at least one prompt, found none");
  checkOptions("record", options, OPTIONS);
  const { edits = [] } = options;
  checkEdits("record", edits);
  const { network } = model;
  const { device, config } = network;
  for (const prompt of prompts) checkContext(prompt.length, config.context);
  const sequences = prompts.map((prompt) => model.sequenceOf(prompt));
  const memory = device.openScope();
  const rows = RowMap.packed(sequences.map((p) => p.length));
  const keys = new RecordedKeys(rows, memory);
  const cross = new ContextKeys({ keep: memory });
  const stream: Tensor[] = [];
  let recorded: Context | undefined;
  let additions: readonly Addition[] = [];
  const kept: Edit[] = [];
  try {
    const logits = memory.enter(() =>
      device.scope(() => {
        const resolved = resolveEdits(edits, model.sites, device, batchOf(sequences, config.vision));
        // With values of the recording's own, since the caller may change theirs.
        for (const { edit, value } of resolved) {
          kept.push(value ? { ...edit, value: memory.enter(() => value.alias()) } : edit);
        }
        const watcher = new Watcher(resolved, {});
        const inUse = (site: SiteName) => watcher.uses(site);
        const pass = Pass.over(device, sequences, { rows, keys, context: cross, inUse });
        const logits = drive(recordedForward(), watcher);
        watcher.finish();
        return logits;

        function* recordedForward(): Walk<Tensor> {
          const embedded = yield* enter(network, sequences, pass);
          const { source } = cross;
          recorded = source && { ...source, x: memory.enter(() => source.x.alias()) };
          additions = pass.additions.map((addition) => ({
            ...addition,
            layers: addition.layers.map((rows) => memory.enter(() => rows.alias())),
          }));
          const x = yield* network.stack.run(embedded, pass, {
            onStream: (_index, x) => stream.push(memory.enter(() => x.alias())),
          });
          return yield* unembed(network, x, pass, "last");
        }
      }),
    );
    const context = recorded && { ...recorded, layers: cross.layers };
    return new Recording(
      model,
      prompts,
      { edits: kept, sequences, rows, keys: keys.layers, stream, context, additions, logits },
      memory,
    );
  } catch (error) {
    memory.dispose();
    throw error;
  }
}
