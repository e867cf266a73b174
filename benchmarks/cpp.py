"""libsam3i beside Python, in turns: python benchmarks/cpp.py BUILD [--bundle FOLDER] [--runs N].

BUILD is a release build of native/ with examples. Each run is a process of its own, the two languages in
turn. Process: from its start to the first answer. Open: the Segmenter. The other times are the least of 30
turns, and the processor's time of one in the mean, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_TURNS = 30
_CHILD = """
import json, sys, time
import numpy as np
started = time.perf_counter()
from sam3i_edge import Segmenter
from sam3i_edge.devices.machine import peak_memory

bundle, runtime, precision, threads, turns, path = sys.argv[1:]
head, pixels = open(path, "rb").read().split(b"\\n", 1)
width, height = map(int, head.split()[1:3])
image = np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
began = time.perf_counter()
segmenter = Segmenter(
    bundle, "cpu", precision, runtime, threads=int(threads) or None, image_cache=0
)
opened = time.perf_counter()
ask = lambda scene, turn: scene.segment(f"the red star left of ring {turn}", level="simple")
scene = segmenter.encode(image)
ask(scene, -1)
first = time.perf_counter()


def timed(body):
    least, processor = 1e30, time.process_time()
    for turn in range(int(turns)):
        start = time.perf_counter()
        body(turn)
        least = min(least, time.perf_counter() - start)
    return 1e3 * least, 1e3 * (time.process_time() - processor) / max(1, int(turns))


encode = timed(lambda turn: segmenter.encode(image))
question = timed(lambda turn: ask(scene, turn))
print(json.dumps({
    "open_ms": 1e3 * (opened - began), "first_ms": 1e3 * (first - began), "encode_ms": encode[0],
    "encode_cpu_ms": encode[1], "ask_ms": question[0], "ask_cpu_ms": question[1],
    "peak_kib": peak_memory() // 1024,
}))
"""
_ROWS = {
    "start_ms": "process, to the first answer, ms",
    "start_cpu_ms": "process, to the first answer, processor's ms",
    "open_ms": "open, ms",
    "encode_ms": "encode a picture, ms",
    "encode_cpu_ms": "encode a picture, processor's ms",
    "ask_ms": "one more instruction, ms",
    "ask_cpu_ms": "one more instruction, processor's ms",
    "peak_mib": "peak memory, MiB",
}


def run(command: list[str], turns: int, picture: Path) -> dict[str, float]:
    """One process that answers once, and one that goes on; a cold start is the first's whole life."""
    start = time.perf_counter()
    child = subprocess.Popen([*command, "0", str(picture)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    spent = 1e3 * (time.perf_counter() - start)
    if status != 0:
        raise SystemExit(f"{command[0]} failed with status {status}")
    told: dict[str, Any] = json.loads(
        subprocess.run(
            [*command, str(turns), str(picture)], check=True, capture_output=True, text=True
        ).stdout
    )
    return {
        **told,
        "start_ms": spent,
        "start_cpu_ms": 1e3 * (usage.ru_utime + usage.ru_stime),
        "peak_mib": told["peak_kib"] / 1024,
    }


def main() -> None:
    import numpy as np

    from sam3i_edge.bundle.folder import find_bundle
    from sam3i_edge.data.scenes import draw_scene

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("build", type=Path)
    parser.add_argument("--bundle", default="sam3i-nano")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=0, help="0 for one a core")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    bundle = str(find_bundle(given.bundle))
    settings = [bundle, given.runtime, given.precision, str(given.threads)]
    commands = {
        "C++": [str(given.build / "examples/measure"), *settings],
        "Python": [sys.executable, "-c", _CHILD, *settings],
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.ppm")
        image = draw_scene(np.random.default_rng(1), (480, 640)).image
        picture.write_bytes(b"P6 640 480 255\n" + image.tobytes())
        for _ in range(given.runs):
            for name, command in commands.items():
                found[name].append(run(command, _TURNS, picture))
    print(f"{given.bundle}, {given.runtime} {given.precision}, median of {given.runs} runs in turn\n")
    print("| | C++ | Python | C++ / Python |\n|---|---|---|---|")
    for key, words in _ROWS.items():
        cpp, python = (statistics.median(run[key] for run in found[name]) for name in ("C++", "Python"))
        print(f"| {words} | {cpp:.1f} | {python:.1f} | {cpp / python:.2f} |")


if __name__ == "__main__":
    main()
