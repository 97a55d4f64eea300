import { beforeAll, describe, expect, test } from "vitest";
import { DTypeError, GradientError, ShapeError } from "../../src/errors.ts";
import { grad, valueAndGradients } from "../../src/gradient/grad.ts";
import { Tape } from "../../src/gradient/tape.ts";
import { linear } from "../../src/kernels/matmul/linear.ts";
import { matmul } from "../../src/kernels/matmul/matmul.ts";
import { accumulateInto } from "../../src/kernels/movement/accumulate.ts";
import { concat } from "../../src/kernels/movement/concat.ts";
import { cast, contiguous, copy } from "../../src/kernels/movement/copy.ts";
import { gatherRows } from "../../src/kernels/movement/gather.ts";
import { addRows, copyRowsInto, scaleRows, setRows, zeroRows } from "../../src/kernels/movement/row-edits.ts";
import { scatterRowsInto } from "../../src/kernels/movement/scatter.ts";
import type { Device } from "../../src/tensor/device.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { checkGradients, type Numbers } from "../helpers/finite-differences.ts";

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

const matrix = (rows: number, columns: number, seed = 1) =>
  device.tensor(randomArray(rows * columns, seed), { shape: [rows, columns] });

/** Elements of row-major numbers by their places. */
const pick = ({ data }: Numbers, ...places: number[]) => places.map((place) => data[place]!);
const range = (start: number, end: number) => Array.from({ length: end - start }, (_, i) => start + i);
/** x x^T of rows of `width` numbers: something that is not linear. */
function gram(rows: readonly number[][]): number[] {
  return rows.flatMap((a) => rows.map((b) => a.reduce((total, x, i) => total + x * b[i]!, 0)));
}

describe("views", () => {
  const x4x6 = { shape: [4, 6] };
  test("slices that overlap, one that is read twice, a view of a view, the whole", async () => {
    await checkGradients(device, {
      inputs: [x4x6],
      run: (x) => {
        const middle = x!.rows(1, 4);
        const inner = middle.slice(1, 2, 5).rows(0, 2); // rows 1 and 2, columns 2 to 4
        const product = matmul(inner, inner.transpose());
        return concat([
          copy(middle).reshape([18]),
          product.reshape([4]),
          copy(x!).reshape([24]),
          copy(middle.at(1)),
        ]);
      },
      reference: (x) => [
        ...pick(x!, ...range(6, 24)),
        ...gram([pick(x!, 8, 9, 10), pick(x!, 14, 15, 16)]),
        ...x!.data,
        ...pick(x!, ...range(12, 18)),
      ],
    });
  });

  test("a permuted, a reshaped and a broadcast view; a broadcast of a slice", async () => {
    await checkGradients(device, {
      inputs: [x4x6, { shape: [6], dtype: "bf16" }],
      run: (x, y) => {
        const cube = x!.reshape([2, 3, 4]).permute([2, 0, 1]); // [4, 2, 3]
        const part = x!.at(2).slice(0, 1, 3).broadcastTo([3, 2]);
        const rows = addRows(x!, { start: 0, end: 4 }, y!.broadcastTo([4, 6]));
        return concat([
          contiguous(cube).reshape([24]),
          copy(part).reshape([6]),
          rows.reshape([24]),
          copy(y!.slice(0, 0, 1).broadcastTo([3])),
        ]);
      },
      reference: (x, y) => [
        ...range(0, 24).map((i) => x!.data[(Math.floor(i / 3) % 2) * 12 + (i % 3) * 4 + Math.floor(i / 6)]!),
        ...pick(x!, 13, 14, 13, 14, 13, 14),
        ...Array.from(x!.data, (value, i) => value + y!.data[i % 6]!),
        ...pick(y!, 0, 0, 0),
      ],
    });
  });

  test("of middle results, of views that operations give, and of odd numbers of halves", async () => {
    await checkGradients(device, {
      inputs: [{ shape: [3, 5], dtype: "f16", values: range(0, 15).map((i) => (i - 7) / 8) }],
      run: (x) => {
        const half = cast(x!, "bf16"); // 15 elements in 16 places
        return concat([
          copy(half.at(2)),
          copy(half.transpose()).reshape([15]),
          copy(half.slice(1, 1, 2)).reshape([3]),
        ]);
      },
      reference: (x) => [
        ...pick(x!, ...range(10, 15)),
        ...range(0, 15).map((i) => x!.data[(i % 3) * 5 + Math.floor(i / 3)]!),
        ...pick(x!, 1, 6, 11),
      ],
    });
  });

  test("two that share what flows back to them do not disturb each other", async () => {
    // Going back, `joined` gives a and b parts of one buffer; then the slice of b adds to its own.
    await checkGradients(device, {
      inputs: [{ shape: [2, 3] }, { shape: [2, 3] }],
      run: (a, b) => {
        const part = copy(b!.at(1));
        const first = copy(a!.at(0));
        const joined = concat([a!, b!]);
        return concat([joined.reshape([12]), part, first]);
      },
      reference: (a, b) => [...a!.data, ...b!.data, ...pick(b!, 3, 4, 5), ...pick(a!, 0, 1, 2)],
    });
    using tape = new Tape(device);
    const x = matrix(2, 3);
    const ofX = tape.watch(x);
    const { out, ofY } = tape.record(() => {
      const part = copy(x.at(1));
      const y = copy(x);
      return { ofY: tape.watch(y), out: concat([y, part.reshape([1, 3])]) };
    });
    tape.backward(out, device.tensor([1, 2, 3, 4, 5, 6, 10, 20, 30], { shape: [3, 3] }));
    const [dx, dy] = await device.read([tape.gradient(ofX), tape.gradient(ofY)]);
    expect(dy).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6));
    expect(dx).toEqual(Float32Array.of(1, 2, 3, 14, 25, 36));
  });
});

