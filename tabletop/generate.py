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
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
from catalogue import Catalogue
from makers import MAKERS
from objects import Object
from scene_file import photograph, record
from setting import draw
from sweethome import read_libraries
from tqdm import tqdm

_SHARD = 10  # scenes written by one worker between two looks at what is left
_RENDERERS = {  # name -> module, class, what to do where it does not start
    "mujoco": (
        "mujoco_renderer",
        "MujocoRenderer",
        "apt install libegl1 libegl-mesa0 libgl1-mesa-dri; pip install -r tabletop/requirements.txt",
    ),
    "cycles": (
        "cycles_renderer",
        "CyclesRenderer",
        "in an environment of its own, pip install -r tabletop/requirements-cycles.txt",
    ),
}
Job = tuple[int, int]  # first scene, how many


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the arguments, renders what is missing, and joins the shards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--renderer", choices=_RENDERERS, default="mujoco")
    parser.add_argument("--count", type=int, default=20_000, help="scenes")
    parser.add_argument("--first", type=int, default=0, help="number of the first scene")
    parser.add_argument(
        "--held-out", action="store_true", help="meshes, tables, walls and lamps kept for validation"
    )
    parser.add_argument(
        "--often", nargs="+", choices=MAKERS, default=[], metavar="CATEGORY", help="there twice as often"
    )
    parser.add_argument("--size", type=int, default=256, help="side of the picture, pixels")
    parser.add_argument("--workers", type=int, default=max(1, len(os.sched_getaffinity(0))))
    parser.add_argument("--meshes", type=Path, help="folder of Sweet Home 3D's furniture libraries (.sh3f)")
    given = parser.parse_args(argv)
    if min(given.count, given.workers) < 1 or given.first < 0 or not 32 <= given.size <= 2048:
        parser.error("--count and --workers are at least 1, --first at least 0, --size 32 to 2048")
    others: list[Object] = []
    if given.meshes is not None:
        try:
            others, problems = read_libraries(given.meshes)
        except (OSError, ValueError) as error:
            parser.error(f"--meshes: {error}")
        counted = f"{len(others)} meshes of others; {len(problems)} do not load and are left out"
        print(counted, *problems, sep="\n", file=sys.stderr)
    try:
        (given.out / "images").mkdir(parents=True, exist_ok=True)
        (given.out / "shards").mkdir(exist_ok=True)
        other = _other_recipe(given, others)
    except OSError as error:
        parser.error(f"{given.out}: {error.strerror}; give a folder that can be written")
    if other is not None:
        parser.error(f"{given.out} holds scenes made otherwise ({other}); give another folder")
    last = given.first + given.count
    jobs = [(start, min(_SHARD, last - start)) for start in range(given.first, last, _SHARD)]
    left = [job for job in jobs if not _shard(given.out, job).exists()]
    if len(left) < len(jobs):
        print(f"{len(jobs) - len(left)} of {len(jobs)} shards are there already", file=sys.stderr)
    stopped = _render_all(left, given, others)
    if stopped:
        print(f"stopped: {stopped}; the same command goes on", file=sys.stderr)
        return 1
    lines = [line for job in jobs for line in _shard(given.out, job).read_text().splitlines()]
    part = given.out / ".scenes.jsonl.part"
    part.write_text("".join(line + "\n" for line in lines))
    part.replace(given.out / "scenes.jsonl")
    print(f"{given.out}: {len(lines)} scenes, {given.count - len(lines)} with nothing visible were left out")
    return 0


def _other_recipe(given: argparse.Namespace, others: list[Object]) -> str | None:
    """How the folder was made, where that is not what is asked for now; a new folder keeps the recipe."""
    recipe = {
        "renderer": given.renderer,
        "held_out": given.held_out,
        "size": given.size,
        "often": sorted(given.often),
        "meshes": sorted(thing.source.key for thing in others if thing.source),
    }
    path = given.out / "recipe.json"
    if not path.exists():
        path.write_text(json.dumps(recipe, indent=1) + "\n")
        return None
    try:
        kept = json.loads(path.read_text())
    except ValueError:
        return f"{path.name} cannot be read"
    names = [name for name in recipe if kept.get(name, []) != recipe[name]]
    return ", ".join(f"{n} {_short(kept.get(n, []))}, not {_short(recipe[n])}" for n in names) or None


