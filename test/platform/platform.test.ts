import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { CheckpointError, DeviceError } from "../../src/errors.ts";
import { platform } from "../../src/platform/node.ts";
import { cacheFolder } from "../../src/platform/node-cache.ts";
import { hasSystemDriver } from "../../src/platform/node-drivers.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "xpatch-platform-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs `fn` with environment variables set (or, with undefined, unset), and puts them back. */
async function withEnvironment<T>(
  variables: Record<string, string | undefined>,
  fn: () => Promise<T>,
): Promise<T> {
  const before = { ...process.env };
  const assign = (values: Record<string, string | undefined>) => {
    for (const name of Object.keys(variables)) {
      if (values[name] === undefined) delete process.env[name];
      else process.env[name] = values[name];
    }
  };
  assign(variables);
  try {
    return await fn();
  } finally {
    assign(before);
  }
}

describe.runIf(process.platform === "linux")("software adapters", () => {
  test.each([
    ["lavapipe", /llvmpipe/i],
    ["swiftshader", /SwiftShader/],
  ] as const)(
    "%s by option, by environment, and in one process with the other",
    async (choice, description) => {
      const other = choice === "lavapipe" ? "swiftshader" : "lavapipe";
      expect((await platform.requestAdapter({ adapter: choice })).info.description).toMatch(description);
      expect((await platform.requestAdapter({ adapter: other })).info.description).not.toMatch(description);
      const byEnvironment = await withEnvironment({ XPATCH_ADAPTER: choice }, () =>
        platform.requestAdapter({}),
      );
      expect(byEnvironment.info.description).toMatch(description);
      expect(byEnvironment.info.isFallbackAdapter).toBe(true);
    },
  );

  test("the option beats the environment variable", async () => {
    const adapter = await withEnvironment({ XPATCH_ADAPTER: "lavapipe" }, () =>
      platform.requestAdapter({ adapter: "swiftshader" }),
    );
    expect(adapter.info.description).toMatch(/SwiftShader/);
  });

  test("a choice of driver does not leak into the environment of child processes", async () => {
    const variables = { VK_DRIVER_FILES: undefined, VK_ICD_FILENAMES: "/mine.json" };
    await withEnvironment(variables, async () => {
      await platform.requestAdapter({ adapter: "lavapipe" });
      expect(process.env.VK_DRIVER_FILES).toBeUndefined();
      expect(process.env.VK_ICD_FILENAMES).toBe("/mine.json");
    });
  });

  test("requests under way at the same time do not get each other's driver", async () => {
    const toggles = ["disable_symbol_renaming"]; // instances of their own, which have yet to look for drivers
    const [lavapipe, swiftshader] = await Promise.all([
      platform.requestAdapter({ adapter: "lavapipe", toggles }),
      platform.requestAdapter({ adapter: "swiftshader", toggles }),
    ]);
    expect(lavapipe.info.description).toMatch(/llvmpipe/i);
    expect(swiftshader.info.description).toMatch(/SwiftShader/);
  });

  test("where no driver is installed, the error names the command that installs it", async () => {
    await withEnvironment({ XPATCH_CACHE: join(folder, "empty") }, async () => {
      const request = platform.requestAdapter({ adapter: "swiftshader" });
      await expect(request).rejects.toThrow(DeviceError);
      await expect(request).rejects.toThrow(/npm run setup -- swiftshader/);
    });
  });

  test("a driver that does not load is reported, not fatal", async () => {
    const driver = join(folder, "broken", "drivers", "lavapipe");
    mkdirSync(driver, { recursive: true });
    writeFileSync(join(driver, "libvulkan_lvp.so"), "not a shared library");
    writeFileSync(
      join(driver, "icd.json"),
      JSON.stringify({
        file_format_version: "1.0.0",
        ICD: { library_path: "./libvulkan_lvp.so", api_version: "1.3.0" },
      }),
    );
    const description = { loader: "libvulkan_lvp.so", icd: "icd.json", libraries: ["libnothing.so"] };
    writeFileSync(join(driver, "driver.json"), JSON.stringify(description));
    await withEnvironment({ XPATCH_CACHE: join(folder, "broken") }, async () => {
      const request = platform.requestAdapter({ adapter: "lavapipe" });
      await expect(request).rejects.toThrow(/no lavapipe driver that works/);
    });
  });
});

test("an unknown adapter is refused with the names of those there are", async () => {
  const request = withEnvironment({ XPATCH_ADAPTER: "voodoo" }, () => platform.requestAdapter({}));
  await expect(request).rejects.toThrow(/expected one of auto, gpu, lavapipe, swiftshader, found "voodoo"/);
});

