/* A worker of its own process on fake cells: node fake-worker.mjs <redis> <folder> <concurrency> <grid> */
import { fileURLToPath } from "node:url";
import { redisAddress } from "../../../../dist/experiments/grid/queue/redis-address.js";
import { work } from "../../../../dist/experiments/grid/queue/worker.js";

const [redis, folder, concurrency, grid] = process.argv.slice(2);
const stop = new AbortController();
process.on("SIGTERM", () => stop.abort());
const done = await work({
  redis: redisAddress(redis),
  grid,
  program: () => ({
    file: fileURLToPath(new URL("fake-cells.mjs", import.meta.url)),
    args: [folder],
    execArgv: [],
  }),
  concurrency: Number(concurrency),
  signal: stop.signal,
  note: (text) => console.error(text),
});
console.log(JSON.stringify(done));
