"""Reads Wavefront OBJ and MTL from a zip archive: one part a material, in the file's own units and axes."""

from __future__ import annotations

import posixpath
from zipfile import ZipFile

import cv2
import numpy as np
from mesh import Part
from numpy.typing import NDArray
from surfaces import Paint

_TEXTURE = 512  # pixels, longer side at most


def read_obj(archive: ZipFile, name: str) -> list[Part]:
    """The parts of a model, each with a `Paint` of its own and, where it has one, its picture.

    Raises:
        ValueError: a line that cannot be read, a face without its vertices, a model without faces, a texture
            or material file that the archive lacks. The message names it.
    """
    points: list[list[float]] = []
    pictured: list[list[float]] = []
    faces: dict[str, list[list[tuple[int, int | None]]]] = {}
    paints: dict[str, tuple[Paint, NDArray[np.uint8] | None]] = {}
    material = ""
    for number, line in enumerate(_lines(archive, name), 1):
        words = line.split()
        try:
            match words[:1]:
                case ["v"]:
                    points.append([float(word) for word in words[1:4]])
                case ["vt"]:
                    pictured.append([float(word) for word in words[1:3]])
                case ["f"]:
                    corners = [_corner(word, len(points), len(pictured)) for word in words[1:]]
                    # A fan: polygons of furniture are convex enough.
                    fan = [[corners[0], *corners[k : k + 2]] for k in range(1, len(corners) - 1)]
                    faces.setdefault(material, []).extend(fan)
                case ["usemtl"]:
                    material = words[1]
                case ["mtllib"]:
                    paints |= _materials(archive, posixpath.join(posixpath.dirname(name), words[1]))
        except (IndexError, ValueError) as error:
            raise ValueError(f"{name}, line {number} ({line.strip()[:40]!r}): {error}") from error
    if not faces:
        raise ValueError(f"{name}: no faces")
    return [
        _part(points, pictured, triangles, *paints.get(key, (Paint((0.7, 0.7, 0.7)), None)))
        for key, triangles in faces.items()
    ]


def _lines(archive: ZipFile, name: str) -> list[str]:
    try:
        return archive.read(name).decode("latin-1").splitlines()
    except KeyError:
        raise ValueError(f"{name}: the archive {archive.filename} lacks it") from None


def _corner(word: str, points: int, pictured: int) -> tuple[int, int | None]:
    """Numbers from 0 of a corner's vertex and place in the picture; files count from 1, or back from -1."""
    point, _, rest = word.partition("/")
    place = rest.partition("/")[0]
    return _index(point, points), _index(place, pictured) if place else None


def _index(word: str, count: int) -> int:
    number = int(word)
    index = number - 1 if number > 0 else count + number
    if not 0 <= index < count:
        raise ValueError(f"points to {number}, of {count}")
    return index


def _part(
    points: list[list[float]],
    pictured: list[list[float]],
    triangles: list[list[tuple[int, int | None]]],
    paint: Paint,
    picture: NDArray[np.uint8] | None,
) -> Part:
    textured = picture is not None and all(place is not None for corners in triangles for _, place in corners)
    numbers: dict[tuple[int, int | None], int] = {}
    faces = [
        [numbers.setdefault(c if textured else (c[0], None), len(numbers)) for c in corners]
        for corners in triangles
    ]
    vertices = np.array([points[point] for point, _ in numbers], float)
    uv = np.array([pictured[place] for _, place in numbers if place is not None], float) if textured else None
    return Part(vertices, np.array(faces, np.int64), paint, uv, picture if textured else None)


def _materials(archive: ZipFile, name: str) -> dict[str, tuple[Paint, NDArray[np.uint8] | None]]:
    """Colour, opacity, gloss and picture of each material of an MTL file."""
    found: dict[str, tuple[Paint, NDArray[np.uint8] | None]] = {}
    current = ""
    for line in _lines(archive, name):
        words = line.split()
        if words[:1] == ["newmtl"]:
            current = words[1]
            found[current] = (Paint((0.7, 0.7, 0.7)), None)
        if not current or len(words) < 2:
            continue
        paint, picture = found[current]
        match words[0]:
            case "Kd":
                r, g, b = (min(1.0, float(word)) for word in words[1:4])
                paint = Paint((r, g, b), paint.alpha, paint.gloss)
            case "d":
                paint = Paint(paint.rgb, float(words[-1]), paint.gloss)
            case "Ks":
                paint = Paint(paint.rgb, paint.alpha, min(1.0, max(float(word) for word in words[1:4])))
            case "map_Kd":
                picture = _picture(archive, posixpath.join(posixpath.dirname(name), words[-1]))
        found[current] = (paint, picture)
    return found


def _picture(archive: ZipFile, name: str) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] RGB."""
    try:
        data = np.frombuffer(archive.read(name), np.uint8)
    except KeyError:
        raise ValueError(f"texture {name}: the archive lacks it") from None
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise ValueError(f"texture {name}: not a picture that OpenCV reads")
    scale = _TEXTURE / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture[..., ::-1])
