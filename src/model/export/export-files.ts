import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { isObject, type JsonObject } from "../checkpoint/json/config-reader.ts";
import { parseWholeFloats } from "../checkpoint/json/whole-floats.ts";
import { type FolderSink, jsonFile } from "../checkpoint/source/folder-sink.ts";
import { exportedGeneration, exportedPreprocessor, exportedTokenizerConfig } from "./export-config.ts";

/** Files of a tokenizer that go along as they are. */
const TOKENIZER = ["tokenizer.json", "special_tokens_map.json"];
/** Those of a folder that go along as they are, whatever is done to the others. */
const COPIED = [
  ...TOKENIZER,
  ...["chat_template.jinja", "chat_template.json", "processor_config.json", "generation_config.json"],
];
/** Those that go along as well where nothing is respelt. */
const KEPT = [
  "tokenizer_config.json",
  "added_tokens.json",
  "preprocessor_config.json",
  "video_preprocessor_config.json",
];

/** Everything but weights and config.json, such that transformers 4.46 and 5 make the same of it. */
export async function writeRespeltFiles(
  checkpoint: Checkpoint,
  config: JsonObject,
  ownProcessor: JsonObject | undefined,
  sink: FolderSink,
): Promise<void> {
  await copy(checkpoint, COPIED, sink);
  const template = await checkpoint.text("chat_template.jinja");
  const tokenizer = (await wholeJson(checkpoint, "tokenizer_config.json")) ?? {};
  await sink.write("tokenizer_config.json", jsonFile(exportedTokenizerConfig(tokenizer, template)));
  const processor = await wholeJson(checkpoint, "processor_config.json");
  const given = await wholeJson(checkpoint, "preprocessor_config.json");
  const preprocessor = exportedPreprocessor(given, processor);
  if (preprocessor) await sink.write("preprocessor_config.json", jsonFile(preprocessor));
  if (ownProcessor && !processor) await sink.write("processor_config.json", jsonFile(ownProcessor));
  if ((await checkpoint.text("generation_config.json")) === undefined) {
    await sink.write("generation_config.json", jsonFile(exportedGeneration(config)));
  }
}

/** Everything but weights and config.json as it is; `tokenizers` are folders of further tokenizers. */
export async function copyFiles(
  checkpoint: Checkpoint,
  tokenizers: readonly string[],
  sink: FolderSink,
): Promise<void> {
  const further = tokenizers.flatMap((folder) =>
    [...TOKENIZER, "tokenizer_config.json", "added_tokens.json"].map((file) => `${folder}/${file}`),
  );
  await copy(checkpoint, [...COPIED, ...KEPT, ...further], sink);
}

async function copy(checkpoint: Checkpoint, paths: readonly string[], sink: FolderSink): Promise<void> {
  for (const path of paths) {
    const text = await checkpoint.text(path);
    if (text !== undefined) await sink.write(path, textFile(text));
  }
}

/** A file of JSON, floats being kept floats; undefined when there is none or it is no object. */
export async function wholeJson(checkpoint: Checkpoint, path: string): Promise<JsonObject | undefined> {
  const text = await checkpoint.text(path);
  const json = text === undefined ? undefined : parseWholeFloats(text);
  return isObject(json) ? json : undefined;
}

async function* textFile(text: string): AsyncGenerator<Uint8Array, void, undefined> {
  yield new TextEncoder().encode(text);
}
