from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sam3i_edge
from sam3i_edge.agreement import LIMITS
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.cli.app import main
from sam3i_edge.data.annotations import write_scenes
from sam3i_edge.install_hint import install_hint
from sam3i_edge.quantize.spec import QuantSpec


@pytest.fixture
def arguments(exported, scenes, rough, tmp_path) -> list[str]:
    """A whole run of the command but for its tracing."""
    out = str(tmp_path / "out")
    options = ["-o", out, "--data", str(scenes), "--no-sensitivity", "--pairs", "12"]
    return ["quantize", str(exported.bundle), *options]


def test_a_bundle_is_quantized_and_json_says_how(arguments, exported, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*arguments, "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["bundle"], found["variant"]) == (str(out), "onnx-int8")
    assert found["agreement"]["pairs"] == 12
    assert found["report"]["kept_float"] == []
    assert "calibrating on" in shown.err
    manifest = Bundle.open(out).manifest
    assert list(manifest.variants) == [*exported.manifest.variants, "onnx-int8"]
    spec = QuantSpec.load(out / "quant" / "int8.safetensors")
    assert manifest.variants["onnx-int8"].agreement["equal_layers"] == len(spec.layers)
    assert spec.notes["calibration"]["images"] == 12
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    # Once more: nothing is replaced unasked, and the same figures come out.
    assert main(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agreement"] == found["agreement"]


def test_a_quantized_model_from_training_is_taken_as_it_is(quantized, rough, tmp_path, capsys):
    bundle, out = quantized.bundle.root, tmp_path / "out"
    file = bundle / "quant" / "int8.safetensors"
    arguments = ["quantize", str(bundle), "--from", str(file), "-o", str(out), "--pairs", "12"]
    assert main(arguments) == 0
    assert "variant onnx-int8; against the float model on 12 pairs" in capsys.readouterr().out
    given, kept = quantized.spec, QuantSpec.load(out / "quant" / "int8.safetensors")
    assert (kept.layers, kept.notes) == (given.layers, given.notes)
    assert kept.tensors.keys() == given.tensors.keys()
    assert all(torch.equal(value, kept.tensors[name]) for name, value in given.tensors.items())
    assert main([*arguments, "--overwrite", "--keep-float", "text_encoder.*"]) == 2
    assert "--from takes a quantized model as it is" in capsys.readouterr().err


def test_a_model_that_disagrees_leaves_with_1_and_a_picture(arguments, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(LIMITS, "int8", replace(LIMITS["int8"], min_iou=1.0))
    assert main(arguments) == 1
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("sam3i-edge: int8: 1 - min_iou: ")
    assert "the worst pair is number" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx-int8.worst-pair.png"]


def test_few_pictures_leave_with_1(float_bundle, tmp_path, capsys):
    write_scenes(tmp_path / "few", count=2, seed=0)
    out = str(tmp_path / "out")
    assert main(["quantize", str(float_bundle.root), "-o", out, "--data", str(tmp_path / "few")]) == 1
    assert "calibration got 2 images" in capsys.readouterr().err
    assert main(["quantize", str(float_bundle.root), "-o", out, "--data", str(tmp_path / "none")]) == 1
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "int3"], "unknown recipe 'int3'; choose from int8, int8w, int4"),
        (["--keep-float", "nothing.*"], "'nothing.*' fits no layer"),
        (["--pairs", "0"], "pairs"),
        (["--calibration-pairs", "7"], "calibration-pairs"),
        (
            ["--from", "x.safetensors", "--calibration-pairs", "9"],
            "--sensitivity and --calibration-pairs",
        ),
        (["--from", "x.safetensors", "--data", "data"], "--from takes a quantized model as it is"),
    ],
)
def test_wrong_arguments_leave_with_2(float_bundle, tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    assert main(["quantize", str(float_bundle.root), "-o", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_an_unknown_bundle_leaves_with_2_and_one_without_weights_with_1(tiny_bundle, tmp_path, capsys):
    out = ["-o", str(tmp_path / "out")]
    assert main(["quantize", str(tmp_path / "nowhere"), *out]) == 2
    assert main(["quantize", str(tiny_bundle.root), *out]) == 1
    assert "has no float weights to export" in capsys.readouterr().err


def test_without_torch_the_message_says_what_to_install(tmp_path):
    # A module set to None raises when it is imported, as if it were not installed.
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from sam3i_edge.cli.app import main\n"
        f"sys.exit(main(['quantize', 'sam3i-nano', '-o', {str(tmp_path / 'out')!r}]))"
    )
    root = Path(next(iter(sam3i_edge.__path__))).parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 1
    assert done.stderr == (f"sam3i-edge: 'sam3i-edge quantize' needs torch: {install_hint('export')}\n")
