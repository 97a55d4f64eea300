import { CheckpointError } from "../errors.ts";
import { loadDualEncoder } from "../patching/dual-encoder.ts";
import { loadModel } from "../patching/model.ts";
import { settingOf } from "../patching/setting.ts";
import type { Device } from "../tensor/device.ts";
import { checkAnswerCases } from "./answer-cases.ts";
import { CaseFolder, type GoldenCase } from "./case-folder.ts";
import { checkDualCases, isDual } from "./dual-cases.ts";
import { checkDualGradients } from "./dual-gradients.ts";
import { checkGradients } from "./gradients.ts";
import { newReport, type ParityReport } from "./report.ts";
import { checkTextCases } from "./text-cases.ts";

const NO_GRADIENTS = { checks: [], unread: [] };

/**
 * Runs every case of a folder that holds a checkpoint and what Hugging Face transformers computed with it (case.json,
 * golden.safetensors, model/) and compares. Throws CheckpointError for a folder that is not of this form, and for
 * models and kinds of case that are not supported.
 */
export async function checkFolder(path: string, device: Device): Promise<ParityReport> {
  await using folder = await CaseFolder.open(path);
  if (folder.cases.every(isDual)) {
    using encoder = await loadDualEncoder(folder.model, { device });
    const { checks, gradients } = await checkDualCases(folder, encoder);
    const back = gradients ? await checkDualGradients(path, encoder, gradients) : NO_GRADIENTS;
    const all = [...checks, ...back.checks];
    return newReport(path, settingOf(encoder), all, [...folder.goldens.unread, ...back.unread]);
  }
  // Transformers 5, which the goldens are of, has its own meaning of what the config names.
  const read = folder.kind === "mllama" ? { intermediateLayers: "outputs" as const } : {};
  using model = await loadModel(folder.model, { device, ...read });
  if (model.config.encoder) {
    return await reported(await checkAnswerCases(folder, model));
  }
  const unknown = folder.cases.find((golden) => !isPrompts(golden));
  if (unknown) {
    const fields = Object.keys(unknown.items[0] ?? {}).join(", ");
    throw new CheckpointError(
      `${path}: ${unknown.name}: expected cases of text, with or without images, found one with ${fields}`,
    );
  }
  return await reported(await checkTextCases(folder, model));

  async function reported({ checks, gradients }: Awaited<ReturnType<typeof checkTextCases>>) {
    const back = gradients ? await checkGradients(folder, model, gradients) : NO_GRADIENTS;
    const all = [...checks, ...back.checks];
    return newReport(path, settingOf(model), all, [...folder.goldens.unread, ...back.unread]);
  }
}

/** Whether a case is made of prompts for a decoder. */
function isPrompts({ items }: GoldenCase): boolean {
  return items.every((item) => typeof item["text"] === "string" && !("target" in item));
}
