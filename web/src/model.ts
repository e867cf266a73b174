/** The graphs of one variant, and one question to them step by step: sam3i_edge/pipeline/ask.py, in the worker. */
import * as ort from "onnxruntime-web/wasm";
import {ArtifactError, ImageError, InstructionError, RuntimeUnavailable} from "./errors.js";
import {Files, type OnBytes, type Wanted} from "./files.js";
import {checkInstruction} from "./instruction.js";
import {LEVELS, route, type Level} from "./levels.js";
import {chooseVariant, dataOf, filesOf, levelsOf, notesOf, readManifest, type Manifest, type Variant} from "./manifest.js";
import {checkSize, pixelValues} from "./pixels.js";
import type {Answer, Encoded, Info, LoadOptions, Logits, Progress, Question} from "./protocol.js";
import {RUNTIME_BYTES, checkBrowser, chooseThreads, startRuntime} from "./runtime.js";
import {Tokenizer, type TokenIds} from "./tokenizer.js";

const MOST_LOGIT = 1e30;
const SCENES = 4;
const TEXTS = 64;
const VISUAL = "visual"; // the text of a question by boxes alone

type Tensors = Record<string, ort.Tensor>;
type Clock = Record<string, number>;

interface Scene {
  width: number;
  height: number;
  features: Tensors;
}

interface Text {
  features: Float32Array;
  mask: Uint8Array;
  cut: number;
}

/** Adds the time that a step takes to a clock, in milliseconds. */
async function timed<T>(clock: Clock, step: string, work: () => T | Promise<T>): Promise<T> {
  const start = performance.now();
  const value = await work();
  clock[step] = (clock[step] ?? 0) + performance.now() - start;
  return value;
}

/** Keeps the newest `size` values of a map. */
function keep<K, V>(map: Map<K, V>, key: K, value: V, size: number): V {
  map.delete(key);
  map.set(key, value);
  for (const old of map.keys()) if (map.size > size) map.delete(old);
  return value;
}

export class Model {
  readonly info: Info;
  readonly #scenes = new Map<number, Scene>();
  readonly #texts = new Map<string, Text>();
  readonly #sessions = new Map<string, Promise<ort.InferenceSession>>();
  #lastScene = 0;

  private constructor(
    readonly root: URL, readonly manifest: Manifest, readonly variant: Variant, readonly files: Files,
    readonly tokenizer: Tokenizer, info: Info,
  ) {
    this.info = info;
  }

  /** Fetches, verifies and opens a bundle; see `Segmenter.load` for what it refuses. */
  static async load(root: URL, options: LoadOptions, tell: (progress: Progress) => void): Promise<Model> {
    checkBrowser();
    const notes = new Set<string>();
    const device = options.device === "auto" ? "wasm" : options.device;
    const threads = chooseThreads(options.threads, notes);
    const files = await Files.open(notes);
    const place = new URL("bundle.json", root);
    const manifest = readManifest(await files.text(place), place.pathname);
    const variant = chooseVariant(manifest, options.precision);
    const wanted = (name: string): Wanted => ({url: new URL(name, root), ...manifest.files[name]!});
    const names = filesOf(manifest, variant);
    const model = names.reduce((sum, name) => sum + manifest.files[name]!.bytes, 0);
    if (model > options.maxBytes) {
      const size = (bytes: number) => `${Math.round(bytes / 1e6).toLocaleString("en")} MB`;
      throw new ArtifactError(`model ${manifest.name} is ${size(model)} to fetch and to hold, more than ` +
        `${size(options.maxBytes)}: pass maxBytes to have it all the same, or run it by 'sam3i-edge demo --server'`);
    }
    let seen = 0;
    const total = model + RUNTIME_BYTES;
    const count: OnBytes = (bytes) => {
      seen += bytes;
      tell({text: `fetching ${manifest.name}`, share: 0.9 * Math.min(1, seen / total)});
    };
    await startRuntime(device, threads, files, count);
    for (const name of names) await files.read(wanted(name), count);
    await files.prune(root, Object.keys(manifest.files).map(wanted));
    const text = new TextDecoder().decode(await files.read(wanted(manifest.tokenizer.file)));
    const opened = new Model(root, manifest, variant, files, new Tokenizer(text, manifest.tokenizer), {
      model: manifest.name,
      device,
      precision: variant.precision,
      threads,
      imageSize: manifest.preprocessing.image_size,
      threshold: manifest.thresholds.score,
      maxBoxes: variant.boxes,
      levels: levelsOf(variant),
      notes: [...notesOf(manifest), ...notes],
    });
    for (const [number, graph] of ["image_encoder", "detector"].entries()) {
      tell({text: `opening ${graph}`, share: 0.9 + 0.05 * number});
      await opened.#open(graph);
    }
    tell({text: "ready", share: 1});
    return opened;
  }

