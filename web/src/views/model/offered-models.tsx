import type { JSX } from "preact";
import { loadModel } from "../../model.ts";
import { totalBytes } from "../../models/manifest.ts";
import { offered } from "../../offered.ts";
import { isOpenOrOpening, session } from "../../session.ts";
import { store } from "../../state.ts";
import { Panel } from "../../ui/panel.tsx";
import { bytesInWords } from "../../ui/words.ts";
import { keptModels } from "./kept.ts";

interface Offer {
  readonly id: string;
  readonly title: string;
  readonly words: string;
}

/** The models that the site offers or, behind a connection, the server. */
export function OfferedModels(): JSX.Element | null {
  const offers = offersOf();
  if (offers.length === 0) return null;
  const chosen = store.model.value;
  return (
    <Panel title="Offered here">
      <ul class="offers">
        {offers.map(({ id, title, words }) => (
          <li key={id}>
            <div>
              <h3>{title}</h3>
              <p class="soft">{words}</p>
            </div>
            <button
              type="button"
              class={chosen ? "" : "primary"}
              aria-label={`Load ${title}`}
              disabled={!isOpenOrOpening(session.value) || (chosen?.kind === "offered" && chosen.ref === id)}
              onClick={() => void loadModel({ kind: "offered", ref: id })}
            >
              Load
            </button>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

function offersOf(): Offer[] {
  const state = session.value;
  if (state.target.kind === "serve") {
    if (state.status !== "open") return [];
    return state.models.models.map(({ ref, label, loaded }) => ({
      id: ref,
      title: ref,
      words: loaded ? `${label}; loaded there already` : label,
    }));
  }
  const whole = new Set(keptModels.value?.models.filter((each) => each.whole).map(({ id }) => id));
  return offered.models.map((manifest) => {
    const size = bytesInWords(totalBytes(manifest));
    const place = whole.has(manifest.id) ? `${size}, in this browser already` : `${size} to fetch, once`;
    return { id: manifest.id, title: manifest.title, words: `${manifest.words} ${place}.` };
  });
}
