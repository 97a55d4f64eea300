import type { Setting } from "../../../../src/patching/setting.ts";
import type { ProjectAnswer, TaskSummary } from "../../../../src/session/messages/results.ts";
import type { PromptSpec } from "../../../../src/session/messages/values.ts";
import type { Asking } from "../../ask.ts";
import { toCsv } from "../../keep/csv.ts";
import { taskNamed } from "../../vectors/query.ts";
import type { PlaneSet } from "./see-slice.ts";

/** A prompt of the set, and where its vector lies. */
export interface PlanePoint {
  readonly task: string;
  readonly asked: "text" | "image";
  readonly input: string;
  readonly output: string;
  readonly x: number;
  readonly y: number;
}

export interface PlaneAnswer {
  readonly points: readonly PlanePoint[];
  readonly explained?: ProjectAnswer["explained"];
}

/** The prompts of a set: of each task, in words and with pictures, the same items of the test split behind their own examples. */
export function planePrompts(
  { tasks: names, text, image, items, count, seed }: PlaneSet,
  tasks: readonly TaskSummary[],
): (Omit<PlanePoint, "x" | "y"> & { readonly prompt: PromptSpec })[] {
  return names.flatMap((task) => {
    const known = taskNamed(tasks, task).items.filter(({ split }) => split === "test");
    const shown = (
      known.some(({ picture }) => picture) ? known.filter(({ picture }) => picture) : known
    ).slice(0, items);
    return (["text", "image"] as const).flatMap((asked) =>
      (asked === "text" ? text : image)
        ? shown.flatMap(({ input, outputs, picture }) =>
            asked === "image" && !picture
              ? []
              : [
                  {
                    task,
                    asked,
                    input,
                    output: outputs[0]!,
                    prompt: { task, input, asked, specify: { kind: asked, count, seed } },
                  },
                ],
          )
        : [],
    );
  });
}

/** What each prompt has at its last token in a layer, drawn on a plane. */
export async function askPlane(
  { client, model, signal, onProgress }: Asking,
  set: PlaneSet,
  tasks: readonly TaskSummary[],
): Promise<PlaneAnswer> {
  const prompts = planePrompts(set, tasks);
  if (prompts.length < 3) throw new Error("a plane needs at least three prompts: choose more tasks or items");
  const { method, layer, seed } = set;
  const points = await client.activations(
    { model, prompts: prompts.map(({ prompt }) => prompt), site: `resid_post.${layer}` },
    { signal, onProgress },
  );
  const { points: plane, explained } = await client.project({ points, method, seed }, { signal });
  return {
    points: prompts.map(({ prompt: _, ...about }, i) => ({
      ...about,
      x: plane[2 * i]!,
      y: plane[2 * i + 1]!,
    })),
    ...(explained && { explained }),
  };
}

export function planeInWords({ method, layer }: PlaneSet): string {
  return `${method === "pca" ? "PCA" : "t-SNE"} of resid_post.${layer} at the last token`;
}

export function planeCsv({ points }: PlaneAnswer): string {
  return toCsv(
    ["task", "asked", "input", "output", "x", "y"],
    points.map(({ task, asked, input, output, x, y }) => [task, asked, input, output, x, y]),
  );
}

export async function planeFigure({ points }: PlaneAnswer, set: PlaneSet, setting: Setting) {
  const [{ chartFigure }, { showSetting }] = await Promise.all([
    import("../../../../src/figures/chart-figure.ts"),
    import("../../../../src/patching/setting.ts"),
  ]);
  return chartFigure({
    kind: "scatter",
    title: planeInWords(set),
    lines: [showSetting(setting)],
    x: "",
    y: "",
    group: "task",
    filling: "asked by",
    rows: points.map(({ task, asked, x, y }) => ({
      x,
      y,
      group: task,
      filling: asked === "image" ? "picture" : "name",
    })),
  });
}

/** Points within a field of a width and a height, with room around them; one scale for both directions, since distances are what is read. */
export function layOut(
  points: readonly { readonly x: number; readonly y: number }[],
  { width, height, room }: { readonly width: number; readonly height: number; readonly room: number },
): { readonly x: number; readonly y: number }[] {
  const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [bottom, top] = [Math.min(...ys), Math.max(...ys)];
  const scale = Math.min((width - 2 * room) / (right - left || 1), (height - 2 * room) / (top - bottom || 1));
  return points.map(({ x, y }) => ({
    x: width / 2 + (x - (left + right) / 2) * scale,
    y: height / 2 - (y - (bottom + top) / 2) * scale,
  }));
}
