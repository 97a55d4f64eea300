import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useAsked } from "../ask.ts";
import type { ExplorerDocument } from "../document/document.ts";
import { model } from "../model.ts";
import { store } from "../state.ts";
import { Icon } from "../ui/icons.tsx";
import { Problem } from "../ui/problem.tsx";
import { Provenance } from "../ui/provenance.tsx";
import { percentInWords, tokenInWords } from "../ui/words.ts";
import { useTasks } from "../vectors/use-tasks.ts";
import { askQuestion, type QuestionAnswer } from "./ask-question.ts";
import { differences } from "./difference.ts";
import { closeKeep } from "./keep-open.ts";
import { type Question, questionsOf } from "./questions.ts";

/** The steps that led here: go back to one, or compare it with another. */
export function HistoryDialog(): JSX.Element {
  const steps = store.steps.value;
  const now = store.index.value;
  const [one, setOne] = useState(Math.max(0, now - 1));
  const [other, setOther] = useState(now);
  const list = useRef<HTMLOListElement>(null);
  useEffect(() => list.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "center" }), []);
  const view = store.view.value;
  const documentOf = (index: number): ExplorerDocument => ({ ...steps[index]!.document, view });
  return (
    <div class="keep-columns">
      <section class="steps" aria-labelledby="keep-title">
        <header class="row">
          <h2 id="keep-title">History</h2>
        </header>
        <ol ref={list}>
          {steps.map(({ label, at }, i) => (
            <li
              key={at + label}
              class={i > now ? "undone" : ""}
              aria-current={i === now ? "step" : undefined}
            >
              <button
                type="button"
                class="quiet step"
                title={`Go to: ${label}`}
                onClick={() => store.goTo(i)}
              >
                <span class="soft number">{i}</span> {label}
              </button>
              <Mark name="first" which="A" checked={one === i} set={() => setOne(i)} label={label} />
              <Mark name="second" which="B" checked={other === i} set={() => setOther(i)} label={label} />
            </li>
          ))}
        </ol>
      </section>
      <section class="compare" aria-label="Compare">
        <header class="row">
          <h2>A and B</h2>
          <button type="button" class="quiet icon close" aria-label="Close" onClick={closeKeep}>
            <Icon name="close" />
          </button>
        </header>
        {steps[one] && steps[other] ? (
          <Compared was={documentOf(one)} is={documentOf(other)} />
        ) : (
          <p class="soft">Choose two steps.</p>
        )}
      </section>
    </div>
  );
}

interface MarkProps {
  readonly name: string;
  readonly which: string;
  readonly checked: boolean;
  readonly set: () => void;
  readonly label: string;
}

function Mark({ name, which, checked, set, label }: MarkProps): JSX.Element {
  return (
    <label class="mark">
      <input
        type="radio"
        name={`compare-${name}`}
        aria-label={`${which} is: ${label}`}
        checked={checked}
        onChange={set}
      />
      {which}
    </label>
  );
}

/** What two states differ in, and what the model says in each. */
function Compared({ was, is }: { was: ExplorerDocument; is: ExplorerDocument }): JSX.Element {
  const found = differences(was, is);
  const { value: tasks = [] } = useTasks();
  const state = model.value;
  const width = state.status === "ready" ? state.summary.width : 0;
  const [before, after] = [questionsOf(was, tasks), questionsOf(is, tasks)];
  const { value, current, error } = useAsked(
    tasks.length > 0 ? ["compare", before, after] : undefined,
    async (asking) => {
      const known = new Map<string, Promise<QuestionAnswer>>();
      const ask = (question: Question) => {
        const { label: _, thing: __, ...what } = question;
        const key = JSON.stringify(what);
        const answer = known.get(key) ?? askQuestion(asking, question, width);
        known.set(key, answer);
        return answer;
      };
      const answers = { was: [] as QuestionAnswer[], is: [] as QuestionAnswer[] };
      for (const question of before) answers.was.push(await ask(question));
      for (const question of after) answers.is.push(await ask(question));
      return answers;
    },
  );
  const things = [...new Set([...before, ...after].map(({ thing }) => thing))];
  const bestOf = (questions: readonly Question[], answers: readonly QuestionAnswer[] = [], thing = "") =>
    answers[questions.findIndex((each) => each.thing === thing)]?.top[0]?.id;
  const isOther = (thing: string) => bestOf(before, value?.was, thing) !== bestOf(after, value?.is, thing);
  const setting = value?.is[0]?.setting ?? value?.was[0]?.setting;
  return (
    <>
      {found.length === 0 ? (
        <p class="soft">The two states are the same.</p>
      ) : (
        <table aria-label="What differs">
          <HeadOf what="Where" />
          <tbody>
            {found.map(({ at, was: a, is: b }) => (
              <tr key={`${at} ${a} ${b}`}>
                <th scope="row" class="mono">
                  {at}
                </th>
                <td>{a ?? "–"}</td>
                <td>{b ?? "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      <h3>Answers</h3>
      {error ? (
        <Problem error={error} />
      ) : things.length === 0 ? (
        <p class="soft">This view asks the model nothing by itself.</p>
      ) : (
        <table aria-label="Both answers" aria-busy={!current}>
          <HeadOf what="Question" />
          <tbody>
            {things.map((thing) => (
              <tr key={thing} class={current && isOther(thing) ? "other" : ""}>
                <th scope="row">{thing}</th>
                <td>{current ? answerInWords(before, value?.was, thing) : "…"}</td>
                <td>{current ? answerInWords(after, value?.is, thing) : "…"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {setting && (
        <p class="soft small">
          <Provenance setting={setting} />
        </p>
      )}
    </>
  );
}

function HeadOf({ what }: { what: string }): JSX.Element {
  return (
    <thead>
      <tr>
        <th scope="col">{what}</th>
        <th scope="col">A</th>
        <th scope="col">B</th>
      </tr>
    </thead>
  );
}

function answerInWords(
  questions: readonly Question[],
  answers: readonly QuestionAnswer[] | undefined,
  thing: string,
): JSX.Element | string {
  const best = answers?.[questions.findIndex((each) => each.thing === thing)]?.top[0];
  if (!best) return "–";
  return (
    <>
      <span class="mono">{tokenInWords(best.text)}</span>{" "}
      <span class="number soft">{percentInWords(best.probability)}</span>
    </>
  );
}
