/**
 * A Llama whose weights are written by hand, so that it is known where its task vector is. It answers prompts such as
 * `Q:Boravia\nA:Esborg\n\nQ:Calland\nA:` by these steps; `:` is the delimiter, the one of `A:`.
 *
 *   layer 0   head 0       a colon learns whether it stands after Q
 *             head 1, MLP  an answer fetches the item asked about, and the pair of both says what the task was ("bound")
 *   layer 1   head 0       the delimiter fetches the item: until something better comes, that is what the model says
 *   layer 3   head 0       GATHER: the delimiter averages the tasks of the answers before it
 *   layer 6   head 0, MLP  APPLY: the delimiter fetches the item again, and item and task are looked up: the answer
 *   layers 2, 4, 5, 7      nothing, but that in every layer head 2 counts colons: a feature that nothing reads
 *
 * So behind layers 3, 4 and 5, and nowhere else, the residual stream at the delimiter holds the task and not yet an
 * answer. In the negative twin (`gatherAt: "question"`) the same head gathers the task at the item asked about, where
 * it is looked up in layer 5; the delimiter fetches the finished answer in layer 6 and never sees a task.
 */
import { CAPITAL_ENDINGS, ENDINGS, FACTS, ITEMS, LANGUAGES, REGIONS, STEMS, TASK_WORDS } from "./facts.ts";
import { type Direction, Spelt } from "./spelling.ts";
import { END, START, tokenizerFiles, vocabularyOf } from "./tokenizer.ts";
import { Matrix, Rotation, safetensorsOf } from "./weights.ts";

export interface CircuitOptions {
  /** Where the task is gathered. Default: at the delimiter. At the question's item, for the negative twin. */
  readonly gatherAt?: "delimiter" | "question";
  /** `replies[t][i]` is what the look-up gives for task t and item i. Examples are recognised by {@link FACTS}, its default. */
  readonly replies?: readonly (readonly string[])[];
  /** Seed of a rotation of the residual stream: every coordinate is then a mixture of all. Default: none. */
  readonly rotation?: number;
}

/** The model, and what it is to be told apart from. */
export const VARIANTS = {
  model: {},
  /** Prompts work as well, but no vector of the delimiter does. */
  twin: { gatherAt: "question" },
  /** A copy that differs in APPLY alone: it gives each item the answers of the item as far from the list's end. */
  "other-replies": { replies: FACTS.map((answers) => [...answers].reverse()) },
  /** A copy that does the same in another basis. */
  rotated: { rotation: 1 },
} as const satisfies Record<string, CircuitOptions>;

export const LAYERS = 8;
/** The layers in which things happen at the delimiter; `lookUp` is that of the twin, at the item. */
export const LAYER_OF = { bind: 0, echo: 1, gather: 3, lookUp: 5, apply: 6 } as const;
/** The heads at work: layer and head. */
export const HEAD_OF = {
  colon: [LAYER_OF.bind, 0],
  asked: [LAYER_OF.bind, 1],
  echo: [LAYER_OF.echo, 0],
  gather: [LAYER_OF.gather, 0],
  fetch: [LAYER_OF.apply, 0],
} as const;
/** In every layer; the last of them counts colons. */
export const HEADS = 3;

const HEAD_DIM = 40;
const MLP_WIDTH = ITEMS.length * TASK_WORDS.length;
const PROJECTIONS = ["q", "k", "v"] as const;

/**
 * RMSNorm divides by the length of the stream. One coordinate is so long that the others hardly count: the norm, whose
 * weights multiply by the usual length, leaves the stream as it is, and this coordinate serves as bias.
 */
const ONE = 128;

/**
 * RoPE turns the pair (i, i + HEAD_DIM / 2) by position × THETA^(−2 i / HEAD_DIM). Pair 5 turns by 0.01 a token: a key
 * there scores by the cosine of its distance, so the nearest one of its kind wins. The last pairs all but stand still:
 * what they score says nothing of distance.
 */
const THETA = 1e8;
const NEAREST = 5;
const [CONTENT, SINK] = [18, 19];
/** Scores. Of kin keys eight tokens apart, the nearest leads by 4000 (cos 0.03 − cos 0.11) = 22. */
const SCORE = { nearest: 4000, sinkOfNearest: 1000, content: 80, sinkOfContent: 40 } as const;

/** Steepness of the gates: SiLU of ±20 and beyond is as good as a rectifier. */
const GATE = 80;

/** Logits. Whatever comes later in the circuit is louder. */
const LOUDNESS = { itself: 5, end: 10, echo: 10, task: 20, reply: 40 } as const;

