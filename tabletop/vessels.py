"""Generators of what is turned: vessels, candles, and plants in their pots; sizes in metres."""

from __future__ import annotations

from mesh import Part, arc, ball, lathe, smooth, tube, turn
from numpy.random import Generator
from objects import Object


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
