import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cache } from "./cache.mjs";
import { command, SetupError } from "./command.mjs";

/**
 * Debian and Ubuntu packages without root: apt works on a state folder of our own, with the machine's own mirror and
 * keys, downloads what the machine lacks, and `dpkg -x` unpacks it into a folder. Nothing of the system changes.
 */
const state = join(cache, "apt");
const sources = join(state, "sources.list");

const options = [
  `Dir::State=${state}`,
  "Dir::State::status=/var/lib/dpkg/status",
  `Dir::Etc::SourceList=${sources}`,
  "Dir::Etc::SourceParts=/dev/null",
  `Dir::Cache=${state}`,
  // Root would otherwise download as a user who cannot write here.
  "APT::Sandbox::User=root",
  "Debug::NoLocking=1",
  "Acquire::Retries=2",
].flatMap((option) => ["-o", option]);

/** Reads the package lists: the release's own suites, and Debian's backports. */
export async function updatePackageLists() {
  const system = Object.fromEntries(
    readFileSync("/etc/os-release", "utf8")
      .split("\n")
      .map((line) => line.split("="))
      .map(([key, value = ""]) => [key, value.replaceAll('"', "")]),
  );
  const codename = system.VERSION_CODENAME;
  const format = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(CREATED_BY)";
  const targets = (await command("apt-get", ["indextargets", "--format", format]))
    .split("\n")
    .map((line) => line.split("|"))
    .filter(([, release = "", , kind]) => kind === "Packages" && `${release}-`.startsWith(`${codename}-`));
  const suites = new Map(
    targets.map(([uri, release, component]) => [`${uri} ${release} ${component}`, true]),
  );
  const [mirror] = targets.find(([, release]) => release === codename) ?? [];
  if (!mirror) throw new SetupError(`apt has no package source for "${codename}", this system's release`);
  if (system.ID === "debian") suites.set(`${mirror} ${codename}-backports main`, true);

  for (const folder of ["lists/partial", "archives/partial"]) {
    mkdirSync(join(state, folder), { recursive: true });
  }
  writeFileSync(sources, [...suites.keys()].map((suite) => `deb ${suite}\n`).join(""));
  await command("apt-get", [...options, "update"]);
}

/** The suites that have a package, with the version in each; the highest version first. */
export async function versionsOf(name) {
  const table = await command("apt-cache", [...options, "madison", name]);
  return table
    .split("\n")
    .map((line) => line.split("|").map((cell) => cell.trim()))
    .filter((row) => row.length === 3)
    .map(([, version, source]) => ({ version, suite: source.split(" ")[1].split("/")[0] }));
}

/**
 * Downloads packages (`name` or `name/suite`), and of what they depend on whatever the machine lacks, and unpacks it
 * all into `folder`. `progress` gets the fraction downloaded.
 */
export async function unpackPackages(names, folder, progress = () => {}) {
  const archives = join(folder, "archives");
  mkdirSync(join(archives, "partial"), { recursive: true });
  const where = [...options, "-o", `Dir::Cache::archives=${archives}`];
  const install = [...where, "install", "--reinstall", "--yes", "--no-install-recommends", ...names];

  // One line per package: 'URI' file-name bytes hash
  const files = (await command("apt-get", ["--print-uris", "-qq", ...install])).trim().split("\n");
  const total = files.reduce((bytes, line) => bytes + Number(line.split(" ")[2]), 0);
  const ticker = setInterval(() => progress(bytesIn(archives) / total), 200);
  try {
    await command("apt-get", ["--download-only", ...install]);
  } finally {
    clearInterval(ticker);
  }
  for (const file of readdirSync(archives).filter((name) => name.endsWith(".deb"))) {
    await command("dpkg", ["-x", join(archives, file), folder]);
  }
  rmSync(archives, { recursive: true });
}

function bytesIn(folder) {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  );
  return files.reduce((bytes, entry) => {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    return bytes + (statSync(path, { throwIfNoEntry: false })?.size ?? 0);
  }, 0);
}

/** The shared libraries in an unpacked folder, as name and path. */
export function sharedLibraries(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => /\.so(\.|$)/.test(entry.name))
    .map((entry) => ({ name: entry.name, folder: entry.parentPath ?? entry.path }));
}

/** A value of LD_LIBRARY_PATH that covers them. */
export function libraryPath(libraries) {
  return [...new Set(libraries.map(({ folder }) => folder))].join(":");
}
