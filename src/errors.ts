/** The base of every error this library throws on purpose. `catch (e) { if (e instanceof XpatchError) … }`. */
export class XpatchError extends Error {
  override name = "XpatchError";
}

/** Shapes, axes or indices that do not fit the operation; the message names the operation and the shapes. */
export class ShapeError extends XpatchError {
  override name = "ShapeError";
}

/** A dtype that the operation does not take, or two dtypes that do not go together. */
export class DTypeError extends XpatchError {
  override name = "DTypeError";
}

/** A tensor used after it was disposed of, or together with a tensor of another device. */
export class LifetimeError extends XpatchError {
  override name = "LifetimeError";
}

/** No adapter, a lost device, or a validation error from the WebGPU implementation. */
export class DeviceError extends XpatchError {
  override name = "DeviceError";
}

/** The device was lost (driver reset, `destroy()`, adapter removed). Open a new one to go on. */
export class DeviceLostError extends DeviceError {
  override name = "DeviceLostError";
}

/** An allocation that the adapter refused, or that is over its limits; the message has the sizes. */
export class OutOfMemoryError extends DeviceError {
  override name = "OutOfMemoryError";
}

/** A checkpoint that is damaged, incomplete, unsafe or of an unsupported kind; the message names the file. */
export class CheckpointError extends XpatchError {
  override name = "CheckpointError";
}

/** A site that does not exist in the model, a tap or edit that did not fire, or a value of the wrong shape. */
export class SiteError extends XpatchError {
  override name = "SiteError";
}

/** A prompt that cannot be built or run: too long, no such span, placeholders and images that do not match. */
export class PromptError extends XpatchError {
  override name = "PromptError";
}

/** An argument that is missing, of the wrong kind, or an option that there is none of; the message names it. */
export class ArgumentError extends XpatchError {
  override name = "ArgumentError";
}

/** A gradient that does not exist: of something that the result does not depend on, or through an operation that has none. */
export class GradientError extends XpatchError {
  override name = "GradientError";
}

/** Logits that no token can be chosen by: there is a NaN among them, or all are -infinity. */
export class GenerationError extends XpatchError {
  override name = "GenerationError";
}

/** Pictures that do not decode or are over the accepted size. */
export class ImageError extends XpatchError {
  override name = "ImageError";
}

/** A file that cannot be written, that another process is writing, a text that is not UTF-8, or a damaged table; the message names it. */
export class FileError extends XpatchError {
  override name = "FileError";
}

/** What kind of {@link SessionError} it is. */
export type SessionErrorCode =
  /** The two sides speak different versions of the protocol. */
  | "version"
  /** A message that is none, or a request that there is none of. */
  | "message"
  /** A message, picture or number of things over what the host takes of a client. */
  | "bounds"
  /** A handle that the host does not know, or no longer. */
  | "handle"
  /** Something that this host does not do for its clients. */
  | "refused"
  /** The client has given the request up. */
  | "cancelled"
  /** The connection ended. */
  | "closed";

/** A session with a host that went wrong for no reason of the model's; `code` says how. */
export class SessionError extends XpatchError {
  override name = "SessionError";
  readonly code: SessionErrorCode;

  constructor(message: string, options: { readonly code: SessionErrorCode; readonly cause?: unknown }) {
    super(message, "cause" in options ? { cause: options.cause } : {});
    this.code = options.code;
  }
}
