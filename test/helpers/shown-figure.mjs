/** Shows a figure as a program does that is not in a notebook, and draws it. */
import { heatFigure, show } from "xpatch";

const figure = heatFigure({ rows: ["a", "b"], columns: [1], values: [[1], [2]] }, { title: "T" });
await show(figure);
console.log((await figure.png()).length, await figure.svg());
