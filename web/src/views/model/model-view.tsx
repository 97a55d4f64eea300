import type { JSX } from "preact";
import { Panel } from "../../ui/panel.tsx";
import type { View } from "../view.ts";

function ModelView(): JSX.Element {
  return (
    <div class="panels two">
      <Panel title="Model">
        <p class="soft">No model is loaded.</p>
      </Panel>
    </div>
  );
}

export const modelView: View = {
  id: "model",
  title: "Model",
  icon: "cube",
  component: ModelView,
  needsModel: false,
};
