"""The step of the GPU day that runs the kernels' tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

from gpu_run import ROOT, Run


def tests(run: Run) -> None:
    """The kernel tests, forward and backward in all dtypes, against the definitions in float64.

    Nearly all their time is Triton's compiler, so they are dealt out to as many processes as there are cores.
    """
    folder, place = ROOT / "tests" / "kernels", run.rows.parent
    # Settings of its own: the project's name plugins and a version that a bare machine lacks.
    settings = place / "pytest.ini"
    settings.write_text("[pytest]\naddopts = --import-mode=importlib\nmarkers = slow\nxfail_strict = true\n")
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(settings), "--rootdir", str(ROOT)]
    command += ["--confcutdir", str(folder), "-p", "no:cacheprovider"]
    names = ("box_attention", "adapter_cross_attention", "adapter_mlp", "int8_linear", "int4_linear")
    names = ("adapter_mlp",) if run.dry_run else (*names, "compile", "dispatch")
    files = [str(folder / f"test_{name}.py") for name in names]
    some = ["-k", "closed_gates"] if run.dry_run else []
    listed = subprocess.run(
        [*command, "--collect-only", *files, *some], capture_output=True, text=True, check=False
    )
    ids = [line for line in listed.stdout.splitlines() if "::" in line]
    if listed.returncode or not ids:
        sys.exit(f"pytest found no tests: {(listed.stdout + listed.stderr).strip()[-300:]}")
    cores = min(os.cpu_count() or 1, len(ids))
    reports = [place / f"{number}.xml" for number in range(cores)]
    started = [
        subprocess.Popen([*command, f"--junitxml={report}", *ids[number::cores]])
        for number, report in enumerate(reports)
    ]
    # What runs too long is interrupted, and pytest reports what it ran; or killed, before the day kills all.
    for last, ends in ((run.end, signal.SIGINT), (run.end + 8, signal.SIGKILL)):
        for process in started:
            try:
                process.wait(max(0.0, last - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.send_signal(ends)
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        rows[name] = {"file": name, "passed": 0, "skipped": 0, "failed": 0, "failures": {}}
    unknown = Counter(Path(one.split("::")[0]).stem.removeprefix("test_") for one in ids)
    for process, report in zip(started, reports, strict=True):
        process.wait()
        for case in ET.parse(report).getroot().iter("testcase") if report.exists() else ():
            name = case.get("classname", "").rpartition(".test_")[2]
            if name not in rows:  # of a process that was stopped while it read the tests
                continue
            bad = [one for one in case if one.tag in ("failure", "error")]
            skipped = any(one.tag == "skipped" for one in case)
            rows[name]["failed" if bad else "skipped" if skipped else "passed"] += 1
            unknown[name] -= 1
            if bad:
                rows[name]["failures"][case.get("name")] = (bad[0].get("message") or "").strip()[:300]
    for name, row in rows.items():
        run.row(**row, **({"problem": f"{unknown[name]} did not run"} if unknown[name] else {}))
    failed, left = sum(row["failed"] for row in rows.values()), sum(unknown.values())
    if failed or left:
        sys.exit(f"{failed} kernel tests failed, {left} did not run")
