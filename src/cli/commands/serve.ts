import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { localFolder } from "../../model/checkpoint/source/folder.ts";
import { SHIPPED_MODELS } from "../../model/checkpoint/source/shipped-models.ts";
import { adapterChoice } from "../../platform/node-adapter.ts";
import { packageFolder } from "../../platform/node-package.ts";
import { SessionHost } from "../../session/host.ts";
import { isLoopback } from "../../session/serve/access.ts";
import { SERVER_BOUNDS, SessionServer } from "../../session/serve/server.ts";
import { ThreadChores } from "../../session/serve/thread-chores.ts";
import { listed, wholeNumber } from "../options/arguments.ts";
import { type CommonArguments, newCommand } from "../options/command.ts";
import { untilStopped } from "../terminal/interrupt.ts";
import { note, printResult } from "../terminal/output.ts";

const DEFAULT_PORT = 8265;
const DEFAULT_CLIENTS = 16;

interface Arguments extends CommonArguments {
  readonly host: string;
  readonly port: number;
  readonly model?: readonly string[];
  readonly anyModel?: boolean;
  readonly allowHost?: readonly string[];
  readonly allowOrigin?: readonly string[];
  readonly clients: number;
  readonly page?: string;
  readonly open?: boolean;
}

export function serveCommand(): Command {
  return newCommand("serve", "The explorer, and sessions for it and for programs, on this machine's GPU", [
    "serve",
    "serve --model ./my-model --open",
    "serve --port 0 --json",
  ])
    .option(
      "--host <address>",
      "what to listen on; others than this machine's own let your network in",
      "127.0.0.1",
    )
    .option("--port <number>", "0 takes any that is free", wholeNumber(0, 65535), DEFAULT_PORT)
    .option("--model <ref>", "a model to offer besides those that come with xpatch; may be repeated", listed)
    .option("--any-model", "let sessions load any folder, URL or hub id that they name")
    .option("--allow-host <name>", "another name by which the server is called; may be repeated", listed)
    .option("--allow-origin <origin>", "let pages of https://… have sessions; may be repeated", listed)
    .option("--clients <number>", "sessions at a time", wholeNumber(1, 1000), DEFAULT_CLIENTS)
    .option("--page <folder>", "the built page (default: that of the package)")
    .option("--open", "open the page in a browser")
    .action(serve);
}

/** Serves until the process is told to end. */
async function serve(args: Arguments): Promise<void> {
  adapterChoice(args);
  const root = packageFolder();
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const refs = [...new Set([...SHIPPED_MODELS, ...(args.model ?? [])])];
  const tasks = join(root, "tasks");
  const chores = new ThreadChores();
  const host = new SessionHost({
    name: `xpatch ${version}`,
    place: "server",
    device: { adapter: args.adapter },
    offer: { models: refs.map((ref) => ({ ref, label: ref })), anyRef: args.anyModel ?? false, files: false },
    tasks: { address: tasks, folder: localFolder(tasks) },
    bounds: SERVER_BOUNDS,
    chores,
    onUnexpected: (error) => {
      note(error instanceof Error ? `${error.stack}` : String(error));
      note("xpatch: this is an error in xpatch itself; please report it with the lines above");
    },
    accessToken: process.env.HF_TOKEN,
  });
  const server = await SessionServer.open(host, {
    host: args.host,
    port: args.port,
    page: args.page ?? join(root, "web", "dist"),
    clients: args.clients,
    allowedHosts: args.allowHost?.map((name) => name.toLowerCase()) ?? [],
    allowedOrigins: args.allowOrigin ?? [],
    note: (text) => note(`xpatch: ${text}`),
  });
  const stopped = untilStopped();
  printResult({ link: server.link, url: server.url, pid: process.pid }, args.json, ({ link }) => link);
  if (!isLoopback(args.host)) {
    note("xpatch: whoever has the link and reaches this machine may use it; the connection is not encrypted");
  }
  note("xpatch: open the link, or give it to a program; Ctrl-C ends it");
  if (args.open) await (await import("open")).default(server.link);
  await stopped;
  await server.close();
  await chores.close();
}
