import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { model } from "../../model.ts";
import { modelStore } from "../../model-store.ts";
import { Panel } from "../../ui/panel.tsx";
import { toast, toastError } from "../../ui/toasts.tsx";
import { bytesInWords } from "../../ui/words.ts";
import { followKept, keptModels, lookAtKept } from "./kept.ts";

/** The models that this browser keeps, with what they take, and a way to be rid of them. */
export function KeptModels(): JSX.Element {
  useEffect(followKept, []);
  const kept = keptModels.value;
  return (
    <Panel
      title="Kept in this browser"
      footer={kept?.vault && `In the browser's storage for this site (${kept.vault}).`}
    >
      {kept && <Table />}
    </Panel>
  );
}

function Table(): JSX.Element {
  const { models, vault } = keptModels.value!;
  if (!vault) {
    return (
      <p class="soft">
        This browser lets the page keep nothing, as in some private windows: models are read from the network
        each time.
      </p>
    );
  }
  if (models.length === 0)
    return (
      <p class="soft">
        Nothing yet. A model that is loaded from this site or the hub is kept, and comes from here next time.
      </p>
    );
  const state = model.value;
  const coming = state.status === "fetching";
  return (
    <table class="wide">
      <thead>
        <tr>
          <th scope="col">Model</th>
          <th scope="col">Size</th>
          <th scope="col">
            <span class="visually-hidden">Remove</span>
          </th>
        </tr>
      </thead>
      <tbody>
        {models.map(({ id, manifest: { title }, bytes, total, whole }) => (
          <tr key={id}>
            <td>{title}</td>
            <td>{whole ? bytesInWords(bytes) : `${bytesInWords(bytes)} of ${bytesInWords(total)}`}</td>
            <td class="end">
              <button
                type="button"
                aria-label={`Remove ${title}`}
                disabled={coming}
                onClick={() => remove(id, title)}
              >
                Remove
              </button>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

async function remove(id: string, title: string): Promise<void> {
  try {
    await modelStore.remove(id);
    toast(`${title} is removed from this browser.`);
  } catch (error) {
    toastError(error);
  }
  await lookAtKept();
}
