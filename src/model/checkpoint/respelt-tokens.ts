import { CheckpointError } from "../../errors.ts";
import { isObject, type JsonObject } from "./json/config-reader.ts";
import { type Folder, readJsonObject } from "./source/folder.ts";
import { memorySource } from "./source/sources.ts";

const TOKENIZER = "tokenizer.json";
const TOKENIZER_CONFIG = "tokenizer_config.json";

/**
 * A folder in whose tokenizer some added tokens are spelt otherwise, by id: a token that a text model never uses becomes the
 * place of an image. Reading its tokenizer.json throws CheckpointError for an id that is no added token, and for a spelling
 * that another token has.
 */
export function respeltTokens(folder: Folder, tokens: ReadonlyMap<number, string>): Folder {
  if (tokens.size === 0) return folder;
  const respell = {
    [TOKENIZER]: respellTokenizer,
    [TOKENIZER_CONFIG]: (config: JsonObject) => respellConfig(config, tokens),
  } as Readonly<
    Record<string, (json: JsonObject, tokens: ReadonlyMap<number, string>, where: string) => JsonObject>
  >;
  return {
    name: folder.name,
    whyMissing: (path) => folder.whyMissing?.(path),
    async open(path) {
      const change = respell[path];
      if (!change) return folder.open(path);
      const json = await readJsonObject(folder, path);
      const where = `${folder.name}/${path}`;
      return (
        json && memorySource(new TextEncoder().encode(JSON.stringify(change(json, tokens, where))), where)
      );
    },
  };
}

function respellTokenizer(json: JsonObject, tokens: ReadonlyMap<number, string>, where: string): JsonObject {
  const added = Array.isArray(json["added_tokens"]) ? json["added_tokens"] : [];
  const model = isObject(json["model"]) ? json["model"] : {};
  const vocab = isObject(model["vocab"]) ? { ...model["vocab"] } : undefined;
  const respelt = new Map<string, string>();
  for (const [id, token] of tokens) {
    const former = added.find((item) => isObject(item) && item["id"] === id);
    if (!former) throw new CheckpointError(`${where}: ${id} is no added token, so it cannot become ${token}`);
    const taken = added.some((item) => isObject(item) && item["content"] === token && item["id"] !== id);
    if (taken || (vocab && token in vocab && vocab[token] !== id)) {
      throw new CheckpointError(
        `${where}: token ${id} cannot become ${token}, which another token is called`,
      );
    }
    respelt.set(former.content, token);
    if (vocab && former.content in vocab) {
      delete vocab[former.content];
      vocab[token] = id;
    }
  }
  return {
    ...json,
    added_tokens: added.map((item) => ({ ...item, content: respelt.get(item.content) ?? item.content })),
    ...(vocab && { model: { ...model, vocab } }),
  };
}

/** `added_tokens_decoder`, which some files have beside tokenizer.json. */
function respellConfig(config: JsonObject, tokens: ReadonlyMap<number, string>): JsonObject {
  const decoder = config["added_tokens_decoder"];
  if (!isObject(decoder)) return config;
  const respelt = Object.entries(decoder).map(([id, item]) => {
    const content = tokens.get(Number(id));
    return [id, content !== undefined && isObject(item) ? { ...item, content } : item];
  });
  return { ...config, added_tokens_decoder: Object.fromEntries(respelt) };
}
