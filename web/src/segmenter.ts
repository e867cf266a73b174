/** `Segmenter`, the door to a model in the browser. */
import {ImageError, Superseded} from "./errors.js";
import type {Level} from "./levels.js";
import {checkSize} from "./pixels.js";
import type {Backend, Encoded, Info, Progress, Question} from "./protocol.js";
import {Result} from "./result.js";
import {ServerBackend} from "./server_backend.js";
import {WorkerBackend} from "./worker_backend.js";

/** A picture, a file of one, or what shows one now. */
export type ImageInput =
  | HTMLImageElement | HTMLCanvasElement | HTMLVideoElement | OffscreenCanvas | VideoFrame | ImageBitmap | ImageData | Blob;

export interface SegmenterOptions {
  /** One of the bundle's, such as "int8"; by default "auto", which is fp32: it alone is proven to equal Python's. */
  precision?: string;
  /** By default "auto", which is WebAssembly. "webgpu" has to be asked for: nobody proved it for your device. */
  device?: "auto" | "wasm" | "webgpu";
  /** Threads to compute with; by default up to four where the page is cross-origin isolated, else one. */
  threads?: number;
  /** Largest sum of the bundle's files, bytes; by default 256 MB. */
  maxBytes?: number;
  /** Address of the worker's script; by default `worker.js` beside this one. */
  worker?: string | URL;
  /** Told while files are fetched and opened. */
  onProgress?: (progress: Progress) => void;
}

export interface AskOptions {
  /** Examples, [x0, y0, x1, y1] in pixels of the picture. */
  boxes?: [number, number, number, number][];
  /** 1 for a box around what is meant, 0 around what is not; by default 1 throughout. */
  boxLabels?: number[];
  /** By default "auto": the grammar of the instruction decides, as in Python. */
  level?: Level | "auto";
  /** Least score of an instance, 0 to 1; by default the bundle's. */
  threshold?: number;
}

/** Segments what a sentence describes. One question is answered at a time; of waiting frames the newest is taken. */
export class Segmenter {
  readonly #backend: Backend;
  #encoding = false;
  #waiting: {begin: () => void; supersede: (reason: Superseded) => void} | undefined;

  private constructor(backend: Backend) {
    this.#backend = backend;
  }

  /**
   * Fetches a bundle, verifies its files by their sha256, keeps them in the browser's cache, and opens it in a worker.
   *
   * @param url - folder of the bundle, which holds bundle.json.
   * @throws ArtifactError - it is missing, damaged, too large, or lacks the precision.
   * @throws RuntimeUnavailable - the browser lacks what is needed; it says what.
   * @throws RangeError - an option is out of range.
   */
  static async load(url: string | URL, options: SegmenterOptions = {}): Promise<Segmenter> {
    const root = new URL(url, globalThis.location?.href);
    if (!root.pathname.endsWith("/")) root.pathname += "/";
    const device = options.device ?? "auto";
    const script = options.worker ?? new URL(device === "webgpu" ? "./worker-webgpu.js" : "./worker.js", import.meta.url);
    const backend = await WorkerBackend.open(script, root, {
      precision: options.precision ?? "auto", device, threads: options.threads, maxBytes: options.maxBytes ?? 256e6,
    }, options.onProgress);
    return new Segmenter(backend);
  }

  /**
   * The same door to the Segmenter of a server, for models too large for a page.
   *
   * @param url - of 'sam3i-edge demo --server'.
   * @param token - which that command prints.
   */
  static async connect(url: string | URL, token: string): Promise<Segmenter> {
    return new Segmenter(await ServerBackend.open(new URL(url, globalThis.location?.href), token));
  }

  /** What runs, and why. */
  get info(): Info {
    return this.#backend.info;
  }