def _short(value: Any) -> str:
    return f"of {len(value)} names" if isinstance(value, list) else str(value)


def _render_all(jobs: list[Job], given: argparse.Namespace, others: list[Object]) -> str | None:
    """Why it stopped early, or None."""
    if not jobs:
        return None
    workers = min(given.workers, len(jobs))
    with (
        _mapper(workers, vars(given), others) as results,
        tqdm(total=sum(count for _, count in jobs), unit="scene", file=sys.stderr) as bar,
    ):
        try:
            for count, problem in results(jobs):
                bar.update(count)
                if problem:
                    return problem
        except KeyboardInterrupt:
            return "interrupted"
    return None


@contextmanager
def _mapper(workers: int, given: dict[str, Any], others: list[Object]) -> Any:
    """A function from jobs to their results: in this process for one worker, else in a pool."""
    if workers == 1:
        _STATE.update(given, others=others)
        try:
            yield lambda jobs: map(_render, jobs)
        finally:
            _close()
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _begin, (given, others)) as pool:
        yield lambda jobs: pool.imap_unordered(_render, jobs)


_STATE: dict[str, Any] = {}  # of one worker: the arguments, and the renderer once it is open


def _begin(given: dict[str, Any], others: list[Object]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _STATE.update(given, others=others)


def _close() -> None:
    if "opened" in _STATE:
        _STATE["opened"][1].close()
    _STATE.clear()


def _render(job: Job) -> tuple[int, str | None]:
    """Renders one shard; its file appears when all of it is there."""
    start, count = job
    out, renderer_name, held_out = _STATE["out"], _STATE["renderer"], _STATE["held_out"]
    try:
        if "opened" not in _STATE:
            _STATE["opened"] = _open(renderer_name, held_out, _STATE["size"], _STATE["others"])
        catalogue, renderer = _STATE["opened"]
        lines = []
        for number in range(start, start + count):
            setting = draw(number, catalogue, held_out=held_out, often=_STATE["often"])
            picture, identities, visible = renderer.render(setting)
            name = f"{number:06d}.jpg"
            found = record(setting, identities, visible, file=name, renderer=renderer_name, held_out=held_out)
            if found is None:
                continue
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(70 + number * 7 % 26)]
            encoded = cv2.imencode(".jpg", photograph(picture, setting)[..., ::-1], quality)[1]
            (out / "images" / name).write_bytes(encoded.tobytes())
            lines.append(json.dumps(found, separators=(",", ":")) + "\n")
        part = _shard(out, job).with_suffix(".part")
        part.write_text("".join(lines))
        part.replace(_shard(out, job))
    except (OSError, RuntimeError) as error:
        return 0, f"scenes {start} to {start + count - 1}: {' '.join(str(error).split())}"
    return count, None


def _open(name: str, held_out: bool, size: int, others: Iterable[Object]) -> tuple[Catalogue, Any]:
    catalogue = Catalogue(list(others))
    module, made, needs = _RENDERERS[name]
    # PyOpenGL shows a missing library as an attribute of None, MuJoCo as an error of its own.
    try:
        maker = getattr(importlib.import_module(module), made)
        return catalogue, maker(catalogue, held_out=held_out, size=size)
    except (ImportError, RuntimeError, AttributeError) as error:
        raise RuntimeError(f"the renderer {name} does not start ({error}): {needs}") from error


def _shard(out: Path, job: Job) -> Path:
    start, count = job
    return out / "shards" / f"{start:06d}-{count}.jsonl"


if __name__ == "__main__":
    sys.exit(main())
