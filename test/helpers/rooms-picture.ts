import { type Import, NODE_ONLY, ROOMS, roomOf } from "./rooms.ts";

/** Folders whose rooms share a box. */
const HALLS = ["src/kernels", "src/model/checkpoint", "src/cli"];

/** What is in a room that is a box by itself. */
export const CONTENTS: Readonly<Record<string, string>> = {
  "src/platform": "Node or browser: adapters, files, fonts",
  "src/tensor": "device, tensors, buffers, how a kernel is declared",
  "src/images": "decode, resize, preprocess",
  "src/model/prompt": "tokenizers, chat templates, prompts",
  "src/model/walk": "sites, row maps, passes, masks, KV cache, generation",
  "src/model/layers": "attention, MLPs, norms, blocks, towers",
  "src/model/families": "a file a family",
  "src/model": "load a language model or a dual encoder",
  "src/model/export": "write a model as one folder",
  "src/patching": "taps, edits, runs, recordings, reach, resumed runs",
  "src/tasks": "task files, few-shot prompts, scores",
  "src/analysis": "task vectors, sweeps, lenses, attention maps",
  "src/figures": "drawings",
  "src/index.ts": "the public API",
  "src/parity": "against transformers and the paper's program",
  experiments: "the paper's experiments and their report",
};

const BOX = { width: 330, height: 40 };
const STEP = { x: BOX.width + 30, y: BOX.height + 30 };
const MARGIN = 20;
/** Between arrows that pass on the right of all boxes. */
const LINE = 24;

interface Box {
  readonly name: string;
  /** Names of the rooms in it, where there are several. */
  readonly parts: readonly string[];
  readonly nodeOnly: boolean;
  /** The longest way down, in arrows, to a box that imports nothing. */
  readonly row: number;
  readonly lane: number;
}

interface Arrow {
  readonly from: Box;
  readonly to: Box;
  /** Where it goes past the rows between the two. */
  readonly lane: number;
}

/**
 * The rooms as SVG, the ground at the bottom. An arrow says that a room imports another; one that follows from the others
 * (a imports b, b imports c) is left out.
 */
export function drawRooms(imports: readonly Import[]): string {
  const below = edges(imports);
  const boxes = placed(below);
  const arrows = routed(boxes, reduced(below));
  const rows = Math.max(...[...boxes.values()].map(({ row }) => row));
  const lanes = 1 + Math.max(...[...boxes.values()].map(({ lane }) => lane));
  const right = MARGIN + (lanes - 1) * STEP.x + BOX.width;
  const beside = Math.max(0, ...arrows.map(({ lane }) => lane - lanes + 1));
  const width = right + beside * LINE + MARGIN;
  const height = 2 * MARGIN + rows * STEP.y + BOX.height;
  const middle = (lane: number) =>
    lane < lanes ? MARGIN + lane * STEP.x + BOX.width / 2 : right + (lane - lanes + 1) * LINE;
  const top = (row: number) => MARGIN + (rows - row) * STEP.y;
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="DejaVu Sans, Verdana, sans-serif" text-anchor="middle">`,
    "<title>The rooms of xpatch and what imports what</title>",
    '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8Z" fill="#555"/></marker></defs>',
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    ...arrows.map(
      (arrow) =>
        `<path d="${path(arrow, middle, top)}" fill="none" stroke="#555" stroke-width="1.3" marker-end="url(#head)"/>`,
    ),
    ...[...boxes.values()].flatMap((box) => drawn(box, middle(box.lane), top(box.row))),
    "</svg>",
  ];
  return `${lines.join("\n")}\n`;
}

/** The box of a room: a hall, the files on the ground, or itself. */
function boxOf(room: string): string {
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

/** Rows by the longest way down; in a row the boxes of the longest chain come first. */
function placed(below: ReadonlyMap<string, ReadonlySet<string>>): Map<string, Box> {
  const down = (name: string): number => Math.max(0, ...[...below.get(name)!].map((b) => down(b) + 1));
  const up = (name: string): number =>
    Math.max(0, ...[...below].filter(([, direct]) => direct.has(name)).map(([a]) => up(a) + 1));
  const names = [...below.keys()].sort((a, b) => up(b) + down(b) - up(a) - down(a));
  const taken: number[] = [];
  const boxes = names.map((name): [string, Box] => {
    const row = down(name);
    const lane = taken[row] ?? 0;
    taken[row] = lane + 1;
    const parts = ROOMS.filter((room) => boxOf(room) === name && room !== name);
    const inside = parts.map((part) => part.slice(name.length + 1).replace(/\.ts$/, ""));
    return [name, { name, parts: inside, nodeOnly: NODE_ONLY.test(name), row, lane }];
  });
  return new Map(boxes);
}

/** An arrow that passes rows does so where no box and no other such arrow is. */
function routed(boxes: ReadonlyMap<string, Box>, pairs: readonly [string, string][]): Arrow[] {
  const taken = new Set([...boxes.values()].map(({ row, lane }) => `${row} ${lane}`));
  return pairs.map(([a, b]) => {
    const [from, to] = [boxes.get(a)!, boxes.get(b)!];
    const between = Array.from({ length: from.row - to.row - 1 }, (_, i) => to.row + 1 + i);
    let lane = between.length === 0 ? from.lane : Math.max(from.lane, to.lane);
    while (between.some((row) => taken.has(`${row} ${lane}`))) lane++;
    for (const row of between) taken.add(`${row} ${lane}`);
    return { from, to, lane };
  });
}

function path(
  { from, to, lane }: Arrow,
  middle: (lane: number) => number,
  top: (row: number) => number,
): string {
  const gap = STEP.y - BOX.height;
  // Arrows that come from the side have a place of their own.
  const aside = (own: number, other: number) => middle(own) + (Math.sign(other - own) * BOX.width) / 4;
  const next = from.row - to.row === 1;
  const start = { x: aside(from.lane, next ? to.lane : lane), y: top(from.row) + BOX.height };
  const end = { x: aside(to.lane, next ? from.lane : lane), y: top(to.row) };
  const bend = (a: { x: number; y: number }, b: { x: number; y: number }) =>
    `C${a.x} ${(a.y + b.y) / 2} ${b.x} ${(a.y + b.y) / 2} ${b.x} ${b.y}`;
  if (next) return `M${start.x} ${start.y}${bend(start, end)}`;
  const enter = { x: middle(lane), y: start.y + gap };
  const leave = { x: middle(lane), y: end.y - gap };
  return `M${start.x} ${start.y}${bend(start, enter)}V${leave.y}${bend(leave, end)}`;
}

function drawn({ name, parts, nodeOnly }: Box, middle: number, y: number): string[] {
  const title = name === "src" ? parts.map((part) => `${part}.ts`).join(", ") : name.replace("src/", "");
  const [fill, stroke] = nodeOnly ? ["#fdf0d8", "#b98a2e"] : ["#e4eefa", "#4a76a8"];
  const inside = name === "src" ? "" : (CONTENTS[name] ?? parts.join(" · "));
  const text = (line: string, at: number, style: string) =>
    `<text x="${middle}" y="${at}" ${style}>${line}</text>`;
  return [
    `<rect x="${middle - BOX.width / 2}" y="${y}" width="${BOX.width}" height="${BOX.height}" rx="5" fill="${fill}" stroke="${stroke}"/>`,
    text(title, y + (inside ? 17 : 25), 'font-size="13" font-weight="bold"'),
    ...(inside ? [text(inside, y + 32, 'font-size="9.5" fill="#333"')] : []),
  ];
}
