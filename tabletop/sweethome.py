"""Meshes of Debian's package `sweethome3d-furniture`, as objects of the catalogue; and whom they are due to.

    apt-get download sweethome3d-furniture && dpkg -x sweethome3d-furniture_*.deb furniture
    python tabletop/sweethome.py furniture/usr/share/sweethome3d/furniture ATTRIBUTION.md SCENES.jsonl ...

The package holds libraries (.sh3f), each a zip archive of OBJ models and a list of their sizes and authors.
Models that show a brand are not taken. Nothing of the package is kept in this tree.
"""

from __future__ import annotations

import argparse
import json
import posixpath
import sys
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
from obj_file import read_obj
from objects import COLORS, Object, Source
from surfaces import Paint

_LICENCES = {
    "BlendSwap-CC-0": ("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "BlendSwap-CC-BY": ("CC BY 3.0", "https://creativecommons.org/licenses/by/3.0/"),
    "KatorLegaz": ("CC BY 3.0 US", "https://creativecommons.org/licenses/by/3.0/us/"),
    "Scopia": ("CC BY 3.0", "https://creativecommons.org/licenses/by/3.0/"),
}
# What is taken: model -> category.
_TAKEN = {
    "BlendSwap-CC-0": {
        "caffe_final": "cup", "plasticCup": "cup", "beerGlass": "glass", "mamadeira": "bottle",
        "yogurtBottle": "bottle", "cosmeticsPot": "jar", "cissors_swap": "scissors", "basketball": "ball",
        "bread": "bread", "cactus": "plant", "littlePlant": "plant",
    },
    "BlendSwap-CC-BY": {
        "coffee_cup": "cup", "glass": "glass", "cocktailGlass": "glass", "beer_bottle": "bottle",
        "boiler": "kettle", "espressokettle": "kettle", "fork": "fork", "knife": "knife",
        "kitchenKnife": "knife", "spoon": "spoon", "book": "book", "gift": "box", "mobile": "phone",
        "ballonFoot": "ball", "succulentPlant": "plant", "largePan": "pot",
    },
    "KatorLegaz": {
        "coffee-mug": "mug", "12-oz-glass": "glass", "highball-glass": "glass",
        "red-wine-bottle-01": "bottle", "spray-bottle": "bottle", "dinner-plate": "plate",
        "bread-plate": "plate", "flashlight": "flashlight", "stapler": "stapler",
    },
    "Scopia": {
        "cup": "cup", "wine_bottle": "bottle", "com_bath": "bottle", "com_bath2_jabon_pijo": "bottle",
        "com_bath2_soap": "bottle", 
        "teapot": "teapot", "sugar": "jar", "marteau": "hammer",
        "tournevis": "screwdriver", 
        "candle": "candle",
    },
}  # fmt: skip
_LYING = ("bottle", "can", "glass", "mug", "jar")  # categories that may be laid on their side
# Categories whose largest material is their colour; a fork stays of metal and a cactus green.
_REPAINTED = (
    "mug", "cup", "bottle", "jar", "kettle", "teapot", "plate", "pot", "box", "stapler", "flashlight",
    "screwdriver", "scissors",
)  # fmt: skip
_PLAIN = 0.6  # share of the surface that one flat material has to cover, to be the thing's colour
_CLEAR = 0.9  # opacity below which a material is glass


def read_libraries(folder: Path) -> tuple[list[Object], list[str]]:
    """The meshes that are taken, and a line for each that does not load.

    Raises:
        ValueError: the folder holds none of the libraries; or one is not a zip archive with a list of models.
    """
    paths = [folder / f"{library}.sh3f" for library in _TAKEN]
    if not any(path.exists() for path in paths):
        names = ", ".join(path.name for path in paths)
        raise ValueError(
            f"{folder}: none of {names}; unpack Debian's package sweethome3d-furniture and give their folder"
        )
    found: list[Object] = []
    problems: list[str] = []
    for path in paths:
        if not path.exists():
            problems.append(f"{path.name}: not there, {len(_TAKEN[path.stem])} meshes left out")
            continue
        try:
            with ZipFile(path) as archive:
                models = _models(archive)
                for name, category in _TAKEN[path.stem].items():
                    try:
                        found.append(_object(archive, models, path.stem, name, category))
                    except ValueError as error:
                        problems.append(f"{path.name}: {error}")
        except (BadZipFile, KeyError) as error:
            raise ValueError(f"{path}: not a furniture library ({error}); download it again") from error
    return found, problems


def _models(archive: ZipFile) -> dict[str, dict[str, str]]:
    """What the library's list says of each model, by the name of its file."""
    entries: dict[str, dict[str, str]] = {}
    for line in archive.read("PluginFurnitureCatalog.properties").decode("latin-1").splitlines():
        key, equals, value = line.strip().partition("=")
        name, hash_, number = key.partition("#")
        if equals and hash_:
            entries.setdefault(number, {})[name] = value
    return {posixpath.basename(e["model"]).removesuffix(".obj"): e for e in entries.values() if "model" in e}


def _object(
    archive: ZipFile, models: dict[str, dict[str, str]], library: str, name: str, category: str
) -> Object:
    if name not in models:
        raise ValueError(f"{name}: not in the library's list")
    entry = models[name]
    parts = read_obj(archive, entry["model"].lstrip("/"))
    rotation = np.array([float(v) for v in entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()]).reshape(
        3, 3
    )
    upright = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ rotation  # the package has y up
    parts = [part.moved(matrix=upright) for part in parts]
    every = np.concatenate([part.vertices for part in parts])
    low, high = every.min(0), every.max(0)
    size = np.array([float(entry[side]) / 100 for side in ("width", "depth", "height")])
    scale = np.diag(size / np.maximum(high - low, 1e-9))
    foot = np.array([*(low[:2] + high[:2]) / 2, low[2]])
    parts = [part.moved(-foot).moved(matrix=scale) for part in parts]
    licence, link = _LICENCES[library]
    title = entry["name"].encode().decode("unicode_escape")
    made = Object(
        category=category, parts=tuple(parts), colors=(), lies=category in _LYING,
        material="glass" if category == "glass" else None,
        top=(size[0] * 0.4, size[1] * 0.4, size[2]) if category in ("book", "box") else None,
        source=Source(f"{library}-{name}", title, entry.get("creator", library), licence, link),
    )  # fmt: skip
    return _repaintable(made)


def _repaintable(thing: Object) -> Object:
    """The thing with its largest flat, opaque material as its main paint, where that covers most of it."""
    areas: dict[Paint, float] = {}
    total = 0.0
    for part in thing.parts:
        a, b, c = (part.vertices[part.faces[:, k]] for k in range(3))
        area = float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())
        total += area
        if part.picture is None and isinstance(part.paint, Paint) and part.paint.alpha > _CLEAR:
            areas[part.paint] = areas.get(part.paint, 0.0) + area
    paint = max(areas, key=lambda key: areas[key], default=None)
    if thing.category not in _REPAINTED or paint is None or areas[paint] < _PLAIN * total:
        return thing
    parts = tuple(
        replace(part, paint="main") if part.paint == paint and part.picture is None else part
        for part in thing.parts
    )
    return replace(thing, parts=parts, colors=COLORS)


