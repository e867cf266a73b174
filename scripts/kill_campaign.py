"""Kills and starves the verbs that write, and asks whether the same command then finishes.

    python scripts/kill_campaign.py --minutes 12 --out campaign.json

Each case runs one verb on a tiny model and ends it by one of

    kill       SIGKILL at a random moment
    write      SIGKILL while a file or a bundle has its temporary name
    stop       SIGTERM or SIGINT at a random moment, which must end it within 5 s
    full       the disk is full after a random number of bytes (a small tmpfs; RLIMIT_FSIZE where none can be
               mounted)
    read-only  the target cannot be written (a tmpfs mounted so; left out where none can be)

and then runs the same command again, which must finish with the result of a run that nothing disturbed. A
case fails on a traceback, on a result that is there and damaged, on a process that stays, and when the second
run does not finish, leaves temporary files, or gives something else. The exit code is 1 when any case failed.

Runs are forked from this process, which has imported everything: a case takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy is imported: threads do not live through a fork

import psutil
import torch

from sam3i_edge import agreement
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.cli.app import main
from sam3i_edge.data.annotations import ANNOTATIONS, read_annotations, write_scenes
from sam3i_edge.errors import Sam3iError
from sam3i_edge.export import quantized_bundle, variants  # noqa: F401  (imported once, for every run)
from sam3i_edge.files import write_whole
from sam3i_edge.measure import runner
from sam3i_edge.measure.schema import RESULTS, read_results
from sam3i_edge.model.sam3i import SAM3I
from sam3i_edge.model.weights import load_model, save_weights
from sam3i_edge.train import trainer  # noqa: F401
from sam3i_edge.train.run_config import StageConfig, TrainConfig
from sam3i_edge.train.run_folder import RunFolder

TESTS = Path(__file__).resolve().parents[1] / "tests"
PATIENCE = 10.0  # seconds that a killed run's own processes may stay
STOP = 5.0  # seconds that a run may take to end when it is asked to
WAYS = {"kill": 5, "write": 5, "stop": 3, "full": 4, "read-only": 1}  # how often, to each other
_FORK = multiprocessing.get_context("fork")
_ANY = agreement.Limits(same_count=0, mean_iou=0, min_iou=0, score=None, box_px=None)


@dataclass(frozen=True)
class Verb:
    """One command: what it is given before OUT, how its result is opened, and which files must be equal."""

    arguments: Callable[[Path], list[str]]
    check: Callable[[Path], object]
    equal: tuple[str, ...]


@dataclass
class Ended:
    """How one run of a command ended: its exit code (negative: by a signal), and what it printed."""

    code: int | None
    said: str
    seconds: float

    @property
    def traceback(self) -> bool:
        """Whether it says more than a line of its own."""
        return "Traceback" in self.said or "a fault of sam3i-edge" in self.said


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _fixtures(root: Path) -> None:
    """A tiny bundle with float weights, a data set, and a training config."""
    tiny = _load(TESTS / "train" / "tiny.py")
    plain = _load(TESTS / "tiny_bundle.py").write_tiny_bundle(root / "plain")
    torch.manual_seed(0)
    # Without adapters, as tracing is most of an export, and each level that they make is a graph.
    model = SAM3I(sizes := replace(tiny.TINY, adapter_dim=0, decoder_layers=1))
    with torch.no_grad():  # scores that keep some instances
        model.detector.scoring.query_proj.weight.mul_(20)
        model.detector.decoder.presence_head.layers[-1].bias.fill_(4.0)
    with new_bundle(root / "bundle", base=plain) as folder:
        save_weights(model, folder.path / "weights")
        folder.finish(
            variants={},
            model=sizes.to_dict(),
            preprocessing=Preprocessing(image_size=tiny.TINY.image_size),
        )
    write_scenes(root / "data", 12, 0)
    stages = (
        StageConfig(name="base", steps=12, lr=1e-3, warmup=1, route="unadapted", trainable=("base",),
                    level_weights={"concept": 1.0}),
    )  # fmt: skip
    config = replace(tiny.tiny_config(), model="", start=str(root / "bundle" / "weights"), stages=stages)
    (root / "config.json").write_text(json.dumps(config.to_json()))


def _check_run(out: Path) -> None:
    if (out / "config.json").exists():
        TrainConfig.read(out / "config.json")
    if (out / "last.pt").exists():
        RunFolder(out).load()
    if (out / "weights" / "model.json").exists():
        load_model(out / "weights")


def _check_bundle(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        Bundle.open(out).verify()


def _check_scenes(out: Path) -> None:
    if (out / ANNOTATIONS).exists():
        read_annotations(out / ANNOTATIONS)


def _check_results(out: Path) -> None:
    if (out / RESULTS).exists():
        read_results(out / RESULTS)


VERBS = {
    "export onnx": Verb(
        lambda root: ["export", str(root / "bundle"), "--to", "onnx", "--precision", "fp16", "--pairs", "6",
                      "--overwrite", "--out"],
        _check_bundle,
        ("weights/*", "*/*.onnx", "tokenizer.json"),
    ),
    "export eager": Verb(
        lambda root: ["export", str(root / "bundle"), "--to", "eager", "--precision", "fp32", "--pairs", "6",
                      "--overwrite", "--out"],
        _check_bundle,
        ("weights/*", "*/*.onnx", "tokenizer.json"),
    ),
    "quantize": Verb(
        lambda root: ["quantize", str(root / "bundle"), "--data", str(root / "data"), "--no-sensitivity",
                      "--pairs", "6", "--overwrite", "--out"],
        _check_bundle,
        ("weights/*", "*/*.onnx", "quant/*.safetensors"),
    ),
    "train": Verb(
        lambda root: ["train", str(root / "config.json"), "--tokenizer", str(root / "bundle/tokenizer.json"),
                      "--device", "cpu", "--out"],
        _check_run,
        ("weights/*.safetensors", "tokenizer.json"),
    ),
    "scenes": Verb(lambda root: ["scenes", "--count", "40"], _check_scenes, ("images/*", ANNOTATIONS)),
    "benchmark": Verb(
        lambda root: ["benchmark", "--model", str(root / "plain"), "--threads", "1", "--level", "simple",
                      "--device", "cpu", "--out"],
        _check_results,
        (),
    ),
}  # fmt: skip


def _child(arguments: list[str], log: Path, most_bytes: int | None) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    shown = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(shown, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Random weights keep no limits, and a row of minutes is none for a case of seconds.
    for precision in agreement.LIMITS:
        agreement.LIMITS[precision] = _ANY
    runner.BUDGETS["quick"] = {"queries": 8, "seconds": 0, "pairs": 6, "starts": 1, "scenes": 2}
    sys.exit(main(arguments))


def run(
    arguments: list[str],
    log: Path,
    limit: float,
    *,
    kill: Callable[[], bool] = lambda: False,
    number: int = signal.SIGKILL,
    most_bytes: int | None = None,
) -> Ended:
    """Runs a command until it ends or `kill`, asked every millisecond, says so; code None: too long.

    It is ended by the signal `number`, for which a run has `STOP` seconds.
    """
    busy, killed = _busy(), False
    process = _FORK.Process(target=_child, args=(arguments, log, most_bytes))
    start = time.monotonic()
    process.start()
    while process.is_alive() and not (killed := kill()) and time.monotonic() - start < limit * busy:
        time.sleep(0.001)
    if killed and number != signal.SIGKILL and process.pid is not None:
        os.kill(process.pid, number)
        process.join(STOP * busy)
        killed = False
    late = process.is_alive() and not killed
    process.kill()
    process.join()
    said = log.read_text(errors="replace") if log.exists() else ""
    return Ended(None if late else process.exitcode, said, time.monotonic() - start)


def _busy() -> float:
    """What limits are multiplied by: others may want this machine's cores too."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _own(log: Path) -> list[psutil.Process]:
    """Processes that still write to the log of a killed run: its children, whoever their parent is now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.readlink(f"/proc/{process.pid}/fd/2") == str(log):
                found.append(process)
    return found


def _left_running(log: Path) -> int:
    """How many processes of a killed run stay longer than the patience; they are ended here."""
    end = time.monotonic() + PATIENCE
    while (left := _own(log)) and time.monotonic() < end:
        time.sleep(0.1)
    for process in left:
        process.kill()
    return len(left)


def _temporary(out: Path) -> list[str]:
    """Names that only a file or folder in the making has, in OUT and beside it."""
    beside = list(out.parent.glob(f".{out.name}.*")) + list(out.parent.glob("tmp*"))
    return [str(path) for path in (*beside, *out.rglob(".*.part")) if path.exists()]


def _content(out: Path, patterns: tuple[str, ...]) -> dict[str, str]:
    files = (path for pattern in patterns for path in sorted(out.glob(pattern)) if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextlib.contextmanager
def _disk(root: Path, options: str) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(dir=root))
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _mounts(root: Path) -> bool:
    """Whether this process may mount: root may, except in most containers."""
    try:
        with _disk(root, "size=4k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


class Campaign:
    """Cases by verb and by way of ending it, with what each undisturbed run takes and gives."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random, self.mounts = root, random.Random(seed), _mounts(root)
        self.cases: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}
        self.bytes: dict[str, int] = {}
        self.wanted: dict[str, dict[str, str]] = {}

    def measure(self, name: str) -> None:
        """Runs a verb undisturbed: how long it takes, how much it writes, and what it gives."""
        out = Path(tempfile.mkdtemp(dir=self.root)) / "out"
        ended = run([*VERBS[name].arguments(self.root), str(out)], self.root / "log", 600)
        if ended.code != 0:
            raise SystemExit(f"{name} fails undisturbed: {ended.said}")
        self.seconds[name] = ended.seconds
        self.bytes[name] = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        self.wanted[name] = _content(out, VERBS[name].equal)

    def case(self, name: str, way: str) -> None:
        """One case; a run that ended before its kill does not count."""
        if way in ("full", "read-only") and self.mounts:
            size = int(self.random.uniform(0.02, 1.0) * self.bytes[name]) if way == "full" else 1 << 30
            with _disk(self.root, f"size={max(size, 4096)}" + (",ro" * (way == "read-only"))) as place:
                self._case(name, way, place / "out", disk=place)
        elif way != "read-only":
            self._case(name, way, Path(tempfile.mkdtemp(dir=self.root)) / "out")

    def _case(self, name: str, way: str, out: Path, disk: Path | None = None) -> None:
        verb, log, killed = VERBS[name], self.root / "log", way in ("kill", "write", "stop")
        command = [*verb.arguments(self.root), str(out)]
        limit = 120 + 20 * self.seconds[name]
        replaces = killed and "--overwrite" in command and self.random.random() < 0.5
        if replaces:
            shutil.copytree(self.root / "plain", out)
        moment = time.monotonic() + self.random.uniform(0.0, 0.9) * self.seconds[name]
        number, most = signal.SIGKILL, None
        if way == "stop":
            number = self.random.choice((signal.SIGTERM, signal.SIGINT))
            moment += 0.2  # until the command line is there to take it
        if way in ("kill", "stop"):
            first = run(command, log, limit, kill=lambda: time.monotonic() >= moment, number=number)
        elif way == "write":
            pause = self.random.uniform(0, 0.02)

            def writing() -> bool:
                if time.monotonic() < moment or not _temporary(out):
                    return False
                time.sleep(pause)
                return True

            first = run(command, log, limit, kill=writing)
        else:
            if disk is None:
                most = int(self.random.uniform(0.0, 1.0) * self.bytes[name] / 4)
            first = run(command, log, limit, most_bytes=most)
        paused = way == "stop" and "paused, the same command goes on" in first.said
        if first.code == 0 and not paused:
            return  # it was done before
        problems = []
        if first.code is None:
            problems.append(f"still there after {limit:.0f} s")
        if first.code is not None and first.code not in ((-number, 128 + number, 0) if killed else (1,)):
            problems.append(f"exit code {first.code}")
        if first.traceback:
            problems.append("a traceback")
        if left := _left_running(log):
            problems.append(f"{left} processes stay")
        try:
            verb.check(out)
        except (Sam3iError, OSError) as error:
            problems.append(f"lost: {error}")
        if replaces and not out.exists() and not list(out.parent.glob(f".{out.name}.*.old")):
            problems.append("lost: the bundle that was there")
        if disk is not None:
            subprocess.run(["mount", "-o", "remount,rw,size=1g", str(disk)], check=True)
        second = run(command, log, limit)
        if second.code != 0:
            problems.append(f"the same command again: exit code {second.code}")
        elif second.traceback:
            problems.append("a traceback of the second run")
        else:
            verb.check(out)
            if (found := _content(out, tuple(self.wanted[name]))) != self.wanted[name]:
                different = sorted(
                    key for key in self.wanted[name] if found.get(key) != self.wanted[name][key]
                )
                problems.append(f"other content: {', '.join(different)}")
            if temporary := _temporary(out):
                problems.append(f"left behind: {', '.join(Path(path).name for path in temporary)}")
        case = {"verb": name, "way": way, "seconds": round(first.seconds, 2), "problems": problems}
        if problems:
            case["said"] = [first.said[-2000:], second.said[-2000:]]
        self.cases.append(case)
        shown = "; ".join(problems) or ("ok" if killed else f"ok: {first.said.strip()[-160:]}")
        print(f"{len(self.cases)} {name} {way} {first.seconds:.1f} s: {shown}", file=sys.stderr, flush=True)


