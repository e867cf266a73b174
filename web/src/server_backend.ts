/** The Segmenter of `sam3i-edge demo --server`, asked over HTTP. */
import {ArtifactError, ImageError, InstructionError, RuntimeUnavailable} from "./errors.js";
import type {Level} from "./levels.js";
import type {Answer, Backend, Encoded, Info, Question} from "./protocol.js";

/** What `Result.to_dict` of Python gives, as far as it is read here. */
interface ResultJson {
  instruction: string | null;
  level: Level;
  level_chosen_by: "caller" | "auto" | "router";
  presence: number;
  instances: {score: number; box: number[]; mask: {counts: string}}[];
  timings_ms: Record<string, number>;
  truncated: boolean;
  tokens_cut: number;
}

const KINDS: Record<string, new (message: string) => Error> = {ArtifactError, ImageError, InstructionError, ValueError: RangeError};

export class ServerBackend implements Backend {
  info!: Info;
  readonly #closing = new AbortController();

  private constructor(readonly root: URL, readonly token: string) {}

  static async open(root: URL, token: string): Promise<ServerBackend> {
    const backend = new ServerBackend(root, token);
    backend.info = await backend.#ask<Info>("info");
    return backend;
  }

  async encode(picture: ImageBitmap | Blob): Promise<Encoded> {
    return this.#ask("scene", picture instanceof Blob ? picture : await asPng(picture));
  }

  async segment(scene: number, question: Question): Promise<Answer> {
    const {instruction, boxes, boxLabels, level, threshold} = question;
    const result = await this.#ask<ResultJson>("segment", JSON.stringify({
      scene, instruction, level, threshold: threshold ?? null,
      boxes: boxes.length ? boxes : null, box_labels: boxes.length ? boxLabels : null,
    }));
    const {instances} = result;
    return {
      instruction: result.instruction, level: result.level, levelChosenBy: result.level_chosen_by,
      presence: result.presence, truncated: result.truncated, tokensCut: result.tokens_cut, timings: result.timings_ms,
      scores: Float32Array.from(instances, (one) => one.score),
      boxes: Float32Array.from(instances.flatMap((one) => one.box)),
      masks: {counts: instances.map((one) => one.mask.counts)},
    };
  }

  release(): void {} // the server keeps its newest few, and lets go of others itself

  close(): void {
    this.#closing.abort();
  }

  async #ask<T>(path: string, body?: string | Blob): Promise<T> {
    let response: Response;
    try {
      response = await fetch(new URL(path, this.root), {
        method: body === undefined ? "GET" : "POST", headers: {Authorization: `Bearer ${this.token}`},
        signal: this.#closing.signal, ...(body === undefined ? {} : {body}),
      });
    } catch (error) {
      throw new RuntimeUnavailable(`the server cannot be reached (${(error as Error).message}): is it still running?`);
    }
    if (response.ok) return await response.json() as T;
    const text = await response.text();
    const Kind = KINDS[response.headers.get("X-Error") ?? ""] ?? RuntimeUnavailable;
    throw new Kind(text || `the server answers ${response.status}`);
  }
}

async function asPng(picture: ImageBitmap): Promise<Blob> {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext("2d")!.drawImage(picture, 0, 0);
  picture.close();
  return canvas.convertToBlob({type: "image/png"});
}