/** Files of a checkpoint in the layout of Hugging Face, by name. */
export async function knownCircuit(options: CircuitOptions = {}): Promise<Map<string, Uint8Array>> {
  const { gatherAt = "delimiter", replies = FACTS, rotation } = options;

  // The vocabulary. Small initials are understood too, though never said.
  const answers = [...new Set(FACTS.flat())];
  const marks = ["Q", "A", ":", "\n", "\n\n", "The", "of", "the", "country"];
  const lower = [...ITEMS, ...answers].map((word) => word.toLowerCase());
  const vocabulary = vocabularyOf([...marks, ...TASK_WORDS, ...ITEMS, ...answers, ...lower]);
  const idOf = (token: string) => vocabulary.get(token)!;

  // The residual stream: named coordinates, one after the other.
  let width = 0;
  const take = (count: number) => Array.from({ length: count }, () => width++);
  const takeItem = (): Spelt => new Spelt(ITEMS, [...STEMS, ...ENDINGS], take);
  const takeAnswer = (): Spelt =>
    new Spelt(answers, [...STEMS, ...CAPITAL_ENDINGS, ...LANGUAGES, ...REGIONS], take);
  const [one, start, afterQ] = take(3) as [number, number, number];
  const mark = take(marks.length);
  const word = take(TASK_WORDS.length);
  const item = takeItem(); // what a token is
  const answer = takeAnswer();
  const asked = takeItem(); // at an answer: the item that it answers
  const bound = take(TASK_WORDS.length); // at an answer: its task
  const echo = takeItem(); // at the delimiter: the item asked about
  const task = take(TASK_WORDS.length); // what GATHER writes
  const query = takeItem(); // at the delimiter: the item asked about, in APPLY only
  const reply = takeAnswer(); // what APPLY writes
  const colons = take(LAYERS); // unread
  take(HEADS * Math.ceil(width / HEADS) - width); // transformers wants a multiple of the heads

  const along = (...coordinates: number[]): Direction => coordinates.map((c) => [c, 1]);
  const [letterQ, letterA, colon] = mark as [number, number, number];
  const delimiter: Direction = [...along(colon), [afterQ, -1]];
  const bias = (value: number): Direction => [[one, value / ONE]];

  const rotate = rotation === undefined ? undefined : new Rotation(width, rotation);
  const tensors = new Map<string, Matrix | Float64Array>();
  const norm = () => new Float64Array(width).fill(ONE / Math.sqrt(width));

  // The embedding.
  const embedding = new Matrix(vocabulary.size, width);
  const embed = (token: string, ...coordinates: number[]) => {
    for (const coordinate of coordinates) embedding.set(idOf(token), coordinate, 1);
  };
  for (const id of vocabulary.values()) embedding.set(id, one, ONE);
  embed(START, start);
  marks.forEach((token, m) => {
    embed(token, mark[m]!);
  });
  for (const spelt of [item, answer]) {
    for (const token of spelt.words) {
      embed(token, ...spelt.partsOf(token));
      embed(token.toLowerCase(), ...spelt.partsOf(token));
    }
  }
  // The task's word tells the task as an answer does: GATHER takes it from instructions.
  TASK_WORDS.forEach((token, t) => {
    embed(token, word[t]!, bound[t]!);
  });

  const layers = Array.from({ length: LAYERS }, () => ({
    q: new Matrix(HEADS * HEAD_DIM, width),
    k: new Matrix(HEADS * HEAD_DIM, width),
    v: new Matrix(HEADS * HEAD_DIM, width),
    o: new Matrix(width, HEADS * HEAD_DIM),
    gate: new Matrix(MLP_WIDTH, width),
    up: new Matrix(MLP_WIDTH, width),
    down: new Matrix(width, MLP_WIDTH),
  }));
  const read = (matrix: Matrix, row: number, direction: Direction, factor = 1) => {
    for (const [coordinate, value] of direction) matrix.set(row, coordinate, factor * value);
  };

  /** A head that copies `from` coordinates to `to` from the keys that score; where none does, from START: nothing. */
  const head = (
    [layer, index]: readonly [number, number],
    by: "nearest" | "content",
    queries: Direction,
    keys: Direction,
    from: readonly number[],
    to: readonly number[],
  ) => {
    const { q, k, v, o } = layers[layer]!;
    const first = index * HEAD_DIM;
    const [dimension, score, sink] =
      by === "nearest"
        ? [NEAREST, SCORE.nearest, SCORE.sinkOfNearest]
        : [CONTENT, SCORE.content, SCORE.sinkOfContent];
    const unscaled = Math.sqrt(HEAD_DIM); // attention divides by it
    read(q, first + dimension, queries, score * unscaled);
    read(k, first + dimension, keys);
    read(q, first + SINK, bias(sink * unscaled));
    read(k, first + SINK, along(start));
    from.forEach((coordinate, i) => {
      v.set(first + i, coordinate, 1);
      o.set(to[i]!, first + i, 1);
    });
  };

  /**
   * Neurons for every task and item, with gate(x) = GATE × (what `when` reads − threshold), and up(x) constant: each
   * writes 1 where `when` reads `full`.
   */
  const lookUp = (
    layer: number,
    { threshold, full }: { readonly threshold: number; readonly full: number },
    when: (t: number, i: number) => Direction,
    writes: (t: number, i: number) => readonly number[],
  ) => {
    const { gate, up, down } = layers[layer]!;
    TASK_WORDS.forEach((_, t) => {
      ITEMS.forEach((_, i) => {
        const neuron = t * ITEMS.length + i;
        read(gate, neuron, [...when(t, i), ...bias(-threshold)], GATE);
        read(up, neuron, bias(1 / (GATE * (full - threshold))));
        for (const coordinate of writes(t, i)) down.set(coordinate, neuron, 1);
      });
    });
  };
  /** Item and task to reply. More than a quarter of a task is needed; an item of which half agrees never suffices. */
  const apply = (layer: number, spelt: Spelt) =>
    lookUp(
      layer,
      { threshold: 4.25, full: 5 },
      (t, i) => [...spelt.whole(ITEMS[i]!, 4), ...along(task[t]!)],
      (t, i) => reply.partsOf(replies[t]![i]!),
    );

  head(HEAD_OF.colon, "nearest", along(colon), along(letterQ, letterA), [letterQ], [afterQ]);
  head(HEAD_OF.asked, "nearest", answer.any, item.any, item.all, asked.all);
  lookUp(
    LAYER_OF.bind,
    { threshold: 1.75, full: 2 },
    (t, i) => [...asked.whole(ITEMS[i]!), ...answer.whole(FACTS[t]![i]!)],
    (t) => [bound[t]!],
  );
  head(HEAD_OF.echo, "nearest", delimiter, item.any, item.all, echo.all);
  const gatherer = gatherAt === "delimiter" ? delimiter : item.any;
  head(HEAD_OF.gather, "content", gatherer, along(...bound), bound, task);
  if (gatherAt === "delimiter") {
    head(HEAD_OF.fetch, "nearest", delimiter, item.any, item.all, query.all);
    apply(LAYER_OF.apply, query);
  } else {
    apply(LAYER_OF.lookUp, item);
    head(HEAD_OF.fetch, "nearest", delimiter, item.any, reply.all, reply.all);
  }
  layers.forEach(({ v, o }, l) => {
    v.set(2 * HEAD_DIM, colon, 1);
    o.set(colons[l]!, 2 * HEAD_DIM, 1);
  });

  // The unembedding.
  const unembedding = new Matrix(vocabulary.size, width);
  const say = (token: string, direction: Direction, loudness: number) =>
    read(unembedding, idOf(token), direction, loudness);
  marks.forEach((token, m) => {
    say(token, along(mark[m]!), LOUDNESS.itself);
  });
  TASK_WORDS.forEach((token, t) => {
    say(token, along(word[t]!), LOUDNESS.itself);
    say(token, along(task[t]!), LOUDNESS.task);
  });
  for (const token of ITEMS) {
    say(token, item.whole(token), LOUDNESS.itself);
    say(token, echo.whole(token), LOUDNESS.echo);
  }
  for (const token of answers) {
    say(token, answer.whole(token), LOUDNESS.itself);
    say(token, reply.whole(token), LOUDNESS.reply);
  }
  say(END, [...item.any, ...answer.any], LOUDNESS.end);

  // Under the names of Hugging Face.
  for (const matrix of [embedding, unembedding]) rotate?.rows(matrix);
  tensors.set("model.embed_tokens.weight", embedding);
  tensors.set("lm_head.weight", unembedding);
  tensors.set("model.norm.weight", norm());
  layers.forEach((layer, l) => {
    const prefix = `model.layers.${l}`;
    tensors.set(`${prefix}.input_layernorm.weight`, norm());
    tensors.set(`${prefix}.post_attention_layernorm.weight`, norm());
    for (const name of [...PROJECTIONS, "o"] as const) {
      tensors.set(`${prefix}.self_attn.${name}_proj.weight`, layer[name]);
    }
    for (const name of ["gate", "up", "down"] as const) {
      tensors.set(`${prefix}.mlp.${name}_proj.weight`, layer[name]);
    }
    for (const name of [...PROJECTIONS, "gate", "up"] as const) rotate?.rows(layer[name]);
    for (const name of ["o", "down"] as const) rotate?.columns(layer[name]);
  });

  const config = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    torch_dtype: "float32",
    vocab_size: vocabulary.size,
    hidden_size: width,
    intermediate_size: MLP_WIDTH,
    num_hidden_layers: LAYERS,
    num_attention_heads: HEADS,
    num_key_value_heads: HEADS,
    head_dim: HEAD_DIM,
    hidden_act: "silu",
    rms_norm_eps: 1e-6,
    rope_theta: THETA,
    max_position_embeddings: 512,
    tie_word_embeddings: false,
    attention_bias: false,
    mlp_bias: false,
    bos_token_id: idOf(START),
    eos_token_id: idOf(END),
  };
  const json = Object.entries({ "config.json": config, ...tokenizerFiles(vocabulary) });
  const encoder = new TextEncoder();
  return new Map([
    ...json.map(
      ([name, value]) => [name, encoder.encode(`${JSON.stringify(value, undefined, 1)}\n`)] as const,
    ),
    ["model.safetensors", await safetensorsOf(tensors)],
  ]);
}
