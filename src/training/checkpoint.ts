import { aKindOf, anObject, checkArgument } from "../arguments.ts";
import { CheckpointError } from "../errors.ts";
import { readTensor } from "../model/checkpoint/entries/tensor-entry.ts";
import { isObject } from "../model/checkpoint/json/config-reader.ts";
import { SafetensorsFile } from "../model/checkpoint/safetensors/safetensors.ts";
import { writeSafetensors } from "../model/checkpoint/safetensors/safetensors-writer.ts";
import type { ByteSource } from "../platform/platform.ts";
import { encode } from "../tensor/dtype.ts";
import { showShape } from "../tensor/shape.ts";
import { Trainer } from "./trainer.ts";

const FORMAT = "xpatch-training";
const VERSION = "1";

/**
 * What a run of training was started with, by names of one's own: rates, the seed, the data. A checkpoint goes with equal
 * settings only. Values as JSON has them.
 */
export type TrainingSettings = Readonly<Record<string, unknown>>;

/**
 * A safetensors file, chunk by chunk, from which training goes on as if it had never stopped, bit for bit on the same adapter:
 * parameters (f32, unrounded), what the optimizer keeps, the number of steps, and the settings. Step no further before the
 * chunks are consumed.
 */
export async function* encodeTraining(
  trainer: Trainer,
  settings: TrainingSettings,
): AsyncGenerator<Uint8Array, void, undefined> {
  checkArgument("encodeTraining", "trainer", trainer, aKindOf(Trainer, "new Trainer(model, …)"));
  checkArgument("encodeTraining", "settings", settings, anObject);
  const { device, optimizer } = trainer;
  const scope = device.openScope();
  try {
    const { step, tensors } = scope.enter(() => optimizer.state);
    const written = Object.entries(tensors).map(([name, tensor]) => {
      const data = async function* () {
        yield encode(await tensor.read(), "f32");
      };
      return { name, stored: "F32", shape: tensor.shape, data };
    });
    yield* writeSafetensors(written, {
      format: FORMAT,
      version: VERSION,
      step: `${step}`,
      settings: JSON.stringify(settings),
    });
  } finally {
    scope.dispose();
  }
}

/**
 * Takes a trainer of the same parameters to where the one was that {@link encodeTraining} wrote; returns the number of steps done.
 * Closes the source.
 *
 * Throws CheckpointError for another file or a damaged one, and for one of other settings or parameters, saying what differs; the
 * trainer is then as it was.
 */
export async function restoreTraining(
  trainer: Trainer,
  source: ByteSource,
  settings: TrainingSettings,
): Promise<number> {
  checkArgument("restoreTraining", "trainer", trainer, aKindOf(Trainer, "new Trainer(model, …)"));
  checkArgument("restoreTraining", "settings", settings, anObject);
  await using file = await openTraining(source);
  const { name, metadata } = file;
  checkSettings(file, settings);
  const { device, optimizer } = trainer;
  const step = Number(metadata.get("step"));
  if (!/^\d+$/.test(metadata.get("step") ?? "") || !Number.isSafeInteger(step)) {
    throw new CheckpointError(
      `${name}: expected a number of steps, found ${JSON.stringify(metadata.get("step"))}`,
    );
  }
  const shapes = device.scope(
    () =>
      new Map(
        Object.entries(optimizer.state.tensors).map(([tensor, { shape }]) => [tensor, showShape(shape)]),
      ),
  );
  const values = new Map<string, Float32Array<ArrayBuffer>>();
  for (const entry of file.entries) {
    const expected = shapes.get(entry.name) ?? "nothing";
    if (expected !== showShape(entry.shape) || entry.stored !== "F32") {
      throw new CheckpointError(
        `${name}: ${entry.name}: expected ${expected}, found ${entry.stored} ${showShape(entry.shape)}`,
      );
    }
    values.set(entry.name, new Float32Array((await readTensor(entry)).buffer));
  }
  for (const tensor of shapes.keys()) {
    if (!values.has(tensor))
      throw new CheckpointError(`${name}: expected ${tensor}, found nothing of that name`);
  }
  optimizer.restore(step, values);
  return step;
}

/**
 * Throws CheckpointError for what {@link restoreTraining} would refuse whatever the trainer: another file, or other settings.
 * Closes the source.
 */
export async function checkTraining(source: ByteSource, settings: TrainingSettings): Promise<void> {
  await using file = await openTraining(source);
  checkSettings(file, settings);
}

function checkSettings(file: SafetensorsFile, settings: TrainingSettings): void {
  const differences = differencesOf(settingsOf(file), JSON.parse(JSON.stringify(settings)));
  if (differences.length === 0) return;
  throw new CheckpointError(`${file.name} is of a training with other settings: ${differences.join("; ")}`);
}

/** Throws CheckpointError for what is no checkpoint of a training; the source is then closed. */
async function openTraining(source: ByteSource): Promise<SafetensorsFile> {
  let file: SafetensorsFile;
  try {
    file = await SafetensorsFile.open(source);
  } catch (error) {
    await source.close();
    throw error;
  }
  const found = `${file.metadata.get("format")} ${file.metadata.get("version")}`;
  if (found === `${FORMAT} ${VERSION}`) return file;
  await file.close();
  throw new CheckpointError(
    `${file.name}: expected a checkpoint of a training, version ${VERSION}, found the format ${JSON.stringify(found)}`,
  );
}

function settingsOf({ name, metadata }: SafetensorsFile): Record<string, unknown> {
  try {
    const settings: unknown = JSON.parse(metadata.get("settings") ?? "");
    if (isObject(settings)) return settings;
  } catch {
    // Said below.
  }
  throw new CheckpointError(`${name}: expected its settings to be a JSON object`);
}

/** What differs, in words: `seed 0, now 1`. */
function differencesOf(
  before: Readonly<Record<string, unknown>>,
  now: Readonly<Record<string, unknown>>,
): string[] {
  const show = (value: unknown) => (value === undefined ? "none" : JSON.stringify(value));
  return [...new Set([...Object.keys(before), ...Object.keys(now)])]
    .filter((key) => show(before[key]) !== show(now[key]))
    .map((key) => `${key} ${show(before[key])}, now ${show(now[key])}`);
}
