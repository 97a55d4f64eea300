import { lensView } from "./lens/lens-view.tsx";
import { modelView } from "./model/model-view.tsx";
import { promptView } from "./prompt/prompt-view.tsx";
import { seeView } from "./see/see-view.tsx";
import { tourView } from "./tour/tour-view.tsx";
import { vectorsView } from "./vectors/vectors-view.tsx";
import type { View } from "./view.ts";

/** In the order of the navigation. A view that is not here does not exist for the reader. */
export const VIEWS: readonly View[] = [modelView, promptView, lensView, vectorsView, seeView, tourView];

export function viewNamed(id: string): View | undefined {
  return VIEWS.find((view) => view.id === id);
}