test("toggles reach Dawn", async () => {
  const plain = await platform.requestAdapter({});
  const unsafe = await platform.requestAdapter({ toggles: ["allow_unsafe_apis"] });
  // Dawn offers its experimental features only where unsafe APIs are allowed, which nothing here needs.
  expect(unsafe.features.size).toBeGreaterThan(plain.features.size);
});

describe("waiting for a software driver", () => {
  /** Milliseconds of the naps taken while so many promises are waited for, and turns of the event loop meanwhile. */
  async function naps(waits: number): Promise<{ naps: number[]; turns: number }> {
    const spy = vi.spyOn(Atomics, "wait");
    let turns = 0;
    let counting = true;
    const count = () => {
      turns++;
      if (counting) setImmediate(count);
    };
    setImmediate(count);
    const later = () => new Promise((resolve) => setTimeout(resolve, 300));
    await Promise.all(Array.from({ length: waits }, () => platform.waitForDriver(later())));
    counting = false;
    const found = spy.mock.calls.map(([, , , ms]) => ms!);
    spy.mockRestore();
    return { naps: found, turns };
  }

  test("takes one nap a turn of the event loop, however many wait", async () => {
    const { naps: taken, turns } = await naps(20);
    expect(taken.length).toBeGreaterThan(5);
    expect(taken.length).toBeLessThanOrEqual(turns + 1);
  });

  test("naps shortly where a server may have to answer", async () => {
    expect(Math.max(...(await naps(1)).naps)).toBeGreaterThan(2);
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    expect(Math.max(...(await naps(1)).naps)).toBeLessThanOrEqual(0.5);
    await new Promise((resolve) => server.close(resolve));
  });

  test("ends, and starts again", async () => {
    await naps(2);
    const spy = vi.spyOn(Atomics, "wait");
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(spy).not.toHaveBeenCalled();
    spy.mockRestore();
    expect((await naps(1)).naps.length).toBeGreaterThan(5);
  });
});

test("system drivers are looked for where the Vulkan loader looks", () => {
  const data = join(folder, "share");
  const env = {
    XDG_DATA_DIRS: data,
    XDG_CONFIG_DIRS: folder,
    XDG_CONFIG_HOME: folder,
    XDG_DATA_HOME: folder,
  };
  const before = hasSystemDriver(env);
  mkdirSync(join(data, "vulkan", "icd.d"), { recursive: true });
  writeFileSync(join(data, "vulkan", "icd.d", "card_icd.json"), "{}");
  expect(hasSystemDriver(env)).toBe(true);
  rmSync(join(data, "vulkan"), { recursive: true });
  expect(hasSystemDriver(env)).toBe(before);
  expect(hasSystemDriver({ ...env, VK_DRIVER_FILES: "/x.json" })).toBe(true);
});

test("the cache folder follows XPATCH_CACHE, then XDG_CACHE_HOME, then the home folder", () => {
  expect(cacheFolder({ XPATCH_CACHE: "/a", XDG_CACHE_HOME: "/b" })).toBe("/a");
  expect(cacheFolder({ XDG_CACHE_HOME: "/b" })).toBe(join("/b", "xpatch"));
  expect(cacheFolder({})).toMatch(/\.cache.xpatch$/);
});

describe("openFile", () => {
  test("reads exactly what is asked for, anywhere in the file", async () => {
    const path = join(folder, "bytes");
    const content = Uint8Array.from({ length: 70_000 }, (_, i) => i * 31);
    writeFileSync(path, content);
    const source = await platform.openFile(path);
    expect([source.name, source.size]).toEqual([path, content.length]);
    expect(await source.read(0, 4)).toEqual(content.slice(0, 4));
    expect(await source.read(65_530, 4_470)).toEqual(content.slice(65_530));
    expect(await source.read(content.length, 0)).toEqual(new Uint8Array(0));
    await source.close();
  });

  test.each([
    [-1, 2],
    [3, 6],
    [9, 0],
    [0, 2 ** 52],
    [Number.NaN, 1],
  ])("refuses offset %d, length %d of eight bytes", async (offset, length) => {
    const path = join(folder, "eight");
    writeFileSync(path, "12345678");
    const source = await platform.openFile(path);
    await expect(source.read(offset, length)).rejects.toThrow(CheckpointError);
    await source.close();
  });

  test("notices that a file became shorter", async () => {
    const path = join(folder, "shrinking");
    writeFileSync(path, "12345678");
    const source = await platform.openFile(path);
    truncateSync(path, 4);
    await expect(source.read(0, 8)).rejects.toThrow(/became shorter/);
    await source.close();
  });

  test("names the path that does not exist or is a folder", async () => {
    await expect(platform.openFile(join(folder, "missing"))).rejects.toThrow(/^cannot open .*missing/);
    await expect(platform.openFile(join(folder, "missing"))).rejects.toThrow(CheckpointError);
    await expect(platform.openFile(folder)).rejects.toThrow(/expected a file, found a folder/);
  });
});
