/** A TypeScript program as it is being written: what it imports, what it defines once, its lines. */
export class Program {
  readonly #imports = new Map<string, Set<string>>();
  readonly #types = new Set<string>();
  readonly #helpers: string[] = [];
  readonly #lines: string[] = [];
  /** Names of what has been defined, by what it is. */
  readonly #known = new Map<string, string>();
  readonly #taken = new Set<string>();

  /** Imports names of xpatch, or of another module. */
  use(names: readonly string[], from = "xpatch"): void {
    const known = this.#imports.get(from) ?? new Set();
    for (const name of names) known.add(name);
    this.#imports.set(from, known);
  }

  useType(...names: readonly string[]): void {
    for (const name of names) this.#types.add(name);
  }

  /** A function that stands before everything else, once. */
  helper(code: string): void {
    if (!this.#helpers.includes(code)) this.#helpers.push(code);
  }

  line(code = ""): void {
    this.#lines.push(code);
  }

  /** The name of a value, defined where it is first needed. `write` gives its expression. */
  define(key: string, hint: string, write: () => string): string {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const expression = write();
    const name = this.name(hint);
    this.#known.set(key, name);
    this.line(`const ${name} = ${expression};`);
    return name;
  }

  /** A name that is not taken yet: "country-capital by text" becomes countryCapitalByText. */
  name(hint: string): string {
    const words = hint.normalize("NFKD").match(/[A-Za-z0-9]+/g) ?? ["value"];
    const joined = words
      .map(
        (word, i) => (i === 0 ? word.charAt(0).toLowerCase() : word.charAt(0).toUpperCase()) + word.slice(1),
      )
      .join("")
      .slice(0, 40);
    const base =
      /^[a-z]/i.test(joined) && !RESERVED.has(joined)
        ? joined
        : `the${joined.charAt(0).toUpperCase()}${joined.slice(1)}`;
    let name = base;
    for (let n = 2; this.#taken.has(name); n++) name = `${base}${n}`;
    this.#taken.add(name);
    return name;
  }

  /** Keeps a name for what the frame of the program defines. */
  reserve(...names: readonly string[]): void {
    for (const name of names) this.#taken.add(name);
  }

  toString(): string {
    const modules = [...this.#imports].sort(([a], [b]) => rank(a) - rank(b) || (a < b ? -1 : 1));
    const imports = modules.map(([from, names]) => {
      const types = from === "xpatch" ? [...this.#types].map((name) => `type ${name}`) : [];
      const all = [...names, ...types].sort((a, b) => bare(a).localeCompare(bare(b)));
      const line = `import { ${all.join(", ")} } from ${text(from)};`;
      return line.length <= 100
        ? line
        : `import {\n${all.map((name) => `  ${name},`).join("\n")}\n} from ${text(from)};`;
    });
    const helpers = this.#helpers.length > 0 ? `${this.#helpers.join("\n\n")}\n` : "";
    return [`${imports.join("\n")}\n`, `${this.#lines.join("\n")}\n`, helpers]
      .filter((part) => part !== "")
      .join("\n");
  }
}

const bare = (name: string) => name.replace(/^type /, "");
const rank = (module: string) => (module.startsWith("node:") ? 0 : 1);

const RESERVED = new Set(
  "await break case catch class const continue default delete do else enum export extends false finally for function if import in instanceof let new null return static super switch this throw true try typeof var void while with yield".split(
    " ",
  ),
);

/** A text as a literal. */
export function text(value: string): string {
  // Two line separators end lines of programs of before 2019.
  return JSON.stringify(value).replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029");
}
