import { spawnSync } from "node:child_process";
import { realpathSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { OutsideProject, ROOT } from "../helpers/outside-project.ts";

let project: OutsideProject;
beforeAll(() => {
  project = OutsideProject.create();
  project.write("index.ts", PROGRAM);
  project.write("session.ts", SESSION_PROGRAM);
  project.write("browser.ts", BROWSER_PROGRAM);
  project.write("gpu.ts", GPU_PROGRAM);
  for (const types of ["@webgpu/types", "@types/node", "undici-types"]) project.link(types);
});
afterAll(() => project?.remove());

/** What README.md shows, and lines that have to be errors: types that had turned into `any` would accept them. */
const PROGRAM = `
import { type ByteSource, type Folder, loadImage, loadModel, openCheckpoint, openDevice, set, tap } from "xpatch";
const device = await openDevice();
const model = await loadModel("org/name", { device });
const prompt = model.prompt("Q: Norway\\nA:");
const { v } = model.run(prompt, { taps: { v: tap("resid_post.22", -1) }, stopAfter: 22 });
const answer = await model.generate(prompt, { maxNewTokens: 1, edits: [set("resid_post.22", -1, v)] });
export const text: string = answer.text;
export const folder: Folder = { name: "own", open: async (path: string): Promise<ByteSource | undefined> => undefined };
{
  using other = await loadModel(folder, { device });
  await using checkpoint = await openCheckpoint(folder);
  console_(other.family, checkpoint.names);
}
const image = await loadImage(new Uint8Array(8));
model.prompt(["Q:", image]);
declare function console_(...values: unknown[]): void;
// @ts-expect-error: no number
await loadImage(5);
// @ts-expect-error: no such option
await loadModel("org/name", { devices: device });
// @ts-expect-error: a string
export const number: number = answer.text;
`;

const SESSION_PROGRAM = `
import { connectSocket, type ModelHandle, SessionClient, SessionError } from "xpatch/session";
import { SessionHost } from "xpatch/session/host";
const session = await SessionClient.open(await connectSocket("http://127.0.0.1:8265/#token=x"));
const { model } = await session.load({ ref: "xpatch:vlm" }, { onProgress: ({ done }) => { done.toFixed(); } });
export const handle: ModelHandle = model;
const { top } = await session.run({ model, prompt: { parts: ["Q:", { text: "Norway", name: "x" }] } });
export const text: string = top[0]!.text;
export const host = new SessionHost({ name: "own", place: "process" });
export const code: string = new SessionError("x", { code: "bounds" }).code;
// @ts-expect-error: no handle of a model
await session.run({ model: "prompt:1", prompt: { parts: "x" } });
// @ts-expect-error: no such request
await session.request("walk", {});
`;

const BROWSER_PROGRAM = `
import { loadImage, loadModel, openDevice, heatFigure, blobSource } from "xpatch";
export const picture = await loadImage(document.createElement("canvas"));
export const file = await loadImage(new Blob([]));
export const source = blobSource(new Blob([]), "x");
export const model = await loadModel("./model", { device: await openDevice(), fetch: window.fetch.bind(window) });
export const drawn: Promise<Uint8Array> = heatFigure({ rows: ["a"], columns: [1], values: [[1]] }).png();
// @ts-expect-error: not something that can be drawn
await loadImage(document.createElement("div"));
// @ts-expect-error: not a Blob
blobSource("x", "x");
`;

const GPU_PROGRAM = `
import { Device, openDevice } from "xpatch";
const device = await openDevice();
export const buffer: GPUBuffer = device.gpu.createBuffer({ size: 4, usage: 8 });
export const shared = new Device(device.gpu);
// @ts-expect-error: no such method
device.gpu.createBuffers;
`;

test("models that come along open by name in a project of one's own", () => {
  const program = `
    import { openCheckpoint } from "xpatch";
    const checkpoint = await openCheckpoint("xpatch:vlm");
    console.log(checkpoint.name, checkpoint.adapters.map(({ name }) => name).join());
    await checkpoint.close();
    // As where set-up has never run.
    process.env.XPATCH_CACHE = "no-cache";
    await openCheckpoint("xpatch:llm").catch((error) => console.log(String(error)));`;
  project.write("names.mjs", program);
  const given = { cwd: project.folder, encoding: "utf8" } as const;
  const { stdout, stderr } = spawnSync(process.execPath, ["names.mjs"], given);
  const installed = join(realpathSync(project.folder), "node_modules", "xpatch");
  expect(stdout.trim().split("\n"), stderr).toEqual([
    "xpatch:vlm xpatch:llm,xpatch:vlm/adapter",
    expect.stringContaining(`"npm run setup -- model" in ${installed} fetches it`),
  ]);
  // As that command does, set-up leaves alone what came with the package.
  const setup = spawnSync(process.execPath, [join(installed, "scripts", "setup.mjs"), "auto"], given);
  expect(setup.stderr).toBe("");
  expect(setup.stdout).toMatch(/^adapter: ./);
});

/** What the compiler has to say about files of the project. */
function compile(compiler: string, files: readonly string[], options: object): string {
  const strict = { noEmit: true, strict: true, skipLibCheck: false, target: "es2023" };
  project.write("tsconfig.json", JSON.stringify({ compilerOptions: { ...strict, ...options }, files }));
  const tsc = join(ROOT, "node_modules", compiler, "bin", "tsc");
  const { stdout, stderr } = spawnSync(process.execPath, [tsc, "-p", "."], {
    cwd: project.folder,
    encoding: "utf8",
  });
  return stdout + stderr;
}

const MODULES = {
  nodenext: { module: "nodenext" },
  bundler: { module: "esnext", moduleResolution: "bundler" },
};
const DOM = ["es2023", "dom"];

describe.each([
  // TypeScript's own DOM library has WebGPU's types since version 6, and then @webgpu/types contradicts them.
  { compiler: "typescript", gpuTypes: [] },
  { compiler: "typescript-5.9", gpuTypes: ["@webgpu/types"] },
])("a project of one's own compiles with $compiler", ({ compiler, gpuTypes }) => {
  test.each<[name: string, module: keyof typeof MODULES, files: string[], types: string[], lib: string[]]>([
    ["no library but the language's", "nodenext", ["index.ts", "session.ts"], [], ["es2023"]],
    ["no library but the language's", "bundler", ["index.ts"], [], ["es2023"]],
    ["the DOM", "bundler", ["session.ts", "browser.ts"], [], DOM],
    ["the DOM", "nodenext", ["browser.ts"], [], DOM],
    ["Node's types", "nodenext", ["session.ts", "index.ts"], ["node"], ["es2023"]],
    ["WebGPU's types", "bundler", ["gpu.ts"], gpuTypes, DOM],
  ])("with %s, module %s", (_, module, files, types, lib) => {
    expect(compile(compiler, files, { ...MODULES[module], types, lib })).toBe("");
  });
});