describe("lifetimes", () => {
  test("tensors disposed of at once, their buffers used again; scopes", async () => {
    const square = (x: Numbers) => ({
      shape: x.shape,
      data: Float64Array.from(gram([0, 1, 2].map((row) => pick(x, ...range(3 * row, 3 * row + 3))))),
    });
    await checkGradients(device, {
      inputs: [{ shape: [3, 3] }],
      run: (x) => {
        let value = copy(x!);
        for (let i = 0; i < 3; i++) {
          const [before, scaled] = [value, scaleRows(value, { start: 0, end: 3 }, 0.5)];
          value = device.scope(() => {
            matmul(scaled, scaled); // for nothing
            return linear(scaled, scaled);
          });
          before.dispose();
          scaled.dispose();
          device.tensor(new Float32Array(9)).dispose(); // in a buffer that one of them had
          zeroRows(value, [0]).dispose();
        }
        return value;
      },
      reference: (x) => {
        const half = (of: Numbers) => ({ shape: of.shape, data: of.data.map((v) => v / 2) });
        return square(half(square(half(square(half(x!)))))).data;
      },
    });
  });

  test("a buffer that is used again while the tape is stopped is another tensor's", async () => {
    using tape = new Tape(device);
    const w = matrix(16, 16);
    const ofW = tape.watch(w);
    const made = tape.record(() => copy(w));
    const { storage } = made;
    made.dispose();
    let other: Tensor;
    do other = device.empty([16, 16], "f32");
    while (other.storage !== storage);
    device.write(other, new Uint8Array(1024));
    expect(() => tape.record(() => tape.backward(copy(other)))).toThrow(/does not depend on anything/);
    const ofOther = tape.watch(other);
    const result = tape.record(() => addRows(w, { start: 0, end: 16 }, other));
    tape.backward(result);
    const [dw, dother] = await device.read([tape.gradient(ofW), tape.gradient(ofOther)]);
    expect(dw).toEqual(new Float32Array(256).fill(1));
    expect(dother).toEqual(new Float32Array(256).fill(1));
  });

  test("nothing is left when tape and gradients are gone", async () => {
    const w = matrix(5, 5);
    const before = device.memory.liveBytes;
    for (const keepBytes of [Number.POSITIVE_INFINITY, 0]) {
      const tape = new Tape(device, { keepBytes });
      const watched = tape.watch(w);
      const out = tape.record(() =>
        device.scope(() => {
          const once = linear(w, w);
          tape.cut();
          return linear(once, w);
        }),
      );
      tape.backward(out);
      const gradient = tape.gradient(watched);
      tape.dispose();
      await gradient.read(); // outlives the tape
      for (const tensor of [out, gradient]) tensor.dispose();
      expect(device.memory.liveBytes).toBe(before);
    }
  });
});

