"""The doctor's rows: what runs is run, what is missing is a row, what crashes is a row too."""

import json
import subprocess
import sys

import pytest

from sam3i_edge import runtimes
from sam3i_edge.cli.app import main
from sam3i_edge.devices import doctor, machine
from sam3i_edge.devices import profiles as devices
from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.install_hint import install_hint


@pytest.fixture(scope="module")
def facts():
    """What the doctor finds on the machine that runs the tests."""
    ended = subprocess.run(
        [sys.executable, "-m", "sam3i_edge", "doctor", "--json"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert len(ended.stdout.splitlines()) == 1
    return json.loads(ended.stdout)


def row_of(facts, runtime, device):
    (row,) = [row for row in facts["runtimes"] if (row["runtime"], row["device"]) == (runtime, device)]
    return row


@pytest.mark.parametrize(("runtime", "brings"), [("onnxruntime", "onnxruntime"), ("eager", "torch")])
def test_it_runs_a_graph_and_measures_time_and_error(facts, runtime, brings):
    row = row_of(facts, runtime, "cpu")
    assert row["status"] == "works"
    assert row["version"].startswith(f"{brings} ")
    assert 0 < row["run_ms"] < 1000
    assert 0 <= row["error"] < 1e-5


def test_the_default_was_tried(facts):
    assert (facts["works"], facts["default"]["device"]) == (True, facts["default"]["device"])
    assert "tried on the device" in facts["default"]["reason"]


def test_every_runtime_has_a_row_for_every_device_it_serves(facts):
    pairs = {(row["device"], row["runtime"]) for row in facts["runtimes"]}
    assert pairs == {(name, r) for name, row in devices.DEVICES.items() for r in row.runtimes}
    assert all(row["detail"] for row in facts["runtimes"] if row["status"] != "works")


@pytest.mark.skipif(sys.platform == "darwin", reason="has what it asks for")
def test_coreml_needs_macos(facts):
    row = row_of(facts, "coreml", "apple")
    assert row["status"] == "not here"
    assert row["detail"].startswith("it needs macOS")


def test_the_rest_of_what_it_tells(facts):
    assert facts["platform"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["platform"]["memory_bytes"] > 2**28
    assert facts["cache"]["folder"].endswith("sam3i-edge")
    assert isinstance(facts["offline"]["offline"], bool)
    assert {"extra", "missing", "install"} <= set(facts["extras"][0])


def test_for_people(monkeypatch, capsys, facts):
    shown = {
        **facts,
        "works": False,
        "default": {"works": False, "reason": "onnxruntime does not run on cpu"},
        "jetson": {
            "model": "NVIDIA Jetson Orin NX", "l4t": "36.4.3", "jetpack": "6.2", "power_mode": "15W"
        },
        "nvidia": {"gpu": True, "compute_capability": "8.7", "tensorrt": "10.3.0", "detail": None},
        "extras": [{"extra": "export", "missing": ["onnx"], "install": "pip install 'sam3i-edge[export]'"}],
        "problems": ["two of a kind"],
    }  # fmt: skip
    monkeypatch.setattr(doctor, "examine", lambda: shown)
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    for words in (
        "Segmenter() does not work: onnxruntime does not run on cpu",
        "JetPack 6.2 (L4T 36.4.3), power mode 15W",
        "compute capability 8.7, TensorRT 10.3.0",
        "pip install 'sam3i-edge[export]'",
        "two of a kind",
    ):
        assert words in printed


def test_exit_code_1_where_the_default_does_not_run(monkeypatch, capsys):
    def broken(runtime, device):
        raise RuntimeUnavailable(f"{runtime} does not run on {device}")

    monkeypatch.setattr(runtimes, "probe", broken)
    monkeypatch.setattr(doctor, "_measured_apart", doctor.measure)
    assert main(["doctor", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert not facts["works"]
    assert facts["default"]["reason"] == "onnxruntime does not run on cpu"
    row = row_of(facts, "onnxruntime", "cpu")
    assert (row["status"], row["detail"]) == ("fails", "onnxruntime does not run on cpu")


def test_a_runtime_that_is_not_installed_is_a_row(tmp_path):
    row = doctor._row("onnxruntime", "cpu", {}, tmp_path)
    assert (row["status"], row["version"]) == ("missing", None)
    assert row["detail"] == install_hint()
    for runtime, extra in (("openvino", "openvino"), ("eager", "train")):
        assert doctor._row(runtime, "cpu", {}, tmp_path)["detail"] == install_hint(extra)


def test_a_runtime_of_another_version_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "RUNTIMES", ())
    row = doctor._row("onnxruntime", "cpu", {"onnxruntime": "1.31.1"}, tmp_path)
    assert (row["status"], row["detail"]) == ("missing", "no part of this version")


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV, a crash in native code"),
        ("import sys; sys.exit('no kernel image is available')", "exit code 1: no kernel image is available"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
    ],
)
def test_a_process_that_dies_or_hangs_is_a_row(monkeypatch, code, detail):
    monkeypatch.setattr(doctor, "_MEASURE", code)
    monkeypatch.setattr(doctor, "_LIMIT_S", 1)
    row = doctor._measured_apart("onnxruntime", "cpu")
    assert row["status"] == "fails"
    assert detail in row["detail"]


def test_extras_name_what_is_missing_and_the_line_that_adds_it():
    rows = {row["extra"]: row for row in doctor._extras({"torch": "2.13.0"})}
    assert "dev" not in rows
    assert "torch" not in rows["export"]["missing"]
    assert "onnx" in rows["export"]["missing"]
    assert rows["export"]["install"] == install_hint("export")
    whole = {name: "1" for names in doctor._requirements().values() for name in names}
    assert all(row["missing"] == [] and row["install"] is None for row in doctor._extras(whole))


@pytest.mark.parametrize(
    ("installed", "tensorrt", "words"),
    [
        ({"onnxruntime": "1", "onnxruntime-gpu": "1"}, None, ["onnxruntime and onnxruntime-gpu overwrite"]),
        ({"opencv-python": "1", "opencv-python-headless": "1"}, None, ["package cv2"]),
        ({"onnxruntime": "1", "onnxruntime-extensions": "1", "opencv-python": "1"}, None, []),
        ({}, "10.3.0", ["NVIDIA/TensorRT#4723"]),
        ({}, "10.16.1", ["NVIDIA/TensorRT#4748"]),
        ({}, "10.13.0", []),
    ],
)
def test_known_bad_combinations(installed, tensorrt, words):
    problems = doctor._problems(installed, tensorrt)
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


@pytest.mark.parametrize(
    ("environment", "offline"),
    [
        ({}, False),
        ({"HF_HUB_OFFLINE": "1"}, True),
        ({"HF_HUB_OFFLINE": "0"}, False),
        ({"TRANSFORMERS_OFFLINE": "yes"}, True),
    ],
)
def test_offline_is_read_as_the_hub_reads_it(environment, offline):
    assert doctor._offline(environment)["offline"] is offline


CPUINFO_X86 = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu avx2 f16c avx512f avx512_vnni avx512_bf16 amx_bf16 amx_int8
"""
CPUINFO_ARM = """processor\t: 0
Features\t: fp asimd evtstrm aes fphp asimdhp asimddp
CPU part\t: 0xd42
"""


def test_features_of_processors(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO_X86)
    found = machine.inspect(tmp_path)
    assert found.processor == "Intel(R) Xeon(R) Platinum 8480+"
    assert found.features["AVX-512 VNNI"]
    assert found.features["AMX INT8"]
    assert not found.features["AVX VNNI"]
    assert 0 < found.available_bytes < found.memory_bytes
    (tmp_path / "proc/cpuinfo").write_text(CPUINFO_ARM)
    found = machine.inspect(tmp_path)
    assert found.features == {
        "NEON": True,
        "NEON dotprod": True,
        "NEON FP16": True,
        "I8MM": False,
        "BF16": False,
        "SVE": False,
    }


def test_a_machine_that_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    found = machine.inspect(tmp_path)
    assert found.features == {}
    assert found.cores == machine.usable_cores()


def test_macos_is_asked_by_sysctl(tmp_path, monkeypatch):
    answers = {"machdep.cpu.brand_string": "Apple M4"}
    answers |= {
        "hw.optional.AdvSIMD": "1",
        "hw.optional.arm.FEAT_DotProd": "1",
        "hw.optional.arm.FEAT_BF16": "0",
    }
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(machine, "_sysctl", answers.get)
    found = machine.inspect(tmp_path)
    assert found.processor == "Apple M4"
    assert found.features == {"NEON": True, "NEON dotprod": True, "BF16": False}