  /**
   * Encodes a picture once, to be asked often. While one is encoded, of those that come the newest waits.
   *
   * @throws ImageError - it cannot be read, has no pixels, or over 64 megapixels.
   * @throws Superseded - a newer picture came before this one was begun.
   */
  async encode(image: ImageInput): Promise<Scene> {
    const picture = await takePicture(image);
    try {
      await this.#turn();
    } catch (error) {
      if (picture instanceof ImageBitmap) picture.close();
      throw error;
    }
    try {
      return new Scene(this.#backend, await this.#backend.encode(picture));
    } finally {
      const next = this.#waiting;
      this.#waiting = undefined;
      if (next) next.begin();
      else this.#encoding = false;
    }
  }

  /** Waits while another picture is encoded. */
  #turn(): Promise<void> {
    if (!this.#encoding) {
      this.#encoding = true;
      return Promise.resolve();
    }
    this.#waiting?.supersede(new Superseded("a newer picture came: ask about that one"));
    return new Promise((begin, supersede) => { this.#waiting = {begin, supersede}; });
  }

  /**
   * Segments the same thing in frame after frame; each time the newest is taken, and none while the page is hidden.
   *
   * @param video - a playing video or camera.
   * @returns the frame that was segmented, which is closed before the next, and what it holds.
   */
  async *stream(
    video: HTMLVideoElement, instruction: string, options: AskOptions & {signal?: AbortSignal} = {},
  ): AsyncGenerator<{frame: ImageBitmap; result: Result}> {
    const {signal, ...asked} = options;
    while (!signal?.aborted && !video.ended) {
      if (document.hidden || video.paused || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) {
        await nextChange(video, signal);
        continue;
      }
      const frame = await createImageBitmap(video);
      try {
        const scene = await this.encode(frame);
        const result = await scene.segment(instruction, asked);
        scene.close();
        if (!signal?.aborted) yield {frame, result};
      } finally {
        frame.close();
      }
    }
  }

  /** Frees the model. Asking afterwards fails. */
  close(): void {
    this.#backend.close();
  }
}

/** An encoded picture. The newest four are kept. */
export class Scene {
  readonly width: number;
  readonly height: number;
  /** Milliseconds that encoding took, by step. */
  readonly timings: Readonly<Record<string, number>>;
  readonly #backend: Backend;
  readonly #number: number;

  /** Made by `Segmenter.encode`. */
  constructor(backend: Backend, encoded: Encoded) {
    this.#backend = backend;
    this.#number = encoded.scene;
    this.width = encoded.width;
    this.height = encoded.height;
    this.timings = encoded.timings;
  }

  /**
   * Segments what an instruction describes, what boxes show, or both.
   *
   * @param instruction - null where boxes ask alone.
   * @throws InstructionError - it is blank or absurdly long.
   * @throws RangeError - a box, level or threshold is wrong, or the model takes none of that kind.
   */
  async segment(instruction: string | null, options: AskOptions = {}): Promise<Result> {
    const boxes = options.boxes ?? [];
    const question: Question = {
      instruction, boxes, boxLabels: options.boxLabels ?? boxes.map(() => 1), level: options.level ?? "auto",
      threshold: options.threshold,
    };
    const answer = await this.#backend.segment(this.#number, question);
    return new Result(answer, this.width, this.height, this.#backend.info);
  }

  /** Lets go of it before its turn. */
  close(): void {
    this.#backend.release(this.#number);
  }
}

/** Waits until a frame may be there: the page is shown again, the video goes on, or it is over. */
async function nextChange(video: HTMLVideoElement, signal: AbortSignal | undefined): Promise<void> {
  const done = new AbortController();
  await new Promise<void>((resolve) => {
    const once = {signal: done.signal};
    document.addEventListener("visibilitychange", () => resolve(), once);
    for (const event of ["loadeddata", "playing", "ended"]) video.addEventListener(event, () => resolve(), once);
    signal?.addEventListener("abort", () => resolve(), once);
  });
  done.abort();
}

/** A copy that may be sent to whoever computes. Its size is checked before its pixels are made, where it says one. */
async function takePicture(image: ImageInput): Promise<ImageBitmap | Blob> {
  if (image instanceof Blob) {
    if (typeof Image !== "undefined") await checkHeader(image);
    return image;
  }
  const [width, height] = sizeOf(image);
  checkSize(width, height);
  return createImageBitmap(image, {colorSpaceConversion: "none", premultiplyAlpha: "none"});
}

function sizeOf(image: Exclude<ImageInput, Blob>): [number, number] {
  if ("naturalWidth" in image) return [image.naturalWidth, image.naturalHeight];
  if ("videoWidth" in image) return [image.videoWidth, image.videoHeight];
  if ("displayWidth" in image) return [image.displayWidth, image.displayHeight];
  return [image.width, image.height];
}

/** Browsers read a picture's header first, and decode it when it is drawn. */
async function checkHeader(file: Blob): Promise<void> {
  const picture = new Image(), url = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => {
      picture.onload = resolve;
      picture.onerror = () => reject(new ImageError("the file is no picture that this browser reads, or damaged: " +
        "save it as PNG, JPEG or WebP"));
      picture.src = url;
    });
    checkSize(picture.naturalWidth, picture.naturalHeight);
  } finally {
    URL.revokeObjectURL(url);
  }
}