describe("segments", () => {
  function steps(tape: Tape, x: Tensor, w: Tensor): Tensor {
    let value = copy(x);
    for (let i = 0; i < 4; i++) {
      value = device.scope(() => {
        const wide = linear(value, w, { add: value });
        const mixed = linear(concat([wide.rows(2, 6), wide.rows(0, 2)]), wide); // [6, 6]
        return scaleRows(matmul(mixed, setRows(wide, [i], value.at(1))), { start: 0, end: 6 }, 0.2);
      });
      tape.cut();
    }
    return value;
  }

  test("values that are forgotten and computed anew give the same bits, and take less memory", async () => {
    const [x, w] = [matrix(6, 8, 1), matrix(8, 8, 2)];
    const run = async (keepBytes?: number) => {
      using tape = new Tape(device, keepBytes === undefined ? {} : { keepBytes });
      const watched = [tape.watch(x), tape.watch(w)];
      const out = tape.record(() => steps(tape, x, w));
      const kept = tape.keptBytes;
      tape.backward(out);
      return { kept, gradients: await device.read(watched.map((each) => tape.gradient(each))) };
    };
    const all = await run();
    const none = await run(0);
    const some = await run(all.kept / 2);
    expect(none.gradients).toEqual(all.gradients);
    expect(some.gradients).toEqual(all.gradients);
    expect(none.kept).toBe(0);
    expect(some.kept).toBeGreaterThan(0);
    expect(some.kept).toBeLessThanOrEqual(all.kept / 2);
  });

  test("a cut twice, before anything and at the end; watched results in forgotten segments", async () => {
    const x = matrix(4, 4);
    const run = async (keepBytes: number) => {
      using tape = new Tape(device, { keepBytes });
      const ofX = tape.watch(x);
      tape.cut();
      const { out, ofMiddle } = tape.record(() => {
        const middle = linear(x, x);
        const of = tape.watch(middle);
        const product = linear(middle, middle);
        tape.cut();
        tape.cut();
        return { ofMiddle: of, out: linear(product, middle) };
      });
      tape.cut();
      tape.backward(out);
      return device.read([tape.gradient(ofX), tape.gradient(ofMiddle)]);
    };
    expect(await run(0)).toEqual(await run(Number.POSITIVE_INFINITY));
  });
});

describe("watching", () => {
  test("the same tensor twice, and a view of it", async () => {
    using tape = new Tape(device);
    const x = matrix(2, 3);
    const watched = [tape.watch(x), tape.watch(x), tape.watch(x.rows(1, 2)), tape.watch(x.transpose())];
    tape.backward(
      tape.record(() => concat([x, x.rows(1)])),
      device.tensor(range(1, 10), { shape: [3, 3] }),
    );
    const found = await device.read(watched.map((each) => tape.gradient(each)));
    expect(found.map((values) => Array.from(values as Float32Array))).toEqual([
      [1, 2, 3, 11, 13, 15],
      [1, 2, 3, 11, 13, 15],
      [11, 13, 15],
      [1, 11, 2, 13, 3, 15],
    ]);
  });

  test("a middle result, before and after it was used, and the result itself", async () => {
    using tape = new Tape(device);
    const x = matrix(2, 2);
    const watched = [tape.watch(x)];
    const out = tape.record(() => {
      const middle = scaleRows(x, [0, 1], 3);
      const used = scaleRows(middle, [0, 1], 10);
      watched.push(tape.watch(middle));
      const made = concat([used, middle]);
      watched.push(tape.watch(made));
      return made;
    });
    tape.backward(out);
    const found = await device.read(watched.map((each) => tape.gradient(each)));
    expect(found).toEqual(
      [33, 11].map((value) => new Float32Array(4).fill(value)).concat(new Float32Array(8).fill(1)),
    );
  });

  test("what the result does not depend on has gradient 0", async () => {
    using tape = new Tape(device);
    const [x, y] = [matrix(2, 2), cast(matrix(3, 1), "f16")];
    const watched = [tape.watch(x), tape.watch(y)];
    const out = tape.record(() => {
      copy(y);
      return copy(x);
    });
    tape.backward(out);
    const [, none] = watched.map((each) => tape.gradient(each));
    expect([none!.dtype, none!.shape]).toEqual(["f32", [3, 1]]);
    expect(await none!.read()).toEqual(new Float32Array(3));
  });

  test("integers, and what repeats its elements", () => {
    using tape = new Tape(device);
    expect(() => tape.watch(device.tensor(Uint32Array.of(1)))).toThrow(GradientError);
    expect(() => tape.watch(device.tensor(Uint32Array.of(1)))).toThrow(
      /only floats have gradients, found u32\[1\]/,
    );
    const repeated = device.tensor([1, 2]).broadcastTo([3, 2]);
    expect(() => tape.watch(repeated)).toThrow(/f32\[3, 2\] repeats elements/);
    tape.watch(device.tensor([1]).broadcastTo([1, 1])); // one element, once
  });

  test("integers made of what is watched lead nowhere", () => {
    using tape = new Tape(device);
    const x = matrix(2, 2);
    tape.watch(x);
    const ids = tape.record(() => cast(x, "u32"));
    expect(() => tape.backward(ids)).toThrow(GradientError);
    expect(tape.length).toBe(0);
  });
});