  /** @param pixels - RGBA, opaque. */
  async encode(pixels: ImageData): Promise<Encoded> {
    const {width, height} = pixels;
    checkSize(width, height);
    const clock: Clock = {};
    const {image_size: side, mean, std} = this.manifest.preprocessing;
    const values = await timed(clock, "preprocess", () => pixelValues(pixels.data, width, height, side, mean, std));
    const features = await this.#run(clock, "encode_image", "image_encoder", {
      pixel_values: new ort.Tensor("float32", values, [1, 3, side, side]),
    }, ["fpn_4x", "fpn_2x", "fpn_1x", "cls_token"]);
    const scene = ++this.#lastScene;
    keep(this.#scenes, scene, {width, height, features}, SCENES);
    return {scene, width, height, timings: clock};
  }

  /** Checks a question, and answers it. */
  async segment(number: number, question: Question): Promise<Answer & {masks: Logits}> {
    const scene = this.#scenes.get(number);
    if (!scene) throw new ImageError(`this picture was let go, the newest ${SCENES} are kept: encode it again`);
    const threshold = question.threshold ?? this.manifest.thresholds.score;
    if (!(threshold >= 0 && threshold <= 1)) throw new RangeError(`threshold must be 0 to 1, got ${threshold}`);
    const cleaned = question.instruction === null ? VISUAL : checkInstruction(question.instruction);
    const level = this.#level(question, cleaned);
    const boxes = this.#boxes(question, scene);
    const clock: Clock = {};
    const text = await this.#text(clock, cleaned, level);
    const outputs = await this.#detect(clock, scene, text, level, boxes);
    const found = await timed(clock, "postprocess", () => this.#select(outputs, scene, threshold));
    return {
      instruction: question.instruction, level, levelChosenBy: question.level === "auto" ? "auto" : "caller",
      ...found, tokensCut: text.cut, timings: clock,
    };
  }

  release(scene: number): void {
    this.#scenes.delete(scene);
  }

  #level(question: Question, cleaned: string): Level {
    const {levels, model} = this.info;
    if (question.level === "auto") {
      const routed = route(cleaned);
      return levels.includes(routed) ? routed : levels[0]!;
    }
    if (!LEVELS.includes(question.level)) {
      throw new RangeError(`unknown level '${question.level}'; choose from ${LEVELS.join(", ")}, or auto`);
    }
    if (!levels.includes(question.level)) {
      throw new RangeError(`model ${model} has no adapters for level '${question.level}', only for ${levels.join(", ")}`);
    }
    if (question.instruction === null && question.level !== "concept") {
      throw new RangeError(`boxes without an instruction are asked at level concept, got '${question.level}'`);
    }
    return question.level;
  }

  #boxes(question: Question, {width, height}: Scene): Tensors | null {
    const {boxes, boxLabels} = question, slots = this.variant.boxes;
    if (!boxes.length) {
      if (question.instruction !== null) return null;
      throw new InstructionError("there is neither an instruction nor a box: describe what to segment, or pass boxes");
    }
    if (!slots) throw new RangeError(`model ${this.info.model} takes no boxes: ask by an instruction alone`);
    if (boxes.length > slots) throw new RangeError(`got ${boxes.length} boxes, the model takes at most ${slots}`);
    if (boxLabels.length !== boxes.length || boxLabels.some((label) => label !== 0 && label !== 1)) {
      throw new RangeError(`boxLabels are [${boxLabels}]: want 1 or 0 for each of ${boxes.length} boxes`);
    }
    const places = new Float32Array(4 * slots), labels = new BigInt64Array(slots).fill(-1n);
    boxes.forEach((box, at) => {
      const [x0, y0, x1, y1] = box;
      if (!(box.length === 4 && x0 >= 0 && y0 >= 0 && x0 < x1 && y0 < y1 && x1 <= width && y1 <= height)) {
        throw new RangeError(`boxes[${at}] is [${box}]: want x0 < x1 within 0..${width} and y0 < y1 within 0..${height}`);
      }
      const [left, top, right, bottom] = [x0 / width, y0 / height, x1 / width, y1 / height];
      places.set([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], 4 * at);
      labels[at] = BigInt(boxLabels[at]!);
    });
    return {
      boxes: new ort.Tensor("float32", places, [1, slots, 4]),
      labels: new ort.Tensor("int64", labels, [1, slots]),
    };
  }

  async #text(clock: Clock, cleaned: string, level: Level): Promise<Text> {
    const key = `${level} ${cleaned}`, kept = this.#texts.get(key);
    if (kept) return keep(this.#texts, key, kept, TEXTS);
    const {ids, cut}: TokenIds = this.tokenizer.encode(cleaned);
    const outputs = await this.#run(clock, "encode_text", `text_encoder.${level}`, {
      input_ids: new ort.Tensor("int64", ids, [1, ids.length]),
    }, ["text_features"]);
    const text = {
      features: outputs["text_features"]!.data as Float32Array, mask: Uint8Array.from(ids, (id) => Number(id !== 0n)), cut,
    };
    return keep(this.#texts, key, text, TEXTS);
  }

  async #detect(clock: Clock, scene: Scene, text: Text, level: Level, boxes: Tensors | null): Promise<Tensors> {
    const {fpn_4x, fpn_2x, fpn_1x, cls_token} = scene.features;
    const slots = this.variant.boxes, tokens = text.mask.length, places = tokens + slots + 1;
    const channels = text.features.length / tokens;
    const prompt = new Float32Array(places * channels), mask = new Uint8Array(places);
    prompt.set(text.features);
    mask.set(text.mask);
    if (boxes) { // their CLS token attended to the boxes, and takes the place of the image's
      const shown = await this.#run(clock, "encode_boxes", "box_encoder", {...boxes, fpn_1x: fpn_1x!},
        ["geometry_tokens", "geometry_mask"]);
      prompt.set(shown["geometry_tokens"]!.data as Float32Array, tokens * channels);
      mask.set(shown["geometry_mask"]!.data as Uint8Array, tokens);
    } else {
      prompt.set(cls_token!.data as Float32Array, (places - 1) * channels);
      mask[places - 1] = 1;
    }
    return this.#run(clock, "detect", "detector", {
      fpn_4x: fpn_4x!, fpn_2x: fpn_2x!, fpn_1x: fpn_1x!,
      prompt: new ort.Tensor("float32", prompt, [1, places, channels]),
      prompt_mask: new ort.Tensor("bool", mask, [1, places]),
      level: new ort.Tensor("int64", BigInt64Array.of(BigInt(LEVELS.indexOf(level))), [1]),
    }, ["scores", "boxes", "mask_logits", "presence"]);
  }

  #select(outputs: Tensors, {width, height}: Scene, threshold: number) {
    const data = (name: string) => outputs[name]!.data as Float32Array;
    const scores = data("scores"), boxes = data("boxes"), logits = data("mask_logits");
    const side = outputs["mask_logits"]!.dims[2]!, cells = side * side;
    checkFinite("scores", scores);
    checkFinite("presence", data("presence"));
    const passed = Array.from(scores.keys()).filter((query) => scores[query]! > threshold);
    passed.sort((a, b) => scores[b]! - scores[a]!);
    const kept = new Float32Array(passed.length * cells), pixels = new Float32Array(4 * passed.length);
    const round = Math.fround, cut = round(this.manifest.thresholds.mask_logit);
    passed.forEach((query, at) => {
      for (let cell = 0; cell < cells; cell++) kept[at * cells + cell] = logits[query * cells + cell]! - cut;
      for (let corner = 0; corner < 4; corner++) {
        const most = corner % 2 ? height : width;
        pixels[4 * at + corner] = Math.min(Math.max(round(boxes[4 * query + corner]! * most), 0), most);
      }
    });
    checkFinite("boxes", pixels);
    checkFinite("mask_logits", kept);
    return {
      scores: Float32Array.from(passed, (query) => scores[query]!),
      boxes: pixels,
      masks: {logits: kept, side},
      presence: 0.5 * (1 + Math.tanh(0.5 * data("presence")[0]!)),
      truncated: passed.length > 0 && passed.length === scores.length,
    };
  }

  async #run(clock: Clock, step: string, graph: string, inputs: Tensors, wanted: string[]): Promise<Tensors> {
    const session = await this.#open(graph);
    let outputs: Tensors;
    try {
      outputs = await timed(clock, step, () => session.run(inputs)) as Tensors;
    } catch (error) {
      throw new RuntimeUnavailable(`graph ${graph} failed (${(error as Error).message}): reload the page, or close others`);
    }
    const missing = wanted.find((name) => !outputs[name]);
    if (missing) throw new ArtifactError(`graph ${graph} has no output ${missing}: export the bundle again`);
    return outputs;
  }

  #open(graph: string): Promise<ort.InferenceSession> {
    let session = this.#sessions.get(graph);
    if (!session) {
      session = this.#create(graph);
      this.#sessions.set(graph, session);
      session.catch(() => this.#sessions.delete(graph)); // the next question tries again
    }
    return session;
  }

  async #create(graph: string): Promise<ort.InferenceSession> {
    const name = this.variant.graphs[graph]!;
    const read = (file: string) => this.files.read({url: new URL(file, this.root), ...this.manifest.files[file]!});
    const externalData = await Promise.all(dataOf(this.manifest, this.variant, name).map(
      async (file) => ({path: file.slice(file.lastIndexOf("/") + 1), data: await read(file)})));
    try {
      return await ort.InferenceSession.create(await read(name), {
        executionProviders: [this.info.device], graphOptimizationLevel: "all", externalData,
      });
    } catch (error) {
      if (error instanceof ArtifactError) throw error;
      throw new ArtifactError(`graph ${name} cannot be opened (${(error as Error).message}): export the bundle again`);
    }
  }
}

function checkFinite(name: string, values: Float32Array): void {
  if (!values.every((value) => Math.abs(value) <= MOST_LOGIT)) {
    throw new RuntimeUnavailable(`the detector returned ${name} that are NaN, infinite or beyond ${MOST_LOGIT}: ` +
      "this browser computes wrongly at this precision; try fp32 on device 'wasm'");
  }
}
