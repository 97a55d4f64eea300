import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { connect } from "../../../../experiments/grid/queue/connection.ts";
import { redisAddress } from "../../../../experiments/grid/queue/redis-address.ts";
import { redisProgram } from "../../../../experiments/grid/queue/redis-program.ts";
import { addressIn, RedisServer } from "../../../../experiments/grid/queue/redis-server.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "xpatch-redis-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("addresses", () => {
  test.each([
    ["redis://localhost", "redis://localhost", { host: "localhost", port: 6379, db: 0 }],
    ["redis://:p%40ss@10.0.0.1:7000/3", "redis://10.0.0.1:7000/3", { port: 7000, db: 3, password: "p@ss" }],
    ["rediss://me:word@queue.example:6380", "rediss://queue.example:6380", { username: "me", tls: {} }],
    ["valkeys://:word@[::1]", "valkeys://[::1]", { host: "::1", tls: {}, password: "word" }],
    [
      "unix:/run/redis.sock?password=word&db=2",
      "unix:/run/redis.sock",
      { path: "/run/redis.sock", db: 2, password: "word" },
    ],
  ])("%s", (text, shown, options) => {
    const address = redisAddress(text);
    expect(address.shown).toBe(shown);
    expect(address.options).toMatchObject(options);
  });

  test.each([
    ["secret@nowhere", "not an address"],
    ["http://:secret@host", "http://… are none"],
    ["redis://:secret@host/queue", 'the number of a database, found "queue"'],
    ["redis://:secret@host?tls=yes", "nothing may follow"],
    ["redis://:%E0%A4%A@host", "not percent-encoded"],
    ["unix:/run/redis.sock?pass=secret", 'found "pass"'],
  ])("%s is refused, and the password stays out of it", (text, why) => {
    expect(() => redisAddress(text)).toThrow(why);
    expect(() => redisAddress(text)).not.toThrow("secret");
  });
});

describe("a server of a grid's own", () => {
  test("lets in who knows its password, and goes on where it was, at the same address", async () => {
    const first = await RedisServer.start(folder);
    const redis = await connect(first.address);
    await redis.set("key", "value");
    expect(await redis.config("GET", "maxmemory-policy")).toEqual(["maxmemory-policy", "noeviction"]);
    redis.disconnect();
    const { password: _, ...stranger } = first.address.options;
    await expect(connect({ shown: "redis://here", options: stranger })).rejects.toThrow(
      "cannot use the queue at redis://here: NOAUTH",
    );
    await expect(
      connect({ shown: "redis://here", options: { ...stranger, password: "guess" } }),
    ).rejects.toThrow("WRONGPASS");
    expect(statSync(join(folder, "address.json")).mode & 0o777).toBe(0o600);
    await first.stop();
    await expect(connect(first.address)).rejects.toThrow("ECONNREFUSED");

    const second = await RedisServer.start(folder);
    expect(second.address).toEqual(first.address);
    expect(addressIn(folder)).toEqual(first.address);
    const again = await connect(second.address);
    expect(await again.get("key")).toBe("value");
    again.disconnect();
    await second.stop();
  });

  test("leaves nothing but its address where it is not to remember", async () => {
    const server = await RedisServer.start(folder, { persist: false });
    const redis = await connect(server.address);
    await redis.set("key", "value");
    redis.disconnect();
    await server.stop();
    expect(readdirSync(folder)).toEqual(["address.json"]);
  });

  test("says that it ended by itself, and not that it was stopped", async () => {
    const ends: string[] = [];
    const server = await RedisServer.start(folder, { persist: false, onEnd: (why) => ends.push(why) });
    const redis = await connect(server.address);
    redis.call("SHUTDOWN", "NOSAVE").catch(() => {});
    await expect.poll(() => ends).toEqual([expect.stringMatching(/ended with status 0: .*bye bye/)]);
    redis.disconnect();
    await server.stop();
    expect(ends).toHaveLength(1);
  });

  test("ends with the process that started it, even where that is killed", async () => {
    const module = new URL("../../../../dist/experiments/grid/queue/redis-server.js", import.meta.url);
    const script = `
      const { RedisServer } = await import(${JSON.stringify(module.href)});
      await RedisServer.start(${JSON.stringify(folder)});
      console.log("started");
      setInterval(() => {}, 1000);`;
    const parent = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", 2],
    });
    await once(parent.stdout!, "data");
    const { options } = addressIn(folder)!;
    const redis = new Redis({ ...options, retryStrategy: () => null });
    redis.on("error", () => {});
    expect(await redis.ping()).toBe("PONG");
    const pid = Number(/process_id:(\d+)/.exec(await redis.info("server"))![1]);
    parent.kill("SIGKILL");
    await expect.poll(() => isThere(pid), { timeout: 5000 }).toBe(false);
    redis.disconnect();
  });

  test("its port taken by another, or its address damaged, are said with the remedy", async () => {
    const first = await RedisServer.start(folder, { persist: false });
    await expect(RedisServer.start(folder)).rejects.toThrow(/port \d+ .* is taken by another program/);
    await first.stop();
    writeFileSync(join(folder, "address.json"), '{"port": 1}');
    await expect(RedisServer.start(folder)).rejects.toThrow(
      "address.json is damaged: expected host, port and password",
    );
  });

  test("one of another machine is not taken for one of this", async () => {
    const file = join(folder, "address.json");
    writeFileSync(file, JSON.stringify({ host: "elsewhere", port: 1234, password: "secret" }));
    expect(() => addressIn(folder)).toThrow("is a server on elsewhere that only elsewhere can reach");
    const server = await RedisServer.start(folder, { persist: false });
    expect(addressIn(folder)).toEqual(server.address);
    expect(server.address.options.password).not.toBe("secret");
    await server.stop();
  });

  test("a program that is none, or too old, is refused by name", async () => {
    const old = join(folder, "old-redis");
    writeFileSync(old, "#!/bin/sh\necho Redis server v=5.0.14 sha=0", { mode: 0o755 });
    await expect(redisProgram({ XPATCH_REDIS_SERVER: old })).rejects.toThrow("expected Redis 6.2 or later");
    await expect(redisProgram({ XPATCH_REDIS_SERVER: join(folder, "none") })).rejects.toThrow("does not run");
    await expect(redisProgram({ XPATCH_CACHE: folder, PATH: folder })).rejects.toThrow(
      /no Redis or Valkey server on this machine.*"npm run setup -- redis"/,
    );
  });

  test("scripts and library look for what set-up fetched in the same place", () => {
    const script = readFileSync(new URL("../../../../scripts/redis.mjs", import.meta.url), "utf8");
    expect(script).toContain('join(cache, "redis")');
  });
});

/** Whether a process runs, and is not just waiting to be buried. */
function isThere(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
