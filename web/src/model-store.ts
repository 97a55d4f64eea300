import { ModelStore } from "./models/model-store.ts";

/** The models and tasks that this browser keeps. */
export const modelStore = new ModelStore();
