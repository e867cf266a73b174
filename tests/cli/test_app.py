"""How the command line leaves: exit codes, one line on stderr, nothing half-written."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import sam3i_edge
from sam3i_edge.cli import app as cli
from sam3i_edge.cli.app import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder with one picture, star.png."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(
        tmp_path / "star.png"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _lines(text):
    return text.strip().splitlines()


VERBS = ("segment", "info", "demo", "doctor", "scenes", "evaluate", "bundle", "export", "train")


def test_help_lists_every_verb(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb in (*VERBS, "convert", "quantize", "benchmark", "compare"):
        assert f" {verb} " in shown


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_json_and_help(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sam3i-edge {sam3i_edge.__version__}\n"


def test_nothing_asked_shows_help_and_is_wrong_usage(capsys):
    assert main([]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fly"], 2, "No such command 'fly'"),
        (["segment"], 2, "Missing argument"),
        (["segment", "star.png", "star", "--nope"], 2, "No such option"),
        (["segment", "star.png", "star", "--threads", "0"], 2, "--threads"),
        *(
            ([verb, *arguments, "--threads", "99999999"], 2, "threads must be 1 to 1,024, got 99,999,999")
            for verb, *arguments in (
                ("segment", "star.png", "star"),
                ("demo",),
                ("evaluate", "sam3i-nano"),
                ("benchmark",),
            )
        ),
        (["segment", "star.png", "star", "--threshold", "x"], 2, "--threshold"),
        (["segment", "star.png", "star", "--threshold", "1.1"], 2, "--threshold"),
        (["segment", "star.png", "star", "--level", "hard"], 2, "unknown level 'hard'; choose from concept"),
        (
            ["segment", "star.png", "star", "--device", "tpu"],
            2,
            "unknown device 'tpu'; this version has auto, jetson",
        ),
        (["segment", "star.png", "star", "--device", "jetson"], 1, "device 'jetson' is not on this machine"),
        (["segment", "star.png", "star", "--model", "nope"], 2, "unknown model 'nope'"),
        (["segment", "star.png", "star", "--model", "."], 1, "is no bundle"),
        (["segment", "star.png", "star", "--precision", "int8"], 1, "at int8; it has"),
        (["segment", "star.png", " "], 2, "the instruction is empty"),
        (["segment", "star.png", "word " * 10_000], 2, "at most 10,000 are allowed"),
        (["segment", "no.png", "star"], 1, "no image at 'no.png'"),
        (["segment", "empty.png", "star"], 1, "empty, 0 bytes"),
        (["segment", "cut.png", "star"], 1, "cut.png: truncated or damaged"),
        (["segment", "text.png", "star"], 1, "not an image"),
        (["segment", "star.png", "star", "-o", "out.gif"], 2, "or a name ending in"),
        (["segment", "star.png", "star", "-o", "no/out.png"], 1, "make the folder 'no' first"),
        (["segment", "star.png", "star", "-o", "out.gif", "--model", "nope"], 2, "or a name ending in"),
        (["info", "nope"], 2, "unknown model 'nope'"),
        (["scenes", "out", "--count", "0"], 2, "--count"),
        (["scenes", ".", "--count", "1"], 1, "is not empty"),
        (["evaluate", "nope", "--data", "."], 1, "annotations.json"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(folder, tiny_bundle, capsys, arguments, code, message):
    whole = (folder / "star.png").read_bytes()
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("not an image")
    before = sorted(folder.iterdir())
    if arguments[0] == "segment" and "--model" not in arguments and len(arguments) > 2:
        arguments = [*arguments, "--model", str(tiny_bundle.root)]
    assert main(arguments) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(_lines(shown.err)) == 1
    assert shown.err.startswith("sam3i-edge: ")
    assert message in shown.err
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (
            lambda root: (root / "onnx-fp32" / "detector.onnx").write_bytes(
                (root / "onnx-fp32" / "detector.onnx").read_bytes()[:-1] + b"?"
            ),
            "detector.onnx was changed",
        ),
        (lambda root: (root / "bundle.json").write_text('{"schema_version": 9}'), "schema version 9"),
        (lambda root: (root / "bundle.json").write_text('{"schema'), "damaged or no manifest"),
        (
            lambda root: (root / "bundle.json").write_text(
                (root / "bundle.json").read_text().replace('"LICENSE": {', '"../LICENSE": {')
            ),
            "'LICENSE'",
        ),
    ],
    ids=["missing", "flipped", "newer", "cut", "leaves"],
)
def test_damaged_bundle(folder, tiny_bundle, capsys, damage, message):
    copy = shutil.copytree(tiny_bundle.root, folder / "copy")
    damage(copy)
    for arguments in (["segment", "star.png", "star", "-m", "copy"], ["info", "copy", "--verify"]):
        assert main(arguments) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        assert len(_lines(shown.err)) == 1
        assert message in shown.err
    assert sorted(path.name for path in folder.iterdir()) == ["copy", "star.png"]


def test_debug_shows_the_traceback_before_the_line(folder):
    command = [sys.executable, "-m", "sam3i_edge", "segment", "no.png", "star", "--model", "nope"]
    for logs, traceback in (("debug", True), ("warning", False)):
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(SAM3I_LOG=logs))
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) == traceback
        assert _lines(done.stderr)[-1].startswith("sam3i-edge: no image at")


def test_log_level_is_checked(monkeypatch, capsys):
    monkeypatch.setenv("SAM3I_LOG", "loud")
    assert main(["--version"]) == 2
    assert "SAM3I_LOG must be debug, info, warning, got 'loud'" in capsys.readouterr().err


def test_an_interruption_is_130(monkeypatch, tmp_path, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sam3i_edge.data.annotations.draw_scene", interrupted)
    assert main(["scenes", str(tmp_path / "out"), "--count", "1"]) == 130
    assert capsys.readouterr().err.endswith("sam3i-edge: interrupted\n")


def test_a_real_interruption_is_130_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "sam3i_edge", "scenes", str(tmp_path / "out"), "--count", "100000"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
        # A shell that starts this test in the background has its children ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list(tmp_path.glob("out/images/*.png")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert shown.endswith("sam3i-edge: interrupted\n")
    assert "Traceback" not in shown
    assert not (tmp_path / "out" / "annotations.json").exists()


@pytest.mark.parametrize("more", [["--json"], []], ids=["json", "people"])
def test_a_closed_pipe_ends_quietly(tiny_bundle, more):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sam3i_edge", "info", str(tiny_bundle.root), *more]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, env=_environment())
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


def test_module_and_command_are_the_same():
    shown = subprocess.check_output(
        [sys.executable, "-m", "sam3i_edge", "--version"], text=True, env=_environment()
    )
    assert shown == f"sam3i-edge {sam3i_edge.__version__}\n"


def test_an_error_of_the_program_itself_is_said_to_be_one(monkeypatch, capsys):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("sam3i_edge.data.annotations.write_scenes", broken)
    assert main(["scenes", "never"]) == 1
    assert "please report it (ZeroDivisionError" in capsys.readouterr().err


def test_a_message_of_several_lines_becomes_one(monkeypatch, capsys):
    assert cli._report("a\n  b\tc", 1) == 1
    assert capsys.readouterr().err == "sam3i-edge: a b c\n"


def _environment(**more):
    """This process's environment, able to import the package that is tested here."""
    root = os.path.dirname(next(iter(sam3i_edge.__path__)))
    return {**os.environ, "PYTHONPATH": root, **more}


