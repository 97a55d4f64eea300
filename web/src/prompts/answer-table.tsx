import type { JSX } from "preact";
import type { TokenAnswer } from "../../../src/session/messages/results.ts";
import { percentInWords, tokenInWords } from "../ui/words.ts";

export interface AnswerTableProps {
  readonly label: string;
  readonly top: readonly TokenAnswer[];
  /** To compare with, by id: probabilities without a patch. */
  readonly before?: ReadonlyMap<number, number> | undefined;
}

/** The most probable next tokens, with bars. */
export function AnswerTable({ label, top, before }: AnswerTableProps): JSX.Element {
  return (
    <table class="answers" aria-label={label}>
      <thead>
        <tr>
          <th scope="col">Token</th>
          <th scope="col" class="end">
            Id
          </th>
          <th scope="col">Probability</th>
          {before && (
            <th scope="col" class="end">
              Before
            </th>
          )}
        </tr>
      </thead>
      <tbody>
        {top.map(({ id, text, token, logprob, probability }) => {
          const was = before?.get(id);
          return (
            <tr key={id} title={`${JSON.stringify(token)}, log probability ${logprob.toFixed(4)}`}>
              <td class="mono">{tokenInWords(text)}</td>
              <td class="end number soft">{id}</td>
              <td>
                <div class="bar" style={`--value:${probability.toFixed(4)}`}>
                  <span class="number">{percentInWords(probability)}</span>
                </div>
              </td>
              {before && <td class="end number soft">{was === undefined ? "–" : percentInWords(was)}</td>}
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
