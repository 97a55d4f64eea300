/** The pages of the site in reading order: groups of the sidebar, paths from the root of the checkout. */
export const FRONT = "README.md";

export const PAGES = {
  "Start here": [
    "docs/tutorial.md",
    "docs/first-hour.md",
    "docs/coming-from.md",
    "docs/model.md",
    "docs/glossary.md",
  ],
  Guides: [
    "docs/patching.md",
    "docs/interventions.md",
    "docs/gradients.md",
    "docs/sites.md",
    "docs/figures.md",
    "docs/tasks.md",
    "docs/training.md",
    "docs/activations.md",
    "docs/sparse-autoencoders.md",
    "docs/explorer.md",
    "docs/serve.md",
    "docs/cli.md",
  ],
  Models: ["docs/families/README.md", "docs/checkpoints.md", "docs/quantised.md"],
  Results: [
    "docs/experiments.md",
    "docs/grids.md",
    "docs/exchange.md",
    "docs/report/README.md",
    "docs/known-circuit.md",
    "docs/evidence.md",
  ],
  "Machines and speed": [
    "docs/adapters.md",
    "docs/browser.md",
    "docs/performance.md",
    "docs/benchmarks.md",
    "docs/kernels.md",
  ],
  "Inside xpatch": ["docs/design.md", "docs/adding-a-family.md", "docs/adding-a-kernel.md"],
  "This project": ["docs/README.md", "FEATURES.md", "CHANGELOG.md", "weights/README.md"],
};

/** Pages that have others under them in the sidebar: all other Markdown files of their folders. */
export const WITH_FOLDER = ["docs/families/README.md", "docs/report/README.md"];

/** What the pages are called in the sidebar where their heading is too long for it. */
export const SHORT_TITLES = {
  "docs/README.md": "Overview of the pages",
  "docs/report/README.md": "Report on the shipped model",
  "docs/families/README.md": "Families",
  "FEATURES.md": "What works",
  "CHANGELOG.md": "Changes",
  "weights/README.md": "Model card",
};

/** Languages of code blocks, in pages and docstrings. */
export const LANGUAGES = ["ts", "js", "json", "yaml", "bash", "sh", "http", "html", "python", "wgsl", "text"];
