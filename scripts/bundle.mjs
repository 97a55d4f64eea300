/**
 * `npm run bundle`: packs what a Linux machine without network needs to run xpatch on its GPU into one archive under
 * .bundle/: the Node executable, the build, the run-time dependencies, benches, fixtures and the Vulkan and EGL
 * loaders. There: `tar -xf xpatch-linux-x64.tar.gz && xpatch/run.sh devices`, or `xpatch/run.sh node bench/….js`.
 */
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { sharedLibraries, unpackPackages, updatePackageLists } from "./apt.mjs";
import { ensureBuild } from "./build.mjs";
import { root } from "./cache.mjs";
import { command, runScript, SetupError, step } from "./command.mjs";
import { ensureDependencies } from "./dependencies.mjs";

const LIMIT_MIB = 64;
const LOADERS = ["libvulkan1", "libegl1", "libglvnd0", "libopengl0", "libgl1", "libglx0", "libgles2"];

// The machine's own loaders come first: they belong to its driver.
const RUN = `#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
if ! ldconfig -p 2>/dev/null | grep -q libvulkan.so.1; then
  export LD_LIBRARY_PATH="$here/loaders\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
export PATH="$here/bin:$PATH"
cd "$here" || exit 1
[ "$1" = node ] && exec "$@"
exec node dist/cli/main.js "$@"
`;

await runScript(async () => {
  const target = `${process.platform}-${process.arch}`;
  if (process.platform !== "linux")
    throw new SetupError(`bundles are made on Linux for Linux; this is ${target}`);
  await ensureDependencies();
  await ensureBuild();

  const out = join(root, ".bundle");
  const folder = join(out, "xpatch");
  const archive = join(out, `xpatch-${target}.tar.gz`);
  rmSync(out, { recursive: true, force: true });
  await step("loaders", (progress) => addLoaders(folder, progress));
  await step("bundle", async () => {
    for (const path of [
      "package.json",
      "dist",
      "tasks",
      "bench",
      "test/fixtures",
      ...runtimeDependencies(),
    ]) {
      if (existsSync(join(root, path))) copy(path, folder, target);
    }
    mkdirSync(join(folder, "bin"));
    cpSync(process.execPath, join(folder, "bin", "node"));
    // Debug symbols are most of some distributions' executable.
    await command("strip", ["--strip-unneeded", join(folder, "bin", "node")]).catch(() => {});
    writeFileSync(join(folder, "run.sh"), RUN);
    chmodSync(join(folder, "run.sh"), 0o755);
    const incoming = `${archive}.incoming`;
    await command("tar", ["-czf", incoming, "-C", out, "xpatch"]);
    renameSync(incoming, archive);
    rmSync(folder, { recursive: true });
  });
  const size = statSync(archive).size / 2 ** 20;
  console.log(`${archive}: ${size.toFixed(1)} MiB`);
  if (size > LIMIT_MIB) throw new SetupError(`the bundle is over its limit of ${LIMIT_MIB} MiB`);
});

/** The folders of what package.json calls "dependencies", and of theirs. Of optional ones those of this platform exist. */
function runtimeDependencies() {
  const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  return Object.keys(packages).filter((path) => path !== "" && !packages[path].dev);
}

/** Copies a part of the checkout, without the native modules of other platforms and the fonts that nothing uses. */
function copy(path, folder, target) {
  const foreign = new RegExp(`/webgpu/dist/(?!${target}(/|$))`);
  const unused = /\/dejavu-fonts-ttf\/ttf\/(?!DejaVuSans(-Bold)?\.ttf$)./;
  const filter = (file) => !foreign.test(file) && !unused.test(file);
  cpSync(join(root, path), join(folder, path), { recursive: true, filter });
}

async function addLoaders(folder, progress) {
  const unpacked = join(folder, "unpacked");
  await updatePackageLists();
  await unpackPackages(LOADERS, unpacked, progress);
  for (const library of sharedLibraries(unpacked)) {
    cpSync(join(library.folder, library.name), join(folder, "loaders", library.name), { dereference: true });
  }
  rmSync(unpacked, { recursive: true });
}
