/** What a question found. */
import {decodeRle, resizeLogits} from "./masks.js";
import {polygons, type Polygon} from "./polygons.js";
import type {Answer, Info, Masks} from "./protocol.js";
import type {Level} from "./levels.js";

/** Okabe and Ito 2008, without black: apart under the usual kinds of colour blindness. */
export const PALETTE: readonly [number, number, number][] = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0], [204, 121, 167], [0, 114, 178],
];
const TINT = 0.55;

/** One thing that was found. */
export class Instance {
  /** 0 to 1. */
  readonly score: number;
  /** x0, y0, x1, y1 in pixels of the picture. */
  readonly box: [number, number, number, number];
  readonly #maskAt: (width: number, height: number) => Uint8Array;
  #mask: Uint8Array | undefined;
  #polygons: Polygon[] | undefined;

  constructor(answer: Answer, number: number, readonly width: number, readonly height: number) {
    this.score = answer.scores[number]!;
    this.box = [...answer.boxes.subarray(4 * number, 4 * number + 4)] as Instance["box"];
    this.#maskAt = maskOf(answer.masks, number, width, height);
  }

  /** uint8 [height, width], 1 inside; made on first use and kept. */
  get mask(): Uint8Array {
    return this.#mask ??= this.#maskAt(this.width, this.height);
  }

  /** Pixels in the mask. */
  get area(): number {
    return this.mask.reduce((sum, pixel) => sum + pixel, 0);
  }

  /** The outlines along the edges of pixels, one for each connected part. */
  get polygons(): Polygon[] {
    return this.#polygons ??= polygons(this.mask, this.width, this.height);
  }

  /** The mask at another size, as a canvas shows it. */
  maskAt(width: number, height: number): Uint8Array {
    return width === this.width && height === this.height ? this.mask : this.#maskAt(width, height);
  }
}

function maskOf(masks: Masks, number: number, width: number, height: number) {
  if ("counts" in masks) {
    let whole: Uint8Array | undefined;
    return (across: number, down: number) => {
      whole ??= decodeRle(masks.counts[number]!, width, height);
      if (across === width && down === height) return whole;
      const mask = new Uint8Array(across * down);
      for (let y = 0; y < down; y++) {
        const from = Math.floor((y + 0.5) * height / down) * width;
        for (let x = 0; x < across; x++) mask[y * across + x] = whole[from + Math.floor((x + 0.5) * width / across)]!;
      }
      return mask;
    };
  }
  const {logits, side} = masks, cells = side * side;
  const own = logits.subarray(number * cells, (number + 1) * cells);
  return (across: number, down: number) => resizeLogits(own, side, across, down);
}

export interface DrawOptions {
  /** Numbers of the instances to draw; all where it is left out. */
  only?: Iterable<number>;
  /** Whether to draw boxes and scores. */
  boxes?: boolean;
}

/** The answer to one question: instances, best first. None is a normal answer. */
export class Result {
  readonly instances: Instance[];
  readonly instruction: string | null;
  readonly level: Level;
  readonly levelChosenBy: "caller" | "auto" | "router";
  /** Probability 0 to 1 that the picture holds what was asked for. */
  readonly presence: number;
  /** The model's every query passed: there may be more. */
  readonly truncated: boolean;
  /** Tokens of the instruction that did not fit. */
  readonly tokensCut: number;
  /** Milliseconds by step; a step whose result was kept is missing. */
  readonly timings: Readonly<Record<string, number>>;
  readonly notes: readonly string[];

  constructor(answer: Answer, readonly width: number, readonly height: number, readonly info: Info) {
    this.instances = Array.from(answer.scores, (_, number) => new Instance(answer, number, width, height));
    ({
      instruction: this.instruction, level: this.level, levelChosenBy: this.levelChosenBy, presence: this.presence,
      truncated: this.truncated, tokensCut: this.tokensCut, timings: this.timings,
    } = answer);
    this.notes = info.notes;
  }

  /** Draws the masks, boxes and scores over what a canvas shows, at the canvas's size. */
  draw(canvas: HTMLCanvasElement | OffscreenCanvas, {only, boxes = true}: DrawOptions = {}): void {
    const {width, height} = canvas;
    const context = canvas.getContext("2d") as CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;
    const shown = [...only ?? this.instances.keys()].reverse(); // the best lies on top
    const view = context.getImageData(0, 0, width, height), {data} = view;
    for (const number of shown) {
      const mask = this.instances[number]!.maskAt(width, height), color = PALETTE[number % PALETTE.length]!;
      for (let pixel = 0; pixel < mask.length; pixel++) {
        if (!mask[pixel]) continue;
        for (let c = 0; c < 3; c++) data[4 * pixel + c] = data[4 * pixel + c]! * (1 - TINT) + color[c]! * TINT;
        data[4 * pixel + 3] = 255;
      }
    }
    context.putImageData(view, 0, 0);
    if (boxes) for (const number of shown) this.#drawBox(context, number, width, height);
  }

  #drawBox(context: CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D, number: number, width: number, height: number) {
    const {box, score} = this.instances[number]!, unit = Math.max(width, height) / 640, text = score.toFixed(2);
    const [x0, y0, x1, y1] = box.map((side, corner) => side * (corner % 2 ? height / this.height : width / this.width));
    context.strokeStyle = `rgb(${PALETTE[number % PALETTE.length]})`;
    context.lineWidth = Math.max(1, 2 * unit);
    context.strokeRect(x0!, y0!, x1! - x0!, y1! - y0!);
    context.font = `${Math.max(11, Math.round(13 * unit))}px system-ui, sans-serif`;
    context.textBaseline = "top";
    const line = Math.max(11, Math.round(13 * unit)) + 4, top = Math.max(0, y0! - line);
    context.fillStyle = "#000c";
    context.fillRect(x0!, top, context.measureText(text).width + 6, line);
    context.fillStyle = "#fff";
    context.fillText(text, x0! + 3, top + 2);
  }
}
