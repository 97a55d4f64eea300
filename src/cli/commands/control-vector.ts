import type { Command } from "commander";
import { controlVectorOf, encodeControlVector } from "../../analysis/vectors/control-vector.ts";
import { writeWhole } from "../../platform/node-write.ts";
import { layers } from "../options/arguments.ts";
import { checkWritable, ofOption } from "../options/checks.ts";
import { newCommand } from "../options/command.ts";
import { formatOrigin, readVectorFile } from "../options/vector-files.ts";
import { showBytes } from "../terminal/layout.ts";
import { printResult } from "../terminal/output.ts";

interface Arguments {
  readonly out: string;
  readonly less?: string;
  readonly asIs?: boolean;
  readonly layers?: readonly number[];
  readonly modelHint?: string;
  readonly json?: boolean;
}

export interface ControlVectorReport {
  /** Where the vectors come from, and those that were subtracted. */
  readonly from: string;
  readonly less?: string;
  readonly out: string;
  readonly bytes: number;
  readonly layers: readonly number[];
  /** Layers of the file that the format has no place for. */
  readonly leftOut: readonly number[];
}

export function controlVectorCommand(): Command {
  const command = newCommand(
    "control-vector",
    "Write task vectors as a GGUF control vector, which llama.cpp and repeng add",
    [
      "control-vector capital.safetensors --less bare.safetensors --out capital.gguf",
      "control-vector directions.safetensors --as-is --layers 10-20 --out directions.gguf",
    ],
  )
    .argument("<vectors>", "a file that xpatch extract wrote, of resid_post")
    .requiredOption("--out <file>", "GGUF file to write")
    .option(
      "--less <file>",
      "vectors to subtract: what is there before, extracted from bare questions at the same token",
    )
    .option("--as-is", "the vectors are directions already: differences, not means")
    .option(
      "--layers <layers>",
      "such as 1-5,8 (default: all but 0, which the format has no place for)",
      layers,
    )
    .option(
      "--model-hint <name>",
      "llama.cpp's name of the architecture (default: the name of the vectors' model)",
    );
  return command.action(async (from: string, args: Arguments) => {
    if ((args.less === undefined) === (args.asIs === undefined)) {
      command.error(
        "error: expected either --less or --as-is: task vectors are put in place of activations, control vectors are added",
      );
    }
    printResult(await write(from, args), args.json, formatReport);
  });
}

async function write(
  from: string,
  { out, less, layers: asked, modelHint }: Arguments,
): Promise<ControlVectorReport> {
  await checkWritable("--out", out);
  const vectors = await readVectorFile(from);
  const subtracted = less === undefined ? "nothing" : await ofOption("--less", () => readVectorFile(less));
  const vector = controlVectorOf(vectors, subtracted, { layers: asked, modelHint });
  const bytes = await writeWhole(out, encodeControlVector(vector));
  const leftOut = asked ? [] : vectors.origin.layers.filter((layer) => !vector.layers.includes(layer));
  const lessFrom = subtracted === "nothing" ? {} : { less: formatOrigin(subtracted.origin) };
  return { from: formatOrigin(vectors.origin), ...lessFrom, out, bytes, layers: vector.layers, leftOut };
}

function formatReport({ from, less, out, bytes, layers: written, leftOut }: ControlVectorReport): string {
  return [
    from,
    ...(less === undefined ? [] : [`less ${less}`]),
    `${out}  ${showBytes(bytes)}, directions of layers ${written.join(", ")}, to be added to every token`,
    ...(leftOut.length > 0
      ? [`left out: layer ${leftOut.join(", ")}, which the format has no place for`]
      : []),
  ].join("\n");
}
