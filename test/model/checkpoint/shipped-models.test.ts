import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { platform } from "#platform";
import { CheckpointError } from "../../../src/errors.ts";
import { openCheckpoint } from "../../../src/model/checkpoint/open-checkpoint.ts";
import { SHIPPED_MODELS, shippedPlace } from "../../../src/model/checkpoint/source/shipped-models.ts";
import { platform as browser } from "../../../src/platform/browser.ts";

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

async function namesOf(...given: Parameters<typeof openCheckpoint>) {
  const { name, adapters, names, close } = await openCheckpoint(...given).then((checkpoint) => ({
    name: checkpoint.name,
    adapters: checkpoint.adapters.map((adapter) => adapter.name),
    names: checkpoint.names.sort(),
    close: () => checkpoint.close(),
  }));
  await close();
  return { name, adapters, names };
}

describe("the models that come with xpatch", () => {
  test("open by name from any folder, as they do by path", async () => {
    const byPath = await Promise.all(SHIPPED_MODELS.map((model) => namesOf(shippedPlace(model))));
    vi.spyOn(process, "cwd").mockReturnValue(tmpdir());
    const byName = await Promise.all(SHIPPED_MODELS.map((model) => namesOf(model)));
    expect(byName.map(({ names }) => names)).toEqual(byPath.map(({ names }) => names));
    expect(byName.map(({ name, adapters }) => [name, ...adapters])).toEqual([
      ["xpatch:vlm", "xpatch:llm", "xpatch:vlm/adapter"],
      ["xpatch:llm", "xpatch:llm"],
      ["xpatch:smollm2"],
    ]);
  });

  test("are named where a reference is nearly one of them, and no folder is named that has nothing in common", async () => {
    for (const [ref, near] of [
      ["xptch:vlm", "xpatch:vlm"],
      ["xpatch-llm", "xpatch:llm"],
      ["smollm2", "xpatch:smollm2"],
    ] as const) {
      const opened = openCheckpoint(ref);
      await expect(opened).rejects.toThrow(
        `nor one of ${SHIPPED_MODELS.join(", ")}; the nearest is "${near}"; there is no such folder`,
      );
      await expect(opened).rejects.not.toThrow(/such folder \(/);
    }
    await expect(openCheckpoint("quite another thing")).rejects.toThrow(
      /xpatch:smollm2; there is no such folder$/,
    );
  });

  test("are of one base, which is an adapter's base and a model's by its name as well", async () => {
    const bases = SHIPPED_MODELS.map(
      (model) => JSON.parse(readFileSync(join(shippedPlace(model), "assembly.json"), "utf8")).base,
    );
    expect(bases).toEqual(bases.map(() => bases[0]));
    const llm = await namesOf("xpatch:llm");
    const byHand = await namesOf("xpatch:smollm2", { adapters: ["xpatch:llm"] });
    expect(byHand).toEqual({ ...llm, name: "xpatch:smollm2" });
    expect(await namesOf("xpatch:llm", { base: "xpatch:smollm2" })).toEqual(llm);
  });

  test("without their base: where it was looked for, and the one command that fetches it; the hub is not asked", async () => {
    const cache = join(tmpdir(), "xpatch-no-such-cache");
    vi.stubEnv("XPATCH_CACHE", cache);
    const fetch = vi.fn();
    for (const model of SHIPPED_MODELS) {
      const opened = openCheckpoint(model, { fetch });
      await expect(opened).rejects.toThrow(CheckpointError);
      await expect(opened).rejects.toThrow(
        `${model}/assembly.json: the base smollm2-135m-instruct cannot be opened: ` +
          `${join(cache, "models", "smollm2-135m-instruct")}: there is no config.json; ` +
          `"npm run setup -- model" in ${platform.packageFolder()} fetches it; another place may be given as base`,
      );
    }
    expect(fetch).not.toHaveBeenCalled();
  });

  test.each(["xpatch:vml", "xpatch:", "XPATCH:vlm", "xpatch:vlm/adapter"])(
    "%s is none of them",
    async (ref) => {
      const opened = openCheckpoint(ref);
      await expect(opened).rejects.toThrow(CheckpointError);
      await expect(opened).rejects.toThrow(
        `no model with the name ${ref} comes with xpatch, expected one of xpatch:vlm, xpatch:llm, xpatch:smollm2; ` +
          'the nearest is "xpatch:vlm"',
      );
    },
  );

  test("where the package came without its weights, the message says what is missing", async () => {
    vi.spyOn(platform, "packageFolder").mockReturnValue("/nowhere");
    await expect(openCheckpoint("xpatch:vlm")).rejects.toThrow(
      "xpatch:vlm: there is no config.json (/nowhere/weights/vlm/config.json)",
    );
  });

  test("cannot be had in a browser, which is told what to do", async () => {
    vi.spyOn(platform, "packageFolder").mockImplementation(browser.packageFolder);
    for (const model of SHIPPED_MODELS) {
      const opened = openCheckpoint(model);
      await expect(opened).rejects.toThrow(CheckpointError);
      await expect(opened).rejects.toThrow(
        `${model}: a browser cannot read the package's files; serve its folder weights, pass the URL of ` +
          `${shippedPlace(model)}, and as base that of a folder with SmolLM2`,
      );
    }
  });
});
