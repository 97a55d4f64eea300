import type { ByteSource } from "../../../platform/platform.ts";

/** Bytes of the length that a safetensors file begins with. */
const PREFIX = 8;

/**
 * A safetensors file that is elsewhere: its header is read there, so that a model can be looked at, and what is asked of it
 * checked, before its weights are fetched; the first read beyond brings the file here.
 *
 * @param fetched brings the file here; called again if it failed
 */
export function headerFirst(remote: ByteSource, fetched: () => Promise<ByteSource>): ByteSource {
  const { name, size } = remote;
  let headerEnd = PREFIX;
  let here: Promise<ByteSource> | undefined;
  const bring = () => {
    here ??= fetched().catch((error: unknown) => {
      here = undefined;
      throw error;
    });
    return here;
  };
  return {
    name,
    size,
    async read(offset, length) {
      if (here || offset + length > headerEnd) return (await bring()).read(offset, length);
      const bytes = await remote.read(offset, length);
      if (offset === 0 && length === PREFIX) {
        const header = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
        headerEnd = PREFIX + Number(header);
      }
      return bytes;
    },
    async close() {
      await remote.close();
      await (await here?.catch(() => undefined))?.close();
    },
  };
}
