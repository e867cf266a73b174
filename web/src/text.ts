/** An instruction as the model reads it, for those who bring their own runtime: "@sam3i/web/text". */
export {InstructionError, ArtifactError} from "./errors.js";
export {checkInstruction, clean, plain} from "./instruction.js";
export {LEVELS, route, type Level} from "./levels.js";
export type {TokenizerSpec} from "./manifest.js";
export {Tokenizer, type TokenIds} from "./tokenizer.js";
