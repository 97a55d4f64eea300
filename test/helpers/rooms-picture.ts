import { type Import, NODE_ONLY, ROOMS, roomOf } from "./rooms.ts";

/** Folders whose rooms share a box, but for those that say what is in them. */
const HALLS = ["src/kernels", "src/gradient", "src/model/checkpoint", "src/session", "src/cli"];

/** What is in a room that is a box by itself. */
export const CONTENTS: Readonly<Record<string, string>> = {
  "src/platform": "Node or browser: adapters, files, how figures are drawn and shown",
  "src/tables": "Parquet, read and written",
  "src/tensor": "device, tensors, buffers, how a kernel is declared",
  "src/gradient": "a tape over operations, and the way back through each",
  "src/images": "decode, resize, preprocess",
  "src/model/prompt": "tokenizers, chat templates, prompts",
  "src/model/walk": "sites, row maps, passes, masks, KV cache, generation",
  "src/model/layers": "attention, MLPs, norms, blocks, towers",
  "src/model/families": "a file a family",
  "src/model": "load a language model or a dual encoder",
  "src/model/export": "write a model as one folder",
  "src/patching": "taps, edits, runs, recordings, reach, resumed runs",
  "src/activations": "activations of many prompts as files",
  "src/profile": "what a pass costs: dispatches, times, limits, traces",
  "src/tasks": "task files, few-shot prompts, scores",
  "src/training": "AdamW, LoRA, a trainer",
  "src/analysis": "task vectors, sweeps, lenses, attention maps",
  "src/figures": "drawings",
  "src/index.ts": "the public API",
  "src/session/serve": "sessions over a WebSocket, and the page",
  "src/parity": "against transformers and the paper's program",
  experiments: "the paper's experiments and their report",
  "experiments/grid": "plans of many runs, computed by many machines",
  "experiments/grid/queue": "grids whose cells workers pull from Redis",
};

/**
 * The rooms as a diagram in Mermaid, the ground at the bottom. An arrow says that a room imports another; one that follows from
 * the others (a imports b, b imports c) is left out.
 */
export function drawRooms(imports: readonly Import[]): string {
  const below = edges(imports);
  const ids = new Map([...below.keys()].map((name, i) => [name, `r${i}`]));
  // From the top down.
  const boxes = [...below.keys()].reverse().map((name) => {
    const kind = NODE_ONLY.test(name) ? "node" : "anywhere";
    return `  ${ids.get(name)}["${textOf(name)}"]:::${kind}`;
  });
  const arrows = reduced(below).map(([a, b]) => `  ${ids.get(a)} --> ${ids.get(b)}`);
  return [
    "flowchart TD",
    "  classDef node fill:#fdf0d8,stroke:#b98a2e,color:#222",
    "  classDef anywhere fill:#e4eefa,stroke:#4a76a8,color:#222",
    ...boxes,
    ...arrows,
  ].join("\n");
}

/** The block of docs/design.md that the diagram is. */
export function roomsBlock(imports: readonly Import[]): string {
  return `\`\`\`mermaid\n${drawRooms(imports)}\n\`\`\``;
}

/** The name of a box, and below it what is in it. */
function textOf(name: string): string {
  const parts = ROOMS.filter((room) => boxOf(room) === name && room !== name);
  const inside = parts.map((part) => part.slice(name.length + 1).replace(/\.ts$/, ""));
  if (name === "src") return `<b>${inside.map((part) => `${part}.ts`).join(", ")}</b>`;
  const lines = [`<b>${name.replace("src/", "")}</b>`, CONTENTS[name] ?? inside.join(" · ")];
  return lines.filter((line) => line !== "").join("<br/>");
}

/** The box of a room: a hall, the files on the ground, or itself. */
function boxOf(room: string): string {
  if (room in CONTENTS) return room;
  const hall = HALLS.find((name) => room === name || room.startsWith(`${name}/`));
  return hall ?? (/^src\/(?!index)[^/]*\.ts$/.test(room) ? "src" : room);
}

/** What each box imports. */
function edges(imports: readonly Import[]): Map<string, Set<string>> {
  const below = new Map(ROOMS.map((room) => [boxOf(room), new Set<string>()]));
  for (const { from, to } of imports) {
    if (!/^(src|experiments)\//.test(to)) continue;
    const [a, b] = [boxOf(roomOf(from)), boxOf(roomOf(to))];
    if (a !== b) below.get(a)!.add(b);
  }
  return below;
}

/** Without the arrows that follow from others. */
function reduced(below: ReadonlyMap<string, ReadonlySet<string>>): [from: string, to: string][] {
  const reaches = (a: string, b: string): boolean =>
    [...below.get(a)!].some((next) => next === b || reaches(next, b));
  // In the order of the rooms, whatever the order of the files.
  return [...below].flatMap(([a, direct]) =>
    [...below.keys()]
      .filter((b) => direct.has(b) && ![...direct].some((c) => reaches(c, b)))
      .map((b): [string, string] => [a, b]),
  );
}
