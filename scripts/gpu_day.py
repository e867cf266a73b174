"""Everything that only a GPU can tell, in one command of nine minutes, on a machine with torch and Triton.

    python3 scripts/gpu_day.py --out result.json [--tune] [--only table.box_attention] [--seconds 540]
    python3 scripts/gpu_day.py --out result.json --dry-run    # the whole way on a CPU, at tiny sizes

In this order: the kernel tests; each operator beside eager, torch.compile and FlexAttention; the model end to
end; a training step and a loss curve; ONNX Runtime on CUDA where it is installed. Each step is a process of
its own, so that a kernel that takes the GPU down takes one step with it. The result is written whole after
every row; started again with the same --out it keeps what was done and goes on, and --only runs a step anew.
`scripts/gpu_tables.py` makes the documentation's tables of it. Exits with 1 when a step failed, with 2 where
there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 540  # of a lent machine's ten minutes
_CLOCKS = "clocks.sm,clocks.mem,power.draw,temperature.gpu"


@dataclass(frozen=True)
class Step:
    """A part of the day.

    Attributes:
        name: of the function in `gpu_steps`, a dot, and its argument.
        seconds: at most; where less is left of the day, that.
        gib: GPU memory that it takes, or it is skipped.
    """

    name: str
    seconds: int
    gib: float = 2.0


# Most valuable first: a day that is cut off ends here.
STEPS = (
    Step("tests", 150),
    Step("table.box_attention", 100, 8),
    Step("table.adapter_cross_attention", 100, 8),
    Step("table.adapter_mlp", 80, 8),
    Step("table.linear", 50),
    Step("model", 80, 12),
    Step("train.step", 80, 40),
    Step("train.curve", 40),
    Step("model.compiled", 100, 12),
    Step("onnxruntime", 30),
)
TUNE = (
    Step("tune.box_attention", 60),
    Step("tune.adapter_cross_attention", 60),
    Step("tune.adapter_mlp", 60),
    Step("tune.linear", 60),
)


def order(*, tune: bool) -> tuple[Step, ...]:
    """The steps; tiles are searched in what time is left."""
    return (*STEPS, *TUNE) if tune else STEPS


class Day:
    """The result so far; every change is written whole.

    Raises:
        ValueError: `out` holds something else than a result of this commit and this kind of run.
    """

    def __init__(self, out: Path, seconds: float, *, dry_run: bool) -> None:
        self.out, self.dry_run, self._end = out, dry_run, time.monotonic() + seconds
        self.result: dict[str, Any] = {"dry_run": dry_run, "commit": _commit(), "machine": {}, "steps": {}}
        if out.exists():
            known = json.loads(out.read_text(encoding="utf-8"))
            for key in ("dry_run", "commit"):
                if known.get(key) != self.result[key]:
                    raise ValueError(f"{key} {known.get(key)} in it, {self.result[key]} here")
            self.result |= {"machine": known["machine"], "steps": known["steps"]}

    def done(self, step: Step) -> bool:
        """Whether the result has the whole of a step."""
        return bool(self.result["steps"].get(step.name, {}).get("status") == "done")

    def write(self) -> None:
        """Writes the result under a temporary name and renames it."""
        part = self.out.with_name(f".{self.out.name}.part")
        part.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
        part.replace(self.out)

    def _keep(self, step: Step, found: dict[str, Any]) -> None:
        """Writes what a step found, unless it found more when it ran before."""
        known = self.result["steps"].get(step.name, found)
        if found["status"] == "done" or len(found["rows"]) >= len(known["rows"]):
            self.result["steps"][step.name] = found
        self.write()

    def run(self, step: Step) -> list[dict[str, Any]]:
        """Runs a step in a process of its own, and keeps its rows as they come."""
        slower = 10 if self.dry_run else 1  # the interpreter takes its time
        left = min(slower * step.seconds, self._end - time.monotonic())
        free = self.result["machine"].get("free_gib")
        found: dict[str, Any] = {"status": "skipped", "rows": []}
        if left < min(20, step.seconds / 2):
            found["problem"] = "the day's time is spent"
        elif not self.dry_run and free is not None and free < step.gib:
            found["problem"] = f"takes {step.gib:g} GiB of GPU memory, {free:.1f} are free"
        else:
            found |= {"status": "cut", "clocks": [_clocks()]}  # until it ends
            self._run(step, left, found)
            found["clocks"].append(_clocks())
        self._keep(step, found)
        problem = f": {found['problem']}" if "problem" in found else ""
        print(f"{step.name}: {found['status']}, {len(found['rows'])} rows{problem}", flush=True)
        return found["rows"]

    def _run(self, step: Step, seconds: float, found: dict[str, Any]) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # which deterministic products ask for
        if self.dry_run:
            environment["TRITON_INTERPRET"] = "1"
        with tempfile.TemporaryDirectory() as folder:
            rows, log = Path(folder) / "rows", Path(folder) / "log"
            command = [sys.executable, str(Path(__file__).with_name("gpu_steps.py")), step.name, str(rows)]
            command += [f"{0.9 * seconds:.0f}", *(["--dry-run"] if self.dry_run else [])]
            start = time.monotonic()
            with log.open("w") as output:
                child = subprocess.Popen(
                    command, stdout=output, stderr=output, env=environment, cwd=ROOT, start_new_session=True
                )
                try:
                    while child.poll() is None and time.monotonic() < start + seconds:
                        time.sleep(0.2)
                        if self._take(rows, found):
                            self._keep(step, found)
                finally:
                    cut = child.poll() is None
                    if cut:
                        os.killpg(child.pid, signal.SIGKILL)  # with what it started itself
                        child.wait()
            self._take(rows, found)
            found["seconds"] = round(time.monotonic() - start, 1)
            found["status"] = "cut" if cut else "done" if child.returncode == 0 else "failed"
            if cut:
                found["problem"] = f"stopped after {seconds:.0f} s"
            elif child.returncode:
                said = log.read_text(errors="replace").strip().splitlines()
                found["problem"] = said[-1][:400] if said else f"ended with {child.returncode}"
                found["log"] = said[-40:]

    def _take(self, rows: Path, found: dict[str, Any]) -> bool:
        """Reads the whole lines written so far; says whether there are new ones."""
        if not rows.exists():
            return False
        lines = rows.read_text(encoding="utf-8").split("\n")[:-1]
        new = len(lines) > len(found["rows"])
        found["rows"] = [json.loads(line) for line in lines]
        return new


def _clocks() -> str:
    """Clocks, power and temperature in one line, or why there are none."""
    command = ["nvidia-smi", f"--query-gpu={_CLOCKS}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"unknown ({type(error).__name__})"


def _commit() -> str:
    """What is checked out, where git is there to say so."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> int:
    """Runs the steps and says how each ended."""
    known = [step.name for step in (*STEPS, *TUNE)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="file for the result, JSON")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for everything ({SECONDS})")
    parser.add_argument("--only", action="append", choices=known, help="these steps")
    parser.add_argument("--tune", action="store_true", help="also try other tiles, in the time left")
    parser.add_argument(
        "--dry-run", action="store_true", help="on the CPU, at tiny sizes: figures mean nothing"
    )
    given = parser.parse_args()
    if not given.out.parent.is_dir():
        parser.error(f"--out {given.out}: there is no folder {given.out.parent}")
    try:
        day = Day(given.out, given.seconds, dry_run=given.dry_run)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        parser.error(f"--out {given.out} is there and cannot be gone on with ({error}): name another file")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the step that runs, too
    before = day.result["machine"].get("gpu")
    machine = day.run(Step("machine", 60))
    if not machine:
        return 2
    if before != machine[0].get("gpu", before):
        parser.error(f"--out {given.out} is of {before}, this is {machine[0]['gpu']}: name another file")
    day.result["machine"] = {"python": platform.python_version(), **machine[0]}
    day.write()
    for note in machine[0]["notes"]:
        print(note, flush=True)
    for step in order(tune=given.tune or bool(given.only)):
        if step.name in given.only if given.only else not day.done(step):
            day.run(step)
    statuses = [step["status"] for step in day.result["steps"].values()]
    return 1 if "failed" in statuses else 0


if __name__ == "__main__":
    sys.exit(main())
