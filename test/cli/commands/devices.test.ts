import { expect, test } from "vitest";
import { formatDevices, reportDevices } from "../../../src/cli/commands/devices.ts";

test("the report says what each driver offers and what was chosen", async () => {
  const report = await reportDevices("swiftshader");
  expect(report.found.map(({ choice }) => choice)).toEqual(["gpu", "lavapipe", "swiftshader"]);
  for (const { adapter, reason } of report.found) expect(Boolean(adapter)).not.toBe(Boolean(reason));
  expect(report.chosen.adapter).toMatchObject({
    description: expect.stringMatching(/SwiftShader/),
    fallback: true,
  });
  expect(report.chosen.adapter!.limits["maxStorageBufferBindingSize"]).toBeGreaterThan(2 ** 20);
  expect(JSON.parse(JSON.stringify(report))).toEqual(report);
});

test("the text names the driver, its features and its limits in MiB", async () => {
  const text = formatDevices(await reportDevices("swiftshader"));
  expect(text).toMatch(/^chosen \(swiftshader\): .*SwiftShader.*a software driver$/m);
  expect(text).toMatch(/^features: .*subgroups/m);
  expect(text).toMatch(/^ {2}maxBufferSize +\d+ \(\d+ MiB\)$/m);
  expect(text).toMatch(/^ {2}maxComputeInvocationsPerWorkgroup +\d+$/m);
});

test("a choice that is not to be had is reported with the reason, not thrown", async () => {
  const report = await reportDevices("voodoo" as "auto");
  expect(report.chosen.adapter).toBeUndefined();
  expect(formatDevices(report)).toMatch(/^chosen \(voodoo\): none: adapter: expected one of/m);
});
