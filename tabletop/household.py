"""Generators of what else lies about: books, boxes, devices, balls and food; sizes in metres."""

from __future__ import annotations

import numpy as np
from mesh import ball, box, lathe, slab, smooth, tube, turn
from numpy.random import Generator
from objects import Object


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
