"""Scenes of drawn shapes by another program: what a model knows beyond the pen that taught it.

    python scripts/scenes_by_matplotlib.py other --count 100
    sam3i-edge instruct other/scenes.jsonl --images other/images --vocabulary shapes --out asked
    sam3i-edge evaluate MODEL --data asked --json

What shape, colour, size and fill mean is that of `sam3i_edge.data`, the drawing is not: shapes are glyphs of
the font DejaVu Sans, colours those that CSS, Tableau or xkcd's survey call by the name, stripes and dots are
Matplotlib's hatches, backgrounds its colormaps, grids and noise. `--ours` draws with `draw_scene` instead,
so that both are asked alike.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import get_named_colors_mapping, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Annulus, PathPatch
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D
from tqdm import tqdm

from sam3i_edge.data.palette import COLORS, FILLS, distance
from sam3i_edge.data.scene import Scene, SceneObject
from sam3i_edge.data.scenes import LARGE, MIN_VISIBLE, SMALL, draw_scene
from sam3i_edge.data.shapes import SHAPES, rotation
from sam3i_edge.data.sources.scene_file import write_scene_file

GLYPHS: Final = {
    "circle": "●", "square": "■", "triangle": "▲", "star": "★", "cross": "✚", "heart": "♥", "hexagon": "⬢",
    "diamond": "◆", "crescent": "☾",
}  # fmt: skip
FONT: Final = FontProperties(family="DejaVu Sans")
MAPS: Final = ("gray", "bone", "Pastel1", "summer", "cividis", "terrain")
LEAST_CONTRAST: Final = 60.0  # of `palette.distance`, to the mean of the background behind


def outline(shape: str) -> Outline:
    """The shape about the middle of its box, whose longer side is 1; y upwards."""
    if shape == "ring":
        ring = Annulus((0, 0), 0.5, 0.17)
        return ring.get_transform().transform_path(ring.get_path())
    glyph = TextPath((0, 0), GLYPHS[shape], size=1, prop=FONT)
    if shape == "crescent":  # the font's moon is hollow
        glyph = Outline(glyph.to_polygons()[0])
    box = glyph.get_extents()
    middle = Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2)
    return middle.scale(1 / max(box.width, box.height)).transform_path(glyph)


def called(name: str) -> list[str]:
    """Colours that some list of names calls so."""
    known = get_named_colors_mapping()
    return [way for way in (name, f"tab:{name}", f"xkcd:{name}", f"xkcd:bright {name}") if way in known]


def pixels(figure: Figure) -> np.ndarray:
    """What the figure shows, uint8 [H, W, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


def covered(path: Outline, height: int, width: int) -> np.ndarray:
    """Pixels whose middle lies in the path by the even-odd rule, bool [H, W]; path in px, y upwards."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    middles = np.stack([x.ravel(), height - y.ravel()], axis=1)
    inside = [Outline(contour).contains_points(middles) for contour in path.to_polygons()]
    return np.logical_xor.reduce(inside).reshape(height, width)


def scene(rng: np.random.Generator) -> Scene:
    """Two to eight objects of 160 to 320 px pictures."""
    height, width = rng.integers(160, 321, 2).tolist()
    figure = Figure((width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    field = np.linspace(0, 1, 64)[None] + rng.normal(0, rng.choice([0, 0.1]), (64, 64))
    low = rng.uniform(0, 0.6)
    axes.imshow(
        low + 0.35 * (field if rng.random() < 0.5 else field.T),
        cmap=str(rng.choice(MAPS)), vmin=0, vmax=1, extent=(0, width, 0, height), aspect="auto",
    )  # fmt: skip
    if rng.random() < 0.3:
        for at in np.arange(0, max(width, height), rng.uniform(12, 40)):
            axes.axvline(at, color="0.6", linewidth=0.5)
            axes.axhline(at, color="0.6", linewidth=0.5)
    behind = pixels(figure).astype(np.float32)
    placed: list[tuple[dict[str, str], str, Outline, np.ndarray, tuple[float, float]]] = []
    for _ in range(int(rng.integers(2, 9))):
        shape, size = str(rng.choice(SHAPES)), str(rng.choice(["small", "large"]))
        color, fill = str(rng.choice(COLORS)), str(rng.choice(FILLS, p=[0.6, 0.2, 0.2]))
        shade = to_rgb(str(rng.choice(called(color))))
        low, high = SMALL if size == "small" else LARGE
        extent = min(height, width) * rng.uniform(low + 0.03 * (size == "small"), high)
        turn = Affine2D().scale(extent).rotate_deg(-rotation(shape, rng))
        for _ in range(24):
            x, y = rng.uniform(extent / 2, width - extent / 2), rng.uniform(extent / 2, height - extent / 2)
            path = (turn + Affine2D().translate(x, y)).transform_path(outline(shape))
            mask = covered(path, height, width)
            if distance(np.float32(shade) * 255, behind[mask].mean(axis=0)) < LEAST_CONTRAST:
                continue
            if all((under & ~mask).sum() >= MIN_VISIBLE * under.sum() for *_, under, _ in placed) and all(
                math.dist((x, height - y), middle) > extent / 2 for *_, middle in placed
            ):
                break
        else:
            continue
        placed = [(*known, under & ~mask, middle) for *known, under, middle in placed]
        placed.append(({"color": color, "size": size, "fill": fill}, shape, path, mask, (x, height - y)))
        mark = "black" if np.dot(shade, (0.3, 0.6, 0.1)) > 0.5 else "white"
        hatch = {"plain": None, "striped": str(rng.choice(["//", "\\\\", "||", "--"])), "dotted": ".."}[fill]
        with mpl.rc_context({"hatch.linewidth": 1.5 if fill == "striped" else 0.8}):
            axes.add_patch(
                PathPatch(path, facecolor=shade, edgecolor=mark, hatch=hatch, linewidth=0, zorder=9)
            )
    if not placed:
        return scene(rng)
    return Scene(
        image=pixels(figure),
        size=(height, width),
        objects=tuple(described(*thing, height) for thing in placed),
        complete=True,
    )


def described(
    attributes: dict[str, str],
    shape: str,
    path: Outline,
    mask: np.ndarray,
    middle: tuple[float, float],
    height: int,
) -> SceneObject:
    """What is known of an object once everything is drawn."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = path.get_extents()
    return SceneObject(
        category=shape,
        attributes=attributes,
        box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        center=middle,
        mask=mask,
        full_size=(float(box.width), float(box.height)),
    )


def scenes(count: int, seed: int, ours: bool) -> Iterator[Scene]:
    """The same for the same numbers."""
    for number in tqdm(range(count), unit="scene"):
        rng = np.random.default_rng((seed, number))
        yield draw_scene(rng) if ours else scene(rng)


def main() -> None:
    """Draws them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20261130)
    parser.add_argument("--ours", action="store_true", help="draw with the project's own code instead")
    given = parser.parse_args()
    if given.count < 1:
        parser.error(f"--count is {given.count}, want at least 1")
    write_scene_file(given.out, scenes(given.count, given.seed, given.ours))


if __name__ == "__main__":
    main()
