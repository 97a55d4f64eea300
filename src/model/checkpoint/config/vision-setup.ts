import type { ProcessorSettings } from "../../../images/processor-config.ts";
import type { VisionConfig } from "./vision-config.ts";

/** How a vision-language model takes pictures in. */
export interface VisionSetup {
  readonly tower: VisionConfig;
  /** Token that stands for an image, and for each of its features once expanded. */
  readonly imageToken: string;
  readonly imageTokenId: number;
  /** Blocks of the tower whose output is used; the number of blocks for the last one's. */
  readonly featureLayer: number;
  /** Whether the class token's row goes along. */
  readonly keepsClassToken: boolean;
  /** Positions that an image takes in the prompt. */
  readonly tokensPerImage: number;
  readonly processor: ProcessorSettings;
}
