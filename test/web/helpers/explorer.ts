import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core";
import { expect } from "vitest";
import { launchChromium } from "../../helpers/browser.ts";
import { ExplorerSite, type SiteOptions } from "./site.ts";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const READY_MS = 60_000;

/** A browser and the explorer's site; visitors share the site, but not what their browsers keep. */
export class Explorer {
  readonly site: ExplorerSite;
  readonly browser: Browser;
  readonly #visitors: Visitor[] = [];

  private constructor(site: ExplorerSite, browser: Browser) {
    this.site = site;
    this.browser = browser;
  }

  static async start(options?: SiteOptions): Promise<Explorer> {
    const site = await ExplorerSite.start(options);
    return new Explorer(site, await launchChromium());
  }

  /** Somebody who has never been there, on a screen of 1280 × 800. */
  async visitor(options: BrowserContextOptions = {}): Promise<Visitor> {
    const viewport = { width: 1280, height: 800 };
    const visitor = new Visitor(this.site, await this.browser.newContext({ viewport, ...options }));
    this.#visitors.push(visitor);
    return visitor;
  }

  /** A visitor's page with the tiny model loaded: what most tests begin with. */
  async loaded(options?: BrowserContextOptions): Promise<ExplorerPage> {
    const page = await (await this.visitor(options)).open();
    await page.load();
    return page;
  }

  async close(): Promise<void> {
    for (const visitor of this.#visitors) await visitor.leave();
    await this.browser.close();
    this.site.close();
  }
}

/** A browser's profile: pages of one visitor share storage. */
export class Visitor {
  readonly site: ExplorerSite;
  readonly context: BrowserContext;

  constructor(site: ExplorerSite, context: BrowserContext) {
    this.site = site;
    this.context = context;
  }

  /** Opens the explorer in a new tab; `hash` is what stands behind the address: `#/lens`. */
  async open(hash = "", url = this.site.url): Promise<ExplorerPage> {
    const explorer = new ExplorerPage(await this.context.newPage());
    await explorer.page.goto(`${url}${hash}`);
    await explorer.page.getByRole("banner").waitFor();
    return explorer;
  }

  leave(): Promise<void> {
    return this.context.close();
  }
}

/** A tab with the explorer. */
export class ExplorerPage {
  readonly page: Page;
  /** Errors and warnings of the console, and what was thrown and not caught. */
  readonly complaints: string[] = [];

  constructor(page: Page) {
    this.page = page;
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) this.complaints.push(message.text());
    });
    page.on("pageerror", (error) => this.complaints.push(String(error)));
  }

  /** The line at the end of the page. */
  get status() {
    return this.page.getByRole("contentinfo").getByRole("status");
  }

  /** Loads an offered model, and waits until it is there. */
  async load(title = "tiny"): Promise<void> {
    await this.go("Model");
    await this.page.getByRole("button", { name: `Load ${title}` }).click();
    await this.ready();
  }

  /** Waits until the model is there, nothing is being computed, and nothing of what was done last is going to be. */
  async ready(timeout = READY_MS): Promise<void> {
    await this.page
      .locator("footer.status[aria-busy=false]")
      .getByText("Ready.", { exact: true })
      .waitFor({ timeout });
  }

  /** Shows a view, by its name in the navigation. */
  async go(view: string): Promise<void> {
    await this.page.getByRole("navigation", { name: "Views" }).getByRole("link", { name: view }).click();
  }

  panel(title: string) {
    return this.page.getByRole("region", { name: title });
  }

  /** What axe finds that is serious or worse, in a line each: rule, element, why. */
  async axe(): Promise<string[]> {
    await this.page.evaluate(AXE);
    return this.page.evaluate(async () => {
      const { axe } = globalThis as unknown as { axe: typeof import("axe-core") };
      const { violations } = await axe.run(document);
      return violations
        .filter(({ impact }) => impact === "serious" || impact === "critical")
        .flatMap(({ id, nodes }) =>
          nodes.map(({ target, failureSummary }) => `${id}: ${target}: ${failureSummary}`),
        );
    });
  }

  /** Fails where the console has had anything to complain of. */
  expectQuiet(): void {
    expect(this.complaints).toEqual([]);
  }
}
