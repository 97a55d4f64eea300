/** Finds links of a built site that lead nowhere. */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

const LINK = / (href|src)="([^"]*)"/g;
const ENTITIES = { amp: "&", quot: '"', lt: "<", gt: ">", "#39": "'" };

/** Links to files or anchors that the site in this folder does not have, and whatever a page would load from elsewhere. */
export function deadLinks(folder) {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  const texts = new Map(
    names
      .filter((name) => /\.(html|svg)$/.test(name))
      .map((name) => [resolve(folder, name), readFileSync(join(folder, name), "utf8")]),
  );
  const anchors = new Map(
    Array.from(texts, ([file, text]) => [
      file,
      new Set(Array.from(text.matchAll(/ id="([^"]*)"/g), ([, id]) => unescaped(id))),
    ]),
  );
  const dead = new Set();
  for (const [file, text] of texts) {
    if (!file.endsWith(".html")) continue;
    for (const [, attribute, value] of text.matchAll(LINK)) {
      const link = unescaped(value);
      const said = `${relative(folder, file)}: ${link}`;
      if (/^\w+:/.test(link)) {
        if (attribute === "src" && !link.startsWith("data:")) dead.add(`${said} is loaded from elsewhere`);
        continue;
      }
      const [path, anchor = ""] = link.split("#");
      const target =
        path === "" ? file : resolve(dirname(file), decodeURIComponent(path.replace(/\?.*$/, "")));
      const there = existsSync(target) && statSync(target).isFile();
      const found = anchor === "" || anchors.get(target)?.has(decodeURIComponent(anchor));
      if (!there || !found) dead.add(said);
    }
  }
  return [...dead];
}

function unescaped(attribute) {
  return attribute.replace(/&(amp|quot|lt|gt|#39);/g, (_, name) => ENTITIES[name]);
}
