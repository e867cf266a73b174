from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from sam3i_edge.agreement import LIMITS, Limits
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.cli.app import main
from sam3i_edge.export import quantized_bundle
from sam3i_edge.export.quantized_bundle import post_training
from sam3i_edge.export.targets import TARGETS
from sam3i_edge.install_hint import install_hint

ANY = Limits(same_count=0, mean_iou=0, min_iou=0, score=None, box_px=None)


def test_list_is_a_matrix_with_what_each_target_needs(capsys):
    assert main(["export", "--list"]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[1:]}
    assert rows["target"][1:7] == ["fp32", "fp16", "int8", "int8w", "int4", "int8-bf16"]
    assert rows["onnx"][1:8] == ["yes"] * 5 + ["-", "onnxruntime"]
    assert rows["openvino"][1:8] == ["yes"] * 6 + ["openvino"]
    assert " ".join(rows["coreml"]).endswith(install_hint("export,coreml"))
    assert main(["export", "--list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["targets"]) == ["onnx", "eager", "openvino", "coreml", "litert"]
    assert found["targets"]["openvino"]["precisions"] == found["precisions"]


def test_a_table_at_the_end_and_1_where_a_variant_failed(float_bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(TARGETS, "openvino", replace(TARGETS["openvino"], module="no_such_framework"))
    out = tmp_path / "out"
    arguments = ["export", str(float_bundle.root), "-o", str(out), "--precision", "fp32", "--pairs", "12"]
    assert main([*arguments, "--to", "openvino, eager"]) == 1
    shown = capsys.readouterr()
    assert "writing openvino at fp32" in shown.err
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
        (["--recipe", "int3"], "unknown recipe 'int3'; choose from int8"),
        (["--license", "LICENSE"], "'sam3i-edge bundle RUN --license FILE -o BUNDLE' makes a bundle"),
    ],
)
def test_wrong_arguments_leave_with_2(float_bundle, tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    assert main(["export", str(float_bundle.root), "-o", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_each_verb_names_the_other(float_bundle, tmp_path, capsys):
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    (run / "weights" / "model.json").write_text("{}")
    assert main(["export", str(run), "-o", str(tmp_path / "out")]) == 2
    assert "sam3i-edge bundle RUN" in capsys.readouterr().err
    given = ["bundle", str(float_bundle.root), "-o", str(tmp_path / "out"), "--license", str(run)]
    assert main(given) == 2
    assert "is a bundle already: add variants to it with 'sam3i-edge export" in capsys.readouterr().err


def test_without_a_folder_to_write_overwrite_means_in_place(float_bundle, tmp_path, capsys):
    assert main(["export", str(float_bundle.root), "--to", "eager"]) == 2
    assert "name the bundle to write with -o" in capsys.readouterr().err
    assert main(["export", "sam3i-nano", "--to", "eager", "--overwrite"]) == 2  # what is installed stays
    own = shutil.copytree(float_bundle.root, tmp_path / "own")
    arguments = ["export", str(own), "--to", "eager", "--precision", "fp32", "--pairs", "6", "--overwrite"]
    assert main(arguments) == 0
    assert "eager-fp32" in Bundle.open(own).verify().manifest.variants
    assert list(tmp_path.iterdir()) == [own]


def test_one_command_quantizes_what_is_missing_and_writes_all_targets(
    float_bundle, tmp_path, capsys, monkeypatch
):
    """Of two recipes one is made; both become variants of two targets, of which one has no such framework."""
    for precision in ("int8w", "int4"):
        monkeypatch.setitem(LIMITS, precision, ANY)
    monkeypatch.setitem(TARGETS, "openvino", replace(TARGETS["openvino"], module="no_such_framework"))
    made = []
    monkeypatch.setattr(
        quantized_bundle, "post_training", lambda *a, **k: made.append(a[1].name) or post_training(*a, **k)
    )
    first, second = tmp_path / "first", tmp_path / "second"
    to = ["--to", "eager,openvino", "--pairs", "6", "--calibration-pairs", "40"]
    assert main(["export", str(float_bundle.root), "-o", str(first), "--recipe", "int8w", *to]) == 1
    assert main(["export", str(first), "-o", str(second), "--recipe", "int8w,int4", *to]) == 1
    assert made == ["int8w", "int4"]
    opened = Bundle.open(second).verify()
    assert list(opened.manifest.variants) == ["onnx-fp32", "eager-int8w", "eager-int4"]
    report = json.loads((second / "quant" / "int4.report.json").read_text())
    assert report["calibration"]["pairs"] == 40
    # What did not change is the same file, and what the first bundle holds was not written into.
    for name in ("weights/base.safetensors", "quant/int8w.safetensors", "onnx-fp32/detector.onnx"):
        assert (first / name).samefile(second / name)
    Bundle.open(first).verify()
    Bundle.open(float_bundle.root).verify()


def test_a_precision_without_a_quantized_model_says_how_to_make_one(float_bundle, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["export", str(float_bundle.root), "-o", str(out), "--to", "onnx", "--precision", "int4"]) == 1
    )
    assert "--recipe int4" in capsys.readouterr().err
