/** Logits and run lengths -> masks; sam3i_edge/pipeline/postprocess.py and masks/rle.py, held to them in tests/web. */

/** Per pixel the two cells it lies between and the weight of the second, rounded once. */
function taps(cells: number, pixels: number) {
  const first = new Int32Array(pixels), second = new Int32Array(pixels), weight = new Float32Array(pixels);
  for (let at = 0; at < pixels; at++) {
    const numerator = Math.max((2 * at + 1) * cells - pixels, 0);
    first[at] = Math.floor(numerator / (2 * pixels));
    second[at] = Math.min(first[at]! + 1, cells - 1);
    weight[at] = numerator % (2 * pixels) / (2 * pixels);
  }
  return {first, second, weight};
}

/**
 * A mask at the size of the image: logits resized bilinearly in float32, then cut at 0, pixel for pixel as Python's.
 *
 * @param logits - float32 [side, side].
 * @returns uint8 [height, width], 1 inside.
 */
export function resizeLogits(logits: Float32Array, side: number, width: number, height: number): Uint8Array {
  const round = Math.fround;
  const across = taps(side, width), down = taps(side, height);
  const mask = new Uint8Array(width * height);
  const rows = new Map<number, Float32Array>();
  const row = (at: number) => {
    let found = rows.get(at);
    if (!found) {
      found = new Float32Array(width);
      for (let x = 0; x < width; x++) {
        const u = across.weight[x]!;
        const left = logits[at * side + across.first[x]!]!, right = logits[at * side + across.second[x]!]!;
        found[x] = round(left * round(1 - u)) + round(right * u);
      }
      rows.delete(at - 2); // only two are needed at a time
      rows.set(at, found);
    }
    return found;
  };
  for (let y = 0; y < height; y++) {
    const upper = row(down.first[y]!), lower = row(down.second[y]!), w = down.weight[y]!, rest = round(1 - w);
    for (let x = 0; x < width; x++) {
      if (round(round(upper[x]! * rest) + round(lower[x]! * w)) > 0) mask[y * width + x] = 1;
    }
  }
  return mask;
}

/** The mask of COCO's compressed run lengths, which go down the columns. */
export function decodeRle(counts: string, width: number, height: number): Uint8Array {
  const runs: number[] = [];
  for (let at = 0; at < counts.length;) {
    let value = 0, factor = 1, code: number;
    do {
      code = counts.charCodeAt(at++) - 48;
      value += (code & 31) * factor;
      factor *= 32;
    } while (code & 32);
    if (code & 16) value -= factor;
    runs.push(runs.length > 2 ? value + runs.at(-2)! : value);
  }
  const mask = new Uint8Array(width * height);
  let at = 0;
  runs.forEach((run, number) => {
    const end = at + run;
    if (number % 2) for (; at < end; at++) mask[at % height * width + Math.floor(at / height)] = 1;
    at = end;
  });
  return mask;
}
