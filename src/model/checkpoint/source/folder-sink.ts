import { withWholeFloats } from "../json/whole-floats.ts";

/** Takes one file after the other; has to have consumed the chunks when its promise resolves. */
export interface FolderSink {
  /** Writes a file from its chunks, which it has consumed when the promise resolves. */
  write(fileName: string, chunks: AsyncIterable<Uint8Array>): Promise<void>;
}

/** The bytes of a JSON file; whole floats of `parseWholeFloats` stay floats. */
export async function* jsonFile(value: object): AsyncGenerator<Uint8Array, void, undefined> {
  yield new TextEncoder().encode(withWholeFloats(`${JSON.stringify(value, null, 2)}\n`));
}
