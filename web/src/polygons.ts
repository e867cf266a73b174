/** The outlines of a mask along the edges of its pixels, holes included: sam3i_edge/masks/outline.py. */

/** Points [x, y] in pixels; the last is not the first again. */
export type Ring = [number, number][];

/** One connected part of a mask. */
export interface Polygon {
  exterior: Ring;
  holes: Ring[];
}

/** Some pixels, and where in the picture their corner lies. */
class Grid {
  readonly cells: Uint8Array;

  constructor(readonly x: number, readonly y: number, readonly width: number, readonly height: number, value = 0) {
    this.cells = new Uint8Array(width * height).fill(value);
  }

  has(column: number, row: number): boolean {
    return column >= 0 && row >= 0 && column < this.width && row < this.height &&
      this.cells[row * this.width + column] !== 0;
  }
}

/** The regions whose pixels share a side, each cut out, in the order of their first pixels. `grid` is used up. */
function parts(grid: Grid): Grid[] {
  const {width, height, cells} = grid, found: Grid[] = [];
  for (let start = cells.indexOf(1); start >= 0; start = cells.indexOf(1, start + 1)) {
    const part = [start], top = Math.floor(start / width);
    let left = start % width, right = left, bottom = top;
    cells[start] = 0;
    for (let i = 0; i < part.length; i++) {
      const at = part[i]!, column = at % width, row = (at - column) / width;
      left = Math.min(left, column);
      right = Math.max(right, column);
      bottom = Math.max(bottom, row);
      const take = (next: number) => {
        if (cells[next]) {
          cells[next] = 0;
          part.push(next);
        }
      };
      if (column > 0) take(at - 1);
      if (column + 1 < width) take(at + 1);
      if (row > 0) take(at - width);
      if (row + 1 < height) take(at + width);
    }
    const cut = new Grid(grid.x + left, grid.y + top, right + 1 - left, bottom + 1 - top);
    for (const at of part) cut.cells[(Math.floor(at / width) - top) * cut.width + at % width - left] = 1;
    found.push(cut);
  }
  return found;
}

/** The outer edge of one region, down from the top left corner of its first pixel, the region on the left hand. */
function ring(grid: Grid): Ring {
  const across = [0, 1, 0, -1], down = [1, 0, -1, 0]; // south, east, north, west
  const start = grid.cells.indexOf(1) % grid.width;
  let x = start, y = 0, heading = 0;
  const points: Ring = [];
  const filled = (side: number) => { // of the two pixels ahead, the one to the left (0) or right (1)
    const column = x + [-side, 0, side - 1, -1][heading]!, row = y + [0, side - 1, -1, -side][heading]!;
    return grid.has(column, row);
  };
  do {
    do {
      x += across[heading]!;
      y += down[heading]!;
    } while (filled(0) && !filled(1));
    points.push([grid.x + x, grid.y + y]);
    heading = (heading + (filled(1) ? 3 : 1)) % 4;
  } while (x !== start || y !== 0 || heading !== 0);
  return points;
}

/** The parts of a mask uint8 [height, width], from the top down. Pixels that touch at a corner alone are two. */
export function polygons(mask: Uint8Array, width: number, height: number): Polygon[] {
  const whole = new Grid(0, 0, width, height);
  whole.cells.set(mask);
  return parts(whole).map((part) => {
    // One row of background all around makes what surrounds the part a single region, the first.
    const around = new Grid(part.x - 1, part.y - 1, part.width + 2, part.height + 2, 1);
    for (let row = 0; row < part.height; row++) {
      for (let column = 0; column < part.width; column++) {
        if (part.has(column, row)) around.cells[(row + 1) * around.width + column + 1] = 0;
      }
    }
    const [outside, ...holes] = parts(around);
    const filled = new Grid(part.x, part.y, part.width, part.height);
    for (let row = 0; row < part.height; row++) {
      for (let column = 0; column < part.width; column++) {
        filled.cells[row * part.width + column] = outside!.has(column + 1, row + 1) ? 0 : 1;
      }
    }
    return {exterior: ring(filled), holes: holes.map(ring)};
  });
}
