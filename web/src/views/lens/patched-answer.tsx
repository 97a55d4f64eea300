import type { JSX } from "preact";
import type { EncodedPrompt } from "../../../../src/session/messages/results.ts";
import type { Asked } from "../../ask.ts";
import type { Held } from "../../hold.ts";
import { AnswerTable } from "../../prompts/answer-table.tsx";
import { Generated } from "../../prompts/generated.tsx";
import { useGeneration } from "../../prompts/generation.ts";
import { Notice } from "../../ui/notice.tsx";
import { Panel } from "../../ui/panel.tsx";
import { Provenance } from "../../ui/provenance.tsx";
import type { LensEdit, LensSlice } from "./lens-slice.ts";
import { essence, type Patched, type Recorded, specsOf } from "./use-lens.ts";

export interface PatchedAnswerProps {
  readonly slice: LensSlice;
  readonly edits: readonly LensEdit[];
  readonly source: Held<EncodedPrompt>;
  readonly target: Held<EncodedPrompt>;
  readonly recorded: Held<Recorded>;
  readonly patched: Asked<Patched>;
}

/** What the target says comes next, with the edits and without. */
export function PatchedAnswer(props: PatchedAnswerProps): JSX.Element {
  const { slice, edits, source, target, recorded, patched } = props;
  const { maxNewTokens } = slice;
  const from = edits.some((edit) => edit.from) ? source.key : undefined;
  const { generation, running, start, stop } = useGeneration([
    "lens",
    target.key,
    essence(edits),
    from,
    maxNewTokens,
  ]);
  const isPatched = edits.length > 0;
  const before = recorded.current ? recorded.value?.answer.top : undefined;
  const after = patched.current ? patched.value : undefined;
  const shown = isPatched ? after?.variant.top : before;
  const isReady = recorded.current && (!isPatched || patched.current) && target.value !== undefined;
  const generate = () =>
    start(async ({ client, model, signal, onToken }) => {
      const specs = await specsOf(edits, source, { client, model, signal });
      return client.generate(
        { model, prompt: target.value!.prompt, edits: specs, maxNewTokens },
        { signal, onProgress: ({ token }) => token && onToken(token.text) },
      );
    });
  const error = recorded.error ?? patched.error;
  return (
    <Panel
      title={isPatched ? "Answer, patched" : "Answer"}
      busy={(target.value !== undefined && !isReady && !recorded.error) || running}
      actions={
        <>
          <button type="button" disabled={!isReady || running} onClick={generate}>
            Generate
          </button>
          {running && (
            <button type="button" onClick={stop}>
              Stop
            </button>
          )}
        </>
      }
      footer={
        recorded.value && (
          <>
            {isPatched && after && (
              <span>
                {after.rowLayers} of {recorded.value.rowLayers} rows × layers computed ·{" "}
              </span>
            )}
            <Provenance setting={recorded.value.setting} />
          </>
        )
      }
    >
      {error && (
        <Notice kind="bad" title="It could not be computed">
          <p>{error.message}</p>
        </Notice>
      )}
      {shown && !error ? (
        <AnswerTable
          label={isPatched ? "Next tokens with the edits" : "Next tokens"}
          top={shown}
          {...(isPatched && after && { before: after.before })}
        />
      ) : (
        !error && <p class="soft">{target.value ? "Computing…" : "Of the target, once there is one."}</p>
      )}
      <Generated generation={generation} />
    </Panel>
  );
}
