/** What the console of Node, Deno and Bun calls for the text of an object. */
export const INSPECT: unique symbol = Symbol.for("nodejs.util.inspect.custom") as never;
