import { type ExplorerDocument, readDocument } from "./document.ts";
import { DocumentError } from "./read.ts";

/** How the text of a link is made: `1.` and the deflated JSON in base64url. */
const FORMAT = "1";
/** A link of a few kilobytes must not unpack to a machine's memory. */
const MOST_BYTES = 4 * 2 ** 20;

/** A document as the text behind `#…?d=`. */
export async function encodeLink(document: ExplorerDocument): Promise<string> {
  const json = new TextEncoder().encode(JSON.stringify(document));
  const packed = await collect(new Blob([json]).stream().pipeThrough(new CompressionStream("deflate-raw")));
  const binary = Array.from(packed, (byte) => String.fromCharCode(byte)).join("");
  return `${FORMAT}.${btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")}`;
}

/** The document of a link. Throws DocumentError for a text that is none, or of a later format. */
export async function decodeLink(text: string): Promise<ExplorerDocument> {
  const [, format, body] = /^(\w+)\.([\w-]*)$/.exec(text) ?? [];
  if (body === undefined)
    throw new DocumentError("the link is damaged: what it holds is not the state of a page");
  if (format !== FORMAT) {
    throw new DocumentError(
      `the link has format ${format}, of another version of the explorer; this one reads ${FORMAT}`,
    );
  }
  let json: unknown;
  try {
    const binary = atob(body.replaceAll("-", "+").replaceAll("_", "/"));
    const packed = Uint8Array.from(binary, (character) => character.charCodeAt(0));
    const bytes = await collect(
      new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw")),
    );
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    if (cause instanceof DocumentError) throw cause;
    throw new DocumentError("the link is damaged: it was cut off or changed on its way", { cause });
  }
  return readDocument(json);
}

async function collect(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  const reader = stream.getReader(); // Safari does not iterate over streams
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > MOST_BYTES) throw new DocumentError(`the link holds more than ${MOST_BYTES} bytes`);
    parts.push(value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
