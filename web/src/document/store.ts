import { computed, type ReadonlySignal, signal } from "@preact/signals";
import { EMPTY, type ExplorerDocument, type ModelChoice } from "./document.ts";
import { DocumentError, type Json } from "./read.ts";
import { type Slice, sliceNamed } from "./slice.ts";

/** Steps that can be undone. */
const MOST_STEPS = 300;
/** Changes of the same thing within this many milliseconds are one step: a slider that is dragged, a text that is typed. */
const SAME_STEP = 1000;

/** A state of the document that can be gone back to, and what was done to get there. */
export interface Step {
  readonly label: string;
  readonly document: ExplorerDocument;
  /** Milliseconds since 1970. */
  readonly at: number;
}

/**
 * The document, its history, and the one way to change it. Which view is shown, which model is loaded, and slices that are kept apart are
 * in it, but are no steps of the history: undo takes back what was made, not where one is.
 */
export class DocumentStore {
  readonly #steps = signal<readonly Step[]>([{ label: "start", document: EMPTY, at: Date.now() }]);
  readonly #index = signal(0);
  readonly #view = signal("");
  readonly #model = signal<ModelChoice | undefined>(undefined);
  readonly #apart = signal<Readonly<Record<string, Json>>>({});
  /** Told why a change was not made. */
  onRefused: (error: DocumentError) => void = () => {};
  /** What the next change may be one step with. */
  #merging: { what: string; at: number } | undefined;

  readonly document: ReadonlySignal<ExplorerDocument> = computed(() => {
    const { document } = this.#steps.value[this.#index.value]!;
    return {
      ...document,
      view: this.#view.value,
      model: this.#model.value,
      slices: { ...document.slices, ...this.#apart.value },
    };
  });
  readonly view: ReadonlySignal<string> = this.#view;
  readonly model: ReadonlySignal<ModelChoice | undefined> = this.#model;
  /** All steps, the earliest first; those behind `index` have been undone. */
  readonly steps: ReadonlySignal<readonly Step[]> = this.#steps;
  readonly index: ReadonlySignal<number> = this.#index;
  /** What undo takes back, and redo does again; undefined where there is nothing. */
  readonly undoLabel = computed(() =>
    this.#index.value > 0 ? this.#steps.value[this.#index.value]!.label : undefined,
  );
  readonly redoLabel = computed(() => this.#steps.value[this.#index.value + 1]?.label);

  readonly #slices = new Map<string, ReadonlySignal<Json>>();

  /** The value of a slice, as a signal that fires when it changes. */
  slice<T extends Json>(slice: Slice<T>): ReadonlySignal<T> {
    let found = this.#slices.get(slice.name);
    if (!found) {
      found = computed(() => this.document.value.slices[slice.name] ?? slice.initial);
      this.#slices.set(slice.name, found);
    }
    return found as ReadonlySignal<T>;
  }

  /**
   * Changes a slice. `label` says what was done, in a few words, for "Undo …". `same` names what is being changed where
   * many changes in a row are one step.
   */
  set<T extends Json>(slice: Slice<T>, label: string, change: (value: T) => T, same?: string): void {
    const value = change(this.slice(slice).peek());
    this.change(label, (doc) => ({ ...doc, slices: { ...doc.slices, [slice.name]: value } }), same);
  }

  /** Sets a slice that is kept apart. */
  place<T extends Json>(slice: Slice<T> & { readonly apart?: boolean }, value: T): void {
    if (!slice.apart) throw new Error(`the slice ${slice.name} is part of the history`);
    this.#apart.value = { ...this.#apart.peek(), [slice.name]: value };
  }

  /** Changes several things in one step. What could not be read again after a reload, or from a link, is not made. */
  change(label: string, change: (document: ExplorerDocument) => ExplorerDocument, same?: string): void {
    const now = Date.now();
    const steps = this.#steps.peek().slice(0, this.#index.peek() + 1);
    const before = steps.at(-1)!.document;
    const document = change(before);
    const problem = unreadable(document, before);
    if (problem) {
      this.onRefused(problem);
      return;
    }
    const merged =
      same !== undefined &&
      this.#merging?.what === same &&
      now - this.#merging.at < SAME_STEP &&
      steps.length > 1;
    if (merged) steps.pop();
    steps.push({ label, document, at: now });
    steps.splice(0, Math.max(0, steps.length - MOST_STEPS));
    this.#merging = same === undefined ? undefined : { what: same, at: now };
    this.#steps.value = steps;
    this.#index.value = steps.length - 1;
  }

  /** Shows a view. */
  visit(view: string): void {
    this.#view.value = view;
  }

  setModel(model: ModelChoice | undefined): void {
    this.#model.value = model;
  }

  undo(): void {
    this.goTo(this.#index.peek() - 1);
  }

  redo(): void {
    this.goTo(this.#index.peek() + 1);
  }

  /** Goes to a step of the history. */
  goTo(index: number): void {
    if (index < 0 || index >= this.#steps.peek().length) return;
    this.#merging = undefined;
    this.#index.value = index;
  }

  /** Begins anew with a document from a link or from the last visit. */
  open(document: ExplorerDocument, label: string): void {
    const slices = Object.entries(document.slices);
    const isApart = ([name]: [string, Json]) => sliceNamed(name)?.apart ?? false;
    const made = Object.fromEntries(slices.filter((entry) => !isApart(entry)));
    this.#apart.value = Object.fromEntries(slices.filter(isApart));
    this.#steps.value = [{ label, document: { ...document, slices: made }, at: Date.now() }];
    this.#index.value = 0;
    this.#view.value = document.view;
    this.#model.value = document.model;
  }
}

/** Why what has been changed could not be read again; undefined where it can. */
function unreadable({ slices }: ExplorerDocument, before: ExplorerDocument): DocumentError | undefined {
  try {
    for (const [name, value] of Object.entries(slices))
      if (value !== before.slices[name]) sliceNamed(name)?.read(value, name);
  } catch (error) {
    if (error instanceof DocumentError) return error;
    throw error;
  }
  return undefined;
}
