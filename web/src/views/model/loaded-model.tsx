import type { JSX } from "preact";
import type { ModelSummary } from "../../../../src/session/messages/results.ts";
import { cancelLoading, loadModel, model } from "../../model.ts";
import { addressOf } from "../../navigation.ts";
import { session } from "../../session.ts";
import { store } from "../../state.ts";
import { Notice } from "../../ui/notice.tsx";
import { Panel } from "../../ui/panel.tsx";
import { ProgressBar } from "../../ui/progress.tsx";
import { Provenance } from "../../ui/provenance.tsx";
import { bytesInWords } from "../../ui/words.ts";

/** What is loaded, or how far it is. */
export function LoadedModel(): JSX.Element {
  const state = model.value;
  const setting = state.status === "ready" && state.summary.setting;
  return (
    <Panel title="Loaded" footer={setting && <Provenance setting={setting} />} busy={isBusy(state.status)}>
      {state.status === "ready" ? (
        <>
          <Facts summary={state.summary} />
          <p class="row next">
            <a class="button" href={addressOf("tour")}>
              Take the tour
            </a>
            <a class="button" href={addressOf("prompt")}>
              Write a prompt
            </a>
          </p>
        </>
      ) : (
        <Loading />
      )}
    </Panel>
  );
}

const isBusy = (status: string) => status === "fetching" || status === "loading";

/** Read out as it changes; the bar has its own numbers. */
function Loading(): JSX.Element {
  const state = model.value;
  switch (state.status) {
    case "fetching":
    case "loading": {
      const { done, total, choice } = state;
      const words = total === undefined ? "" : `${bytesInWords(done)} of ${bytesInWords(total)}`;
      const what = state.status === "fetching" ? "Fetching" : "Loading";
      return (
        <ProgressBar
          label={`${what} ${choice.ref}`}
          done={done}
          total={total}
          words={words}
          onCancel={cancelLoading}
        />
      );
    }
    case "failed":
      return (
        <Notice kind="bad" title={`${state.choice.ref} could not be loaded`}>
          <p>{state.error.message}</p>
          <button type="button" onClick={() => void loadModel(state.choice)}>
            Try again
          </button>
        </Notice>
      );
    default:
      return <None />;
  }
}

function None(): JSX.Element {
  const choice = store.model.value;
  const { status } = session.value;
  if (choice && status === "connecting")
    return <ProgressBar label={`Waiting for the device, to load ${choice.ref}`} onCancel={cancelLoading} />;
  return <p class="soft">{`No model is loaded.${status === "open" ? " Choose one below." : ""}`}</p>;
}

function Facts({ summary }: { summary: ModelSummary }): JSX.Element {
  const { setting, layers, width, heads, vocab, context, takesPictures } = summary;
  const facts: [string, string][] = [
    ["Name", setting.model],
    ["Family", setting.family],
    ["Layers", `${layers}, with ${heads} heads each`],
    ["Width", `${width} features`],
    ["Vocabulary", `${vocab.toLocaleString("en")} tokens`],
    ["Longest prompt", context === undefined ? "not bounded" : `${context.toLocaleString("en")} tokens`],
    ["Takes pictures", takesPictures ? "yes" : "no"],
    ["Weights", setting.dtypes.join(", ")],
  ];
  if (setting.adapters) facts.push(["LoRA", setting.adapters.join(", ")]);
  return (
    <dl class="pairs number">
      {facts.map(([name, value]) => (
        <>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </>
      ))}
    </dl>
  );
}
