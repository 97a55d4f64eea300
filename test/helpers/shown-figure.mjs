import { curveFigure, show } from "xpatch";

await show(curveFigure([0.5, 0.25], { y: "accuracy" }));
