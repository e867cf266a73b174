"""What stands on a table: one generator a category, all sizes in metres.

A generator takes a random generator and gives an `Object` that stands (or lies) on z = 0 around the origin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from mesh import Part, arc, ball, box, lathe, slab, smooth, tube, turn
from numpy.random import Generator

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a mesh of others is from: a key of its own, title, author, and the licence with its address."""

    key: str
    title: str
    author: str
    licence: str
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """One mesh of a category.

    Attributes:
        category: its noun.
        parts: of the mesh.
        colors: what it may be painted, names of `COLORS`; empty where no single colour is right.
        materials: what it may be made of instead of being painted: "metal", "wood" or "glass".
        material: what it is made of in any case, or None.
        inside: radius and floor height of what it can hold, or None.
        top: half width, half depth and height of what can stand on it, or None.
        lies: whether it can also be laid on its side.
        source: of the mesh, where others made it.
    """

    category: str
    parts: tuple[Part, ...]
    colors: tuple[str, ...] = COLORS
    materials: tuple[str, ...] = ()
    material: str | None = None
    inside: tuple[float, float] | None = None
    top: tuple[float, float, float] | None = None
    lies: bool = False
    source: Source | None = None

    @property
    def corners(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest coordinates, [3] each."""
        every = np.concatenate([part.vertices for part in self.parts])
        return every.min(0), every.max(0)

    @property
    def flat(self) -> bool:
        """Whether nothing reaches above its top, so that a thin thing may lie across its edge."""
        return self.top is not None and self.corners[1][2] < self.top[2] + 0.001


def _vessel(r0: float, r1: float, h: float, wall: float, belly: float = 0.0, paint: str = "main") -> Part:
    """An open vessel: radius `r0` at the foot, `r1` at the rim."""
    middle = (r0 + r1) / 2 + belly
    outer = smooth([(r0, 0.0), (r0 + belly * 0.6, 0.15 * h), (middle, h / 2), (r1, h)])
    inner = [(max(r - wall, 0.001), max(z, wall)) for r, z in reversed(outer)]
    return lathe([(0.0, 0.0), *outer, *inner, (0.0, wall)], paint)


def _handle(x: float, z: float, reach: float, tall: float, thick: float, paint: str = "main") -> Part:
    return tube(arc((reach, tall), -88, 88, (x - 0.002, 0, z)), thick, paint)


def mug(rng: Generator) -> Object:
    r, h = rng.uniform(0.036, 0.048), rng.uniform(0.08, 0.11)
    body = _vessel(r * rng.uniform(0.85, 1.0), r, h, 0.004, rng.choice([0, 0.004, -0.004]))
    grip = _handle(
        r, h / 2, rng.uniform(0.022, 0.032), h * rng.uniform(0.26, 0.36), rng.uniform(0.004, 0.007)
    )
    return Object(
        category="mug", parts=(body, grip), inside=(r - 0.006, 0.006), lies=True, materials=("metal",)
    )


def cup(rng: Generator) -> Object:
    r, h = rng.uniform(0.036, 0.048), rng.uniform(0.045, 0.06)
    parts = [_vessel(r * 0.5, r, h, 0.003, 0.006)]
    if rng.random() < 0.7:
        parts.append(_handle(r * 0.82, h * 0.55, 0.016, h * 0.26, 0.003))
    if rng.random() < 0.6:
        s = r * rng.uniform(1.6, 1.9)
        saucer = lathe([(0, 0), (s * 0.5, 0), (s, 0.012), (s, 0.014), (s * 0.5, 0.004), (0, 0.004)])
        parts = [part.moved((0, 0, 0.004)) for part in parts] + [saucer]
    return Object(category="cup", parts=tuple(parts), inside=(r * 0.6, 0.008))


def glass(rng: Generator) -> Object:
    r, h = rng.uniform(0.03, 0.042), rng.uniform(0.09, 0.15)
    if rng.random() < 0.4:  # with a stem
        bowl_at = h * 0.5
        out = smooth([(0.004, bowl_at), (r * 0.9, bowl_at + 0.3 * h), (r * 0.75, bowl_at + 0.7 * h)])
        inner = [(max(x - 0.0015, 0.001), z + 0.001) for x, z in reversed(out)]
        foot = [(0.0, 0.0), (r * 0.9, 0.0), (r * 0.9, 0.002), (0.004, 0.006)]
        stemmed = lathe([*foot, *out, *inner], "glass")
        return Object(category="glass", parts=(stemmed,), colors=(), material="glass", lies=True)
    body = _vessel(r * rng.uniform(0.75, 1), r, h, 0.002, 0, "glass")
    if rng.random() < 0.5:
        full = rng.uniform(0.4, 0.8) * h
        drink = rng.choice(["water", "juice", "milk"])
        body2 = lathe([(0, 0.004), (r * 0.72, 0.004), (r * 0.8, full), (0, full)], str(drink))
        return Object(category="glass", parts=(body, body2), colors=(), material="glass")
    return Object(
        category="glass", parts=(body,), colors=(), material="glass", inside=(r * 0.65, 0.004), lies=True
    )


def bottle(rng: Generator) -> Object:
    r, h = rng.uniform(0.028, 0.042), rng.uniform(0.18, 0.29)
    neck, shoulder = r * rng.uniform(0.3, 0.45), h * rng.uniform(0.5, 0.7)
    line = smooth(
        [(r, 0.0), (r, shoulder * 0.5), (r, shoulder), (neck, shoulder + 0.14 * h), (neck, h * 0.94)]
    )
    parts = [lathe([(0, 0), *line, (0, h * 0.94)])]
    parts.append(
        lathe(
            [(neck * 1.15, h * 0.92), (neck * 1.15, h), (0, h)], str(rng.choice(["dark", "white", "metal"]))
        )
    )
    if rng.random() < 0.6:
        low, high = shoulder * 0.25, shoulder * rng.uniform(0.6, 0.85)
        parts.append(lathe([(r + 0.0006, low), (r + 0.0006, high)], "paper"))
    return Object(category="bottle", parts=tuple(parts), lies=True, materials=("glass",))


def can(rng: Generator) -> Object:
    r, h = rng.uniform(0.028, 0.045), rng.uniform(0.07, 0.13)
    body = lathe([(r * 0.9, 0), (r, 0.005), (r, h - 0.006), (r * 0.9, h - 0.001)])
    lids = (
        lathe([(0, 0), (r * 0.9, 0)], "metal"),
        lathe([(r * 0.92, h - 0.002), (r * 0.9, h), (r * 0.84, h - 0.003), (0, h - 0.003)], "metal"),
    )
    return Object(
        category="can", parts=(body, *lids), lies=True, top=(r * 0.6, r * 0.6, h), materials=("metal",)
    )


def bowl(rng: Generator) -> Object:
    r, h = rng.uniform(0.055, 0.1), rng.uniform(0.04, 0.07)
    return Object(
        category="bowl",
        parts=(_vessel(r * 0.45, r, h, 0.004, r * 0.12),),
        inside=(r * 0.6, 0.008),
        materials=("wood", "metal", "glass"),
    )


def plate(rng: Generator) -> Object:
    r, h = rng.uniform(0.08, 0.135), rng.uniform(0.012, 0.024)
    flat = r * rng.uniform(0.6, 0.72)
    # Two points on each side of an edge keep it sharp; normals are smoothed between them.
    under = [(0, 0.001), (flat * 0.8, 0.001), (flat * 0.82, 0), (flat * 0.9, 0), (flat * 1.05, 0.003)]
    rim = [(r * 0.99, h), (r, h + 0.001), (r, h + 0.002), (r * 0.985, h + 0.003)]
    over = [(flat * 1.12, 0.0095), (flat * 1.05, 0.006), (flat, 0.0045), (flat * 0.97, 0.004), (0, 0.004)]
    side = flat * 0.7
    return Object(
        category="plate",
        parts=(lathe([*under, *rim, *over]),),
        top=(side, side, 0.004),
        materials=("wood", "metal", "glass"),
    )


def pan(rng: Generator) -> Object:
    r, h = rng.uniform(0.085, 0.13), rng.uniform(0.03, 0.05)
    body = _vessel(r * 0.85, r, h, 0.003)
    long = rng.uniform(0.13, 0.18)
    grip = tube(
        [(r - 0.004, 0, h * 0.8), (r + 0.3 * long, 0, h * 1.1), (r + long, 0, h * 1.25)],
        [0.007, 0.009, 0.01],
        str(rng.choice(["dark", "wood", "metal"])),
    )
    side = r * 0.55
    colors = ("black", "grey", "red", "blue", "green", "white")
    return Object(
        category="pan", parts=(body, grip), colors=colors, inside=(side, 0.004), materials=("metal",)
    )


def pot(rng: Generator) -> Object:
    r, h = rng.uniform(0.08, 0.115), rng.uniform(0.09, 0.14)
    parts = [_vessel(r, r, h, 0.003)]
    grips = str(rng.choice(["dark", "metal"]))
    for angle in (0, 180):
        grip = tube(arc((0.03, 0.028), -90, 90, (0, 0, 0)), 0.006, grips).moved(
            (r - 0.002, 0, h * 0.8), turn("x", 90)
        )
        parts.append(grip.moved(matrix=turn("z", angle)))
    if rng.random() < 0.5:
        parts.append(
            lathe(smooth([(r * 1.02, h), (r * 0.9, h + 0.012), (r * 0.4, h + 0.022), (0.0, h + 0.024)]))
        )
        parts.append(ball((0.013, 0.013, 0.012), grips, (0, 0, h + 0.034)))
        return Object(category="pot", parts=tuple(parts), materials=("metal",))
    return Object(category="pot", parts=tuple(parts), inside=(r * 0.7, 0.005), materials=("metal",))


def kettle(rng: Generator) -> Object:
    r, h = rng.uniform(0.07, 0.09), rng.uniform(0.13, 0.18)
    line = smooth([(r, 0.0), (r * 1.08, h * 0.2), (r * 0.9, h * 0.65), (r * 0.5, h * 0.95), (0.0, h)])
    grip = str(rng.choice(["dark", "wood"]))
    spout = tube(
        [(r * 0.8, 0, h * 0.45), (r * 1.3, 0, h * 0.7), (r * 1.55, 0, h * 0.88)], [0.02, 0.014, 0.011]
    )
    over = tube(arc((r * 0.72, h * 0.42), 10, 170, (0, 0, h * 0.85)), 0.008, grip)
    knob = ball(0.012, grip, (0, 0, h + 0.008))
    return Object(category="kettle", parts=(lathe([(0, 0), *line]), spout, over, knob), materials=("metal",))


def teapot(rng: Generator) -> Object:
    r, h = rng.uniform(0.055, 0.075), rng.uniform(0.08, 0.105)
    line = smooth([(r * 0.55, 0.0), (r, h * 0.4), (r * 0.85, h * 0.75), (r * 0.45, h * 0.97), (0.0, h)])
    spout = tube(
        [(r * 0.8, 0, h * 0.3), (r * 1.35, 0, h * 0.45), (r * 1.55, 0, h * 0.75), (r * 1.8, 0, h * 0.92)],
        [0.016, 0.012, 0.008, 0.007],
    )
    grip = _handle(r * 0.85, h * 0.55, 0.034, h * 0.32, 0.005).moved(matrix=turn("z", 180))
    knob = ball(0.01, "main", (0, 0, h + 0.006))
    return Object(category="teapot", parts=(lathe([(0, 0), *line]), spout, grip, knob), materials=("metal",))


def jar(rng: Generator) -> Object:
    r, h = rng.uniform(0.033, 0.05), rng.uniform(0.07, 0.13)
    lid = str(rng.choice(["metal", "dark", "wood", "white"]))
    body = lathe(
        [(0, 0), *smooth([(r, 0.0), (r, h * 0.4), (r, h * 0.8), (r * 0.85, h * 0.88)]), (0, h * 0.88)]
    )
    cap = lathe([(r * 0.9, h * 0.86), (r * 0.92, h * 0.88), (r * 0.92, h), (0, h)], lid)
    parts = [body, cap]
    if rng.random() < 0.5:
        parts.append(lathe([(r + 0.0006, h * 0.25), (r + 0.0006, h * 0.65)], "paper"))
    return Object(
        category="jar", parts=tuple(parts), top=(r * 0.6, r * 0.6, h), lies=True, materials=("glass",)
    )


def _cutlery(category: str, parts: list[Part], rng: Generator, long: float) -> Object:
    """A head of metal at x > 0 and a handle behind it, all of metal or with a coloured grip."""
    colored = rng.random() < 0.55
    wide = rng.uniform(0.008, 0.012)
    grip = slab(
        [(-long * 0.5, -wide / 2), (0, -wide * 0.35), (0, wide * 0.35), (-long * 0.5, wide / 2)],
        0.004 if colored else 0.0025,
        "main" if colored else "metal",
    )
    return Object(
        category=category,
        parts=(grip, *parts),
        colors=COLORS if colored else (),
        materials=("wood",) if colored and category == "knife" else (),
        material=None if colored else "metal",
    )


def fork(rng: Generator) -> Object:
    long = rng.uniform(0.17, 0.2)
    w, n = rng.uniform(0.022, 0.027), int(rng.integers(3, 5))
    neck, root, tip = long * 0.22, long * 0.3, long * 0.48
    outline = [(0, -0.003), (neck * 0.8, -0.003), (neck, -w / 2), (root, -w / 2)]
    tine = w / (2 * n - 1)
    for k in range(n):
        y = -w / 2 + 2 * k * tine
        outline += [(root, y), (tip, y + tine * 0.25), (tip, y + tine * 0.75), (root, y + tine)]
    outline += [(neck, w / 2), (neck * 0.8, 0.003), (0, 0.003)]
    return _cutlery("fork", [slab(outline, 0.002, "metal")], rng, long)


def knife(rng: Generator) -> Object:
    long, w = rng.uniform(0.19, 0.28), rng.uniform(0.018, 0.034)
    blade = [
        (0, -w * 0.4),
        (long * 0.42, -w * 0.4),
        (long * 0.5, w * 0.1),
        (long * 0.46, w * 0.4),
        (long * 0.3, w * 0.6),
        (0, w * 0.6),
    ]
    return _cutlery("knife", [slab(blade, 0.0018, "metal")], rng, long)


def spoon(rng: Generator) -> Object:
    long, w = rng.uniform(0.15, 0.24), rng.uniform(0.03, 0.045)
    stem = tube([(-0.002, 0, 0.002), (long * 0.15, 0, 0.0025), (long * 0.27, 0, 0.004)], 0.0025, "metal")
    dish = ball((w * 0.72, w / 2, 0.006), "metal", (long * 0.27 + w * 0.6, 0, 0.006))
    return _cutlery("spoon", [stem, dish], rng, long)


def scissors(rng: Generator) -> Object:
    long, open_ = rng.uniform(0.14, 0.2), rng.uniform(4, 16)
    parts = []
    for side in (1, -1):
        blade = slab(
            [(-0.01, -0.006), (long * 0.55, -0.001), (long * 0.55, 0.001), (-0.01, 0.007)],
            0.002,
            "metal",
            0.002 if side > 0 else 0.0045,
        )
        arm = tube([(-0.008, 0, 0.004), (-long * 0.18, -side * 0.012, 0.004)], 0.004)
        angles = np.linspace(0, 2 * np.pi, 22)
        eye = np.stack(
            [
                -long * 0.3 + long * 0.13 * np.cos(angles),
                -side * 0.022 + 0.018 * np.sin(angles),
                0 * angles + 0.005,
            ],
            1,
        )
        parts += [part.moved(matrix=turn("z", side * open_)) for part in (blade, arm, tube(eye, 0.0042))]
    parts.append(ball((0.005, 0.005, 0.003), "metal", (0, 0, 0.006)))
    return Object(category="scissors", parts=tuple(parts))


def hammer(rng: Generator) -> Object:
    long = rng.uniform(0.22, 0.3)
    grip = tube(
        [(-long / 2, 0, 0.014), (0, 0, 0.014), (long * 0.42, 0, 0.014)],
        [0.013, 0.0105, 0.009],
        str(rng.choice(["wood", "main"])),
    )
    r = rng.uniform(0.011, 0.015)
    head = tube([(long * 0.42, -0.045, 0.015), (long * 0.42, 0.015, 0.015)], r, "iron")
    claw = slab(
        [
            (long * 0.42 - r, 0.012),
            (long * 0.42 + r, 0.012),
            (long * 0.42 + 0.3 * r, 0.06),
            (long * 0.42 - 0.3 * r, 0.06),
        ],
        0.012,
        "iron",
        0.01,
    )
    return Object(category="hammer", parts=(grip, head, claw), colors=COLORS if grip.paint == "main" else ())


def screwdriver(rng: Generator) -> Object:
    long, r = rng.uniform(0.16, 0.24), rng.uniform(0.011, 0.016)
    grip = tube(
        [(-long * 0.5, 0, r), (-long * 0.47, 0, r), (-long * 0.2, 0, r), (-long * 0.06, 0, r), (0, 0, r)],
        [r * 0.7, r, r * 0.8, r, r * 0.5],
        around=8,
    )
    shaft = tube([(0, 0, r), (long * 0.46, 0, r)], 0.003, "metal")
    tip = slab(
        [(long * 0.44, -0.003), (long * 0.5, -0.0045), (long * 0.5, 0.0045), (long * 0.44, 0.003)],
        0.0015,
        "metal",
        r - 0.0007,
    )
    return Object(category="screwdriver", parts=(grip, shaft, tip))


def book(rng: Generator) -> Object:
    w, d, h = rng.uniform(0.1, 0.17), rng.uniform(0.15, 0.23), rng.uniform(0.012, 0.045)
    pages = box((w - 0.008, d - 0.008, h - 0.005), "paper", at=(0.002, 0, 0.0025))
    covers = [box((w, d, 0.0025)), box((w, d, 0.0025), at=(0, 0, h - 0.0025))]
    spine = box((0.003, d, h), at=(-w / 2 + 0.0015, 0, 0))
    return Object(category="book", parts=(pages, *covers, spine), top=(w * 0.4, d * 0.4, h))


def carton(rng: Generator) -> Object:
    w, d, h = rng.uniform(0.06, 0.18), rng.uniform(0.06, 0.16), rng.uniform(0.04, 0.15)
    if rng.random() < 0.4:  # open
        walls = [box((w, 0.003, h), at=(0, s * d / 2, 0)) for s in (1, -1)] + [
            box((0.003, d, h), at=(s * w / 2, 0, 0)) for s in (1, -1)
        ]
        return Object(
            category="box",
            parts=(box((w, d, 0.003)), *walls),
            inside=(min(w, d) * 0.36, 0.004),
            materials=("wood",),
        )
    parts = [box((w, d, h), bevel=0.001)]
    if rng.random() < 0.6:
        parts.append(box((w * 0.16, d * 1.004, h * 1.004), "tape"))
    return Object(category="box", parts=tuple(parts), top=(w * 0.4, d * 0.4, h), materials=("wood",))


def phone(rng: Generator) -> Object:
    w, d, h = rng.uniform(0.064, 0.08), rng.uniform(0.13, 0.165), rng.uniform(0.008, 0.012)
    screen = box((w * 0.9, d * rng.uniform(0.86, 0.94), 0.0006), "screen", at=(0, 0, h))
    return Object(category="phone", parts=(box((w, d, h), bevel=0.003), screen))


def remote(rng: Generator) -> Object:
    w, d, h = rng.uniform(0.038, 0.055), rng.uniform(0.14, 0.21), rng.uniform(0.014, 0.022)
    parts = [box((w, d, h), bevel=0.004)]
    rows, columns = int(rng.integers(5, 9)), int(rng.integers(2, 4))
    keys = str(rng.choice(["white", "dark", "keys"]))
    for i in range(rows):
        for j in range(columns):
            at = ((j - (columns - 1) / 2) * w * 0.27, (i - (rows - 1) / 2) * d * 0.09 - d * 0.06, h)
            parts.append(box((w * 0.18, d * 0.05, 0.0018), keys, at=at))
    parts.append(box((w * 0.3, w * 0.3, 0.002), "redkey", at=(-w * 0.2, d * 0.42, h)))
    return Object(
        category="remote control", parts=tuple(parts), colors=("black", "white", "grey", "blue", "red")
    )


def camera(rng: Generator) -> Object:
    w, d, h = rng.uniform(0.1, 0.13), rng.uniform(0.035, 0.055), rng.uniform(0.06, 0.08)
    r, out = h * rng.uniform(0.32, 0.42), rng.uniform(0.02, 0.06)
    lens = tube([(0, -d / 2, h / 2), (0, -d / 2 - out, h / 2)], r, "dark", 24)
    front = tube([(0, -d / 2 - out, h / 2), (0, -d / 2 - out - 0.001, h / 2)], r * 0.8, "lens", 24)
    hump = box((w * 0.3, d * 0.7, h * 0.18), at=(0, 0, h), bevel=0.003)
    knob = lathe([(0.008, h), (0.008, h + 0.006), (0, h + 0.006)], "metal").moved((w * 0.36, 0, 0))
    return Object(
        category="camera",
        parts=(box((w, d, h), bevel=0.004), lens, front, hump, knob),
        colors=("black", "grey", "red", "brown", "white", "blue"),
    )


def sphere(rng: Generator) -> Object:
    r = float(np.exp(rng.uniform(np.log(0.022), np.log(0.09))))
    parts = [ball(r, at=(0, 0, r))]
    if rng.random() < 0.4:
        angles = np.linspace(0, 2 * np.pi, 40)
        band = tube(
            np.stack([r * 0.985 * np.cos(angles), 0 * angles, r * 0.985 * np.sin(angles)], 1),
            r * 0.05,
            "white",
        )
        parts.append(band.moved((0, 0, r), turn("z", rng.uniform(0, 180))))
    return Object(category="ball", parts=tuple(parts))


def apple(rng: Generator) -> Object:
    r = rng.uniform(0.032, 0.043)
    h = 2 * r * rng.uniform(0.85, 0.98)
    line = smooth(
        [
            (0.0, h * 0.06),
            (r * 0.45, 0.0),
            (r * 0.95, h * 0.35),
            (r, h * 0.6),
            (r * 0.6, h * 0.97),
            (r * 0.15, h * 0.9),
            (0.0, h * 0.82),
        ]
    )
    stem = tube([(0, 0, h * 0.82), (0.003, 0.001, h * 1.05)], 0.0016, "bark")
    return Object(category="apple", parts=(lathe(line), stem), colors=("red", "red", "green", "yellow"))


def bread(rng: Generator) -> Object:
    kind = rng.integers(3)
    if kind == 0:  # a loaf
        w, d, h = rng.uniform(0.08, 0.11), rng.uniform(0.15, 0.24), rng.uniform(0.07, 0.1)
        outline = [
            (-w / 2, 0),
            (w / 2, 0),
            (w / 2, h * 0.55),
            (w * 0.56, h * 0.72),
            (w * 0.4, h * 0.95),
            (0, h),
            (-w * 0.4, h * 0.95),
            (-w * 0.56, h * 0.72),
            (-w / 2, h * 0.55),
        ]
        part = slab(outline, d, "crust").moved((0, d / 2, 0), turn("x", 90))
        return Object(category="bread", parts=(part,), colors=())
    if kind == 1:  # a baguette
        long, r = rng.uniform(0.22, 0.34), rng.uniform(0.025, 0.034)
        x = np.linspace(-1, 1, 15)
        body = tube(
            np.stack([x * long / 2, 0 * x, 0 * x + r * 0.85], 1),
            r * np.sqrt(np.clip(1 - (x * 0.98) ** 6, 0.04, 1)),
            "crust",
            16,
        )
        cuts = [ball((0.02, 0.008, 0.004), "crumb", (k * long * 0.22, 0, r * 1.82)) for k in (-1, 0, 1)]
        return Object(category="bread", parts=(body.moved(matrix=np.diag([1, 1, 0.95])), *cuts), colors=())
    r = rng.uniform(0.04, 0.06)
    return Object(
        category="bread",
        parts=(
            lathe(
                smooth([(0.0, 0.0), (r * 0.85, 0.0), (r, r * 0.3), (r * 0.75, r * 0.75), (0.0, r * 0.95)]),
                "crust",
            ),
        ),
        colors=(),
    )


def plant(rng: Generator) -> Object:
    r, h = rng.uniform(0.035, 0.055), rng.uniform(0.055, 0.085)
    pot_of = str(rng.choice(["clay", "white", "dark"]))
    parts = [_vessel(r * 0.75, r, h, 0.004, 0, pot_of), lathe([(r * 0.9, h * 0.85), (0, h * 0.88)], "soil")]
    if rng.random() < 0.35:  # a cactus
        tall, thick = rng.uniform(0.07, 0.13), r * rng.uniform(0.4, 0.65)
        parts.append(
            lathe(
                smooth(
                    [
                        (thick * 0.8, h * 0.85),
                        (thick, h + tall * 0.5),
                        (thick * 0.7, h + tall * 0.9),
                        (0.0, h + tall),
                    ]
                ),
                "leaf",
                around=10,
            )
        )
    else:
        for _ in range(int(rng.integers(10, 22))):
            yaw, lean, long = rng.uniform(0, 360), rng.uniform(5, 65), rng.uniform(0.06, 0.14)
            leaf = ball((long * 0.14, 0.0018, long / 2), "leaf", (0, 0, long / 2))
            parts.append(leaf.moved(matrix=turn("z", yaw) @ turn("y", lean)).moved((0, 0, h * 0.85)))
    return Object(category="plant", parts=tuple(parts), colors=())


def candle(rng: Generator) -> Object:
    r, h = rng.uniform(0.018, 0.04), rng.uniform(0.05, 0.16)
    wax = lathe([(0, 0), (r, 0), (r, h * 0.98), (r * 0.9, h), (r * 0.5, h - 0.003), (0, h - 0.003)])
    parts = [wax, tube([(0, 0, h - 0.004), (0.001, 0, h + 0.008)], 0.0012, "dark")]
    burns = rng.random() < 0.5
    if burns:
        parts.append(ball((0.004, 0.004, 0.01), "flame", (0.001, 0, h + 0.017)))
    return Object(category="candle", parts=tuple(parts), lies=not burns)


def flashlight(rng: Generator) -> Object:
    long, r = rng.uniform(0.12, 0.2), rng.uniform(0.012, 0.017)
    head = r * rng.uniform(1.35, 1.9)
    x = np.array([-0.5, -0.48, 0.0, 0.22, 0.32, 0.5]) * long
    body = tube(np.stack([x, 0 * x, 0 * x + head], 1), [r * 0.85, r, r, r, head, head], around=20)
    lens = tube([(long * 0.5, 0, head), (long * 0.5 + 0.001, 0, head)], head * 0.85, "flame", 20)
    switch = box((long * 0.12, 0.008, 0.004), "dark", at=(0, 0, head + r - 0.001))
    return Object(
        category="flashlight",
        parts=(body, lens, switch),
        colors=("black", "grey", "red", "blue", "yellow", "green", "orange"),
        materials=("metal",),
    )


def stapler(rng: Generator) -> Object:
    long, w, h = rng.uniform(0.11, 0.16), rng.uniform(0.028, 0.038), rng.uniform(0.04, 0.055)
    base = box((long, w, 0.007), "dark", bevel=0.002)
    rail = box((long * 0.9, w * 0.5, 0.01), "metal", at=(0.004, 0, h * 0.35))
    outline = [
        (-long / 2, h * 0.3),
        (-long / 2, h * 0.9),
        (-long * 0.3, h),
        (long * 0.45, h * 0.75),
        (long / 2, h * 0.6),
        (long / 2, h * 0.45),
    ]
    top = slab([(x, z) for x, z in outline], w * 0.8).moved((0, w * 0.4, 0), turn("x", 90))
    hinge = box((long * 0.16, w * 0.9, h * 0.75), at=(-long * 0.42, 0, 0.004), bevel=0.002)
    return Object(category="stapler", parts=(base, rail, top, hinge))


MAKERS: dict[str, Callable[[Generator], Object]] = {
    "mug": mug, "cup": cup, "glass": glass, "bottle": bottle, "can": can, "bowl": bowl, "plate": plate,
    "pan": pan, "pot": pot, "kettle": kettle, "teapot": teapot, "jar": jar, "fork": fork, "knife": knife,
    "spoon": spoon, "scissors": scissors, "hammer": hammer, "screwdriver": screwdriver, "book": book,
    "box": carton, "phone": phone, "remote control": remote, "camera": camera, "ball": sphere, "apple": apple,
    "bread": bread, "plant": plant, "candle": candle, "flashlight": flashlight, "stapler": stapler,
}  # fmt: skip


def make(category: str, number: int) -> Object:
    """The mesh of this number, always the same; standing on z = 0, its middle over the origin."""
    found = MAKERS[category](np.random.default_rng((0x7AB1E, *category.encode(), number)))
    low, high = found.corners
    shift = (-(low[0] + high[0]) / 2, -(low[1] + high[1]) / 2, -low[2])
    if found.inside or found.top:  # what holds others keeps their place over the origin
        shift = (0.0, 0.0, -low[2])
    return replace(found, parts=tuple(part.moved(shift) for part in found.parts))
