import { DeviceLostError, FileError, ImageError, PromptError, SiteError, XpatchError } from "xpatch";
import type { Cell } from "../framework/cell.ts";
import type { CellRecord, CellStore } from "../framework/cell-store.ts";
import { Lab, type LabParts } from "../framework/lab.ts";
import { idOf } from "./cell-names.ts";
import type { Claim, Claims } from "./claims.ts";
import type { PackWriter } from "./pack-writer.ts";
import type { FailedCell, KeptCell, RefusedCell, RunStore } from "./run-store.ts";

/** Where a cell is computed, as it asks for others and keeps files. */
interface Frame {
  readonly needs: Set<string>;
  readonly files: Map<string, Uint8Array<ArrayBuffer>>;
}

export interface GridLabParts extends Omit<LabParts, "store"> {
  readonly kept: RunStore;
  readonly pack: PackWriter;
  readonly claims: Claims;
  /** Called before a cell is computed, also for those that it asks for. */
  readonly onCell?: (key: string) => void;
}

/** Results of other cells that are kept in memory: the same ones are asked for again and again. */
const MOST_KNOWN = 256;

/** A lab whose cells come in any order and from many processes: what a cell asks for and nobody has computed is computed first. */
export class GridLab extends Lab {
  readonly #kept: RunStore;
  readonly #pack: PackWriter;
  readonly #claims: Claims;
  readonly #onCell: (key: string) => void;
  readonly #frames: Frame[];
  /** Files that were made here and are not on the disk yet. */
  readonly #files: Map<string, Uint8Array<ArrayBuffer>>;
  /** The same of cells. */
  readonly #pending = new Map<string, KeptCell | RefusedCell>();
  readonly #known = new Map<string, KeptCell | RefusedCell>();
  readonly #failed = new Map<string, CellFailed>();

  constructor({ kept, pack, claims, onCell = () => {}, ...parts }: GridLabParts) {
    const frames: Frame[] = [];
    const files = new Map<string, Uint8Array<ArrayBuffer>>();
    super({ ...parts, store: storeOf(kept, frames, files) });
    this.#kept = kept;
    this.#pack = pack;
    this.#claims = claims;
    this.#onCell = onCell;
    this.#frames = frames;
    this.#files = files;
  }

  /** Has cells that failed here computed again when they are next asked for. */
  forgetFailures(): void {
    this.#failed.clear();
  }

  /**
   * The result of a cell. Throws {@link CellBusy} while another worker computes it or one that it asks for, {@link CellFailed} for
   * what went wrong, and what the model refuses.
   */
  override async run<R>(cell: Cell<R>): Promise<R> {
    this.#frames.at(-1)?.needs.add(cell.key);
    return resultOf<R>(this.#find(cell.key) ?? (await this.#make(cell)));
  }

  override result<R>(cell: Cell<R>): R {
    this.#frames.at(-1)?.needs.add(cell.key);
    const found = this.#find(cell.key);
    if (found) return resultOf<R>(found);
    throw new CellMissing(cell);
  }

  #find(key: string): KeptCell | RefusedCell | undefined {
    const near = this.#pending.get(key) ?? this.#known.get(key);
    if (near) return near;
    const found = this.#kept.cell(key);
    if (!found) return undefined;
    this.#known.set(key, found);
    if (this.#known.size > MOST_KNOWN) this.#known.delete(this.#known.keys().next().value!);
    return found;
  }

  /** Computes a cell that nobody has finished, and keeps it. */
  async #make(cell: Cell<unknown>): Promise<KeptCell | RefusedCell> {
    const before = this.#failed.get(cell.key);
    if (before) throw before;
    const claim = this.#claims.take(idOf(this.#kept.id, cell.key));
    if (!claim) throw new CellBusy(cell.key);
    try {
      // Another worker may have finished it since this one looked.
      this.#kept.refreshNowAndThen();
      const found = this.#find(cell.key);
      if (!found) return await this.#attempt(cell, claim);
      claim.release();
      return found;
    } catch (error) {
      claim.release();
      throw error;
    }
  }