def attribution(things: list[Object], used: set[str]) -> str:
    """A page that names the authors of those meshes that `used` names, as in the scene file."""
    lines = [
        "# Meshes by others",
        "",
        "sam3i-table was trained on rendered pictures. Some of them show these models of Debian's",
        "package `sweethome3d-furniture`, scaled, triangulated and in part repainted. The models themselves",
        "are not contained here.",
        "",
        "| model | author | library | licence |",
        "|---|---|---|---|",
    ]
    rows = []
    for thing in things:
        source = thing.source
        if source is not None and source.key in used:
            library = next(name for name in _TAKEN if source.key.startswith(name + "-"))
            rows.append(
                f"| {source.title} ({source.key.removeprefix(library + '-')}) | {source.author} | {library} "
                f"| [{source.licence}]({source.link}) |"
            )
    return "\n".join([*lines, *sorted(rows)]) + "\n"


def main() -> int:
    """Writes the page of authors for the scenes that are given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("libraries", type=Path, help="folder of the .sh3f files")
    parser.add_argument("out", type=Path, help="the page to write")
    parser.add_argument(
        "scenes", type=Path, nargs="+", help="scene files; only meshes that they show are named"
    )
    given = parser.parse_args()
    try:
        things, problems = read_libraries(given.libraries)
        shown = {
            thing["mesh"]
            for path in given.scenes
            for line in path.read_text().splitlines()
            for thing in json.loads(line)["objects"]
        }
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))
    for problem in problems:
        print(problem, file=sys.stderr)
    used = {t.source.key for t in things if t.source and t.source.key in shown}
    given.out.write_text(attribution(things, used))
    print(f"{given.out}: {len(used)} meshes of others")
    return 0


if __name__ == "__main__":
    sys.exit(main())
