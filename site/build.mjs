/**
 * Makes the documentation a site in site/dist, from the pages and from the docstrings of the public API. Its links are relative, so it
 * works from any folder of any server, and from a disk. Nothing is fetched by a reader's browser but the site itself.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Application, Converter, ReflectionKind, StructureRouter } from "typedoc";
import { DocsFault } from "./fault.mjs";
import { deadLinks } from "./links.mjs";
import { FRONT, LANGUAGES, PAGES } from "./pages.mjs";
import { writeEntries } from "./rooms.mjs";
import { stagePages } from "./stage.mjs";

/** Types that the reference mentions without a page of their own. */
const NOT_EXPORTED = [
  // Pieces that types of the API are spelled with.
  ...[
    "OfTap",
    "AnyLetters",
    "MODALITIES",
    "SPECIFICATION_KINDS",
    "CROSS_SITES",
    "FURTHER_LAYER_SITES",
    "OUTER_SITES",
    "STACKS",
    "OUTER",
    "LayerWeight",
    "NumberArray",
    "QUANTISE_FORMATS",
    "Panelled",
    "Rewrite",
    "ApartRules",
    "ImageText",
  ],
  // Details of pictures" preprocessing and of packed weights.
  ...[
    "Packed",
    "PackedSource",
    "TensorsDigest",
    "Size",
    "Channels",
    "TileSettings",
    "TileGridSettings",
    "CanvasSettings",
    "PatchSizes",
    "ResizeTarget",
  ],
  // The web"s, where there are any.
  ...["ImageBitmap", "HTMLCanvasElement", "OffscreenCanvas", "URL", "Blob", "ImageData", "AbortSignal"],
];

const here = fileURLToPath(new URL(".", import.meta.url));
const checkout = fileURLToPath(new URL("..", import.meta.url));
const work = join(here, ".cache");

/** Builds the site. Throws DocsFault, after TypeDoc has printed what it found. */
export async function buildSite(out = join(here, "dist")) {
  rmSync(work, { recursive: true, force: true });
  const projectDocuments = stagePages(checkout, join(work, "pages"));
  const entryPoints = writeEntries(checkout, join(work, "api"));
  const app = await Application.bootstrap({
    name: "xpatch",
    entryPoints,
    projectDocuments,
    readme: join(work, "pages", FRONT),
    tsconfig: join(here, "tsconfig.json"),
    out,
    basePath: checkout,
    visibilityFilters: {},
    intentionallyNotExported: NOT_EXPORTED,
    customCss: join(here, "theme.css"),
    router: "pages",
    sort: ["documents-first"],
    sortEntryPoints: false,
    groupOrder: [...Object.keys(PAGES), "Reference"],
    navigation: { includeGroups: true, includeCategories: false, includeFolders: true, compactFolders: true },
    markdownItLoader: headingsWithCode,
    markdownLinkExternal: false,
    includeHierarchySummary: false,
    useFirstParagraphOfCommentAsSummary: true,
    searchInDocuments: true,
    // A guide before an option of the same name.
    searchGroupBoosts: Object.fromEntries(Object.keys(PAGES).map((group) => [group, 4])),
    searchInComments: true,
    excludeInternal: true,
    skipErrorChecking: true, // `npm run check` does it
    highlightLanguages: LANGUAGES,
    requiredToBeDocumented: ["Class", "Interface", "Function", "Method", "Accessor", "TypeAlias", "Variable"],
    validation: {
      notDocumented: true,
      notExported: true,
      invalidLink: true,
      invalidPath: true,
      rewrittenLink: false,
    },
    treatWarningsAsErrors: true,
  });
  app.renderer.defineRouter("pages", PageRouter);
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    // What the console, notebooks and `using` call.
    const hooks = project
      .getReflectionsByKind(ReflectionKind.Method)
      .filter(({ name }) => name.startsWith("["));
    for (const hook of hooks) project.removeReflection(hook);
  });
  const project = await app.convert();
  if (project === undefined) throw new DocsFault("the sources do not compile");
  project.packageName = "xpatch"; // not this folder's: it decides whose exports are checked
  app.validate(project);
  await app.generateOutputs(project);
  if (app.logger.hasErrors() || app.logger.hasWarnings())
    throw new DocsFault("TypeDoc found faults; see above");
  const dead = deadLinks(out);
  if (dead.length > 0) throw new DocsFault(`dead links:\n  ${dead.join("\n  ")}`);
  return out;
}

/** Pages keep their paths; what the API exports is under api/, by rooms. */
class PageRouter extends StructureRouter {
  getIdealBaseName(reflection) {
    if (!reflection.kindOf(ReflectionKind.Document)) return `api/${super.getIdealBaseName(reflection)}`;
    return reflection.frontmatter.path.replace(/README\.md$/, "index.md").replace(/\.md$/, "");
  }

  /** The front page by its file: a disk has no index of a folder. */
  baseRelativeUrl(from, target) {
    return super.baseRelativeUrl(from, target === "./" ? "index.html" : target);
  }
}

/** TypeDoc names a heading by its text without the code in it; GitHub, which the links are written for, by all. */
function headingsWithCode(markdown) {
  markdown.core.ruler.push("heading_code", ({ tokens, Token }) => {
    tokens.forEach(({ type }, i) => {
      if (type !== "heading_open") return;
      tokens[i + 1].children = tokens[i + 1].children.flatMap((token) => {
        if (token.type !== "code_inline") return token;
        const [open, text, close] = [
          new Token("html_inline", "", 0),
          new Token("text", "", 0),
          new Token("html_inline", "", 0),
        ];
        return [
          Object.assign(open, { content: "<code>" }),
          Object.assign(text, { content: token.content }),
          Object.assign(close, { content: "</code>" }),
        ];
      });
    });
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(await buildSite());
