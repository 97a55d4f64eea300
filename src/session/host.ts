/// <reference lib="esnext.disposable" preserve="true" />
import { SessionError } from "../errors.ts";
import { DEFAULT_MAX_PIXELS } from "../images/files/rgb.ts";
import type { Device } from "../tensor/device.ts";
import { Guest, type House } from "./guest.ts";
import type { HostPort } from "./messages/protocol.ts";
import type { Bounds, HelloResult } from "./messages/results.ts";
import { type TaskPlace, TaskShelf } from "./read/task-shelf.ts";
import type { Offer } from "./read/work.ts";
import { type Chores, OWN_CHORES } from "./state/chores.ts";
import { Engine, type EngineOptions } from "./state/engine.ts";
import { FairQueue } from "./state/fair-queue.ts";

export type { TaskPlace } from "./read/task-shelf.ts";
export type { Offer } from "./read/work.ts";
export type { Chores, PlaneOptions, SeenView } from "./state/chores.ts";
export type { FindFolder } from "./state/engine.ts";

/** What a {@link SessionHost} offers, where it runs, and what it takes of a client. */
export interface HostOptions extends EngineOptions {
  /** How it calls itself: "xpatch 0.1.0". */
  readonly name: string;
  readonly place: HelloResult["place"];
  /** Whether the device is somebody else's, and stays when the host closes. */
  readonly keepsDevice?: boolean;
  /** Default: any model. */
  readonly offer?: Partial<Offer>;
  /** Where the tasks that come with xpatch are. */
  readonly tasks?: TaskPlace;
  readonly bounds?: Partial<Bounds>;
  /** Who does what takes a CPU long. Default: this thread. */
  readonly chores?: Chores;
  /** Told of errors that are none of the library's own: of xpatch itself. */
  readonly onUnexpected?: (error: unknown) => void;
}

const DEFAULT_BOUNDS: Bounds = {
  messageBytes: 2 ** 30,
  picturePixels: DEFAULT_MAX_PIXELS,
  pictureBytes: 2 ** 31,
  waiting: 256,
  handles: 4096,
};

/**
 * The side of a session that has the device and the models. Any number of clients are attached to it; what needs the device is done
 * for one at a time, in turn.
 */
export class SessionHost {
  readonly #house: House;
  readonly #guests = new Set<Guest>();
  readonly #keepsDevice: boolean;
  #closed = false;

  constructor(options: HostOptions) {
    const {
      name,
      place,
      offer = {},
      tasks,
      bounds = {},
      keepsDevice = false,
      chores = OWN_CHORES,
      onUnexpected = () => {},
    } = options;
    this.#keepsDevice = keepsDevice;
    this.#house = {
      hello: { host: name, place, bounds: { ...DEFAULT_BOUNDS, ...bounds } },
      engine: new Engine(options),
      queue: new FairQueue(),
      tasks: new TaskShelf(tasks),
      chores,
      onUnexpected,
      offer: { models: [], anyRef: true, files: true, ...offer },
    };
  }

  /** How many clients are attached, those included whose last request has not come to its end yet. */
  get clients(): number {
    return this.#guests.size;
  }

  /** What it takes of one client. */
  get bounds(): Bounds {
    return this.#house.hello.bounds;
  }

  /** The device, for whoever measures it. Opens it if nobody has. */
  device(): Promise<Device> {
    return this.#house.engine.device();
  }

  /** Serves a client until its connection ends; resolves when all that it held is free again. */
  attach(port: HostPort): Promise<void> {
    if (this.#closed) {
      port.close();
      return Promise.reject(new SessionError("this host has been closed", { code: "closed" }));
    }
    const guest = new Guest(this.#house, port);
    this.#guests.add(guest);
    return guest.gone.finally(() => this.#guests.delete(guest));
  }

  /** Ends all sessions, and the device. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#guests].map((guest) => guest.leave()));
    if (!this.#keepsDevice) await this.#house.engine.close();
  }
}
