/** Divides what the public API exports by the rooms it comes from, a module of the reference each. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative, sep } from "node:path";

/** What is said above each room's exports. Names of the reference's modules, in the order of the sidebar. */
export const ROOMS = {
  patching: "Load a model, run it with taps and edits, generate, record and resume. Import from `xpatch`.",
  "analysis/vectors":
    "Task vectors: extract them, patch them in, choose a layer, test the transfer; steering and subspaces. Import from `xpatch`.",
  "analysis/maps":
    "What moves an answer: activation, path and attribution patching, attention knockout. Import from `xpatch`.",
  "analysis/heads": "Attention maps, head rankings, function vectors. Import from `xpatch`.",
  "analysis/lens": "Logit lens, tuned lens, direct logit attribution. Import from `xpatch`.",
  "analysis/autoencoders":
    "Sparse autoencoders of SAELens: encode, decode, edit latents. Import from `xpatch`.",
  activations: "Stores of activations on disk: collect, resume, read back. Import from `xpatch`.",
  figures: "What the analyses find, as pictures. Import from `xpatch`.",
  tasks: "Task files, few-shot prompts and scores. Import from `xpatch`.",
  training: "AdamW, LoRA and a trainer. Import from `xpatch`.",
  model: "Models as they are loaded, and their options. Import from `xpatch`.",
  "model/prompt": "Tokenizers, chat templates and prompts. Import from `xpatch`.",
  "model/walk": "Names of activations, and what passes through them. Import from `xpatch`.",
  "model/layers": "Names of weights. Import from `xpatch`.",
  "model/checkpoint": "Checkpoints: safetensors, GGUF, configs, where files come from. Import from `xpatch`.",
  "model/export": "Write a loaded model as a checkpoint. Import from `xpatch`.",
  images: "Decode, resize and preprocess pictures. Import from `xpatch`.",
  profile: "What a pass costs, by kernel and by layer. Import from `xpatch`.",
  tensor: "Devices and tensors. Import from `xpatch`.",
  gradient: "Gradients of any tensor program. Import from `xpatch`.",
  "kernels/elementwise":
    "Arithmetic, comparisons, activation functions, random numbers. Import from `xpatch`.",
  "kernels/movement": "Copies, casts, gathers, scatters, and edits of rows. Import from `xpatch`.",
  "kernels/reduction": "Sums, norms, softmax, the largest values. Import from `xpatch`.",
  "kernels/matmul": "Products of matrices. Import from `xpatch`.",
  "kernels/attention": "Attention, its pattern, rotary embeddings. Import from `xpatch`.",
  platform: "What differs between Node and browsers. Import from `xpatch`.",
  errors: "What xpatch throws. Import from `xpatch`.",
};

/** Modules with an address of their own. */
export const SESSION = {
  session: [
    "src/session/index.ts",
    "Talk to a session of `xpatch serve`, of a worker or of this process. Import from `xpatch/session`.",
  ],
  "session/host": ["src/session/host.ts", "Host sessions in a program. Import from `xpatch/session/host`."],
};

/** Writes an entry point for each room into `folder`; gives their paths in order. */
export function writeEntries(checkout, folder) {
  mkdirSync(folder, { recursive: true });
  const pathTo = (file) => JSON.stringify(relative(folder, join(checkout, file)).split(sep).join("/"));
  const entry = (name, about, body) => {
    const path = join(folder, `${name.replaceAll("/", "-")}.ts`);
    writeFileSync(path, `/**\n * ${about}\n * @module ${name}\n * @group Reference\n */\n${body}\n`);
    return path;
  };
  const exported = exportsOf(readFileSync(join(checkout, "src", "index.ts"), "utf8"));
  const rooms = Object.entries(ROOMS).map(([room, about]) => {
    const lines = exported
      .filter(({ path }) => roomOf(path) === room)
      .map(({ path, statement }) => `${statement} from ${pathTo(join("src", path))};`);
    return entry(room, about, lines.join("\n"));
  });
  const others = Object.entries(SESSION).map(([name, [path, about]]) =>
    entry(name, about, `export * from ${pathTo(path)};`),
  );
  return [...rooms, ...others];
}

/** What a module exports of others: `statement` is what stands before `from`. */
export function exportsOf(source) {
  return Array.from(
    source.matchAll(/^(export (?:type )?(?:\{[^}]*\}|\*)) from "([^"]+)";$/gm),
    ([, statement, path]) => ({ statement, path }),
  );
}

/** "./kernels/matmul/linear.ts" is of kernels/matmul, "./figures/show.ts" of figures. */
export function roomOf(path) {
  const [first, second, ...rest] = path.slice(2).replace(/\.ts$/, "").split("/");
  const divided = ["analysis", "kernels", "model"].includes(first) && rest.length > 0;
  return divided ? `${first}/${second}` : first;
}
