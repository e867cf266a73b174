// Builds dist/, the npm package, and sam3i_edge/web/static/, the page in the wheel, but for its index.html and page.css.
// node build.mjs           writes both
// node build.mjs --check   writes the first, and fails where the second, which is committed, would change
import {build} from "esbuild";
import {execFileSync} from "node:child_process";
import {createHash} from "node:crypto";
import {cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync} from "node:fs";
import path from "node:path";
import {fileURLToPath} from "node:url";
import {gunzipSync, gzipSync} from "node:zlib";

const here = path.dirname(fileURLToPath(import.meta.url));
const PAGE = path.join(here, "../sam3i_edge/web/static"), DIST = path.join(here, "dist");
const ort = path.join(here, "node_modules/onnxruntime-web/dist");
const WASM = "ort-wasm-simd-threaded.wasm.gz", GLUE = "ort-wasm-simd-threaded.mjs";
const MOST_BYTES = 6e6;
const read = (...parts) => readFileSync(path.join(...parts));

// Another zlib packs the same bytes otherwise: what was packed once stays.
function packedWasm() {
  const wasm = read(ort, "ort-wasm-simd-threaded.wasm"), kept = path.join(PAGE, WASM);
  if (existsSync(kept) && gunzipSync(readFileSync(kept)).equals(wasm)) return readFileSync(kept);
  return gzipSync(wasm, {level: 9});
}

async function bundle(entry, options = {}) {
  const {outputFiles} = await build({
    absWorkingDir: here, entryPoints: [entry], bundle: true, write: false, minify: true, format: "esm", target: "es2022",
    charset: "utf8", legalComments: "none", conditions: ["onnxruntime-web-use-extern-wasm"], logLevel: "warning", ...options,
  });
  return Buffer.from(outputFiles[0].contents);
}

function licenses() {
  const texts = [
    ["onnxruntime-web, whose npm package has no file of it", read(here, "licenses/onnxruntime-web.txt")],
    ["@huggingface/tokenizers", read(here, "node_modules/@huggingface/tokenizers/LICENSE")],
  ];
  return Buffer.from(texts.map(([name, text]) => `${name}\n\n${String(text).trim()}\n`).join(`\n${"-".repeat(80)}\n\n`));
}

// The page loads the library as its own file, as any other page would.
const library = {
  name: "library",
  setup: (built) => built.onResolve({filter: /^@sam3i\/web$/}, () => ({path: "./index.js", external: true})),
};

const wasm = packedWasm();
const ORT_WASM = {name: WASM, bytes: wasm.length, sha256: createHash("sha256").update(wasm).digest("hex")};
const shared = {
  "index.js": await bundle("src/index.ts"),
  "text.js": await bundle("src/text.ts"),
  "worker.js": await bundle("src/worker.ts", {define: {ORT_WASM: JSON.stringify(ORT_WASM)}}),
  [GLUE]: read(ort, GLUE),
  [WASM]: wasm,
  "LICENSES.txt": licenses(),
};
const page = {
  ...shared,
  "index.html": read(PAGE, "index.html"),
  "page.css": read(PAGE, "page.css"),
  "page.js": await bundle("page/page.ts", {plugins: [library]}),
  "sw.js": await bundle("page/sw.ts", {format: "iife"}),
};

const gpu = await bundle("src/worker.ts", {alias: {"onnxruntime-web/wasm": "onnxruntime-web/webgpu"}, define: {ORT_WASM: "null"}});
const dist = {...shared, "worker-webgpu.js": gpu};
const size = Object.values(dist).reduce((sum, content) => sum + content.length, 0) - wasm.length;
if (size > MOST_BYTES) throw new Error(`the package holds ${size} bytes beside the wasm, at most ${MOST_BYTES} are wanted`);

const write = (folder, files) => {
  rmSync(folder, {recursive: true, force: true});
  mkdirSync(folder, {recursive: true});
  for (const [name, content] of Object.entries(files)) writeFileSync(path.join(folder, name), content);
};

if (process.argv.includes("--check")) {
  const old = Object.keys(page).filter((name) => !existsSync(path.join(PAGE, name)) || !read(PAGE, name).equals(page[name]));
  if (old.length) {
    console.error(`sam3i_edge/web/static is old: ${old.join(", ")}. Run 'npm run build' in web/, and commit it.`);
    process.exit(1);
  }
} else {
  write(PAGE, page);
}
write(DIST, dist);
execFileSync(path.join(here, "node_modules/.bin/tsc"), ["-p", path.join(here, "tsconfig.types.json")], {stdio: "inherit"});
cpSync(path.join(here, "../LICENSE"), path.join(DIST, "LICENSE"));
