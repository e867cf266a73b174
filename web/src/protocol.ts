/** What the page and its worker, or its server, say to each other. */
import type {Level} from "./levels.js";

export interface LoadOptions {
  /** One of the bundle's, such as "fp32" or "int8"; "auto" takes fp32. */
  precision: string;
  /** "auto" takes "wasm"; "webgpu" has to be asked for. */
  device: "auto" | "wasm" | "webgpu";
  /** Threads to compute with; undefined takes up to four where the page may have them. */
  threads: number | undefined;
  /** Largest sum of the files, bytes. */
  maxBytes: number;
}

export interface Progress {
  /** A sentence for people. */
  text: string;
  /** 0 to 1. */
  share: number;
}

/** What runs, and why. */
export interface Info {
  model: string;
  device: string;
  precision: string;
  threads: number;
  /** Side of the square that the model looks at, pixels. */
  imageSize: number;
  threshold: number;
  /** Boxes that a question may have; 0 where the model takes none. */
  maxBoxes: number;
  levels: Level[];
  /** What users must know, such as what the model was trained on. */
  notes: string[];
}

export interface Question {
  /** null where boxes ask alone. */
  instruction: string | null;
  /** x0, y0, x1, y1 in pixels of the picture. */
  boxes: [number, number, number, number][];
  /** 1 for a box around what is meant, 0 around what is not. */
  boxLabels: number[];
  level: Level | "auto";
  threshold: number | undefined;
}

/** [N, side, side], above 0 inside. */
export interface Logits {
  logits: Float32Array;
  side: number;
}

/** Masks as the model gives them, or COCO's run lengths of whole masks. */
export type Masks = Logits | {counts: string[]};

export interface Answer {
  instruction: string | null;
  level: Level;
  levelChosenBy: "caller" | "auto" | "router";
  presence: number;
  scores: Float32Array;
  /** [N, 4] x0, y0, x1, y1 in pixels. */
  boxes: Float32Array;
  masks: Masks;
  truncated: boolean;
  tokensCut: number;
  timings: Record<string, number>;
}

export interface Encoded {
  scene: number;
  width: number;
  height: number;
  /** Milliseconds by step. */
  timings: Record<string, number>;
}

/** Who computes: a worker of this page, or a server. */
export interface Backend {
  readonly info: Info;
  encode(picture: ImageBitmap | Blob): Promise<Encoded>;
  segment(scene: number, question: Question): Promise<Answer>;
  release(scene: number): void;
  close(): void;
}
