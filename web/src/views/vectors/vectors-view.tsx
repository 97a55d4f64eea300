import type { JSX } from "preact";
import "../../style/vectors.css";
import type { View } from "../view.ts";
import { MakePanel } from "./make-panel.tsx";
import { MixPanel } from "./mix-panel.tsx";
import { PicturesPanel } from "./pictures-panel.tsx";
import { ShelfPanel } from "./shelf-panel.tsx";
import { SweepPanel } from "./sweep-panel.tsx";

/** Make a vector, keep it, put it on pictures. */
function VectorsView(): JSX.Element {
  return (
    <div class="vectors-view">
      <div class="panels">
        <MakePanel />
        <ShelfPanel />
      </div>
      <div class="panels">
        <PicturesPanel />
        <SweepPanel />
        <MixPanel />
      </div>
    </div>
  );
}

export const vectorsView: View = {
  id: "vectors",
  title: "Task vectors",
  icon: "vector",
  component: VectorsView,
  needsModel: true,
};
