import { DocumentStore } from "./document/store.ts";

/** The document of this page. */
export const store = new DocumentStore();
