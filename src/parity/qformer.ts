import { type ImageRowCounts, imageRowCount } from "../model/checkpoint/config/vision-setup.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { siteNames } from "../model/walk/site-info.ts";
import { CROSS_SITES, parseSite, type SiteName } from "../model/walk/sites.ts";
import type { PatchableModel } from "../patching/model.ts";
import { type GoldenActivation, readActivations } from "./activations.ts";
import { type Check, checkEqual } from "./checks.ts";
import type { GoldenFile } from "./golden-file.ts";

/** For each image, the numbers of its rows, as many as `count` says. */
type RowsOf = (count: (counts: ImageRowCounts) => number) => number[][];

const CROSS: ReadonlySet<string> = new Set(CROSS_SITES);
const isOfQueries = (site: SiteName) => CROSS.has(parseSite(site).site);

/**
 * The activations of a Q-Former; those of cross-attention are of its queries alone. The goldens call the stream behind either
 * attention resid_attn and resid_cross.
 */
export async function readQFormer(
  goldens: GoldenFile,
  name: string,
  rowsOf: RowsOf,
  { sites }: PatchableModel,
): Promise<GoldenActivation[]> {
  if (!sites.qformer) return [];
  const own = siteNames(sites).filter((site) => parseSite(site).stack === "qformer");
  const theirs = (site: SiteName) =>
    site.replace(".xresid_mid.", ".resid_cross.").replace(".resid_mid.", ".resid_attn.");
  const names = Object.fromEntries(own.map((site) => [theirs(site), site]));
  const read = (rows: "latents" | "latents and text") => {
    const columns = rowsOf((counts) => imageRowCount(counts, rows));
    const only = (site: SiteName) => isOfQueries(site) === (rows === "latents");
    return readActivations(goldens, `${name}/`, columns, { sites, stack: "qformer", names, only });
  };
  return [...(await read("latents and text")), ...(await read("latents"))];
}

/** What the Q-Former reads of some prompts beside their pictures, where the goldens have that, without its padding. */
export async function checkInstructions(
  goldens: GoldenFile,
  name: string,
  { ours, again }: Readonly<Record<"ours" | "again", readonly Prompt[]>>,
): Promise<Check[]> {
  const key = `${name}/in.qformer_input_ids`;
  if (!goldens.has(key)) return [];
  const { shape, values } = await goldens.read(key, 2);
  const mask = (await goldens.read(`${name}/in.qformer_attention_mask`, 2)).values;
  const length = shape[1]!;
  const theirs = ours.map((_, b) => {
    const row = [...values.slice(b * length, (b + 1) * length)];
    return row.filter((_, i) => mask[b * length + i]);
  });
  const read = (prompts: readonly Prompt[]) => prompts.map(({ instruction = [] }) => instruction);
  return [
    checkEqual(`${key}, from the text`, read(ours), theirs),
    checkEqual(`${key}, from the ids`, read(again), theirs),
  ];
}
