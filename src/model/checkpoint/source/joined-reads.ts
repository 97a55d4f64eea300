import type { ByteSource } from "../../../platform/platform.ts";

/** In bytes. */
export interface JoinLimits {
  /** What is looked at at once of all that is going to be read. */
  readonly ahead: number;
  /** Between two pieces that are near in time: what lies there is read along, if it is going to be read as well. */
  readonly gap: number;
  /** The most that is kept of what was read and not asked for yet, the latest read apart. */
  readonly held: number;
}

const LIMITS: JoinLimits = { ahead: 48 * 2 ** 20, gap: 8 * 2 ** 20, held: 96 * 2 ** 20 };

/** Bytes that somebody has said will be read. */
interface Piece {
  readonly begin: number;
  readonly end: number;
  /** Its place in the order of reading. */
  readonly turn: number;
  /** Bytes of it that are still to be read ahead. */
  unread: number;
  run?: Run;
}

/** Neighbouring pieces, read with one request. */
interface Run {
  readonly begin: number;
  readonly end: number;
  readonly pieces: Piece[];
  bytes?: Promise<Uint8Array<ArrayBuffer>>;
}

/**
 * A source for which each read is a request, with fewer of them: bytes that were announced by `expect` are read together with
 * those whose turn is next, where they are neighbours in the file. Nothing is read that was not announced or asked for.
 */
export function joinedReads(source: ByteSource, limits = LIMITS): ByteSource {
  const plan = new Plan(limits);
  const { name, size } = source;
  return {
    name,
    size,
    expect: (offset, length) => plan.add(offset, length),
    async read(offset, length) {
      const end = offset + length;
      if (!plan.run(offset) && plan.nextAfter(offset) >= end) return source.read(offset, length);
      const out = new Uint8Array(length);
      for (let at = offset; at < end; ) {
        const run = plan.run(at);
        const upTo = Math.min(end, run?.end ?? plan.nextAfter(at));
        if (run) {
          run.bytes ??= source.read(run.begin, run.end - run.begin);
          plan.hold(run);
          const bytes = await run.bytes;
          out.set(bytes.subarray(at - run.begin, upTo - run.begin), at - offset);
          plan.done(run, at, upTo);
        } else out.set(await source.read(at, upTo - at), at - offset);
        at = upTo;
      }
      return out;
    },
    close: () => {
      plan.clear();
      return source.close();
    },
  };
}

/** What is going to be read, in which order, and which of it together. */
class Plan {
  /** In the order of reading. */
  readonly #turns: Piece[] = [];
  /** In the order of the file. */
  #places: Piece[] = [];
  /** Those that were read, the latest last. */
  readonly #held = new Set<Run>();
  readonly #limits: JoinLimits;

  constructor(limits: JoinLimits) {
    this.#limits = limits;
  }

  add(offset: number, length: number): void {
    for (let begin = offset; begin < offset + length; begin += this.#limits.ahead) {
      const end = Math.min(begin + this.#limits.ahead, offset + length);
      this.#turns.push({ begin, end, turn: this.#turns.length, unread: end - begin });
    }
    this.#places = [];
  }

  /** The run that a byte is read with; undefined for one that was not announced, or was read already. */
  run(offset: number): Run | undefined {
    const piece = this.#pieceAt(offset);
    if (!piece || piece.unread <= 0) return undefined;
    if (!piece.run) this.#planFrom(piece);
    return piece.run;
  }

  /** Up to where a byte that is in no run has neighbours that are in none. */
  nextAfter(offset: number): number {
    const inside = this.#pieceAt(offset);
    return inside?.end ?? this.#inPlaces()[this.#firstBehind(offset)]?.begin ?? Number.POSITIVE_INFINITY;
  }

  hold(run: Run): void {
    this.#held.delete(run);
    this.#held.add(run);
    let bytes = 0;
    for (const { begin, end } of this.#held) bytes += end - begin;
    for (const oldest of this.#held) {
      if (bytes <= this.#limits.held || oldest === run) return;
      bytes -= oldest.end - oldest.begin;
      for (const piece of oldest.pieces) piece.unread = 0; // from now on read by itself: reading ahead did not pay
      this.#drop(oldest);
    }
  }

  /** Lets a run go when all its pieces have been read. */
  done(run: Run, begin: number, end: number): void {
    for (const piece of run.pieces) {
      piece.unread -= Math.max(0, Math.min(end, piece.end) - Math.max(begin, piece.begin));
    }
    if (run.pieces.every(({ unread }) => unread <= 0)) this.#drop(run);
  }

  clear(): void {
    this.#held.clear();
    this.#turns.length = 0;
    this.#places = [];
  }

  #drop(run: Run): void {
    this.#held.delete(run);
    for (const piece of run.pieces) delete piece.run;
  }

  /** Puts the pieces whose turn it is from `first` on into runs. */
  #planFrom(first: Piece): void {
    let bytes = 0;
    const next: Piece[] = [];
    for (let turn = first.turn; turn < this.#turns.length; turn++) {
      const piece = this.#turns[turn]!;
      if (piece.run || piece.unread <= 0) continue;
      bytes += piece.end - piece.begin;
      if (next.length > 0 && bytes > this.#limits.ahead) break;
      next.push(piece);
    }
    next.sort((a, b) => a.begin - b.begin);
    let pieces = [next[0]!];
    for (const piece of next.slice(1)) {
      const between = this.#between(pieces.at(-1)!, piece);
      if (between) pieces.push(...between, piece);
      else {
        makeRun(pieces);
        pieces = [piece];
      }
    }
    makeRun(pieces);
  }

  /** The pieces that fill the gap between two, if it is a small one and they do. */
  #between(before: Piece, after: Piece): Piece[] | undefined {
    if (after.begin - before.end > this.#limits.gap) return undefined;
    const places = this.#inPlaces();
    const between: Piece[] = [];
    let end = before.end;
    for (let i = this.#firstBehind(before.begin); end < after.begin; i++) {
      const piece = places[i];
      if (!piece || piece.begin !== end || piece.run || piece.unread <= 0) return undefined;
      between.push(piece);
      end = piece.end;
    }
    return end === after.begin ? between : undefined;
  }

  /** By place, each byte in one piece at most: what was announced twice is read together the first time. */
  #inPlaces(): Piece[] {
    if (this.#places.length === 0) {
      for (const piece of [...this.#turns].sort((a, b) => a.begin - b.begin)) {
        if (piece.begin >= (this.#places.at(-1)?.end ?? 0)) this.#places.push(piece);
        else piece.unread = 0;
      }
    }
    return this.#places;
  }

  #pieceAt(offset: number): Piece | undefined {
    const piece = this.#inPlaces()[this.#firstBehind(offset) - 1];
    return piece && offset < piece.end ? piece : undefined;
  }

  /** Index of the first piece that begins behind a byte. */
  #firstBehind(offset: number): number {
    const places = this.#inPlaces();
    let low = 0;
    for (let high = places.length; low < high; ) {
      const middle = (low + high) >> 1;
      if (places[middle]!.begin <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function makeRun(pieces: Piece[]): void {
  const run: Run = { begin: pieces[0]!.begin, end: pieces.at(-1)!.end, pieces };
  for (const piece of pieces) piece.run = run;
}
