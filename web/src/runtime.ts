/** ONNX Runtime in this worker: what the browser must have for it, and its start. */
import * as ort from "onnxruntime-web/wasm";
import {RuntimeUnavailable} from "./errors.js";
import type {Files, OnBytes} from "./files.js";

// Set by build.mjs: the name, bytes and sha256 of ONNX Runtime's gzipped wasm, which lies beside the worker.
declare const ORT_WASM: {name: string; bytes: number; sha256: string} | null;

const SIMD = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
);

/** Bytes that the runtime adds to those of a model. */
export const RUNTIME_BYTES = ORT_WASM?.bytes ?? 0;

/** @throws RuntimeUnavailable - the browser cannot run it at all. */
export function checkBrowser(): void {
  if (!WebAssembly.validate(SIMD)) {
    throw new RuntimeUnavailable(
      "this browser has no WebAssembly SIMD: use Chrome 91, Firefox 89, Safari 16.4 or newer");
  }
}

/** Threads to compute with; `notes` is told where the page may have one alone. */
export function chooseThreads(asked: number | undefined, notes: Set<string>): number {
  if (asked !== undefined && !(Number.isInteger(asked) && asked >= 1 && asked <= 64)) {
    throw new RangeError(`threads must be 1 to 64, got ${asked}`);
  }
  if (asked === 1) return 1;
  if (!globalThis.crossOriginIsolated) {
    notes.add("one thread: this page is not cross-origin isolated, its server sends no COOP and COEP headers");
    return 1;
  }
  return asked ?? Math.max(1, Math.min(4, navigator.hardwareConcurrency));
}

/** Fetches and verifies the runtime, and sets it up; once in a worker. */
export async function startRuntime(device: string, threads: number, files: Files, count: OnBytes): Promise<void> {
  const here = new URL(".", import.meta.url);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads;
  if (!ORT_WASM) { // the worker for WebGPU: its runtime is copied beside it by whoever wants it
    const gpu = (navigator as {gpu?: {requestAdapter(): Promise<unknown>}}).gpu;
    if (device !== "webgpu" || !await gpu?.requestAdapter()) {
      throw new RuntimeUnavailable("this browser gives no WebGPU adapter: load with device 'wasm'");
    }
    ort.env.wasm.wasmPaths = here.href;
    return;
  }
  const packed = await files.read({url: new URL(ORT_WASM.name, here), ...ORT_WASM}, count);
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  ort.env.wasm.wasmBinary = await new Response(unpacked).arrayBuffer();
  ort.env.wasm.wasmPaths = {mjs: new URL("ort-wasm-simd-threaded.mjs", here).href};
}
