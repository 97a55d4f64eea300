/**
 * `npm run docs`: makes the documentation and the docstrings of the public API a site with search, in site/dist. It works from any
 * folder of any server, and from a disk. Fails where the documentation has faults: dead links, exports without a docstring.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { root } from "./cache.mjs";
import { runScript, SetupError } from "./command.mjs";
import { ensureDependencies } from "./dependencies.mjs";

const site = join(root, "site");

await runScript(async () => {
  if (!existsSync(site))
    throw new SetupError("the site is built in a checkout of xpatch, and this is an installed package");
  // The sources' types come with the project's own.
  await ensureDependencies();
  await ensureDependencies(site, "what builds the site");
  const [{ buildSite }, { DocsFault }] = await Promise.all([
    import("../site/build.mjs"),
    import("../site/fault.mjs"),
  ]);
  const folder = await buildSite().catch((error) => {
    throw error instanceof DocsFault ? new SetupError(error.message) : error;
  });
  console.log(`The site: ${pathToFileURL(join(folder, "index.html"))}`);
});
