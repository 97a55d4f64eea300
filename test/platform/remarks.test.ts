import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";

const moduleUrl = (path: string) => JSON.stringify(pathToFileURL(resolve("dist", path)).href);

function node(program: string) {
  return spawnSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8" });
}

test.skipIf(process.platform !== "linux")(
  "Dawn's two remarks about lavapipe are held back, and nothing else",
  () => {
    const remark = (kind: string) =>
      `Warning: maxDynamic${kind}BuffersPerPipelineLayout artificially reduced from 1000000 to 16 to fit dynamic offset allocation limit.\n`;
    const { stderr, stdout, status } = node(`
    import { writeSync } from "node:fs";
    import { withoutHarmlessRemarks } from ${moduleUrl("platform/node-remarks.js")};
    writeSync(2, "before\\n");
    const found = withoutHarmlessRemarks(() => {
      writeSync(2, ${JSON.stringify(`${remark("Uniform")}Warning: something else\n${remark("Storage")}no end`)});
      return 5;
    });
    try {
      withoutHarmlessRemarks(() => { writeSync(2, "\\nof one that throws\\n"); throw new Error("x"); });
    } catch { writeSync(2, "after\\n"); }
    console.log(found);
  `);
    expect({ stderr, stdout, status }).toEqual({
      stderr: "before\nWarning: something else\nno end\nof one that throws\nafter\n",
      stdout: "5\n",
      status: 0,
    });
  },
);

test.skipIf(process.platform !== "linux")("opening a software driver says nothing", () => {
  const { stderr, stdout } = node(`
    import { openDevice } from ${moduleUrl("index.js")};
    const device = await openDevice({ adapter: "lavapipe" });
    console.log(device.info.vendor);
    await device.destroy();
  `);
  expect({ stderr, stdout }).toEqual({ stderr: "", stdout: "mesa\n" });
});
