"""What lies behind the objects, and what a camera or a file format does to the whole picture."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from sam3i_edge.data.palette import RGB, hsv

Image = NDArray[np.uint8]  # [H, W, 3] RGB


def background(height: int, width: int, rng: np.random.Generator) -> Image:
    """A background uint8 [H, W, 3]: uniform, gradient, clouds, chequered, lined or cluttered.

    Textures stay near one base colour, so that an object's contrast to it can be judged by local means.
    """
    base = _base_color(rng)
    kind = rng.random()
    if kind < 0.42:
        return np.broadcast_to(np.rint(base).astype(np.uint8), (height, width, 3)).copy()
    if kind < 0.56:
        return _gradient(height, width, base, rng)
    if kind < 0.72:
        return _clouds(height, width, base, rng)
    if kind < 0.86:
        return _pattern(height, width, base, rng)
    return _clutter(height, width, base, rng)


def degrade(image: Image, rng: np.random.Generator) -> Image:
    """Brightness, contrast, blur, noise and JPEG, each at times; a third of the pictures stay as drawn."""
    if rng.random() < 0.3:
        return image
    if rng.random() < 0.4:
        levels = np.arange(256) * rng.uniform(0.87, 1.12) + rng.uniform(-12, 12)
        image = _uint8(cv2.LUT(image, np.clip(levels, 0, 255).astype(np.uint8)))
    if rng.random() < 0.25:
        sigma = rng.uniform(0.35, 1.1) * min(image.shape[:2]) / 200
        image = _uint8(cv2.GaussianBlur(image, (0, 0), sigma))
    if rng.random() < 0.33:
        image = _noisy(image, rng.uniform(2, 12), rng)
    if rng.random() < 0.25:
        quality = int(rng.integers(35, 92))
        _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = _uint8(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[..., ::-1]
    return np.ascontiguousarray(image)


def _base_color(rng: np.random.Generator) -> RGB:
    kind, hue = rng.random(), rng.uniform(0, 360)
    if kind < 0.2:
        return (
            np.full(3, 255, np.float32)
            if kind < 0.12
            else hsv(hue, rng.uniform(0, 0.03), rng.uniform(0.94, 1))
        )
    if kind < 0.45:
        return hsv(hue, rng.uniform(0, 0.1), rng.uniform(0.74, 0.94))
    if kind < 0.55:
        return hsv(hue, rng.uniform(0, 0.08), rng.uniform(0.4, 0.72))
    if kind < 0.7:
        return hsv(hue, rng.uniform(0, 0.3), rng.uniform(0.02, 0.3))
    if kind < 0.9:
        return hsv(hue, rng.uniform(0.1, 0.32), rng.uniform(0.7, 1))
    return hsv(hue, rng.uniform(0.32, 0.65), rng.uniform(0.35, 0.85))


def _gradient(height: int, width: int, base: RGB, rng: np.random.Generator) -> Image:
    other = np.clip(base + rng.uniform(-70, 70, 3).astype(np.float32), 0, 255)
    angle = rng.uniform(0, math.tau)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :] * math.cos(angle)
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * math.sin(angle)
    way = (x + y) * np.float32(255 / (abs(math.cos(angle)) + abs(math.sin(angle)))) + np.float32(127.5)
    ramp = np.rint(base + np.linspace(0, 1, 256)[:, None] * (other - base)).astype(np.uint8)
    return _uint8(ramp[way.astype(np.uint8)])


def _clouds(height: int, width: int, base: RGB, rng: np.random.Generator) -> Image:
    cells = int(rng.integers(3, 9))
    coarse = rng.normal(0, rng.uniform(6, 24), (cells, cells, 3)).astype(np.float32)
    if rng.random() < 0.6:  # brightness only
        coarse[..., 1:] = coarse[..., :1]
    return _uint8(cv2.resize(np.clip(base + coarse, 0, 255), (width, height), interpolation=cv2.INTER_LINEAR))


def _pattern(height: int, width: int, base: RGB, rng: np.random.Generator) -> Image:
    step = rng.uniform(10, 34) * rng.choice([-1, 1])
    other = np.clip(base + np.float32(step), 0, 255)
    if abs(float(other.mean() - base.mean())) < 6:
        other = np.clip(base - np.float32(step), 0, 255)
    period = max(4, int(min(height, width) * rng.uniform(0.04, 0.16)))
    rows, columns = np.arange(height)[:, None] // period, np.arange(width)[None, :] // period
    kind = rng.random()
    odd: NDArray[np.generic]
    if kind < 0.4:
        odd = (rows + columns) % 2
    elif kind < 0.8:
        thin = max(1, period // 8)
        on_row = (np.arange(height)[:, None] % period < thin) & (kind < 0.7)
        odd = on_row | ((np.arange(width)[None, :] % period < thin) & (kind > 0.5))
    else:
        odd = (rows + 0 * columns) % 2
    return _uint8(np.rint([base, other]).astype(np.uint8)[odd.astype(np.uint8)])


def _clutter(height: int, width: int, base: RGB, rng: np.random.Generator) -> Image:
    """Muted strokes and patches without the outline of any of the ten shapes."""
    image = np.broadcast_to(np.rint(base).astype(np.uint8), (height, width, 3)).copy()
    side = min(height, width)
    for _ in range(int(rng.integers(6, 30))):
        shade = np.clip(base + rng.uniform(-30, 30) + rng.uniform(-9, 9, 3), 0, 255)
        color = tuple(float(round(float(channel))) for channel in shade)
        start = rng.uniform(0, 1, 2) * (width, height)
        stride = rng.normal(0, 0.2 * side, 2)
        if rng.random() < 0.6:
            points = start + np.array([(0, 0), stride * 0.5 + rng.normal(0, 0.05 * side, 2), stride])
            thickness = int(rng.integers(1, max(2, side // 40)))
            cv2.polylines(image, [np.rint(points).astype(np.int32)], False, color, thickness, cv2.LINE_AA)
        else:
            corners = start + rng.normal(0, 0.18 * side, (5, 2))
            cv2.fillPoly(image, [np.rint(corners).astype(np.int32)], color, cv2.LINE_AA)
    return _uint8(cv2.blur(image, (5, 5))) if rng.random() < 0.5 else image


def _noisy(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    # The sum of two uniform bytes: close to normal, and ten times as fast to draw.
    raw = np.frombuffer(rng.bytes(2 * image.size), np.uint8).astype(np.int16).reshape(2, *image.shape)
    noise = (raw[0] + raw[1] - 255) * np.float32(sigma / 104.5)
    noise += image
    return _uint8(np.clip(noise, 0, 255, out=noise))


def _uint8(image: object) -> Image:
    return np.asarray(image).astype(np.uint8, copy=False)
