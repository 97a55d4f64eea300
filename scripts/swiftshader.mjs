import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliDecompressSync } from "node:zlib";
import { command, SetupError } from "./command.mjs";

// An npm package for its SwiftShader (Apache-2.0) and Vulkan loader alone; as a dependency it would bring a browser.
const PACKAGE = "@sparticuz/chromium@147.0.0";
const SHA256 = "18fe5404ce845594cd7d592fc07f37a19514079ba4d9c27192ad8b908743f16b";

/** Google's Vulkan driver for CPUs, from an npm package, into `folder` with its driver.json. */
export async function installSwiftShader(folder) {
  if (process.arch !== "x64")
    throw new SetupError(`SwiftShader is packaged for x64 only; this is ${process.arch}`);
  const unpacked = join(folder, "unpacked");
  mkdirSync(unpacked, { recursive: true });
  const packed = await command("npm", ["pack", PACKAGE, "--json", "--pack-destination", unpacked], {
    cwd: unpacked,
  });
  const tarball = join(unpacked, JSON.parse(packed)[0].filename);
  const sha256 = createHash("sha256").update(readFileSync(tarball)).digest("hex");
  if (sha256 !== SHA256) throw new SetupError(`${PACKAGE}: expected sha256 ${SHA256}, found ${sha256}`);

  await command("tar", ["-xf", tarball, "-C", unpacked, "package/bin/swiftshader.tar.br"]);
  const inner = join(unpacked, "swiftshader.tar");
  writeFileSync(
    inner,
    brotliDecompressSync(readFileSync(join(unpacked, "package", "bin", "swiftshader.tar.br"))),
  );
  await command("tar", ["-xf", inner, "-C", unpacked]);
  copyFileSync(join(unpacked, "libvk_swiftshader.so"), join(folder, "libvk_swiftshader.so"));
  copyFileSync(join(unpacked, "libvulkan.so.1"), join(folder, "libvulkan.so.1"));
  copyFileSync(join(unpacked, "vk_swiftshader_icd.json"), join(folder, "icd.json"));
  writeFileSync(
    join(folder, "driver.json"),
    JSON.stringify({ loader: "libvulkan.so.1", icd: "icd.json", libraries: [] }),
  );
  rmSync(unpacked, { recursive: true });
}
