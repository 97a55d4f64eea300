/** A fault of the documentation, not of the program. */
export class DocsFault extends Error {}
