"""What runs on this machine, found out by running it, and what is in the way of the rest.

Each runtime is tried on each device that it serves, in a process of its own: a broken driver or a package
built for another GPU may end the process, and that is a finding too.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import sam3i_edge
from sam3i_edge import runtimes
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.devices import jetson, machine, nvidia
from sam3i_edge.devices.profiles import DEVICES, choose
from sam3i_edge.errors import RuntimeUnavailable, Sam3iError
from sam3i_edge.install_hint import install_hint
from sam3i_edge.runtimes import engine_cache
from sam3i_edge.runtimes.tiny_graph import tiny_graph, tiny_input, tiny_output

# runtime -> the distributions that may bring it, of which one is wanted.
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
    "openvino": ("openvino",),
    "coreml": ("coremltools",),
    "eager": ("torch",),
    "litert": ("ai-edge-litert",),
}
# package -> distributions that all install it; onnxruntime-extensions and -ep-* have packages of their own.
_ONE_OF = {
    "onnxruntime": r"onnxruntime(-(?!e)\w+)*",
    "cv2": r"opencv(-contrib)?-python(-headless)?",
}
# The others prove themselves by their own tiny graph, without a figure.
_READ_ONNX = ("onnxruntime", "openvino")
_RUNS = 20
_LIMIT_S = 300  # building a first TensorRT engine takes its time

_MEASURE = """
import json, sys
from sam3i_edge.devices import doctor
print(json.dumps(doctor.measure(*sys.argv[1:])))
"""


def examine(root: Path = Path("/")) -> dict[str, Any]:
    """Examines the machine and gives everything as plain values, ready for JSON.

    Args:
        root: folder that stands for "/".

    Returns:
        `works` (whether the default device does) and `default`, `platform`, `jetson`, `nvidia`, `runtimes` (a
        row for each runtime and device), `extras`, `problems`, `cache` and `offline`.
    """
    installed = _installed()
    board = jetson.detect(root)
    graphics = _nvidia()
    default = _default()
    rows = [
        _row(runtime, device, installed, root)
        for device, profile in DEVICES.items()
        for runtime in profile.runtimes
    ]
    return {
        "works": default["works"],
        "default": default,
        "platform": {
            "sam3i_edge": sam3i_edge.__version__,
            "python": platform.python_version(),
            **dataclasses.asdict(machine.inspect(root)),
        },
        "jetson": None if board is None else dataclasses.asdict(board),
        "nvidia": graphics,
        "runtimes": rows,
        "extras": _extras(installed),
        "problems": _problems(installed, graphics["tensorrt"]),
        "cache": _cache(),
        "offline": _offline(os.environ),
    }


def measure(runtime: str, device: str) -> dict[str, Any]:
    """Runs a tiny graph with a runtime on a device, in this process.

    Returns:
        status "works" with `open_ms` and the median `run_ms`, and `error`, the greatest difference to float32
        (None where the runtime brings a graph of its own); or "fails" with `detail`.
    """
    try:
        start = time.perf_counter()
        runtimes.probe(runtime, device)
        if runtime not in _READ_ONNX and runtime != "eager":
            return {"status": "works", "open_ms": 1e3 * (time.perf_counter() - start)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tiny.onnx"
            path.write_bytes(tiny_graph())
            start = time.perf_counter()
            if runtime == "eager":
                from sam3i_edge.runtimes.eager import open_tiny

                opened: runtimes.Runtime = open_tiny(device)
            else:
                precision = "fp32" if DEVICES[device].builds else None
                opened = runtimes.open_runtime(runtime, path, device, precision=precision)
            open_ms = 1e3 * (time.perf_counter() - start)
            spent = []
            for _ in range(_RUNS):
                start = time.perf_counter()
                output = opened.run({"x": tiny_input()})["y"]
                spent.append(1e3 * (time.perf_counter() - start))
            opened.close()
    except Sam3iError as error:
        return {"status": "fails", "detail": str(error)}
    difference = float(np.abs(output - tiny_output()).max())
    return {
        "status": "works",
        "open_ms": open_ms,
        "run_ms": statistics.median(spent),
        "error": difference,
    }


def _row(runtime: str, device: str, installed: Mapping[str, str], root: Path) -> dict[str, Any]:
    held = [name for name in _DISTRIBUTIONS[runtime] if name in installed]
    row: dict[str, Any] = {
        "runtime": runtime,
        "device": device,
        "version": " and ".join(f"{name} {installed[name]}" for name in held) or None,
        "open_ms": None,
        "run_ms": None,
        "error": None,
        "detail": None,
    }
    why = DEVICES[device].missing(root)
    if why is not None:
        return {**row, "status": "not here", "detail": why}
    if runtime not in runtimes.RUNTIMES:
        return {**row, "status": "missing", "detail": "no part of this version"}
    if not held:
        return {**row, "status": "missing", "detail": runtimes.install_line(runtime)}
    return {**row, **_measured_apart(runtime, device)}


def _measured_apart(runtime: str, device: str) -> dict[str, Any]:
    """`measure` in another process, so that its end is a row."""
    if getattr(sys, "frozen", False):  # such a program has no interpreter to start
        return measure(runtime, device)
    above = str(Path(sam3i_edge.__file__).parent.parent)
    paths = [above, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        ended = subprocess.run(
            [sys.executable, "-c", _MEASURE, runtime, device],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    except subprocess.TimeoutExpired:
        return {"status": "fails", "detail": f"no answer within {_LIMIT_S} s"}
    if ended.returncode == 0:
        measured: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return measured
    last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
    how = f"exit code {ended.returncode}"
    if ended.returncode < 0:
        how = f"{signal.Signals(-ended.returncode).name}, a crash in native code"
    return {"status": "fails", "detail": f"its process ended with {how}: {last}"}


def _default() -> dict[str, Any]:
    """What Segmenter() takes, or why it takes nothing."""
    try:
        choice = choose(Bundle.open(find_bundle("sam3i-nano")))
    except Sam3iError as error:
        return {"works": False, "device": None, "runtime": None, "precision": None, "reason": str(error)}
    return {
        "works": True,
        "device": choice.device,
        "runtime": choice.runtime,
        "precision": choice.precision,
        "reason": choice.reason,
    }


def _nvidia() -> dict[str, Any]:
    why = nvidia.gpu_missing()
    if why is not None:
        return {"gpu": False, "compute_capability": None, "tensorrt": None, "detail": why}
    facts: dict[str, Any] = {"gpu": True, "detail": None}
    readings: dict[str, Callable[[], str]] = {
        "compute_capability": nvidia.compute_capability,
        "tensorrt": nvidia.tensorrt_version,
    }
    for name, read in readings.items():
        try:
            facts[name] = read()
        except Sam3iError as error:
            facts[name], facts["detail"] = None, str(error)
    return facts


def _installed() -> dict[str, str]:
    """Distributions that this Python sees -> their versions."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a folder that an interrupted removal left has none
            found.setdefault(_canonical(name), distribution.version)
    return found


