/**
 * A picture -> the image encoder's input: Pillow's antialiased bilinear resize, across and then down, in integers, as
 * native/src/pixel_values.cpp. The same bytes give the same floats as in Python.
 */
import {ImageError} from "./errors.js";

const MOST_PIXELS = 64_000_000;
const BITS = 22;
const HALF = 1 << (BITS - 1);

interface Taps {
  first: number;
  weights: Int32Array;
}

function taps(from: number, to: number): Taps[] {
  const scale = from / to, wide = Math.max(scale, 1);
  return Array.from({length: to}, (_, at) => {
    const center = (at + 0.5) * scale;
    const first = Math.max(Math.trunc(center - wide + 0.5), 0);
    const count = Math.min(Math.trunc(center + wide + 0.5), from) - first;
    const shares = Array.from({length: count}, (_, k) => {
      const away = Math.abs((k + first - center + 0.5) / wide);
      return away < 1 ? 1 - away : 0;
    });
    const sum = shares.reduce((total, share) => total + share, 0);
    return {first, weights: Int32Array.from(shares, (share) => Math.trunc(0.5 + share / sum * (1 << BITS)))};
  });
}

const clip = (sum: number) => Math.min(255, Math.max(0, sum >> BITS));

/**
 * @param rgba - [H, W, 4] uint8; alpha is not looked at.
 * @param size - side S of the square, pixels.
 * @returns float32 [1, 3, S, S], (x / 255 - mean) / std.
 */
export function pixelValues(
  rgba: Uint8ClampedArray, width: number, height: number, size: number, mean: number[], std: number[],
): Float32Array {
  const across = taps(width, size), down = taps(height, size);
  const rows = new Uint8Array(height * size * 3);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < size; x++) {
      const {first, weights} = across[x]!;
      let red = HALF, green = HALF, blue = HALF;
      for (let k = 0, from = (y * width + first) * 4; k < weights.length; k++, from += 4) {
        const weight = weights[k]!;
        red += weight * rgba[from]!;
        green += weight * rgba[from + 1]!;
        blue += weight * rgba[from + 2]!;
      }
      rows[to++] = clip(red);
      rows[to++] = clip(green);
      rows[to++] = clip(blue);
    }
  }
  const round = Math.fround;
  const values = new Float32Array(3 * size * size);
  for (let channel = 0; channel < 3; channel++) {
    const center = round(mean[channel]!), scale = round(std[channel]!);
    const level = Float32Array.from({length: 256}, (_, grey) => round(round(grey / 255) - center) / scale);
    for (let y = 0; y < size; y++) {
      const {first, weights} = down[y]!;
      for (let x = 0; x < size; x++) {
        let sum = HALF;
        for (let k = 0; k < weights.length; k++) sum += weights[k]! * rows[((first + k) * size + x) * 3 + channel]!;
        values[(channel * size + y) * size + x] = level[clip(sum)]!;
      }
    }
  }
  return values;
}

/** @throws ImageError - a picture of so many pixels cannot be taken. */
export function checkSize(width: number, height: number): void {
  if (width < 1 || height < 1) throw new ImageError(`the picture is ${width} x ${height} pixels, nothing to segment`);
  if (width * height > MOST_PIXELS) {
    throw new ImageError(`the picture is ${width} x ${height}, ${Math.round(width * height / 1e6)} megapixels, ` +
      `at most ${MOST_PIXELS / 1e6} are allowed: make it smaller`);
  }
}
