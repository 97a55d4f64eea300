import type { Fetch } from "../../../platform/global-types.ts";

/** A fetch that says how many bytes of bodies have come in all. */
export function countingFetch(fetch: Fetch, onBytes: (bytes: number) => void): Fetch {
  let received = 0;
  return async (input, init) => {
    const response = await fetch(input, init);
    if (!response.body) return response;
    const count = new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        received += chunk.byteLength;
        onBytes(received);
        controller.enqueue(chunk);
      },
    });
    const { status, statusText, headers, url } = response;
    const copy = new Response(response.body.pipeThrough(count), { status, statusText, headers });
    // A response that was made by hand has none.
    return Object.defineProperty(copy, "url", { value: url });
  };
}