  async #attempt(cell: Cell<unknown>, claim: Claim): Promise<KeptCell | RefusedCell> {
    for (;;) {
      const frame: Frame = { needs: new Set(), files: new Map() };
      const start = performance.now();
      try {
        const { seconds = 0, ...record } = await this.#framed(frame, cell);
        this.#keepFiles(frame);
        const kept: KeptCell = { ...record, needs: [...frame.needs], files: [...frame.files.keys()] };
        return this.#keep("cell", kept, seconds, claim);
      } catch (error) {
        if (error instanceof CellMissing) {
          await this.#make(error.cell);
          continue;
        }
        if (!isRefusal(error)) throw this.#failure(cell.key, error);
        const { name, message } = error;
        const refused: RefusedCell = { key: cell.key, needs: [...frame.needs], refused: { name, message } };
        return this.#keep("refused", refused, (performance.now() - start) / 1000, claim);
      }
    }
  }

  async #framed(frame: Frame, cell: Cell<unknown>): Promise<CellRecord> {
    this.#frames.push(frame);
    try {
      this.#onCell(cell.key);
      return await this.compute(cell);
    } finally {
      this.#frames.pop();
    }
  }

  #keepFiles({ files }: Frame): void {
    for (const [path, bytes] of files) {
      this.#files.set(path, bytes);
      this.#pack.add("file", idOf(this.#kept.id, path), bytes, 0, (entry) => {
        this.#kept.take(entry);
        this.#files.delete(path);
      });
    }
  }

  /** Writes a finished cell down; its claim is given up once it is on the disk. Returns it as it will be read. */
  #keep<T extends KeptCell | RefusedCell>(
    kind: "cell" | "refused",
    cell: T,
    seconds: number,
    claim: Claim,
  ): T {
    const text = JSON.stringify(cell);
    const read = JSON.parse(text) as T;
    this.#pending.set(cell.key, read);
    this.#pack.add(kind, idOf(this.#kept.id, cell.key), Buffer.from(text), seconds, (entry) => {
      this.#kept.take(entry);
      this.#pending.delete(cell.key);
      claim.release();
    });
    return read;
  }

  /** What went wrong in a cell, written down; what is wrong with the device or the disk is thrown as it is. */
  #failure(key: string, error: unknown): unknown {
    if (error instanceof CellBusy || error instanceof FileError) return error;
    const why =
      error instanceof CellFailed
        ? error.message
        : error instanceof Error
          ? `${error.name}: ${error.message}`
          : String(error);
    const failed: FailedCell = { key, error: why };
    this.#pack.add("failed", idOf(this.#kept.id, key), Buffer.from(JSON.stringify(failed)), 0, (entry) =>
      this.#kept.take(entry),
    );
    if (error instanceof DeviceLostError) return error;
    const told = error instanceof CellFailed ? why : `the cell "${key}" failed: ${why}`;
    const wrapped = new CellFailed(told, { cause: error });
    this.#failed.set(key, wrapped);
    return wrapped;
  }
}

/** Another worker computes the cell, or one that it asks for. */
export class CellBusy extends XpatchError {
  override name = "CellBusy";
  readonly key: string;

  constructor(key: string) {
    super(`the cell "${key}" is being computed by another worker`);
    this.key = key;
  }
}

/** What went wrong in a cell, or in one that it asks for. */
export class CellFailed extends XpatchError {
  override name = "CellFailed";
}

/** A cell asked for another one's result, which is not there yet. */
class CellMissing extends XpatchError {
  override name = "CellMissing";
  readonly cell: Cell<unknown>;

  constructor(cell: Cell<unknown>) {
    super(`the cell "${cell.key}" has not been run`);
    this.cell = cell;
  }
}

const REFUSALS = { SiteError, PromptError, ImageError } as const;

/** What says that a model has no such site, or takes no such prompt or picture. */
export function isRefusal(error: unknown): error is XpatchError {
  return Object.values(REFUSALS).some((type) => error instanceof type);
}

/** The error that a refused cell threw, for whoever asks for it. */
export function refusalOf({ refused: { name, message } }: RefusedCell): XpatchError {
  return new REFUSALS[name as keyof typeof REFUSALS](message);
}

function resultOf<R>(found: KeptCell | RefusedCell): R {
  if ("refused" in found) throw refusalOf(found);
  return found.result as R;
}

/** What cells see of a run: files go with the cell that is being computed, and come from whichever process made them. */
function storeOf(
  kept: RunStore,
  frames: readonly Frame[],
  files: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
): CellStore {
  const unused = () => {
    throw new XpatchError("cells of a grid are asked for by the lab's run and result");
  };
  return {
    records: [],
    has: unused,
    get: unused,
    add: unused,
    keepFile(path, bytes) {
      frames.at(-1)!.files.set(path, Uint8Array.from(bytes));
      return Promise.resolve();
    },
    file: (path) => frames.at(-1)?.files.get(path) ?? files.get(path) ?? new Uint8Array(kept.file(path)),
  };
}