describe("results", () => {
  test("that depend on nothing that is watched", () => {
    using tape = new Tape(device);
    const [x, y] = [matrix(2, 2), matrix(2, 2)];
    tape.watch(x);
    const out = tape.record(() => copy(y));
    expect(tape.length).toBe(0);
    expect(() => tape.backward(out)).toThrow(GradientError);
    expect(() => tape.backward(out)).toThrow(/does not depend on anything/);
  });

  test("cotangents: views, other dtypes, of other shapes, of integers; once for a tape", async () => {
    const x = matrix(2, 3);
    const run = async (cotangent: Tensor, of = (made: Tensor) => made) => {
      using tape = new Tape(device);
      const watched = tape.watch(x);
      tape.backward(of(tape.record(() => copy(x))), cotangent);
      return tape.gradient(watched).read();
    };
    const rows = device.tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3] });
    expect(await run(copy(rows.transpose()).transpose())).toEqual(await rows.read());
    expect(await run(cast(rows, "bf16"))).toEqual(await rows.read());
    expect(await run(device.tensor([2]).broadcastTo([2, 3]))).toEqual(new Float32Array(6).fill(2));
    // A result that is a view, one that repeats, and one that repeats a slice.
    expect(await run(rows.transpose(), (made) => made.transpose())).toEqual(await rows.read());
    const repeat = (made: Tensor) => made.at(1).broadcastTo([2, 3]);
    expect(await run(rows, repeat)).toEqual(Float32Array.of(0, 0, 0, 5, 7, 9));

    await expect(run(matrix(3, 2))).rejects.toThrow(ShapeError);
    await expect(run(matrix(3, 2))).rejects.toThrow("expected a cotangent [2, 3], found [3, 2]");
    await expect(run(device.zeros([2, 3], "u32"))).rejects.toThrow(DTypeError);

    using tape = new Tape(device);
    tape.watch(x);
    const out = tape.record(() => linear(x, x));
    tape.backward(out);
    expect(() => tape.backward(out)).toThrow(/a tape goes back once/);
  });
});

describe("changes in place", () => {
  const changes: [string, (target: Tensor, source: Tensor) => void][] = [
    ["accumulateInto", accumulateInto],
    ["copyRowsInto", (target, source) => copyRowsInto(target, 0, source)],
    [
      "scatterRowsInto",
      (target, source) => scatterRowsInto(target, device.tensor(Uint32Array.of(1, 0)), source),
    ],
    ["write", (target) => device.write(target, new Uint8Array(16))],
  ];
  test.each(changes)("%s is refused by name, where the result depends on it", async (name, change) => {
    for (const keepBytes of [Number.POSITIVE_INFINITY, 0]) {
      for (const targetIsWatched of name === "write" ? [true] : [true, false]) {
        const [x, w] = [matrix(2, 2, 1), matrix(2, 2, 2)];
        const run = (of: (x: Tensor, changed: Tensor) => Tensor) => {
          const tape = new Tape(device, { keepBytes });
          const watched = tape.watch(x);
          const { out, target } = tape.record(() => {
            const target = targetIsWatched ? copy(x) : copy(w);
            change(target, targetIsWatched ? copy(w) : copy(x));
            const result = of(x, target);
            tape.cut();
            return { out: result, target };
          });
          return { tape, watched, out, target };
        };
        for (const of of [
          (_: Tensor, changed: Tensor) => changed,
          (_: Tensor, changed: Tensor) => linear(linear(changed, w), changed),
        ]) {
          const { tape, out } = run(of);
          expect(() => tape.backward(out)).toThrow(GradientError);
          tape.dispose();
          const again = run(of);
          expect(() => again.tape.backward(again.out)).toThrow(`gradients do not go through ${name},`);
          again.tape.dispose();
        }
        const { tape, watched, out, target } = run((from) => {
          const [kept, result] = [copy(from), copy(from)];
          linear(kept, kept); // something to forget
          return result;
        });
        const before = await target.read();
        tape.backward(out);
        expect(await tape.gradient(watched).read()).toEqual(new Float32Array(4).fill(1));
        expect(await target.read(), "is not done again").toEqual(before);
        tape.dispose();
      }
    }
  });

  test("a value that a rule reads was changed since: refused, and only where it is read", async () => {
    for (const keepBytes of [Number.POSITIVE_INFINITY, 0]) {
      const [x, w] = [matrix(2, 2, 1), matrix(2, 2, 2)];
      using tape = new Tape(device, { keepBytes });
      const watched = tape.watch(x);
      const out = tape.record(() => linear(x, w));
      tape.cut();
      device.write(w, new Uint8Array(16));
      expect(() => tape.backward(out)).toThrow(
        /the gradient of linear needs f32\[2, 2\], which has been changed/,
      );

      using other = new Tape(device, { keepBytes });
      const again = other.watch(x);
      const sum = other.record(() => addRows(x, [0, 1], w));
      other.cut();
      device.write(w, new Uint8Array(16));
      other.backward(sum);
      expect(await other.gradient(again).read()).toEqual(new Float32Array(4).fill(1));
      expect(watched.place.shape).toEqual([2, 2]);
    }
  });

  test("of a middle result while the tape is stopped", () => {
    using tape = new Tape(device);
    const x = matrix(2, 2);
    tape.watch(x);
    const middle = tape.record(() => copy(x));
    device.write(middle, new Uint8Array(16));
    const out = tape.record(() => copy(middle));
    expect(() => tape.backward(out)).toThrow(/a change in place that was not recorded/);
  });

  test("of a watched tensor before it is used: its gradient is where it is now", async () => {
    using tape = new Tape(device);
    const x = matrix(1, 2);
    const watched = tape.watch(x);
    device.write(x, new Uint8Array(Float32Array.of(2, 5).buffer));
    const out = tape.record(() => matmul(x, x.transpose()));
    tape.backward(out);
    expect(await tape.gradient(watched).read()).toEqual(Float32Array.of(4, 10));
  });
});

