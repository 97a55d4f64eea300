import { XpatchError } from "xpatch";
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from "yaml";
import { nearestHint } from "#src/nearest";

/** A value of a YAML or JSON file, with the line that it stands in. What is wrong with it throws XpatchError, with its place. */
export class PlanNode {
  readonly #file: PlanFile;
  readonly #node: unknown;
  /** `models[0].llm`; empty for the whole file. */
  readonly path: string;
  readonly #offset: number;

  constructor(file: PlanFile, node: unknown, path: string, offset = 0) {
    this.#file = file;
    this.#node = isAlias(node) ? node.resolve(file.document) : node;
    this.path = path;
    this.#offset = (node as { range?: readonly number[] } | null)?.range?.[0] ?? offset;
  }

  /** `plan.yaml:7: models[0].llm` */
  get where(): string {
    const { line } = this.#file.lines.linePos(this.#offset);
    return `${this.#file.path}:${line}${this.path === "" ? "" : `: ${this.path}`}`;
  }

  /** Throws XpatchError: expected this, found that. */
  refuse(expected: string, found = this.shown): never {
    throw new XpatchError(`${this.where}: expected ${expected}, found ${found}`);
  }

  /** What stands there, in short. */
  get shown(): string {
    if (this.isMap) return "a mapping";
    if (this.isList) return "a list";
    return isScalar(this.#node) && this.#node.value !== null ? JSON.stringify(this.#node.value) : "nothing";
  }

  get isMap(): boolean {
    return isMap(this.#node);
  }

  get isList(): boolean {
    return isSeq(this.#node);
  }

  /** What is no mapping and no list. */
  get value(): unknown {
    return isScalar(this.#node) ? this.#node.value : undefined;
  }

  /** The fields of a mapping by name, all of which have to be known. */
  fields<K extends string>(known: readonly K[], expected: string): Partial<Record<K, PlanNode>> {
    if (!isMap(this.#node)) this.refuse(expected);
    const found: Partial<Record<K, PlanNode>> = {};
    for (const { key, value } of this.#node.items) {
      const name = String(isScalar(key) ? key.value : key);
      const path = this.path === "" ? name : `${this.path}.${name}`;
      const offset = (key as { range?: readonly number[] } | null)?.range?.[0] ?? this.#offset;
      const child = new PlanNode(this.#file, value, path, offset);
      if (!known.includes(name as K)) {
        const at = new PlanNode(this.#file, key, this.path, offset);
        throw new XpatchError(
          `${at.where}: there is no field "${name}"; expected some of ${known.join(", ")}${nearestHint(name, known)}`,
        );
      }
      found[name as K] = child;
    }
    return found;
  }

  /** The items of a list, which is not to be empty unless that is said. */
  items(expected: string, { empty = false } = {}): PlanNode[] {
    if (!isSeq(this.#node)) this.refuse(expected);
    const { items } = this.#node;
    if (items.length === 0 && !empty) this.refuse(expected, "an empty list");
    return items.map((item, i) => new PlanNode(this.#file, item, `${this.path}[${i}]`, this.#offset));
  }

  text(expected: string): string {
    const { value } = this;
    return typeof value === "string" && value !== "" ? value : this.refuse(expected);
  }

  wholeNumber(from: number): number {
    const { value } = this;
    return Number.isSafeInteger(value) && (value as number) >= from
      ? (value as number)
      : this.refuse(`a whole number from ${from}`);
  }

  oneOf<T extends string>(names: readonly T[]): T {
    const { value } = this;
    const found = names.find((name) => name === value);
    if (found !== undefined) return found;
    const hint = typeof value === "string" ? nearestHint(value, names) : "";
    return this.refuse(`one of ${names.join(", ")}`, `${this.shown}${hint}`);
  }
}

export interface PlanFile {
  readonly path: string;
  readonly document: ReturnType<typeof parseDocument>;
  readonly lines: LineCounter;
}

/** Reads YAML, of which JSON is a part. Throws XpatchError with the line for what is neither. */
export function parseNodes(text: string, path: string): PlanNode {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const [wrong] = [...document.errors, ...document.warnings];
  if (wrong) {
    const { line } = lines.linePos(wrong.pos[0]);
    throw new XpatchError(`${path}:${line}: this is no YAML or JSON: ${wrong.message}`);
  }
  return new PlanNode({ path, document, lines }, document.contents, "");
}
