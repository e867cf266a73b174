"""What stands where on a table, and from where it is seen: decided before anything is rendered.

Objects are placed by construction: on the table, on something flat, in something hollow, or beside another. A
scene is plain data, so that two renderers show the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from catalogue import Catalogue, Entry, circle
from mesh import turn
from numpy.random import Generator
from shapely import Polygon
from surfaces import Rgb, shade

TABLE = (0.6, 0.45)  # half width and half depth, metres
SURFACES = {  # the numbers that training uses, and those kept for validation
    "table": ((*range(20), *range(24, 120)), range(20, 24)),
    "wall": ((*range(12), *range(15, 60)), range(12, 15)),
    "floor": ((*range(10), *range(12, 60)), range(10, 12)),
}
_NEXT = 0.035  # metres between two footprints that are next to each other
_APART = 0.002  # metres between two footprints at least
_HIGH = 2  # how many supports lie below an object at most
_MATERIAL = 0.25  # share of what can be of metal, wood or glass instead of being painted
_SMALL = 0.075  # metres: radius of what may be put into or onto something else
_THIN = 0.035  # metres: what is no higher may also reach over the edge of what carries it
_HOLDERS = ("book", "box", "plate", "bowl", "pan", "pot")


@dataclass(slots=True, kw_only=True)
class Standing:
    """One object of a scene.

    Attributes:
        entry: name of its mesh in the catalogue. category: its noun. color: a named colour, or None.
        rgb: the shade, sRGB 0..1, or None where there is no main paint to choose.
        material: "metal", "wood" or "glass", which its main paint then is; None where it cannot be said.
        position: (x, y, z) metres, of the mesh's origin on its support. yaw: degrees.
        lying: on its side. outline: ((x, y), ...) metres, convex, of its footprint.
        middle: (x, y) of its footprint; radius: of the circle around it, metres.
        support: ("on" | "in", index), or None for the table.
        stands: whether it could also lie.
    """

    entry: str
    category: str
    color: str | None
    rgb: Rgb | None
    material: str | None
    position: tuple[float, float, float]
    yaw: float
    lying: bool
    outline: tuple[tuple[float, float], ...]
    middle: tuple[float, float]
    radius: float
    support: tuple[str, int] | None = None
    stands: bool = False


@dataclass(slots=True, kw_only=True)
class View:
    """The camera: what it looks at and how far, metres; degrees around, above, and of the vertical view."""

    look_at: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float
    fov: float

    @property
    def position(self) -> np.ndarray:
        """[3] metres."""
        a, e = np.radians(self.azimuth), np.radians(self.elevation)
        away = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
        return np.asarray(self.look_at) + self.distance * away

    def depth(self, point: np.ndarray) -> float:
        """Metres along the optical axis."""
        forward = np.asarray(self.look_at) - self.position
        return float((np.asarray(point) - self.position) @ forward / np.linalg.norm(forward))


@dataclass(slots=True, kw_only=True)
class Light:
    """The lamp: degrees around and above, strength, warmth (1 is neutral); and the light from all sides."""

    azimuth: float
    elevation: float
    strength: float
    warmth: float
    fill: float


@dataclass(slots=True, kw_only=True)
class Setting:
    """A whole scene: numbers of its surfaces, objects, view, light, and what the camera does to it."""

    seed: int
    table: int
    wall: int
    floor: int
    view: View
    light: Light
    exposure: float
    noise: float
    blur: float
    objects: list[Standing] = field(default_factory=list)

    def relations(self) -> list[tuple[int, str, int]]:
        """(subject, "on" | "in" | "next to", object) as they were built; "next to" in both directions."""
        found = [(n, o.support[0], o.support[1]) for n, o in enumerate(self.objects) if o.support]
        for n, a in enumerate(self.objects):
            for m, b in enumerate(self.objects):
                near = n != m and a.support == b.support
                if near and Polygon(a.outline).distance(Polygon(b.outline)) < _NEXT:
                    found.append((n, "next to", m))
        return found

    def unsure(self) -> list[tuple[int, str, int]]:
        """Those that people may see either way: hardly near, on different things, on what is on another."""
        found = []
        for n, a in enumerate(self.objects):
            below = self.supports(a.support)
            found += [(n, name, m) for m in below[1:] for name in ("on", "in")]
            for m, b in enumerate(self.objects):
                if n == m or m in below or n in self.supports(b.support):
                    continue
                gap = Polygon(a.outline).distance(Polygon(b.outline))
                if gap < 2 * _NEXT and (gap >= _NEXT or a.support != b.support):
                    found.append((n, "next to", m))
        return found

    def supports(self, support: tuple[str, int] | None) -> list[int]:
        """Numbers of the objects below, from the support itself to what stands on the table."""
        return [] if support is None else [support[1], *self.supports(self.objects[support[1]].support)]

    def plain(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def draw(seed: int, catalogue: Catalogue, *, held_out: bool, often: Sequence[str] = ()) -> Setting:
    """Decides one scene.

    Args:
        seed: decides everything.
        catalogue: of meshes.
        held_out: take meshes and surfaces kept for validation, else only the others.
        often: categories that are there twice as often as the others.
    """
    rng = np.random.default_rng((0x7AB7E, int(held_out), seed))
    numbers = {kind: int(rng.choice(sides[held_out])) for kind, sides in SURFACES.items()}
    cluttered = rng.random() < 0.35
    spread = float(rng.uniform(0.1, 0.16) if cluttered else rng.uniform(0.16, 0.3))
    view = View(
        look_at=(
            float(rng.uniform(-0.06, 0.06)),
            float(rng.uniform(-0.06, 0.06)),
            float(rng.uniform(0.02, 0.08)),
        ),
        distance=0.0,
        azimuth=float(-90 + rng.uniform(-40, 40)),
        elevation=float(rng.uniform(15, 70)),
        fov=float(rng.uniform(30, 60)),
    )
    # So near that the objects fill the picture, at times cutting some of them off.
    view.distance = float((spread + 0.1) / np.tan(np.radians(view.fov / 2)) * rng.uniform(0.9, 1.4))
    light = Light(
        azimuth=float(rng.uniform(0, 72) if held_out else rng.uniform(72, 360)),
        elevation=float(rng.uniform(30, 80)),
        strength=float(rng.uniform(0.8, 1.25)),
        warmth=float(rng.uniform(0.85, 1.15)),
        fill=float(rng.uniform(0.6, 1.2)),
    )
    setting = Setting(
        seed=seed, **numbers, view=view, light=light,
        exposure=float(rng.uniform(0.85, 1.15)),
        noise=float(rng.choice([0, 0, 2, 4, 7])),
        blur=float(rng.choice([0, 0, 0, 0, 1.5, 3])),
    )  # fmt: skip
    wanted = int(rng.integers(6, 10) if cluttered else rng.integers(3, 10))
    for entry in _choice(rng, catalogue, wanted, held_out, often):
        _place(setting, catalogue, entry, spread, cluttered, rng)
    return setting


def _choice(
    rng: Generator, catalogue: Catalogue, wanted: int, held_out: bool, often: Sequence[str]
) -> list[Entry]:
    """Entries in the order of placing: large ones first, so that small ones can be put into them.

    Categories repeat more often than by chance: instructions are about several of a kind.
    """
    names = list(catalogue.categories)
    count = max(2, wanted - int(rng.integers(0, 4)))
    share = None  # not even ones, so that a number stays the scene it was
    if often:
        share = np.array([1.0 + (name in often) for name in names])
        share /= share.sum()
    few = [names[n] for n in rng.choice(len(names), size=count, replace=False, p=share)]
    if rng.random() < 0.6:
        few[0] = str(rng.choice(_HOLDERS))
    taken: dict[str, Entry] = {}
    for _ in range(4 * wanted):
        if len(taken) == wanted:
            break
        entries = catalogue.of(few[int(rng.integers(len(few)))], held_out)
        entry = entries[int(rng.integers(len(entries)))]
        taken.setdefault(entry.name, entry)
    return sorted(taken.values(), key=lambda entry: -entry.radius)


def _place(
    setting: Setting, catalogue: Catalogue, entry: Entry, spread: float, cluttered: bool, rng: Generator
) -> None:
    """Adds the entry where there is room for it, or leaves it out."""
    thing = entry.thing
    material, color = thing.material, None
    if thing.materials and rng.random() < _MATERIAL:
        material = str(rng.choice(thing.materials))
    elif thing.colors:
        color = str(rng.choice(thing.colors))
    lying = bool(thing.lies and rng.random() < 0.3)
    yaw = float(rng.uniform(0, 360))
    hull = entry.footprint(yaw, lying)
    for _ in range(30):
        support, at, z = None, rng.uniform(-1, 1, 2) * (spread * 1.25, spread), 0.0
        if not lying and rng.random() < 0.8:
            found = _holder(setting, catalogue, entry, rng)
            if found is not None:
                support, at, z = found
        if support is None and setting.objects and rng.random() < (0.8 if cluttered else 0.35):
            at = _beside(setting.objects[int(rng.integers(len(setting.objects)))], hull, rng)
        placed = hull + at
        outline = Polygon(placed)
        below = setting.supports(support)
        free = all(
            outline.distance(Polygon(o.outline)) >= _APART
            for n, o in enumerate(setting.objects)
            if n not in below
        )
        if free and (np.abs(placed) < TABLE).all():
            middle, radius = circle(placed)
            setting.objects.append(
                Standing(
                    entry=entry.name, category=thing.category, color=color, material=material,
                    rgb=shade(color, rng) if color else None,
                    position=(float(at[0]), float(at[1]), float(z)), yaw=yaw, lying=lying,
                    outline=tuple((float(x), float(y)) for x, y in placed), middle=middle, radius=radius,
                    support=support, stands=thing.lies and not lying,
                )
            )  # fmt: skip
            return


def _beside(other: Standing, hull: np.ndarray, rng: Generator) -> np.ndarray:
    """Where the origin of `hull` is when it nearly touches another thing, from any side."""
    angle, gap = rng.uniform(0, 2 * np.pi), rng.uniform(_APART, 0.02)
    away = np.array([np.cos(angle), np.sin(angle)])
    middle, radius = circle(hull)
    at = np.array(other.middle) - middle + (other.radius + radius) * away
    for _ in range(3):
        at = at - (Polygon(hull + at).distance(Polygon(other.outline)) - gap) * away
    return at


def _holder(
    setting: Setting, catalogue: Catalogue, entry: Entry, rng: Generator
) -> tuple[tuple[str, int], np.ndarray, float] | None:
    """Something that can carry or hold the entry; where, anywhere on or in it, and how high."""
    for n in rng.permutation(len(setting.objects)):
        other = setting.objects[int(n)]
        if other.lying or len(setting.supports(other.support)) >= _HIGH:
            continue
        thing = catalogue[other.entry].thing
        x, y, height = other.position
        if thing.inside is not None and entry.radius < min(thing.inside[0], _SMALL):
            angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0, thing.inside[0] - entry.radius)
            by = away * np.array([np.cos(angle), np.sin(angle)])
            return ("in", int(n)), np.array([x, y]) + by, height + thing.inside[1]
        thin = entry.thing.corners[1][2] < _THIN
        if thing.top is not None and (
            entry.radius < min(min(thing.top[:2]) * 1.1, _SMALL)
            or (thin and thing.flat and entry.radius < 1.6 * max(thing.top[:2]))
        ):
            room = np.maximum(np.array(thing.top[:2]) - entry.radius, 0)
            by = turn("z", other.yaw)[:2, :2] @ (rng.uniform(-1, 1, 2) * room)
            return ("on", int(n)), np.array([x, y]) + by, height + thing.top[2] + 0.0005
    return None
