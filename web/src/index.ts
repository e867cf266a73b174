/** Segments what a sentence describes, in the browser. */
export {ArtifactError, ImageError, InstructionError, RuntimeUnavailable, Superseded} from "./errors.js";
export type {Level} from "./levels.js";
export type {Polygon, Ring} from "./polygons.js";
export type {Info, Progress} from "./protocol.js";
export {PALETTE, Instance, Result, type DrawOptions} from "./result.js";
export {Scene, Segmenter, type AskOptions, type ImageInput, type SegmenterOptions} from "./segmenter.js";
