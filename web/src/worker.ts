/** The worker: holds the model, and does one thing after the other. */
import {toPlain} from "./errors.js";
import {Model} from "./model.js";
import type {LoadOptions, Progress, Question} from "./protocol.js";

export type Call =
  | {id: number; call: "load"; root: string; options: LoadOptions}
  | {id: number; call: "encode"; picture: ImageBitmap | Blob}
  | {id: number; call: "segment"; scene: number; question: Question}
  | {id: number; call: "release"; scene: number};

export type Reply = {id: number; value: unknown} | {id: number; error: ReturnType<typeof toPlain>} | {progress: Progress};

const post = (reply: Reply, transfer: Transferable[] = []) => self.postMessage(reply, {transfer});

let model: Model | undefined;
let canvas: OffscreenCanvas | undefined;
let last: Promise<void> = Promise.resolve();

/** The pixels of a picture over white: transparent ones hide what nobody sees. */
async function pixelsOf(picture: ImageBitmap | Blob): Promise<ImageData> {
  const bitmap = picture instanceof Blob ? await createImageBitmap(picture, {colorSpaceConversion: "none"}) : picture;
  const {width, height} = bitmap;
  canvas ??= new OffscreenCanvas(width, height);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
  const context = canvas.getContext("2d", {willReadFrequently: true})!;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

async function answer(call: Call): Promise<void> {
  try {
    switch (call.call) {
      case "load":
        model = await Model.load(new URL(call.root), call.options, (progress) => post({progress}));
        return post({id: call.id, value: model.info});
      case "encode":
        return post({id: call.id, value: await model!.encode(await pixelsOf(call.picture))});
      case "release":
        model!.release(call.scene);
        return post({id: call.id, value: null});
      case "segment": {
        const value = await model!.segment(call.scene, call.question);
        return post({id: call.id, value}, [value.scores.buffer, value.boxes.buffer, value.masks.logits.buffer]);
      }
    }
  } catch (error) {
    post({id: call.id, error: toPlain(error)});
  }
}

self.onmessage = ({data}: MessageEvent<Call>) => {
  last = last.then(() => answer(data));
};
