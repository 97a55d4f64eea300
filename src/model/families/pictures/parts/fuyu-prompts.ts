import type { VisionSetup } from "../../../checkpoint/config/vision-setup.ts";
import type { ImageRules } from "../../../prompt/image-rules.ts";
import type { PatchGrid } from "../../../prompt/prompt.ts";
import type { PromptImage } from "../../../prompt/prompt-image.ts";

/** Takes the place of a patch, and ends a row of them. */
export const PATCH = "|SPEAKER|";
const ROW_END = "|NEWLINE|";
const BOS = "<s>";
/** What FuyuProcessor of transformers 4 takes for the coordinates of boxes and points, and what it writes for these. */
const COORDINATES = ["box", "point"].flatMap((kind) => [`<${kind}>`, `</${kind}>`]);
const COORDINATE_BYTES = ["<0x00>", "<0x01>", "<0x02>", "<0x03>"];
const refused = [...COORDINATES, ...COORDINATE_BYTES];

/** A picture's rows of patches, each with its end. */
function rowsOf({ rows, columns }: PatchGrid): string {
  return `${PATCH.repeat(columns)}${ROW_END}`.repeat(rows);
}

/**
 * Fuyu's prompts, as FuyuProcessor of transformers 5 makes them: the picture's rows, BOS, the text, and the token that begins an
 * answer. It puts its one picture in front; further ones, and ones within the text, are written alike, and text that comes first
 * begins with BOS.
 */
export function fuyuRules({ layout }: Pick<VisionSetup, "layout">): ImageRules<PromptImage> {
  return {
    placeholder: PATCH,
    expand(image) {
      const { grid } = layout(image);
      return { text: rowsOf(grid!) + BOS, grid: grid! };
    },
    apart: { tokens: [BOS], dropsBlankBefore: PATCH, end: "<0x04>", refused, framesText: true },
    placed: (text, missing) => PATCH.repeat(missing) + text,
  };
}

const [IMAGE, IMAGE_END] = ["|IMAGE|", "|ENDOFIMAGE|"];

/**
 * Mantis' prompts on Fuyu, as the MFuyuProcessor of its repository makes them (github.com/TIGER-AI-Lab/Mantis): pictures stand
 * between tokens of their own and are numbered in the text in front of them, and each piece of text begins with BOS.
 */
export function mantisRules({ layout }: Pick<VisionSetup, "layout">): ImageRules<PromptImage> {
  return {
    placeholder: "<image>",
    featureToken: PATCH,
    expand(image, index) {
      const { grid } = layout(image);
      return { text: IMAGE + rowsOf(grid!) + IMAGE_END, label: `image ${index}: `, grid: grid! };
    },
    apart: { tokens: [IMAGE, PATCH, ROW_END, IMAGE_END, BOS], end: "", refused, framesText: false },
    placed(text, missing) {
      const images = "<image>".repeat(missing);
      const user = ["USER:", "Human:", "HUMAN:"].find((name) => text.includes(name));
      return user === undefined ? images + text : text.replace(user, () => user + images);
    },
  };
}
