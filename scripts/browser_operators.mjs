// Runs a graph in ONNX Runtime's WebAssembly, as it stands, for browser_operators.py: node browser_operators.mjs FOLDER
import {readFileSync, writeFileSync} from "node:fs";
import path from "node:path";
import * as ort from "../web/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

const ARRAYS = {
  float32: Float32Array, int64: BigInt64Array, int32: Int32Array, int8: Int8Array, uint8: Uint8Array, bool: Uint8Array,
};
const folder = process.argv[2], file = (name) => path.join(folder, name);
const {inputs, outputs} = JSON.parse(readFileSync(file("inputs.json")));
const content = new Uint8Array(readFileSync(file("inputs.bin"))).buffer;

ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const session = await ort.InferenceSession.create(readFileSync(file("graph.onnx")), {graphOptimizationLevel: "disabled"});
const feeds = Object.fromEntries(inputs.map(({name, type, dims, at}) => {
  const Array = ARRAYS[type], size = dims.reduce((product, side) => product * side, 1);
  return [name, new ort.Tensor(type, new Array(content.slice(at, at + size * Array.BYTES_PER_ELEMENT)), dims)];
}));
const found = await session.run(feeds);

let place = 0;
const parts = [], listed = outputs.map((name) => {
  const {type, dims, data} = found[name], at = place;
  parts.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  place += data.byteLength;
  return {name, type, dims, at};
});
writeFileSync(file("outputs.bin"), Buffer.concat(parts));
writeFileSync(file("outputs.json"), JSON.stringify(listed));
