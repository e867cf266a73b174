"""Generators of cutlery and tools; sizes in metres."""

from __future__ import annotations

import numpy as np
from mesh import Part, ball, box, slab, tube, turn
from numpy.random import Generator
from objects import COLORS, Object


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