def _extras(installed: Mapping[str, str]) -> list[dict[str, Any]]:
    """The extras of this package, what of each is missing, and the line that adds it."""
    rows = []
    for extra, names in sorted(_requirements().items()):
        missing = sorted(name for name in names if name not in installed)
        line = install_hint(extra) if missing else None
        rows.append({"extra": extra, "missing": missing, "install": line})
    return rows


def _requirements() -> dict[str, set[str]]:
    """Extras -> the distributions that they name, without those of development."""
    try:
        lines = metadata.requires("sam3i-edge") or []
    except metadata.PackageNotFoundError:  # run from the tree, without being installed
        return {}
    extras: dict[str, set[str]] = {}
    for line in lines:
        found = re.match(r"([\w.-]+).*extra == ['\"]([\w.-]+)['\"]", line)
        if found is not None and found[2] != "dev":
            extras.setdefault(found[2], set()).add(_canonical(found[1]))
    return extras


def _problems(installed: Mapping[str, str], tensorrt: str | None) -> list[str]:
    """Combinations that are known to go wrong, with what to do."""
    problems = []
    for package, pattern in _ONE_OF.items():
        names = sorted(name for name in installed if re.fullmatch(pattern, name))
        if len(names) > 1:
            problems.append(
                f"{' and '.join(names)} overwrite each other's package {package}: uninstall all of them, "
                "then install one"
            )
    version = tensorrt or ""
    if version.startswith("10.3."):
        problems.append(
            "TensorRT 10.3 (JetPack 6) computes some vision transformers wrongly in fp16 "
            "(NVIDIA/TensorRT#4723): compare fp16 with precision='fp32' before trusting it"
        )
    if version.startswith("10.16."):
        problems.append(
            "TensorRT 10.16 gives NaN for some graphs in fp16 (NVIDIA/TensorRT#4748): compare fp16 with "
            "precision='fp32' before trusting it"
        )
    return problems


def _cache() -> dict[str, Any]:
    """The folder of engines, compiled graphs and fetched models."""
    try:
        folder = engine_cache.cache_folder().parent
    except RuntimeUnavailable as error:
        return {"folder": None, "bytes": 0, "engines": 0, "writable": False, "detail": str(error)}
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    holder = next(path for path in (folder, *folder.parents) if path.is_dir())
    return {
        "folder": str(folder),
        "bytes": sum(path.stat().st_size for path in files),
        "engines": sum(path.name == "engine.json" for path in files),
        "writable": os.access(holder, os.W_OK),
        "detail": None,
    }


def _offline(environment: Mapping[str, str]) -> dict[str, Any]:
    """Whether the Hub may be asked: its own variables, read as it reads them."""
    set_to = {
        name: environment[name] for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if name in environment
    }
    offline = any(value.upper() in ("1", "ON", "YES", "TRUE") for value in set_to.values())
    return {"offline": offline, "variables": set_to}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
