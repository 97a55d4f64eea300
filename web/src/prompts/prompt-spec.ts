import type { SessionClient } from "../../../src/session/client.ts";
import type { PictureHandle, PictureSpec, PromptSpec } from "../../../src/session/messages/values.ts";
import { findFile, takePicture } from "../pictures/own-pictures.ts";
import type { PictureRef } from "../pictures/picture-ref.ts";
import type { PromptDoc } from "./prompt-doc.ts";

/** Decoded pictures that a host keeps for the page; each takes three bytes a pixel there. */
const MOST_HANDLES = 8;

/** By session, then by the file's hash, those that were sent first in front. */
const sent = new WeakMap<SessionClient, Map<string, Promise<PictureHandle>>>();

/** A prompt of the document as the session takes it. Throws ImageError where a picture is not in this browser. */
export async function promptSpec(client: SessionClient, prompt: PromptDoc): Promise<PromptSpec> {
  if (prompt.kind === "task") {
    const { task, input, asked, specify, count, seed } = prompt;
    return { task, input, asked, specify: { kind: specify, count, seed } };
  }
  const parts: (string | { readonly image: PictureSpec })[] = [];
  for (const piece of prompt.pieces) {
    if ("picture" in piece) parts.push({ image: await sentPicture(client, piece.picture) });
    else if (piece.text !== "") parts.push(piece.text);
  }
  if (!prompt.chat) return { parts };
  const content = parts.map((part) =>
    typeof part === "string"
      ? { type: "text" as const, text: part }
      : { type: "image" as const, image: part.image },
  );
  return { chat: [{ role: "user", content }], addGenerationPrompt: true };
}

/** A picture as requests take it; a file is sent and decoded once for all of them. */
export async function sentPicture(client: SessionClient, picture: PictureRef): Promise<PictureSpec> {
  if (picture.kind === "task") return { task: picture.task, input: picture.input };
  let known = sent.get(client);
  if (!known) {
    known = new Map();
    sent.set(client, known);
  }
  const before = known.get(picture.hash);
  if (before) return before;
  const sending = send(client, await findFile(picture));
  known.set(picture.hash, sending);
  sending.catch(() => known.delete(picture.hash));
  const [oldest] = known;
  if (known.size > MOST_HANDLES && oldest) {
    known.delete(oldest[0]);
    void oldest[1].then((handle) => client.free([handle])).catch(() => {});
  }
  return sending;
}

async function send(client: SessionClient, file: Blob): Promise<PictureHandle> {
  const image = new Uint8Array(await file.arrayBuffer());
  return (await client.picture({ image })).picture;
}

/** Takes a reader's picture in once the session has decoded it. Throws what is wrong with it, by its name. */
export async function takeReadable(client: SessionClient, file: File): Promise<PictureRef> {
  const name = file.name || "pasted picture";
  const picture = await takePicture(file, name);
  try {
    await sentPicture(client, picture);
  } catch (cause) {
    throw new Error(`${name}: ${(cause as Error).message}`, { cause });
  }
  return picture;
}
