"""Renders a folder of scenes: pictures as JPEG, and `scenes.jsonl` with a line for each.

    python tabletop/generate.py OUT --renderer mujoco --count 20000 --workers 2
    python tabletop/generate.py OUT --renderer cycles --count 600 --held-out

Killed or stopped, the same command goes on where it was. Scene N of a side is the same whoever renders it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import cv2
from catalogue import Catalogue
from scene_file import photograph, record
from setting import draw
from tqdm import tqdm

_SHARD = 200  # scenes written by one worker between two looks at what is left
_RENDERERS = {
    "mujoco": ("mujoco_renderer", "MujocoRenderer"),
    "cycles": ("cycles_renderer", "CyclesRenderer"),
}


def main() -> int:
    """Reads the arguments, renders what is missing, and joins the shards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--renderer", choices=_RENDERERS, default="mujoco")
    parser.add_argument("--count", type=int, default=20_000, help="scenes")
    parser.add_argument("--first", type=int, default=0, help="number of the first scene")
    parser.add_argument(
        "--held-out", action="store_true", help="meshes, tables and walls kept for validation"
    )
    parser.add_argument("--size", type=int, default=256, help="side of the picture, pixels")
    parser.add_argument("--workers", type=int, default=max(1, len(os.sched_getaffinity(0))))
    parser.add_argument("--meshes", type=Path, help="folder of Sweet Home 3D's furniture libraries (.sh3f)")
    given = parser.parse_args()
    if min(given.count, given.workers) < 1 or given.first < 0 or not 32 <= given.size <= 2048:
        parser.error("--count and --workers are at least 1, --first at least 0, --size 32 to 2048")
    (given.out / "images").mkdir(parents=True, exist_ok=True)
    (given.out / "shards").mkdir(exist_ok=True)
    starts = range(given.first, given.first + given.count, _SHARD)
    jobs = [(start, min(_SHARD, given.first + given.count - start)) for start in starts]
    left = [job for job in jobs if not _shard(given.out, job[0]).exists()]
    if len(left) < len(jobs):
        print(f"{len(jobs) - len(left)} of {len(jobs)} shards are there already", file=sys.stderr)
    stopped = _render_all(left, given)
    if stopped:
        print(f"stopped: {stopped}; the same command goes on", file=sys.stderr)
        return 1
    lines = [line for start, _ in jobs for line in _shard(given.out, start).read_text().splitlines()]
    part = given.out / ".scenes.jsonl.part"
    part.write_text("".join(line + "\n" for line in lines))
    part.replace(given.out / "scenes.jsonl")
    print(f"{given.out}: {len(lines)} scenes, {given.count - len(lines)} with nothing visible were left out")
    return 0


def _render_all(jobs: list[tuple[int, int]], given: argparse.Namespace) -> str | None:
    """Why it stopped early, or None."""
    if not jobs:
        return None
    context = multiprocessing.get_context("spawn")
    with (
        context.Pool(min(given.workers, len(jobs)), _begin, (vars(given),)) as pool,
        tqdm(total=sum(count for _, count in jobs), unit="scene", file=sys.stderr) as bar,
    ):
        try:
            for count, problem in pool.imap_unordered(_render, jobs):
                bar.update(count)
                if problem:
                    return problem
        except KeyboardInterrupt:
            return "interrupted"
    return None


_STATE: dict[str, object] = {}


def _begin(given: dict[str, object]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _STATE.update(given)


def _render(job: tuple[int, int]) -> tuple[int, str | None]:
    """Renders one shard; its file appears when all of it is there."""
    start, count = job
    out, held_out, size = Path(str(_STATE["out"])), bool(_STATE["held_out"]), int(str(_STATE["size"]))
    try:
        if "renderer_made" not in _STATE:
            _STATE["renderer_made"] = _open(str(_STATE["renderer"]), held_out, size, _STATE["meshes"])
        catalogue, renderer = _STATE["renderer_made"]
        lines = []
        for number in range(start, start + count):
            setting = draw(number, catalogue, held_out=held_out)
            picture, identities, visible = renderer.render(setting)
            name = f"{number:06d}.jpg"
            found = record(
                setting, identities, visible, file=name, renderer=str(_STATE["renderer"]), held_out=held_out
            )
            if found is None:
                continue
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(70 + number * 7 % 26)]
            encoded = cv2.imencode(".jpg", photograph(picture, setting)[..., ::-1], quality)[1]
            (out / "images" / name).write_bytes(encoded.tobytes())
            lines.append(json.dumps(found, separators=(",", ":")) + "\n")
        shard = _shard(out, start)
        part = shard.with_suffix(".part")
        part.write_text("".join(lines))
        part.replace(shard)
    except (OSError, RuntimeError, ImportError) as error:
        return 0, f"scene {start} and after: {type(error).__name__}: {' '.join(str(error).split())}"
    return count, None


def _open(name: str, held_out: bool, size: int, meshes: object) -> tuple[Catalogue, object]:
    others = []
    if meshes is not None:
        from sweethome import read_libraries

        others = read_libraries(Path(str(meshes)))
    catalogue = Catalogue(others)
    module, made = _RENDERERS[name]
    try:
        maker = getattr(importlib.import_module(module), made)
        return catalogue, maker(catalogue, held_out=held_out, size=size)
    except (ImportError, RuntimeError, AttributeError) as error:
        hint = (
            "apt install libegl1 libegl-mesa0 libgl1-mesa-dri"
            if name == "mujoco"
            else "pip install 'bpy==5.*'"
        )
        raise RuntimeError(f"the renderer {name} does not start ({error}): {hint}") from error


def _shard(out: Path, start: int) -> Path:
    return out / "shards" / f"{start:06d}.jsonl"


if __name__ == "__main__":
    sys.exit(main())
