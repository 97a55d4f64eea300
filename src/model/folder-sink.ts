/** Takes one file after the other; has to have consumed the chunks when its promise resolves. */
export interface FolderSink {
  write(fileName: string, chunks: AsyncIterable<Uint8Array>): Promise<void>;
}

/** The bytes of a JSON file. */
export async function* jsonFile(value: object): AsyncGenerator<Uint8Array, void, undefined> {
  yield new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
}
