import { join } from "node:path";
import { FileError, XpatchError } from "xpatch";
import { FolderLock } from "../../framework/folder-lock.ts";
import { connect } from "./connection.ts";
import { queueFolder } from "./queue-folder.ts";
import type { RedisAddress } from "./redis-address.ts";
import { addressIn, RedisServer } from "./redis-server.ts";

/** How often one that has joined looks whether the server needs somebody who runs it. */
const LOOK_MS = 1000;
/** Starts in a row of a server that ends by itself. */
const MOST_STARTS = 5;
/** How long a server that was up for this long counts as one that works. */
const WORKS_MS = 60_000;

/** Where the server of a store's own keeps its address and its log. */
export function serverFolder(store: string): string {
  return join(queueFolder(store), "redis");
}

/**
 * The server of a store's own: started, or joined where another process of this machine runs it. It is started again when it
 * ends by itself, and when the process that runs it ends, whoever joined goes on with it: at the same address, from its log.
 */
export class OwnServer {
  readonly #folder: string;
  readonly #note: (text: string) => void;
  readonly #onLost: (error: Error) => void;
  #lock: FolderLock | undefined;
  #server: RedisServer | undefined;
  #timer: NodeJS.Timeout | undefined;
  #starting: Promise<void> | undefined;
  #starts = 0;
  #isClosed = false;

  private constructor(folder: string, note: (text: string) => void, onLost: (error: Error) => void) {
    this.#folder = folder;
    this.#note = note;
    this.#onLost = onLost;
  }

  /**
   * @param onLost - Called when the server cannot be kept up.
   * @throws XpatchError where it can be neither started nor joined
   */
  static async open(
    store: string,
    note: (text: string) => void,
    onLost: (error: Error) => void = () => {},
  ): Promise<OwnServer> {
    const own = new OwnServer(serverFolder(store), note, onLost);
    try {
      own.#lock = FolderLock.take(own.#folder);
    } catch (error) {
      if (!(error instanceof FileError)) throw error;
      await own.#join(error);
      return own;
    }
    try {
      await own.#start();
    } catch (error) {
      own.#lock[Symbol.dispose]();
      throw error;
    }
    return own;
  }

  get address(): RedisAddress {
    return addressIn(this.#folder)!;
  }

  /** Ends the server if this process runs it. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#starting;
    await this.#server?.stop();
    this.#lock?.[Symbol.dispose]();
  }

  async #start(): Promise<void> {
    const begin = performance.now();
    this.#starts++;
    this.#server = await RedisServer.start(this.#folder, {
      onEnd: (why) => {
        if (this.#isClosed) return;
        if (performance.now() - begin > WORKS_MS) this.#starts = 0;
        this.#note(`${why}; starting it again`);
        this.#starting = this.#startAgain(why);
      },
    });
  }

  /** Starts it, as often as makes sense. */
  async #startAgain(why: string): Promise<void> {
    for (let last = why; !this.#isClosed; ) {
      if (this.#starts >= MOST_STARTS) {
        this.#onLost(new XpatchError(`the queue's server has ended ${this.#starts} times: ${last}`));
        return;
      }
      try {
        return await this.#start();
      } catch (error) {
        last = (error as Error).message;
        // The one before may not have ended yet.
        await new Promise((settle) => setTimeout(settle, LOOK_MS));
      }
    }
  }

  async #join(held: FileError): Promise<void> {
    const address = addressIn(this.#folder);
    if (!address) throw held;
    try {
      (await connect(address, 10)).disconnect();
    } catch (cause) {
      throw new XpatchError(
        `${held.message}; its server cannot be joined from here: ${(cause as Error).message}`,
        { cause },
      );
    }
    this.#note("another process runs the queue's server; joining it");
    this.#look();
  }

  /** Takes the server over once nobody runs it. */
  #look(): void {
    this.#timer = setTimeout(() => {
      try {
        this.#lock = FolderLock.take(this.#folder);
      } catch {
        return this.#look();
      }
      this.#note("whoever ran the queue's server has ended; going on with it");
      this.#starting = this.#startAgain("whoever ran it has ended");
    }, LOOK_MS);
  }
}
