import { DocumentError, readCount, readFields, readList, readOneOf, readString } from "../document/read.ts";

/** How a file's hash is taken. `git`: SHA-1 over git's header and the bytes, what the hub states of small files. */
export const ALGORITHMS = ["sha256", "git"] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

/** A file that can be fetched, told from every other by its hash. */
export interface KnownFile {
  /** In the model's folder, with `/`. */
  readonly path: string;
  readonly bytes: number;
  readonly algorithm: Algorithm;
  /** In hexadecimal digits. */
  readonly hash: string;
  /** Where it is, relative to the page. */
  readonly url: string;
}

/** A folder of files whose hashes are known: a model, or the tasks with their pictures. */
export interface Manifest {
  /** What the reader knows it by. */
  readonly title: string;
  readonly files: readonly KnownFile[];
}

/** A model that the site offers. */
export interface OfferedFiles extends Manifest {
  /** In documents and links. */
  readonly id: string;
  /** A line about it. */
  readonly words: string;
}

/** What the page finds in itself: scripts/build-web.mjs writes it into index.html. */
export interface Offered {
  readonly models: readonly OfferedFiles[];
  readonly tasks?: Manifest;
}

/** What the site offers. Throws DocumentError for a page that was built wrong. */
export function readOffered(text: string): Offered {
  const fields = readFields(JSON.parse(text), "offered", ["models", "tasks"]);
  const tasks = fields["tasks"];
  return {
    models: readList(fields["models"], "offered.models", (value, at) => {
      const { id, words } = readFields(value, at, ["id", "title", "words", "files"]);
      return {
        ...readManifest(value, at),
        id: readString(id, `${at}.id`, 100),
        words: readString(words, `${at}.words`, 1000),
      };
    }),
    ...(tasks !== undefined && { tasks: readManifest(tasks, "offered.tasks") }),
  };
}

function readManifest(value: unknown, at: string): Manifest {
  const { title, files } = readFields(value, at, ["id", "title", "words", "files"]);
  return { title: readString(title, `${at}.title`, 200), files: readList(files, `${at}.files`, readFile) };
}

const HASH = { sha256: /^[0-9a-f]{64}$/, git: /^[0-9a-f]{40}$/ } as const;

export function readFile(value: unknown, at: string): KnownFile {
  const fields = readFields(value, at, ["path", "bytes", "algorithm", "hash", "url"]);
  const algorithm = readOneOf(fields["algorithm"], `${at}.algorithm`, ALGORITHMS);
  const hash = readString(fields["hash"], `${at}.hash`, 64);
  if (!HASH[algorithm].test(hash)) throw new DocumentError(`${at}.hash: ${hash} is no ${algorithm} hash`);
  return {
    path: readString(fields["path"], `${at}.path`, 500),
    bytes: readCount(fields["bytes"], `${at}.bytes`, 2 ** 45),
    algorithm,
    hash,
    url: readString(fields["url"], `${at}.url`, 4000),
  };
}

/** What a file is kept as: equal files of several models are kept once. */
export function keyOf({ algorithm, hash }: Pick<KnownFile, "algorithm" | "hash">): string {
  return `${algorithm}-${hash}`;
}

export function totalBytes({ files }: Manifest): number {
  return files.reduce((sum, { bytes }) => sum + bytes, 0);
}
