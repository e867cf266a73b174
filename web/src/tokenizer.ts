/** An instruction as the ids that the text encoder reads: sam3i_edge/pipeline/tokenizer.py. */
import {Tokenizer as Backend} from "@huggingface/tokenizers";
import {ArtifactError} from "./errors.js";
import {plain} from "./instruction.js";
import type {TokenizerSpec} from "./manifest.js";

interface TokenizerFile {
  added_tokens?: {id: number; content: string; special: boolean}[];
  model?: {vocab?: Record<string, number>};
}

export interface TokenIds {
  /** start, text tokens, end, padding. */
  ids: BigInt64Array;
  /** Text tokens that did not fit. */
  cut: number;
}

export class Tokenizer {
  readonly #backend: Backend;
  readonly #isOwn: boolean;
  readonly #spec: TokenizerSpec;

  /** @throws ArtifactError - the text is no tokenizer.json that can be used. */
  constructor(text: string, spec: TokenizerSpec) {
    this.#spec = spec;
    try {
      const file = JSON.parse(text) as TokenizerFile;
      const added = file.added_tokens ?? [];
      const start = added.find((token) => token.id === spec.start_id)?.content ??
        Object.entries(file.model?.vocab ?? {}).find(([, id]) => id === spec.start_id)?.[0];
      this.#isOwn = start === "<start>"; // those of released models keep their own rules
      // An instruction that spells a special token is ordinary text.
      this.#backend = new Backend({...file, added_tokens: added.filter((token) => !token.special)}, {});
      this.#backend.encode("the red star left of the ring, 3 of 10?");
    } catch (error) {
      throw new ArtifactError(`${spec.file} cannot be used as a tokenizer (${(error as Error).message}): ` +
        "copy it from where the model came from");
    }
  }

  /** The ids of a cleaned text; what exceeds the model's tokens is cut from the end, and counted. */
  encode(cleaned: string): TokenIds {
    const {context_length, start_id, end_id, pad_id} = this.#spec;
    const tokens = this.#backend.encode(this.#isOwn ? plain(cleaned) : cleaned, {add_special_tokens: false}).ids;
    const kept = tokens.slice(0, context_length - 2);
    const ids = new BigInt64Array(context_length).fill(BigInt(pad_id));
    [start_id, ...kept, end_id].forEach((id, at) => { ids[at] = BigInt(id); });
    return {ids, cut: tokens.length - kept.length};
  }
}
