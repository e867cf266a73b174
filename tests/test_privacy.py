"""No verb that people run every day connects anywhere, or leaves a file that was not asked for."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sam3i_edge.bundle.folder import Bundle

# Imported by every Python below: each connection and each name that is looked up becomes a line.
WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["CONNECTIONS"], "a") as log:
            log.write(f"{event} {arguments[-1] if event == 'socket.connect' else arguments[0]}\\n")
sys.addaudithook(watch)
"""
UNSET = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")


@pytest.fixture
def watched(tmp_path):
    """Runs Python in a home of its own: the process, the connections it made, the files it left there."""
    home, hook, log = tmp_path / "home", tmp_path / "hook", tmp_path / "connections"
    home.mkdir()
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(WATCH)
    keep = {k: v for k, v in os.environ.items() if k not in UNSET and not k.startswith("XDG_")}

    def run(*arguments):
        log.write_text("")
        path = os.pathsep.join([str(hook), os.path.dirname(os.path.dirname(__file__))])
        env = {**keep, "HOME": str(home), "PYTHONPATH": path, "CONNECTIONS": str(log)}
        done = subprocess.run(
            [sys.executable, *arguments], env=env, capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done, log.read_text().splitlines(), [p for p in home.rglob("*") if p.is_file()]

    return run


def test_the_watch_sees_a_connection_and_a_file(watched):
    code = (
        "import pathlib, socket\npathlib.Path('~/left').expanduser().write_text('')\n"
        "s = socket.socket()\ns.settimeout(1)\nprint(s.connect_ex(('127.0.0.1', 9)))"
    )
    _, connections, files = watched("-c", code)
    assert [line.split()[0] for line in connections] == ["socket.connect"]
    assert [path.name for path in files] == ["left"]


@pytest.mark.parametrize("verb", ["segment", "doctor", "info"])
def test_a_verb_connects_nowhere_and_leaves_nothing(watched, tmp_path, verb):
    Image.fromarray(np.full((60, 80, 3), 240, np.uint8)).save(tmp_path / "a.png")
    rest = ["a.png", "red star", "--threads", "1"] if verb == "segment" else []
    done, connections, files = watched("-m", "sam3i_edge", verb, *rest, "--json")
    assert json.loads(done.stdout)
    assert connections == []
    assert files == []


def test_export_and_every_runtime_start_silent(watched):
    # What the verbs for conversion import, in a process that imports the package as they do.
    for module in ("export.onnx.graph_file", "export.openvino.ir", "runtimes.ov", "quantize.ptq"):
        pytest.importorskip("openvino")
        _, connections, files = watched("-c", f"import sam3i_edge.{module}")
        assert (connections, files) == ([], [])


@pytest.mark.slow
def test_a_whole_export_connects_nowhere_and_leaves_nothing(watched, exported, tmp_path):
    pytest.importorskip("openvino")
    _, connections, files = watched(
        *("-m", "sam3i_edge", "export", str(exported.bundle), "--out", str(tmp_path / "out")),
        *("--to", "onnx,openvino", "--precision", "fp32", "--pairs", "6"),
    )
    assert {"onnx-fp32", "openvino-fp32"} <= Bundle.open(tmp_path / "out").manifest.variants.keys()
    assert connections == []
    assert files == []


def test_onnxruntimes_own_threads_are_told_before_it_is_imported(watched):
    # They ask no socket of Python's, so the variable is what can be seen without a tracer.
    code = (
        "import sam3i_edge, os, sys\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    )
    done, _, _ = watched("-c", code)
    assert done.stdout.split() == ["1", "1"]


def test_what_the_user_set_stays():
    code = "import os, sam3i_edge; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    env = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=env).strip() == "0"
