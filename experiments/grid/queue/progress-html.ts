/* The page of a grid's progress: one file, as `progress-page.ts` serves it. */

export const STYLE = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 64rem; padding: 0 1rem; }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
progress { width: 100%; height: 1.25rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #8886; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.total td, tr.total th { font-weight: 600; border-bottom: 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; }
`;

export const SCRIPT = `
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
const of = (id) => document.getElementById(id);
const element = (name, text, attributes = {}) => Object.assign(document.createElement(name), { textContent: text, ...attributes });

function row(cells, heading) {
  const tr = document.createElement("tr");
  tr.append(...cells.map((cell, i) => heading
    ? element(cell === "" ? "td" : "th", cell, cell === "" ? {} : { scope: "col" })
    : element(i === 0 ? "th" : "td", cell, i === 0 ? { scope: "row" } : {})));
  return tr;
}

function show({ store, rows, done, cells, workers, givenUp, isOver }) {
  document.title = done + "/" + cells + " · " + store;
  of("store").textContent = store;
  of("bar").max = Math.max(1, cells);
  of("bar").value = done;
  const by = workers === undefined ? "" : ", " + workers + (workers === 1 ? " worker" : " workers");
  of("state").textContent = done + " of " + cells + " cells" + (isOver ? "; nothing more is computed" : by);
  const [heading, ...others] = rows;
  of("head").replaceChildren(row(heading, true));
  of("rows").replaceChildren(...others.map((cells) => row(cells)));
  if (others.length > 1) of("rows").lastElementChild.className = "total";
  const open = new Set([...of("cells").querySelectorAll("details[open]")].map(({ id }) => id));
  of("failed").hidden = givenUp.length === 0;
  of("cells").replaceChildren(...givenUp.map(({ run, cell, key, attempts, error, stack }) => {
    const details = element("details", "", { id: cell, open: open.has(cell) });
    details.append(
      element("summary", run + ": " + key + " (" + attempts + " attempts): " + error.split("\\n")[0]),
      element("pre", stack || error),
    );
    return details;
  }));
}

async function look() {
  try {
    const response = await fetch("progress", { headers: { authorization: "Bearer " + token } });
    if (!response.ok) throw new Error(await response.text());
    const shown = await response.json();
    of("trouble").textContent = "";
    if (shown) show(shown);
  } catch (error) {
    of("trouble").textContent = error instanceof TypeError
      ? "xpatch grid serve does not answer; it may have ended."
      : error.message;
  }
  setTimeout(look, 2000);
}
look();
`;

export const HTML = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>xpatch grid</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1 id="store">xpatch grid</h1>
<p><progress id="bar" value="0" aria-label="cells that are done"></progress></p>
<p id="state" role="status"></p>
<p id="trouble" role="alert"></p>
<div class="wide" tabindex="0" role="region" aria-label="cells by run"><table><thead id="head"></thead><tbody id="rows"></tbody></table></div>
<section id="failed" hidden>
<h2>Given up</h2>
<div id="cells"></div>
</section>
</main>
<script>${SCRIPT}</script>
</body>
</html>
`;
