import type { JSX } from "preact";
import { Elsewhere } from "./elsewhere.tsx";
import { KeptModels } from "./kept-models.tsx";
import { LoadedModel } from "./loaded-model.tsx";
import { OfferedModels } from "./offered-models.tsx";
import { OtherModels } from "./other-models.tsx";

/** Which model, where it computes, and what the browser keeps. */
export function ModelView(): JSX.Element {
  return (
    <div class="panels two">
      <div class="panels">
        <LoadedModel />
        <OfferedModels />
        <OtherModels />
      </div>
      <div class="panels">
        <Elsewhere />
        <KeptModels />
      </div>
    </div>
  );
}
