import { request } from "node:http";
import { createRequire } from "node:module";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { accuracyOf } from "../../../../experiments/grid/queue/accuracy.ts";
import {
  type GivenUp,
  type GridProgress,
  progressLine,
  progressRows,
  type RunCounts,
  showTime,
} from "../../../../experiments/grid/queue/progress.ts";
import { ProgressPage } from "../../../../experiments/grid/queue/progress-page.ts";
import { tableLines } from "../../../../src/cli/commands/grid/progress.ts";
import { launchChromium } from "../../../helpers/browser.ts";

const RUN: RunCounts = {
  label: "vlm",
  cells: 100,
  finished: 40,
  givenUp: 1,
  computing: 2,
  waiting: 57,
  perSecond: 0.5,
  secondsLeft: 118,
  accuracy: 0.8125,
};
const OTHER: RunCounts = {
  ...RUN,
  label: "llm <b>",
  finished: 100,
  givenUp: 0,
  computing: 0,
  waiting: 0,
  secondsLeft: 0,
};
const PROGRESS: GridProgress = { runs: [RUN, OTHER], workers: 3, seconds: 80 };
const GIVEN_UP: GivenUp = {
  run: "vlm",
  cell: "0123-4567",
  key: "test-patch task=a",
  attempts: 3,
  error: "out of <i>memory</i>",
  stack: "Error: out of memory\n    at compute",
};

describe("in words", () => {
  test("as a table, with all together", () => {
    expect(progressRows(PROGRESS)).toEqual([
      ["", "cells", "done", "computing", "waiting", "given up", "a minute", "left", "accuracy"],
      ["vlm", "100", "40", "2", "57", "1", "30", "2 min", "0.813"],
      ["llm <b>", "100", "100", "0", "0", "0", "30", "0 s", "0.813"],
      ["all", "200", "140", "2", "57", "1", "60", "59 s", ""],
    ]);
  });

  test("as a line", () => {
    expect(progressLine(PROGRESS)).toBe(
      "140/200 cells, 2 computing, 3 workers, 1 given up, 60 a minute, 59 s left",
    );
    const begun = { runs: [{ ...RUN, finished: 0, givenUp: 0, perSecond: 0 }], seconds: 0 };
    expect(progressLine(begun)).toBe("0/100 cells, 2 computing, 0.0 a minute");
  });

  test("in a terminal that has no room for all, what is open comes first", () => {
    const runs = Array.from({ length: 40 }, (_, i) => ({ ...(i < 30 ? OTHER : RUN), label: `run ${i}` }));
    const lines = tableLines({ runs, seconds: 1 }, 60, 16);
    expect(lines.length).toBeLessThanOrEqual(16);
    expect(lines.join("\n")).toContain("run 30");
    expect(lines).toContainEqual("… and 29 more");
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(60);
  });

  test.each([
    [89.2, "90 s"],
    [754, "13 min"],
    [7200, "2.0 h"],
    [400_000, "4.6 days"],
    [undefined, ""],
  ])("%s seconds are %s", (seconds, text) => {
    expect(showTime(seconds)).toBe(text);
  });

  test("accuracy is that of patched answers to test items, and of nothing else", () => {
    const answers = ["a", "b"];
    expect(
      accuracyOf({
        patched: [
          { accuracy: 0.5, answers },
          { accuracy: 1, answers },
        ],
      }),
    ).toBe(0.75);
    // A sweep has a score a layer.
    expect(accuracyOf({ patched: [{ accuracy: 0.5 }, { accuracy: 1 }] })).toBeUndefined();
    expect(accuracyOf({ noContext: { accuracy: 1, answers } })).toBeUndefined();
    expect(accuracyOf(undefined)).toBeUndefined();
  });
});

describe("as a page", () => {
  let page: ProgressPage;
  beforeEach(async () => {
    page = await ProgressPage.open("127.0.0.1", 0);
    page.show("store", PROGRESS, [GIVEN_UP], false);
  });
  afterEach(() => page.close());

  const get = (path: string, headers: Record<string, string> = {}, method = "GET") =>
    new Promise<{ status: number; text: string; headers: NodeJS.Dict<string | string[]> }>((settle, fail) => {
      const { port } = new URL(page.link);
      request({ host: "127.0.0.1", port, path, method, headers }, (response) => {
        let text = "";
        response.on("data", (chunk) => {
          text += chunk;
        });
        response.on("end", () => settle({ status: response.statusCode!, text, headers: response.headers }));
      })
        .on("error", fail)
        .end();
    });
  const token = () => ({ authorization: `Bearer ${new URL(page.link).hash.replace("#token=", "")}` });

  test("numbers are for whoever has the token", async () => {
    const { status, text, headers } = await get("/progress", token());
    expect([status, headers["cache-control"]]).toEqual([200, "no-store"]);
    expect(JSON.parse(text)).toMatchObject({ store: "store", done: 140, cells: 200, givenUp: [GIVEN_UP] });
    const wrongs: Record<string, string>[] = [
      {},
      { authorization: "Bearer" },
      { authorization: `${token().authorization}x` },
    ];
    for (const wrong of wrongs) {
      const refused = await get("/progress", wrong);
      expect(refused.status).toBe(401);
      expect(refused.text).not.toContain("140");
    }
  });

  test("pages of others, other names, other paths and methods are refused", async () => {
    const { host } = new URL(page.link);
    expect((await get("/progress", { ...token(), origin: "https://example.org" })).status).toBe(403);
    expect((await get("/progress", { ...token(), origin: `http://${host}` })).status).toBe(200);
    for (const path of ["/", "/progress"]) {
      expect((await get(path, { ...token(), host: "evil.example" })).status).toBe(403);
    }
    expect((await get("/../package.json", token())).status).toBe(404);
    expect((await get("/", token(), "POST")).status).toBe(405);
    expect((await get("/")).headers["content-security-policy"]).toMatch(
      /^default-src 'none'; script-src 'sha256-/,
    );
  });

  test("the page shows it, takes nothing for markup, and says when the command has ended", async () => {
    const browser = await launchChromium();
    try {
      const tab = await browser.newPage();
      const errors: string[] = [];
      tab.on("pageerror", (error) => errors.push(error.message));
      await tab.goto(page.link);
      await tab.getByText("140 of 200 cells, 3 workers").waitFor();
      const rows = await tab.locator("tbody tr").allInnerTexts();
      expect(rows.map((row) => row.split(/\t/))).toEqual(progressRows(PROGRESS).slice(1));
      await tab.getByText("vlm: test-patch task=a (3 attempts): out of <i>memory</i>").click();
      await tab.getByText("at compute").waitFor();
      // axe is put in by the debugger, which the page's policy does not concern.
      await tab.evaluate(createRequire(import.meta.url)("axe-core").source);
      const found = await tab.evaluate("axe.run()");
      expect((found as { violations: { id: string }[] }).violations.map(({ id }) => id)).toEqual([]);
      page.show("store", { ...PROGRESS, runs: [OTHER] }, [], true);
      await tab.getByText("100 of 100 cells; nothing more is computed").waitFor();
      await page.close();
      await tab.getByText("xpatch grid serve does not answer").waitFor();
      expect(errors).toEqual([]);
    } finally {
      await browser.close();
    }
  });
});