describe("grad and valueAndGradients", () => {
  test("value and gradients, and nothing else that stays", async () => {
    const [x, w] = [matrix(3, 4, 1), matrix(2, 4, 2)];
    const expectedValue = await linear(x, w).read();
    const before = device.memory.liveBytes;
    for (const options of [{}, { keepBytes: 0 }]) {
      const { value, gradients } = valueAndGradients(() => linear(copy(x), w), [w, x], options);
      const [dw, dx] = gradients as [Tensor, Tensor];
      const [found, sums] = await device.read([value, dw]);
      expect(found).toEqual(expectedValue);
      const columns = (numbers: Float32Array) =>
        [0, 1, 2, 3].map((c) => range(0, 3).reduce((total, r) => total + numbers[4 * r + c]!, 0));
      const expected = columns((await x.read()) as Float32Array);
      for (const [i, each] of (sums as Float32Array).entries()) expect(each).toBeCloseTo(expected[i % 4]!, 5);
      expect(dx.shape).toEqual([3, 4]);
      for (const tensor of [value, dw, dx]) tensor.dispose();
    }
    const [dx, dw] = grad((a: Tensor, b: Tensor) => linear(a, b))(x, w);
    expect([dx.shape, dw.shape]).toEqual([
      [3, 4],
      [2, 4],
    ]);
    for (const tensor of [dx, dw]) tensor.dispose();
    expect(device.memory.liveBytes).toBe(before);
  });

  test("a function that gives back its argument leaves it alive", async () => {
    const x = matrix(2, 2);
    const [dx] = grad((y: Tensor) => y)(x);
    expect(await dx.read()).toEqual(new Float32Array(4).fill(1));
    expect(x.disposed).toBe(false);
    const { value } = valueAndGradients(() => x, [x]);
    value.dispose();
    expect(x.disposed).toBe(false);
  });

  test("errors leave nothing behind and end the recording", () => {
    const [x, y] = [matrix(2, 2), matrix(2, 2)];
    const before = device.memory.liveBytes;
    expect(() => valueAndGradients(() => copy(y), [x])).toThrow(GradientError);
    expect(() => valueAndGradients(() => copy(y), [])).toThrow(/at least one tensor/);
    expect(() => grad((a: Tensor) => linear(a, device.zeros([3, 3])))(x)).toThrow(ShapeError);
    expect(device.memory.liveBytes).toBe(before);
    expect(device.observers.size).toBe(0);
  });

  test("an embedding: ids in, gradients of the rows that were looked up", async () => {
    const table = matrix(200, 3);
    const ids = device.tensor(Uint32Array.of(7, 150, 7));
    const [gradient] = grad((t: Tensor) => gatherRows(t, ids))(table);
    const expected = new Float32Array(600);
    expected.fill(2, 21, 24);
    expected.fill(1, 450, 453);
    expect(await gradient.read()).toEqual(expected);
  });
});
