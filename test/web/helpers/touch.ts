import type { CDPSession, Locator, Page } from "playwright-core";

/** A finger on a page. Playwright has taps alone. */
export class Finger {
  readonly #page: Page;
  readonly #session: CDPSession;

  private constructor(page: Page, session: CDPSession) {
    this.#page = page;
    this.#session = session;
  }

  static async on(page: Page): Promise<Finger> {
    return new Finger(page, await page.context().newCDPSession(page));
  }

  /** Rests on one thing until it is picked up, goes to another and lifts. */
  async drag(from: Locator, to: Locator, at: { from?: Point; to?: Point } = {}): Promise<void> {
    const start = await pointIn(from, at.from);
    await this.#touch("touchStart", start);
    await this.#page.locator(".touch-dragged").waitFor();
    for (const share of [0.25, 0.5, 0.75, 1]) {
      const end = await pointIn(to, at.to, false);
      await this.#touch("touchMove", {
        x: start.x + share * (end.x - start.x),
        y: start.y + share * (end.y - start.y),
      });
    }
    await this.#touch("touchEnd");
  }

  /** Goes on at once, which scrolls. */
  async swipe(from: Locator, by: Point): Promise<void> {
    const start = await pointIn(from);
    await this.#touch("touchStart", start);
    for (const share of [0.2, 0.4, 0.6, 0.8, 1])
      await this.#touch("touchMove", { x: start.x + share * by.x, y: start.y + share * by.y });
    await this.#touch("touchEnd");
  }

  async #touch(type: "touchStart" | "touchMove" | "touchEnd", point?: Point): Promise<void> {
    await this.#session.send("Input.dispatchTouchEvent", { type, touchPoints: point ? [point] : [] });
  }
}

interface Point {
  readonly x: number;
  readonly y: number;
}

async function pointIn(element: Locator, at?: Point, scrolls = true): Promise<Point> {
  if (scrolls) await element.scrollIntoViewIfNeeded();
  const box = (await element.boundingBox())!;
  return at ? { x: box.x + at.x, y: box.y + at.y } : { x: box.x + box.width / 2, y: box.y + box.height / 2 };
}
