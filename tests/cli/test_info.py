import json

from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.cli.app import main


def test_json(tiny_bundle, capsys):
    assert main(["info", str(tiny_bundle.root), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    manifest = tiny_bundle.manifest
    assert (facts["name"], facts["license"], facts["schema_version"]) == ("tiny", "Apache-2.0", 1)
    assert facts["bytes"] == sum(record.bytes for record in manifest.files.values())
    variant = facts["variants"]["onnx-fp32"]
    assert variant["bytes"] == sum(r.bytes for p, r in manifest.files.items() if p.startswith("onnx-fp32/"))
    assert 0 < variant["bytes"] < facts["bytes"]
    assert variant["max_boxes"] == 0
    assert facts["runs_here"]["runtime"] == "onnxruntime"
    assert facts["preprocessing"]["image_size"] == 32


def test_boxes_that_a_model_takes(tiny_box_bundle, capsys):
    assert main(["info", str(tiny_box_bundle.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variants"]["onnx-fp32"]["max_boxes"] == 3


def test_for_people(tiny_bundle, capsys):
    assert main(["info", str(tiny_bundle.root), "--verify"]) == 0
    assert capsys.readouterr().out.startswith("tiny: every file is as it was written")
    assert main(["info", str(tiny_bundle.root)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("tiny: not verified")
    assert "onnx-fp32" in shown
    assert "runs here: device cpu (chosen by auto)" in shown


def test_a_bundle_that_does_not_run_here_is_still_described(tiny_bundle, tmp_path, capsys):
    variant = tiny_bundle.manifest.variants["onnx-fp32"].model_copy(update={"runtime": "coreml"})
    with new_bundle(tmp_path / "apple", base=tiny_bundle) as folder:
        folder.finish(variants={"onnx-fp32": variant})
    assert main(["info", str(tmp_path / "apple"), "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs_here"]
    assert runs["device"] is None
    assert "has no variant for onnxruntime" in runs["reason"]
    assert main(["info", str(tmp_path / "apple")]) == 0
    assert "runs here: no: " in capsys.readouterr().out
