/** The canvas: a picture, what was found in it, and the boxes that are examples. */
import type {Result} from "@sam3i/web";

export type Box = [number, number, number, number];

export interface ExampleBox {
  box: Box;
  /** 1 for what is meant, 0 for what is not. */
  label: number;
}

const LONGEST = 1280; // pixels of the canvas
const MOST_SCALE = 2;

const isSame = (a: Box, b: Box) => a.every((side, corner) => Math.abs(side - b[corner]!) < 1);

export class View {
  picture: ImageBitmap | undefined;
  result: Result | undefined;
  /** Numbers of the instances that are not shown. */
  readonly hidden = new Set<number>();
  examples: ExampleBox[] = [];
  /** The box that is being drawn. */
  drawing: Box | undefined;

  constructor(readonly canvas: HTMLCanvasElement) {}

  /** Takes another picture, and closes the one before. */
  show(picture: ImageBitmap): void {
    this.picture?.close();
    this.picture = picture;
  }

  forget(): void {
    this.result = undefined;
    this.examples = [];
    this.hidden.clear();
  }

  draw(): void {
    const {picture, canvas, result} = this;
    canvas.hidden = !picture;
    if (!picture) return;
    const scale = Math.min(MOST_SCALE, LONGEST / Math.max(picture.width, picture.height));
    canvas.width = Math.max(1, Math.round(picture.width * scale));
    canvas.height = Math.max(1, Math.round(picture.height * scale));
    const context = canvas.getContext("2d", {willReadFrequently: true})!;
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    result?.draw(canvas, {only: [...result.instances.keys()].filter((number) => !this.hidden.has(number))});
    context.lineWidth = 2;
    context.setLineDash([6, 4]);
    const shown = this.drawing ? [...this.examples, {box: this.drawing, label: 1}] : this.examples;
    for (const {box, label} of shown) {
      const [x0, y0, x1, y1] = box.map((side) => side * scale) as Box;
      context.strokeStyle = label ? "#3ad17c" : "#ff5348";
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    const found = result ? `${result.instances.length} found by “${result.instruction ?? "boxes"}”` : "nothing asked yet";
    canvas.setAttribute("aria-label", `Picture of ${picture.width} by ${picture.height} pixels, ${found}`);
  }

  /** Where in the picture a pointer is, pixels. */
  place(event: PointerEvent): [number, number] {
    const shown = this.canvas.getBoundingClientRect(), {width, height} = this.picture!;
    const clip = (at: number, most: number) => Math.min(Math.max(at, 0), most);
    return [
      clip((event.clientX - shown.x) / shown.width * width, width),
      clip((event.clientY - shown.y) / shown.height * height, height),
    ];
  }

  /** The smallest of what was found at a place. */
  instanceAt(x: number, y: number): number | undefined {
    if (!this.result) return undefined;
    const {width, height, instances} = this.result;
    const at = Math.min(Math.floor(y), height - 1) * width + Math.min(Math.floor(x), width - 1);
    const here = [...instances.keys()].filter((number) => instances[number]!.mask[at]);
    return here.sort((a, b) => instances[a]!.area - instances[b]!.area)[0];
  }

  labelOf(box: Box): number | undefined {
    return this.examples.find((one) => isSame(one.box, box))?.label;
  }

  /** The examples, were a box made one: or none again, where it was one of this kind. */
  marked(box: Box, label: number): ExampleBox[] {
    const others = this.examples.filter((one) => !isSame(one.box, box));
    return this.labelOf(box) === label ? others : [...others, {box, label}];
  }
}
