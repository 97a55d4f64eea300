import { afterAll, beforeAll, expect, test } from "vitest";
import { SessionServer } from "../../src/session/serve/server.ts";
import { testHost } from "../session/sessions.ts";
import { builtPage } from "./helpers/built-page.ts";
import { Explorer, ExplorerPage } from "./helpers/explorer.ts";

const MODEL = "test/fixtures/llava/model";
const OFFER = { models: [{ ref: MODEL, label: "tiny" }], anyRef: false, files: false };

let explorer: Explorer;
let server: SessionServer;
beforeAll(async () => {
  explorer = await Explorer.start();
  server = await serve();
});
afterAll(async () => {
  await explorer?.close();
  await server?.close();
});

async function serve(options: { port?: number; token?: string } = {}): Promise<SessionServer> {
  const host = testHost({ place: "server", offer: OFFER });
  const allowedOrigins = [new URL(explorer.site.url).origin];
  return SessionServer.open(host, { page: await builtPage(), allowedOrigins, ...options });
}

/** The page that the server itself has, by its link. */
async function openLink(): Promise<ExplorerPage> {
  const { context } = await explorer.visitor();
  const tab = new ExplorerPage(await context.newPage());
  await tab.page.goto(server.link);
  return tab;
}

test("the link of xpatch serve opens the page, connected; a reload stays so", async () => {
  const tab = await openLink();
  const header = tab.page.getByRole("banner");
  await header.getByText(`on ${new URL(server.url).host}`).waitFor();
  expect(tab.page.url()).not.toContain("token"); // it is copied from there
  await tab.load(MODEL);
  await tab.page.reload();
  await tab.ready();
  await header.getByText(`on ${new URL(server.url).host}`).waitFor();
  expect(await tab.axe()).toEqual([]);
  tab.expectQuiet();
});

test("browsers do not keep the server's page, which is of its version", async () => {
  const { status } = await fetch(new URL("service-worker.js?", server.url));
  expect(status).toBe(404);
  expect((await fetch(server.url)).status).toBe(200);
});

test("a page of elsewhere connects by the link, and comes back to the tab", async () => {
  const tab = await (await explorer.visitor()).open();
  const header = tab.page.getByRole("banner");
  const place = tab.panel("Where it computes");
  await place.getByRole("textbox").fill(server.link);
  await place.getByRole("button", { name: "Connect" }).click();
  await header.getByText(`on ${new URL(server.url).host}`).waitFor();
  await tab.load(MODEL);
  await place.getByRole("button", { name: "Compute in this tab" }).click();
  await header.getByText("in this tab").waitFor();
  tab.expectQuiet();
});

test("a link that is none and a wrong token are refused in words", async () => {
  const tab = await (await explorer.visitor()).open();
  const place = tab.panel("Where it computes");
  const trouble = tab.page.getByRole("alert");
  await place.getByRole("textbox").fill("http://127.0.0.1/");
  await place.getByRole("button", { name: "Connect" }).click();
  await trouble.getByText(/expected a link as `xpatch serve` prints it/).waitFor();
  await place.getByRole("textbox").fill(server.link.replace(/token=.*/, "token=wrong"));
  await place.getByRole("button", { name: "Connect" }).click();
  await trouble.getByText(/token/).waitFor();
  await tab.page.getByRole("button", { name: "Compute in this tab" }).click();
  await tab.page.getByRole("banner").getByText("in this tab").waitFor();
});

test("a connection that ends is shown, with a way to go on", async () => {
  const first = await serve();
  const { port } = new URL(first.url);
  const token = new URLSearchParams(new URL(first.link).hash.slice(1)).get("token")!;
  const { context } = await explorer.visitor();
  const tab = new ExplorerPage(await context.newPage());
  await tab.page.goto(first.link);
  await tab.load(MODEL);
  await first.close();
  await tab.page.getByText("The connection was lost").waitFor();
  const second = await serve({ port: Number(port), token });
  await tab.page.getByRole("button", { name: "Start again" }).click();
  await tab.ready();
  await second.close();
});