def test_json_is_ascii_and_one_line(folder, tiny_bundle, capsys):
    assert main(["segment", "star.png", "caf\u00e9", "--json", "-m", str(tiny_bundle.root)]) == 0
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert shown.count("\n") == 1
    assert json.loads(shown)["instruction"] == "caf\u00e9"


def _fails_with(error, monkeypatch):
    def fail(**_):
        raise error

    monkeypatch.setattr(cli, "app", fail)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModuleNotFoundError("No module named 'torch'"), 1, "a package is missing .*'torch'.*doctor"),
        (MemoryError(), 1, "memory of this machine"),
        (PermissionError(13, "Permission denied", "/out"), 1, "Permission denied: '/out'"),
        (RuntimeError("no such thing"), 1, "please report it .RuntimeError: no such thing.*SAM3I_LOG=debug"),
        (KeyError("x"), 1, "please report it .KeyError"),
    ],
)
def test_whatever_happens_leaves_as_one_line(monkeypatch, capsys, error, code, words):
    _fails_with(error, monkeypatch)
    assert main(["info"]) == code
    (line,) = _lines(capsys.readouterr().err)
    assert re.search(words, line)


def test_a_fault_keeps_its_traceback_for_whoever_asks(monkeypatch, capsys, caplog):
    _fails_with(RuntimeError("no such thing"), monkeypatch)
    monkeypatch.setenv("SAM3I_LOG", "debug")
    assert main(["info"]) == 1
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437"])
def test_an_instruction_that_the_terminal_lacks_costs_no_result(folder, encoding):
    command = [
        sys.executable,
        "-m",
        "sam3i_edge",
        "segment",
        "star.png",
        "\u661f red star \u2605",
        "--threads",
        "1",
    ]
    env = {**os.environ, "PYTHONIOENCODING": encoding, "LANG": "C", "LC_ALL": "C"}
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\u661f" in done.stdout
    assert (folder / "star-segmented.png").is_file()


def test_a_pipe_that_closes_leaves_no_traceback(folder):
    command = f"{sys.executable} -m sam3i_edge info | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
