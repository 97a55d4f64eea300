import { later } from "../ui/later.tsx";
// What the document may hold is known before a view is shown: links are read with it.
import "./lens/lens-slice.ts";
import { ModelView } from "./model/model-view.tsx";
import "./prompt/prompt-slice.ts";
import "./see/see-slice.ts";
import "./tour/tour-slice.ts";
import "../vectors/shelf.ts";
import "./vectors/vectors-slice.ts";
import type { View } from "./view.ts";

/** In the order of the navigation. A view that is not here does not exist for the reader. */
export const VIEWS: readonly View[] = [
  { id: "model", title: "Model", icon: "cube", needsModel: false, component: ModelView },
  {
    id: "prompt",
    title: "Prompt",
    icon: "text",
    needsModel: true,
    component: later(async () => (await import("./prompt/prompt-view.tsx")).PromptView),
  },
  {
    id: "lens",
    title: "Patch lens",
    icon: "grid",
    needsModel: true,
    component: later(async () => (await import("./lens/lens-view.tsx")).LensView),
  },
  {
    id: "vectors",
    title: "Task vectors",
    icon: "vector",
    needsModel: true,
    component: later(async () => (await import("./vectors/vectors-view.tsx")).VectorsView),
  },
  {
    id: "see",
    title: "See",
    icon: "eye",
    needsModel: true,
    component: later(async () => (await import("./see/see-view.tsx")).SeeView),
  },
  {
    id: "tour",
    title: "Tour",
    icon: "flag",
    needsModel: false,
    component: later(async () => (await import("./tour/tour-view.tsx")).TourView),
  },
];

export function viewNamed(id: string): View | undefined {
  return VIEWS.find((view) => view.id === id);
}
