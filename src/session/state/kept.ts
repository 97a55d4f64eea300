import { SessionError } from "../../errors.ts";
import type { RgbImage } from "../../images/files/rgb.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { PromptImage } from "../../model/prompt/prompt-image.ts";
import type { Recording } from "../../patching/recording.ts";
import type { Bounds } from "../messages/results.ts";
import type { Handle } from "../messages/values.ts";
import type { SharedModel } from "./engine.ts";
import type { StoredVector } from "./stored-vector.ts";

/** What handles of each kind stand for. */
interface Kinds {
  readonly model: SharedModel;
  readonly prompt: Prompt<PromptImage>;
  readonly picture: RgbImage;
  readonly recording: { readonly recording: Recording; readonly model: SharedModel };
  readonly vector: StoredVector;
}

type Kind = keyof Kinds;

interface Entry {
  readonly kind: Kind;
  readonly value: Kinds[Kind];
  readonly free: () => void;
  /** Those that it keeps in memory. */
  readonly pictures: readonly RgbImage[];
}

/** What the host keeps for one client, by handle. */
export class Kept {
  readonly #entries = new Map<string, Entry>();
  readonly #bounds: Pick<Bounds, "handles" | "pictureBytes">;
  /** By how many entries each picture is kept, and the bytes of them all. */
  readonly #pictures = new Map<RgbImage, number>();
  #pictureBytes = 0;
  #last = 0;
  #ended = false;

  constructor(bounds: Pick<Bounds, "handles" | "pictureBytes">) {
    this.#bounds = bounds;
  }

  get size(): number {
    return this.#entries.size;
  }

  /**
   * Throws SessionError, and frees the thing at once, where there are as many as the host keeps, or the client is gone.
   *
   * @param pictures what it keeps in memory; those that several things have count once
   */
  add<K extends Kind>(
    kind: K,
    value: Kinds[K],
    { free = () => {}, pictures = [] }: { free?: () => void; pictures?: readonly RgbImage[] } = {},
  ): `${K}:${string}` {
    const problem = this.#problem(pictures);
    if (problem) {
      free();
      throw problem;
    }
    for (const picture of pictures) {
      const count = this.#pictures.get(picture) ?? 0;
      this.#pictures.set(picture, count + 1);
      if (count === 0) this.#pictureBytes += bytesOf(picture);
    }
    this.#last += 1;
    const handle = `${kind}:${this.#last}` as const;
    this.#entries.set(handle, { kind, value, free, pictures });
    return handle;
  }

  #problem(pictures: readonly RgbImage[]): SessionError | undefined {
    const { handles, pictureBytes } = this.#bounds;
    if (this.#ended) return new SessionError("the client has gone away", { code: "closed" });
    if (this.#entries.size >= handles) {
      return new SessionError(`expected at most ${handles} handles at a time; free some first`, {
        code: "bounds",
      });
    }
    const added = [...new Set(pictures)].filter((picture) => !this.#pictures.has(picture));
    const bytes = added.reduce((sum, picture) => sum + bytesOf(picture), this.#pictureBytes);
    if (bytes <= pictureBytes) return undefined;
    return new SessionError(
      `expected at most ${pictureBytes} bytes of unpacked pictures at a time, found ${bytes}; free some first`,
      { code: "bounds" },
    );
  }

  /** Throws SessionError for handles of another kind and those that are none, or no longer. */
  get<K extends Kind>(kind: K, handle: unknown): Kinds[K] {
    const entry = typeof handle === "string" ? this.#entries.get(handle) : undefined;
    if (entry?.kind === kind) return entry.value as Kinds[K];
    const found = typeof handle === "string" ? JSON.stringify(handle.slice(0, 40)) : typeof handle;
    throw new SessionError(`there is no ${kind} ${found} in this session`, { code: "handle" });
  }

  has(handle: string): boolean {
    return this.#entries.has(handle);
  }

  /** Handles of a kind. */
  of<K extends Kind>(kind: K): [handle: Handle, value: Kinds[K]][] {
    return [...this.#entries]
      .filter(([, entry]) => entry.kind === kind)
      .map(([handle, { value }]) => [handle as Handle, value as Kinds[K]]);
  }

  /** Throws SessionError for what is no handle. */
  free(handle: unknown): void {
    const entry = this.#entries.get(handle as string);
    if (!entry)
      throw new SessionError(`there is no ${String(handle).slice(0, 40)} in this session`, {
        code: "handle",
      });
    this.#entries.delete(handle as string);
    for (const picture of entry.pictures) {
      const count = this.#pictures.get(picture)! - 1;
      if (count > 0) this.#pictures.set(picture, count);
      else if (this.#pictures.delete(picture)) this.#pictureBytes -= bytesOf(picture);
    }
    entry.free();
  }

  /** Frees everything, and keeps nothing any more. */
  end(): void {
    this.#ended = true;
    // What came last may be made of what came first.
    for (const { free } of [...this.#entries.values()].reverse()) free();
    this.#entries.clear();
    this.#pictures.clear();
  }
}

function bytesOf({ data, opaque }: RgbImage): number {
  return data.length + (opaque?.length ?? 0);
}
