import { tokenTexts } from "../../analysis/token-texts.ts";
import type { RgbImage } from "../../images/files/rgb.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import {
  hashPrompts,
  type ImageSpan,
  type Prompt,
  patchPositions,
  wholeSpan,
} from "../../model/prompt/prompt.ts";
import { type PromptImage, picturesOf } from "../../model/prompt/prompt-image.ts";
import type { SeenPicture, TokenList } from "../messages/results.ts";
import { readPicture } from "../read/picture.ts";
import { readPrompt } from "../read/prompt.ts";
import type { Handler, Work } from "../read/work.ts";
import { isLarge, OWN_CHORES } from "../state/chores.ts";
import { modelOf } from "./models.ts";

export const picture: Handler<"picture"> = async (work, { image }) => {
  const read = await readPicture(work, image);
  return {
    picture: work.kept.add("picture", read, { pictures: [read] }),
    width: read.width,
    height: read.height,
  };
};

export const encode: Handler<"encode"> = async (work, { model: handle, prompt: ref, views = false }) => {
  const model = modelOf(work, handle);
  const prompt = await readPrompt(work, model, ref);
  work.signal.throwIfAborted();
  const pictures = await seenPictures(work, model, prompt, views);
  work.signal.throwIfAborted();
  return {
    prompt: work.kept.add("prompt", prompt, { pictures: picturesIn(prompt) }),
    text: prompt.text,
    bos: prompt.bos,
    ...tokensOf(model, prompt),
    spans: prompt.spans,
    pictures,
    ...(model.config.encoder && { sequence: tokensOf(model, model.sequenceOf(prompt)) }),
    hash: hashPrompts([prompt]),
  };
};

function tokensOf({ tokenizer }: ModelOutline, { ids, tokens }: Prompt): TokenList {
  return { ids, tokens, texts: tokenTexts(tokenizer, { ids, tokens }) };
}

async function seenPictures(
  { chores }: Work,
  model: ModelOutline,
  prompt: Prompt<PromptImage>,
  views: boolean,
): Promise<SeenPicture[]> {
  const seen: SeenPicture[] = [];
  for (const [i, image] of picturesOf(prompt).entries()) {
    // Those of requests always are pictures; pixel values are not.
    if ("shape" in image) continue;
    const name = i === 0 ? "image" : `image${i + 1}`;
    const span = prompt.spans[name];
    const patches = span && patchesOf(span);
    const { width, height } = image;
    const by = isLarge(image) ? chores : OWN_CHORES;
    const view = views ? await by.view(image, model.config.vision!.processor) : undefined;
    seen.push({ span: name, width, height, ...(view && { view }), ...(patches && { patches }) });
  }
  return seen;
}

function patchesOf(span: ImageSpan): SeenPicture["patches"] {
  const whole = wholeSpan(span);
  return whole.grid && { ...whole.grid, positions: patchPositions(whole) };
}

function picturesIn(prompt: Prompt<PromptImage>): RgbImage[] {
  return picturesOf(prompt).filter((picture): picture is RgbImage => !("shape" in picture));
}
