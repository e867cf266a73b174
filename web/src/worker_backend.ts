/** The worker of this page, asked by messages. */
import {RuntimeUnavailable, fromPlain} from "./errors.js";
import type {Answer, Backend, Encoded, Info, LoadOptions, Progress, Question} from "./protocol.js";
import type {Call, Reply} from "./worker.js";

// A union's members lose their own keys in Omit, unless it is taken of each.
type Unnumbered<T> = T extends unknown ? Omit<T, "id"> : never;

export class WorkerBackend implements Backend {
  info!: Info;
  readonly #worker: Worker;
  readonly #open = new Map<number, {resolve: (value: never) => void; reject: (error: Error) => void}>();
  #last = 0;
  #failed: Error | undefined;

  private constructor(script: string | URL, onProgress?: (progress: Progress) => void) {
    this.#worker = new Worker(script, {type: "module"});
    this.#worker.onmessage = ({data}: MessageEvent<Reply>) => {
      if ("progress" in data) return onProgress?.(data.progress);
      const call = this.#open.get(data.id);
      this.#open.delete(data.id);
      if ("error" in data) call?.reject(fromPlain(data.error));
      else call?.resolve(data.value as never);
    };
    this.#worker.onerror = (event) => this.#fail(new RuntimeUnavailable(
      `the worker ${script} failed (${event.message || "it cannot be fetched"}): it must lie at this page's own address`));
  }

  static async open(
    script: string | URL, root: URL, options: LoadOptions, onProgress?: (progress: Progress) => void,
  ): Promise<WorkerBackend> {
    const backend = new WorkerBackend(script, onProgress);
    try {
      backend.info = await backend.#call<Info>({call: "load", root: root.href, options});
    } catch (error) {
      backend.close();
      throw error;
    }
    return backend;
  }

  #call<T>(call: Unnumbered<Call>, transfer: Transferable[] = []): Promise<T> {
    if (this.#failed) return Promise.reject(this.#failed);
    const id = ++this.#last;
    return new Promise<T>((resolve, reject) => {
      this.#open.set(id, {resolve, reject});
      this.#worker.postMessage({...call, id}, transfer);
    });
  }

  encode(picture: ImageBitmap | Blob): Promise<Encoded> {
    return this.#call({call: "encode", picture}, picture instanceof Blob ? [] : [picture]);
  }

  segment(scene: number, question: Question): Promise<Answer> {
    return this.#call({call: "segment", scene, question});
  }

  release(scene: number): void {
    if (!this.#failed) this.#worker.postMessage({id: 0, call: "release", scene} satisfies Call); // nobody waits for it
  }

  close(): void {
    this.#fail(new RuntimeUnavailable("this Segmenter was closed: load a new one"));
    this.#worker.terminate();
  }

  #fail(error: Error): void {
    this.#failed ??= error;
    for (const {reject} of this.#open.values()) reject(this.#failed);
    this.#open.clear();
  }
}
