from __future__ import annotations

import json

import pytest

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.cli.app import main
from sam3i_edge.export import targets
from sam3i_edge.install_hint import install_hint


def test_list_names_targets_and_precisions(capsys):
    assert main(["export", "--list"]) == 0
    assert capsys.readouterr().out == (
        "targets: onnx, eager, openvino, coreml\nprecisions: fp32, fp16, int8, int8w, int4, int8-bf16\n"
    )
    assert main(["export", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["targets"] == ["onnx", "eager", "openvino", "coreml"]


def test_a_table_at_the_end_and_1_where_a_variant_failed(float_bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(targets._WRITERS, "openvino", ("no_such_framework", "write", "export,openvino"))
    out = tmp_path / "out"
    arguments = ["export", str(float_bundle.root), "-o", str(out), "--precision", "fp32", "--pairs", "12"]
    assert main([*arguments, "--to", "openvino, eager"]) == 1
    shown = capsys.readouterr()
    assert "openvino fp32" in shown.err
    fine = next(row for row in shown.out.splitlines() if row.startswith("eager fp32"))
    assert fine.split() == ["eager", "fp32", "0.0", "MiB", "1.000", "1.0000", "1.000", "0.000", "0.00", "ok"]
    assert install_hint("export,openvino") in " ".join(shown.out.split())
    assert "eager-fp32" in Bundle.open(out).manifest.variants
    assert main([*arguments, "--to", "eager", "--overwrite", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["variants"]
    assert (row["variant"], row["status"]) == ("eager-fp32", "ok")
    assert row["agreement"]["pairs"] == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "tflite"], "unknown target 'tflite'; choose from onnx"),
        (["--to", "onnx", "--precision", "int3"], "unknown precision 'int3'"),
        (["--to", "eager", "--swift", "app"], "--swift goes with a Core ML variant: add coreml to --to"),
        ([], "a training run needs --license"),
    ],
)
def test_wrong_arguments_leave_with_2(float_bundle, tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    assert main(["export", str(float_bundle.root), "-o", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_precision_without_a_quantized_model_says_how_to_make_one(float_bundle, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["export", str(float_bundle.root), "-o", str(out), "--to", "onnx", "--precision", "int4"]) == 1
    )
    assert "--recipe int4" in capsys.readouterr().err
