import * as errors from "../../errors.ts";
import type { WireError } from "./protocol.ts";

const CLASSES = new Map<string, unknown>(Object.entries(errors));
/** Causes that travel along. */
const MOST_CAUSES = 4;

/** What a request failed with, as plain data. The stack stays where it is: it names files of the host. */
export function encodeError(error: unknown): WireError {
  if (!(error instanceof Error)) return { name: "Error", message: String(error) };
  const fields = Object.entries(error).filter(
    ([key, value]) => key !== "name" && ["string", "number", "boolean"].includes(typeof value),
  );
  const causes: string[] = [];
  for (let { cause } = error; cause instanceof Error && causes.length < MOST_CAUSES; cause = cause.cause) {
    causes.push(`${cause.name}: ${cause.message}`);
  }
  return {
    name: error.name,
    message: error.message,
    ...(fields.length > 0 && { fields: Object.fromEntries(fields) }),
    ...(causes.length > 0 && { causes }),
  };
}

/** The same error again: of its class where src/errors.ts has that, else an Error of its name. */
export function decodeError({ name, message, fields, causes = [] }: WireError): Error {
  const cause = causes.reduceRight<Error | undefined>(
    (inner, text) => new Error(text, inner && { cause: inner }),
    undefined,
  );
  const options = cause && { cause };
  const type = CLASSES.get(name);
  const error =
    type === errors.SessionError
      ? new errors.SessionError(message, { code: "message", ...options })
      : type
        ? new (type as typeof errors.XpatchError)(message, options)
        : Object.assign(new Error(message, options), { name });
  for (const [key, value] of Object.entries(fields ?? {})) {
    if (key !== "stack" && key !== "message") Object.assign(error, { [key]: value });
  }
  return error;
}
