import type { JSX } from "preact";
import "../../style/prompt.css";
import "../../style/vectors.css";
import { MakePanel } from "./make-panel.tsx";
import { MixPanel } from "./mix-panel.tsx";
import { PicturesPanel } from "./pictures-panel.tsx";
import { ShelfPanel } from "./shelf-panel.tsx";
import { SweepPanel } from "./sweep-panel.tsx";

/** Make a vector, keep it, put it on pictures. */
export function VectorsView(): JSX.Element {
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
