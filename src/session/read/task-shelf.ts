import { ArgumentError, ImageError, SessionError } from "../../errors.ts";
import { loadImage } from "../../images/files/load.ts";
import type { RgbImage } from "../../images/files/rgb.ts";
import { type Folder, readText } from "../../model/checkpoint/source/folder.ts";
import { nearestHint } from "../../nearest.ts";
import { SHIPPED_TASKS } from "../../tasks/shipped-tasks.ts";
import { parseTask, readItem, type Task } from "../../tasks/task.ts";
import type { TaskItemSpec, TaskRef, TaskSpec } from "../messages/values.ts";
import { readPicture } from "./picture.ts";
import type { Work } from "./work.ts";

/** A task with the pictures of its items at hand. */
export interface UsableTask {
  readonly task: Task;
  /** By the item's input. Throws ImageError where there is none, and as `loadImage` does. */
  readonly pictureOf: (input: string) => Promise<RgbImage>;
}

/** Where a host has the tasks that come with xpatch. */
export interface TaskPlace {
  /** The path or URL of the folder. */
  readonly address: string;
  readonly folder: Folder;
}

/** The tasks that come with xpatch, each read once, and the pictures of their items. */
export class TaskShelf {
  readonly #place: TaskPlace | undefined;
  readonly #tasks = new Map<string, Promise<Task>>();
  /** By address. */
  readonly #pictures = new Map<string, Promise<RgbImage>>();

  constructor(place: TaskPlace | undefined) {
    this.#place = place;
  }

  all(): Promise<Task[]> {
    return Promise.all(SHIPPED_TASKS.map((name) => this.#shipped(name)));
  }

  /** A task that a request names or brings. Throws ArgumentError and XpatchError for what is none. */
  async use(work: Work, ref: TaskRef): Promise<UsableTask> {
    if (typeof ref !== "string") return ownTask(work, ref);
    const task = await this.#shipped(ref);
    return { task, pictureOf: (input) => this.#picture(imageOf(task, input)) };
  }

  /** The file of an item's picture, of a task that comes with xpatch. */
  async pictureFile(name: string, input: string): Promise<Uint8Array<ArrayBuffer>> {
    return this.#bytesAt(imageOf(await this.#shipped(name), input));
  }

  #shipped(name: string): Promise<Task> {
    if (!(SHIPPED_TASKS as readonly string[]).includes(name)) {
      const list = SHIPPED_TASKS.join(", ");
      throw new ArgumentError(
        `no task ${JSON.stringify(String(name).slice(0, 60))} comes with xpatch${nearestHint(String(name), SHIPPED_TASKS)}; there are ${list}`,
      );
    }
    const known = this.#tasks.get(name);
    if (known) return known;
    const reading = this.#read(name);
    this.#tasks.set(name, reading);
    reading.catch(() => this.#tasks.delete(name));
    return reading;
  }

  async #read(name: string): Promise<Task> {
    if (!this.#place) throw new SessionError("this host has no tasks", { code: "refused" });
    const { address, folder } = this.#place;
    const text = await readText(folder, `${name}.json`);
    if (text !== undefined) return parseTask(text, `${address}/${name}.json`);
    throw new SessionError(`${address}/${name}.json is not there`, { code: "refused" });
  }

  #picture(address: string): Promise<RgbImage> {
    const known = this.#pictures.get(address);
    if (known) return known;
    const loading = this.#bytesAt(address).then((bytes) => loadImage(bytes));
    this.#pictures.set(address, loading);
    loading.catch(() => this.#pictures.delete(address));
    return loading;
  }

  /** Read from the folder that the task came from, which need not be where its address leads to. */
  async #bytesAt(address: string): Promise<Uint8Array<ArrayBuffer>> {
    const place = this.#place;
    const inside = place !== undefined && address.startsWith(`${place.address}/`);
    const source = inside && (await place.folder.open(address.slice(place.address.length + 1)));
    if (!source) throw new ImageError(`${address} is not there`);
    try {
      return await source.read(0, source.size);
    } finally {
      await source.close();
    }
  }
}

function imageOf(task: Task, input: string): string {
  const item = task.items.find((each) => each.input === input);
  if (item?.image !== undefined) return item.image;
  const why = item ? "has no picture" : "is none of its items";
  throw new ImageError(`task ${task.name}: ${JSON.stringify(String(input).slice(0, 60))} ${why}`);
}

/** A task that the client brings, with its pictures. They are no addresses: a host opens nothing that a client names. */
function ownTask(work: Work, spec: TaskSpec): UsableTask {
  if (typeof spec !== "object" || spec === null || !Array.isArray(spec.items)) {
    throw new ArgumentError("expected a task: the name of one, or { name, items }");
  }
  const { name, instruction, items } = spec;
  const where = `task ${typeof name === "string" ? name : "without a name"}`;
  const pictures = new Map<string, unknown>();
  const plain = (items as TaskItemSpec[]).map((item, i) => {
    const { outputs, image, ...rest } = item ?? {};
    const read = readItem({ ...rest, output: outputs }, `${where}: items[${i}]`, "");
    if (image === undefined) return read;
    pictures.set(read.input, image);
    // Only to say that there is one: nobody opens it.
    return { ...read, image: `session:${i}` };
  });
  // Checked as a file is: no input twice, a name, texts.
  const header = { name, ...(instruction !== undefined && { instruction }) };
  const checked = parseTask(
    JSON.stringify({ ...header, items: plain.map(({ input, outputs }) => ({ input, output: outputs })) }),
    where,
  );
  const task: Task = { ...checked, items: plain };
  const loaded = new Map<string, Promise<RgbImage>>();
  return {
    task,
    async pictureOf(input) {
      if (!pictures.has(input)) imageOf(task, input);
      const loading = loaded.get(input) ?? readPicture(work, pictures.get(input));
      loaded.set(input, loading);
      return loading;
    },
  };
}
