import { localFolder } from "../../src/model/checkpoint/source/folder.ts";
import { SessionClient } from "../../src/session/client.ts";
import { type HostOptions, SessionHost } from "../../src/session/host.ts";
import { inProcess } from "../../src/session/ports/in-process.ts";
import { testDevice } from "../helpers/device.ts";

export const LLAMA = "test/fixtures/llama/model";
export const LLAVA = "test/fixtures/llava/model";

/** A host on the device of the test file, which stays open when the host closes. */
export function testHost(options: Partial<HostOptions> = {}): SessionHost {
  return new SessionHost({
    name: "xpatch test",
    place: "process",
    device: testDevice,
    keepsDevice: true,
    tasks: { address: "tasks", folder: localFolder("tasks") },
    ...options,
  });
}

/** A client of a host within this process. */
export function connect(host: SessionHost): Promise<SessionClient> {
  const { client, host: end } = inProcess();
  void host.attach(end);
  return SessionClient.open(client);
}
