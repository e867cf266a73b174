/** `bundle.json` as sam3i_edge/bundle/manifest.py writes it; what this package reads of it is checked. */
import {ArtifactError} from "./errors.js";
import {LEVELS, type Level} from "./levels.js";

export interface FileRecord {
  bytes: number;
  sha256: string;
}

export interface TokenizerSpec {
  file: string;
  context_length: number;
  start_id: number;
  end_id: number;
  pad_id: number;
}

export interface Variant {
  runtime: string;
  precision: string;
  graphs: Record<string, string>;
  boxes: number;
}

export interface Manifest {
  schema_version: number;
  name: string;
  preprocessing: {image_size: number; mean: [number, number, number]; std: [number, number, number]};
  tokenizer: TokenizerSpec;
  thresholds: {score: number; mask_logit: number};
  provenance: Record<string, string | number>;
  files: Record<string, FileRecord>;
  variants: Record<string, Variant>;
}

const RUNTIME = "onnxruntime";
const AGAIN = "copy or export the bundle again";

const isNumbers = (value: unknown, count: number) =>
  Array.isArray(value) && value.length === count && value.every(Number.isFinite);
const isId = (value: unknown) => Number.isInteger(value) && (value as number) >= 0;

function problem(manifest: Manifest): string | undefined {
  if (manifest.schema_version !== 1) {
    return `schema_version is ${manifest.schema_version}, this version reads 1: use a newer @sam3i/web`;
  }
  const {preprocessing, tokenizer, thresholds, files, variants} = manifest;
  if (typeof manifest.name !== "string" || !manifest.provenance || !files || !variants) {
    return "want name, provenance, files and variants";
  }
  if (!isId(preprocessing?.image_size) || preprocessing.image_size < 1 || preprocessing.image_size > 4096 ||
      !isNumbers(preprocessing.mean, 3) || !isNumbers(preprocessing.std, 3)) {
    return "preprocessing wants image_size, three means and three deviations";
  }
  if (!isId(tokenizer?.context_length) || !isId(tokenizer.start_id) || !isId(tokenizer.end_id)) {
    return "tokenizer wants context_length, start_id and end_id";
  }
  if (!Number.isFinite(thresholds?.score) || !Number.isFinite(thresholds.mask_logit)) {
    return "thresholds want score and mask_logit";
  }
  for (const [name, record] of Object.entries(files)) {
    if (!isId(record?.bytes) || !/^[0-9a-f]{64}$/.test(record.sha256)) return `files.${name} wants bytes and sha256`;
    if (name.split("/").some((part) => !part || part === "." || part === "..") || /[\\:?#%]/.test(name)) {
      return `files.${name} leaves the bundle`;
    }
  }
  const used = [tokenizer.file, ...Object.values(variants).flatMap((variant) => Object.values(variant.graphs))];
  const missing = used.find((name) => !Object.hasOwn(files, name));
  return missing && `it names ${missing}, which its files lack`;
}

/** @throws ArtifactError - the text is no bundle.json, or of another schema version. */
export function readManifest(text: string, place: string): Manifest {
  let manifest: Manifest;
  try {
    manifest = JSON.parse(text) as Manifest;
  } catch (error) {
    throw new ArtifactError(`${place} is no JSON (${(error as Error).message}): name a bundle's folder`);
  }
  const wrong = manifest && typeof manifest === "object" ? problem(manifest) : "want an object";
  if (wrong) throw new ArtifactError(`${place}: ${wrong}; ${AGAIN}`);
  return manifest;
}

/** The precisions of the bundle that run here. */
export function precisions(manifest: Manifest): string[] {
  return Object.values(manifest.variants).filter((one) => one.runtime === RUNTIME).map((one) => one.precision);
}

/**
 * The variant of a precision; "auto" is fp32, which alone is proven to equal Python's.
 *
 * @throws ArtifactError - the bundle has none of it, or it lacks a graph.
 */
export function chooseVariant(manifest: Manifest, precision: string): Variant {
  const wanted = precision === "auto" ? "fp32" : precision;
  const found = Object.values(manifest.variants)
    .find((one) => one.runtime === RUNTIME && one.precision === wanted);
  if (!found) {
    const known = precisions(manifest);
    const hint = known.length
      ? `it has ${known.join(", ")}: ask for one of these by name`
      : `it has ${Object.keys(manifest.variants).join(", ")}: export it with '--to onnx'`;
    throw new ArtifactError(`bundle ${manifest.name} has no variant onnx-${wanted}, ${hint}`);
  }
  for (const graph of ["image_encoder", "text_encoder.concept", "detector"]) {
    if (!found.graphs[graph]) throw new ArtifactError(`bundle ${manifest.name} lacks the graph ${graph}; ${AGAIN}`);
  }
  return found;
}

export const levelsOf = (variant: Variant): Level[] =>
  LEVELS.filter((level) => variant.graphs[`text_encoder.${level}`]);

/** Every file that a variant reads: its graphs, what lies beside them, and the tokenizer. */
export function filesOf(manifest: Manifest, variant: Variant): string[] {
  const graphs = Object.values(variant.graphs);
  const data = graphs.flatMap((graph) => dataOf(manifest, variant, graph));
  return [...new Set([...graphs, ...data, manifest.tokenizer.file])];
}

/** The files beside a graph that are no graphs themselves: its weights lie in one of them. */
export function dataOf(manifest: Manifest, variant: Variant, graph: string): string[] {
  const folder = graph.slice(0, graph.lastIndexOf("/") + 1);
  const graphs = new Set(Object.values(variant.graphs));
  return Object.keys(manifest.files)
    .filter((name) => folder && name.startsWith(folder) && !graphs.has(name));
}

/** What users of the model must know. */
export function notesOf(manifest: Manifest): string[] {
  const note = manifest.provenance["note"];
  return note === undefined ? [] : [String(note)];
}
