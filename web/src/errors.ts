/** Every error the package raises on purpose, named as in Python. Bad plain arguments are RangeError and TypeError. */

/** The browser lacks what is needed, or computes wrongly. */
export class RuntimeUnavailable extends Error {
  override name = "RuntimeUnavailable";
}

/** A bundle's file is missing, damaged, or not what it should be. */
export class ArtifactError extends Error {
  override name = "ArtifactError";
}

/** A picture cannot be read or has no usable pixels. */
export class ImageError extends Error {
  override name = "ImageError";
}

/** An instruction is empty or absurdly long. */
export class InstructionError extends Error {
  override name = "InstructionError";
}

/** A newer frame came before this one was begun. */
export class Superseded extends Error {
  override name = "Superseded";
}

const KINDS = {RuntimeUnavailable, ArtifactError, ImageError, InstructionError, Superseded, RangeError, TypeError};

/** What crosses from the worker, where classes are lost. */
export interface PlainError {
  name: string;
  message: string;
}

export function toPlain(error: unknown): PlainError {
  return error instanceof Error ? {name: error.name, message: error.message} : {name: "Error", message: String(error)};
}

export function fromPlain({name, message}: PlainError): Error {
  const Kind = (KINDS as Record<string, new (message: string) => Error>)[name] ?? Error;
  return new Kind(message);
}
