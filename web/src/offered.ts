import { type Offered, readOffered } from "./models/manifest.ts";

/** What the site offers beside the page, which says so in itself. */
export const offered: Offered = readOffered(
  document.querySelector("#offered")?.textContent ?? '{"models":[]}',
);