def table(cases: list[dict[str, Any]]) -> str:
    """The cases as a table by verb: each way, the tracebacks, what was lost, and how many failed."""
    lines = [f"| verb | {' | '.join(WAYS)} | tracebacks | lost files | failed |", "|---" * 9 + "|"]
    for name in (*VERBS, "all"):
        mine = [case for case in cases if name in (case["verb"], "all")]
        count = Counter(case["way"] for case in mine)
        said = [problem for case in mine for problem in case["problems"]]
        numbers = (
            *(count[way] for way in WAYS),
            sum("traceback" in problem for problem in said),
            sum(problem.startswith("lost") for problem in said),
            sum(bool(case["problems"]) for case in mine),
        )
        lines.append(f"| {name} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines) + "\n"


def campaign() -> int:
    """Reads the command line and runs cases until the time is over."""
    parser = argparse.ArgumentParser(description="Kills the verbs that write, at random moments.")
    parser.add_argument("--minutes", type=float, default=12, help="of all cases together")
    parser.add_argument("--cases", type=int, default=10**6, help="most cases")
    parser.add_argument("--verb", action="append", choices=VERBS, help="may be given again; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file of the cases; the table is printed")
    given = parser.parse_args()
    verbs = given.verb or list(VERBS)
    with tempfile.TemporaryDirectory(prefix="kill-campaign-") as folder:
        root = Path(folder)
        maker = _FORK.Process(target=_fixtures, args=(root,))
        maker.start()
        maker.join()
        if maker.exitcode:
            return 1
        found = Campaign(root, given.seed)
        end = time.monotonic() + 60 * given.minutes
        for name in verbs:
            found.measure(name)
            print(f"{name}: {found.seconds[name]:.1f} s undisturbed", file=sys.stderr, flush=True)
        while time.monotonic() < end and len(found.cases) < given.cases:
            (way,) = found.random.choices(list(WAYS), list(WAYS.values()))
            (name,) = found.random.choices(verbs, [1 / found.seconds[verb] for verb in verbs])  # equal shares
            found.case(name, way)
        if given.out is not None:
            summary = {"seed": given.seed, "minutes": given.minutes, "seconds": found.seconds}
            write_whole(given.out, json.dumps({**summary, "cases": found.cases}, indent=1) + "\n")
        print(table(found.cases), end="")
    return int(any(case["problems"] for case in found.cases))


if __name__ == "__main__":
    sys.exit(campaign())
