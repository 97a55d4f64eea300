import type { ComponentType } from "preact";
import type { IconName } from "../ui/icons.tsx";

/** A view of the navigation. What it keeps is in slices of the document, what it shows is asked of the session. */
export interface View {
  /** In the address: `#/lens`. */
  readonly id: string;
  readonly title: string;
  readonly icon: IconName;
  readonly component: ComponentType;
  /** Without a loaded model the page offers to load one in place of the view. */
  readonly needsModel: boolean;
}
