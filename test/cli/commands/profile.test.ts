import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { ProfileReport } from "../../../src/cli/commands/profile.ts";
import { formatProfile } from "../../../src/cli/commands/profile-text.ts";
import { loadModel } from "../../../src/patching/model.ts";
import type { ChromeTrace } from "../../../src/profile/chrome-trace.ts";
import { profile } from "../../../src/profile/profile.ts";
import { openDevice } from "../../../src/tensor/open-device.ts";
import { nanoFiles, nanoFolder } from "../../helpers/nano.ts";

const root = join(import.meta.dirname, "..", "..", "..");
const folder = mkdtempSync(join(tmpdir(), "xpatch-profile-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("the command profiles a prompt with a picture, prints JSON and writes the trace", () => {
  const trace = join(folder, "trace.json");
  const args = ["profile", "--model", "weights/nano/vlm", "--base", "weights/nano/llm"];
  const prompt = ["--prompt", "Q:<image>\\nA:", "--image", "test/fixtures/images/photo.png"];
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [
      "dist/cli/main.js",
      ...args,
      ...prompt,
      "--max-new-tokens",
      "2",
      "--rounds",
      "1",
      "--trace",
      trace,
      "--json",
    ],
    { cwd: root, encoding: "utf8" },
  );
  expect({ status, stderr: status === 0 ? "" : stderr }).toEqual({ status: 0, stderr: "" });
  const report: ProfileReport = JSON.parse(stdout);
  expect(report.phases.map(({ name }) => name)).toEqual(["prefill", "decode"]);
  expect(report.phases[0]!.places.map(({ name }) => name)).toContain("vision block 0");
  expect(report.limits.gflops).toBeGreaterThan(0);
  // The command turns the rounding of timestamps off.
  if (report.method === "timestamps") expect(report.resolutionMs).toBeLessThan(0.001);
  const { traceEvents }: ChromeTrace = JSON.parse(readFileSync(trace, "utf8"));
  const dispatches = report.phases.reduce((sum, phase) => sum + phase.dispatches, 0);
  const kernels = traceEvents.filter((event) => event.ph === "X" && event.cat.startsWith("kernels"));
  expect(kernels).toHaveLength(dispatches);
});

test("the text says how times were taken, and has a row for every block", async () => {
  await using device = await openDevice({ without: ["timestamp-query"] });
  using model = await loadModel(nanoFolder(nanoFiles(), "llm"), { device });
  const limits = { gflops: 100, gbPerSecond: 10 };
  const found = await profile(model, model.prompt("Q: Italy\nA:"), { maxNewTokens: 2, rounds: 1, limits });
  const text = formatProfile(found);
  expect(text).toMatch(/^adapter: .*(a software driver)?$/m);
  expect(text).toMatch(/^limits, measured: 10 GB\/s, 100 GFLOP\/s/m);
  expect(text).toMatch(
    /submitted and waited for by itself, since there are no timestamps; each has about .* of waiting/,
  );
  for (const name of [
    "embed",
    "head",
    ...Array.from({ length: model.config.layers }, (_, i) => `block ${i}`),
  ]) {
    expect(text).toMatch(new RegExp(`^${name} +\\d+ `, "m"));
  }
  expect(text).toMatch(
    /^kernel +inputs +dispatches +time +share +moved +GB\/s +GFLOP\/s +of limit +new groups$/m,
  );
});
