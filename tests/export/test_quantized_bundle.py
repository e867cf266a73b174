from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from sam3i_edge import Segmenter
from sam3i_edge.agreement import LIMITS, Limits, model_pairs
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.errors import ArtifactError, ExportError, ParityError
from sam3i_edge.export import quantized_bundle, targets
from sam3i_edge.export.quantized_bundle import add_quantized, post_training, quantize_bundle
from sam3i_edge.quantize.calibration import CALIBRATION_PAIRS
from sam3i_edge.quantize.recipes import RECIPES

INT8 = RECIPES["int8"]
ANY = Limits(same_count=0, mean_iou=0, min_iou=0, score=None, box_px=None)
LAYER = "detector.mask_decoder.instance_proj"


@pytest.fixture
def float_bundle(exported) -> Bundle:
    return Bundle.open(exported.bundle)


def test_the_bundle_has_both_variants_and_says_what_was_measured(exported, quantized, calibration):
    manifest = quantized.bundle.manifest
    assert list(manifest.variants) == ["onnx-fp32", "onnx-int8"]
    added = manifest.variants["onnx-int8"]
    assert (added.runtime, added.precision) == ("onnxruntime", "int8")
    assert added.quant_spec == "quant/int8.safetensors"
    assert added.agreement["equal_layers"] == len(quantized.spec.layers)
    assert 0.95 <= added.agreement["integer_share"] <= 1
    assert added.agreement["pairs"] == 24
    assert added.agreement["score_p99"] <= added.agreement["score"]
    assert manifest.variants["onnx-fp32"] == exported.manifest.variants["onnx-fp32"]
    assert any("integer kernels" in line and "QLinearConv" in line for line in quantized.told)
    report = json.loads((quantized.bundle.root / "quant" / "int8.report.json").read_text())
    assert report == json.loads(json.dumps(quantized.report))
    assert report["calibration"]["pairs"] == len(calibration)
    assert report["kept_float"] == []
    assert "geometry_encoder.boxes_pool_project" in report["unreached"]


def test_int8_is_a_quarter_of_the_size(quantized):
    sizes = {
        name: sum(p.stat().st_size for p in (quantized.bundle.root / name).glob("*.data"))
        for name in ("onnx-fp32", "onnx-int8")
    }
    assert sizes["onnx-int8"] < 0.5 * sizes["onnx-fp32"]


def test_segmenter_runs_the_precision_that_is_asked_for(quantized):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    with Segmenter(quantized.bundle.root, precision="int8", threads=1) as segmenter:
        result = segmenter.segment(image, "the red star left of the ring")
    assert result.masks.shape == (len(result), 50, 70)


def test_a_level_that_calibration_lacks_is_refused_and_not_left_float(float_bundle, calibration, tmp_path):
    pairs = [replace(pair, level="simple") for pair in calibration]
    wanted = r"no instruction of level complex, so \d+ layers, .*'\*\.adapter\.bridge\.\*' --keep-float"
    with pytest.raises(ExportError, match=wanted):
        quantize_bundle(float_bundle, tmp_path / "out", INT8, calibration=pairs, pairs=12, sensitivity=False)
    assert not list(tmp_path.iterdir())


def test_a_variant_that_disagrees_leaves_nothing_but_a_picture(
    float_bundle, calibration, rough, tmp_path, monkeypatch
):
    monkeypatch.setitem(LIMITS, "int8", replace(ANY, min_iou=1.0))
    with pytest.raises(ParityError) as failed:
        quantize_bundle(
            float_bundle, tmp_path / "out", INT8, calibration=calibration, pairs=12, sensitivity=False
        )
    picture = tmp_path / "out.onnx-int8.worst-pair.png"
    assert [path.name for path in tmp_path.iterdir()] == [picture.name]
    text = str(failed.value)
    assert text.startswith("int8: 1 - min_iou: max |difference| ")
    assert "; the worst pair is number " in text
    assert f"drawn in {picture}" in text
    number = int(text.split("number ")[1].split(",")[0])
    pair = model_pairs(12, float_bundle_config(float_bundle))[number]
    assert f"{pair.text!r} at level {pair.level}" in text
    shown = cv2.imread(str(picture))
    assert shown.shape[1] >= 2 * pair.image.shape[1]
    assert shown.shape[0] >= pair.image.shape[0]


def float_bundle_config(bundle):
    from sam3i_edge.model.weights import read_config

    return read_config(bundle.root / "weights")


def test_below_its_share_of_integers_it_is_called_mixed(
    float_bundle, calibration, rough, tmp_path, monkeypatch
):
    monkeypatch.setitem(LIMITS, "mixed", LIMITS["int8"])
    monkeypatch.setattr(targets, "INTEGER_SHARE", 1.01)
    manifest, _, _ = quantize_bundle(
        float_bundle, tmp_path / "out", INT8, calibration=calibration, pairs=12, sensitivity=False
    )
    assert list(manifest.variants) == ["onnx-fp32", "onnx-mixed"]
    assert manifest.variants["onnx-mixed"].precision == "mixed"
    opened = Bundle.open(tmp_path / "out")
    assert all(path.is_file() for path in opened.graphs("onnx-mixed").values())


def test_integers_that_differ_fail_the_export(float_bundle, calibration, rough, tmp_path):
    """The copied graphs are of another quantized model."""
    coarse = replace(INT8, keep_float=(*INT8.keep_float, "text_encoder.layers.0.mlp.fc1"))
    with pytest.raises((ExportError, KeyError)):
        quantize_bundle(
            float_bundle, tmp_path / "out", coarse, calibration=calibration, pairs=12, sensitivity=False
        )
    assert not list(tmp_path.iterdir())


def test_a_second_quantized_model_replaces_the_first(quantized, rough, tmp_path):
    told = []
    manifest, row, report = add_quantized(
        quantized.bundle, tmp_path / "out", quantized.bundle.root / "quant" / "int8.safetensors", pairs=12,
        progress=lambda sentence, _: told.append(sentence),
    )  # fmt: skip
    assert list(manifest.variants) == ["onnx-fp32", "onnx-int8"]
    assert manifest.variants["onnx-int8"].agreement["pairs"] == row.agreement.pairs == 12
    assert any(line.startswith("onnx-int8 is replaced") for line in told)
    assert report == quantized.spec.notes
    Bundle.open(tmp_path / "out").verify()


def test_layers_kept_float_by_pattern(float_bundle, calibration):
    spec, report = post_training(
        float_bundle, INT8, calibration=calibration, sensitivity=False,
        keep_float=["text_encoder.*.mlp.*", LAYER],
    )  # fmt: skip
    assert set(report["kept_float"]) == {
        LAYER,
        "text_encoder.layers.0.mlp.fc1",
        "text_encoder.layers.0.mlp.fc2",
    }
    assert not set(report["kept_float"]) & spec.layers.keys()
    assert spec.notes["kept_float"] == report["kept_float"]


def test_sensitivity_reports_every_layer_and_keeps_the_fewest_float(float_bundle, calibration, monkeypatch):
    monkeypatch.setattr(quantized_bundle, "_LOSS_PAIRS", 3)
    monkeypatch.setattr(quantized_bundle, "_LIMIT_PAIRS", 6)
    monkeypatch.setitem(LIMITS, "int8", ANY)
    spec, report = post_training(float_bundle, INT8, calibration=calibration, sensitivity=True, pairs=6)
    assert report["loss"].keys() == spec.layers.keys()
    assert report["kept_float"] == []
    # Unasked nothing is measured when all integers do.
    _, unasked = post_training(float_bundle, INT8, calibration=calibration, pairs=6)
    assert "loss" not in unasked
    assert unasked["kept_float"] == []
    assert list(report["loss"].values()) == sorted(report["loss"].values(), reverse=True)

    def fewest(trials, order, precision, progress):
        assert set(order) == spec.layers.keys() - {LAYER}
        assert precision == "int8"
        return order[:2]

    monkeypatch.setattr(quantized_bundle.Trials, "fewest_float", fewest)
    monkeypatch.setattr(quantized_bundle.Trials, "passes", lambda *_: False)  # all integers do not do
    told = []
    spec, second = post_training(
        float_bundle,
        INT8,
        calibration=calibration,
        keep_float=[LAYER],
        pairs=6,
        progress=lambda sentence, _: told.append(sentence),
    )
    assert LAYER in second["kept_float"]
    assert len(second["kept_float"]) == 3
    assert not set(second["kept_float"]) & spec.layers.keys()
    assert any(line.startswith("2 layers stay float so that the limits hold: ") for line in told)


def test_every_step_moves_pair_by_pair_or_layer_by_layer(float_bundle, calibration, monkeypatch):
    monkeypatch.setattr(quantized_bundle, "_LOSS_PAIRS", 2)
    monkeypatch.setattr(quantized_bundle, "_LIMIT_PAIRS", 4)
    monkeypatch.setitem(LIMITS, "int8", replace(ANY, min_iou=1.1))  # what nothing keeps
    monkeypatch.setattr(quantized_bundle.Trials, "losses", _losses_of_three(quantized_bundle.Trials.losses))
    told: dict[str, list[float]] = {}
    post_training(
        float_bundle, INT8, calibration=calibration, pairs=5,
        progress=lambda words, share: told.setdefault(words, []).append(share),
    )  # fmt: skip
    least = {
        f"calibrating on {len(calibration)} pairs": len(calibration),
        "asking the float model 5 pairs": 3 * 5,
        "measuring 3 layers on 2 pairs": 3 * 2,
        "asking the float model 4 pairs": 3 * 4,
        "halving 3 layers on 4 pairs": 3 * 4,
        "trying to do without each of 3 float layers": 3 * 4,
    }
    for words, count in least.items():
        shares = told.pop(words)
        assert shares == sorted(shares), words
        assert len(set(shares)) >= count, words
        assert 0 <= shares[0] < 0.1, words
        assert shares[-1] == 1.0, words
    (balancing,) = (words for words in told if words.startswith("balancing the channels of "))
    count = int(balancing.split()[-2])
    assert count > 10
    assert told[balancing] == [number / count for number in range(count + 1)]
    quantizing = [shares for words, shares in told.items() if words.startswith("quantizing ")]
    assert all(len(shares) > 3 and shares[-1] == 1.0 for shares in quantizing)


def _losses_of_three(losses):
    def few(trials, progress):
        trials.integers = dict(list(trials.integers.items())[:3])
        return losses(trials, progress)

    return few


def test_as_many_calibration_pairs_are_drawn_as_asked(float_bundle, monkeypatch):
    asked = []
    prepared = quantized_bundle.Prepared

    def few(model, recipe, pairs, *arguments, **options):
        asked.append(pairs)
        return prepared(model, recipe, pairs[:32], *arguments, **options)

    monkeypatch.setattr(quantized_bundle, "Prepared", few)
    post_training(float_bundle, INT8, sensitivity=False)
    post_training(float_bundle, INT8, calibration_pairs=50, sensitivity=False)
    assert [len(pairs) for pairs in asked] == [CALIBRATION_PAIRS, 50]
    gate = model_pairs(240, float_bundle_config(float_bundle))
    seen = {pair.image.tobytes() for pair in asked[0]}
    assert not seen & {pair.image.tobytes() for pair in gate}  # none that the gate asks


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_calibration_images_are_refused(float_bundle, calibration, tmp_path, count):
    images = list({id(pair.image): pair for pair in calibration}.values())[:count]
    with pytest.raises(
        ExportError, match=f"calibration got {count} images in {count} pairs, want at least 8"
    ):
        quantize_bundle(float_bundle, tmp_path / "out", INT8, calibration=images)
    assert not list(tmp_path.iterdir())


def test_a_pattern_that_fits_nothing_is_refused_before_any_work(float_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(quantized_bundle, "Prepared", lambda *_, **__: pytest.fail("it calibrates"))
    with pytest.raises(ValueError, match=r"'image_encoder\.blocks\.\*' fits no layer; they are named as"):
        quantize_bundle(float_bundle, tmp_path / "out", INT8, keep_float=["image_encoder.blocks.*"])
    assert not list(tmp_path.iterdir())


def test_a_bundle_without_float_weights_is_refused(tiny_bundle, tmp_path):
    with pytest.raises(ArtifactError, match="has no float weights to export"):
        quantize_bundle(tiny_bundle, tmp_path / "out", INT8)
    assert not list(tmp_path.iterdir())


def test_a_damaged_quantized_model_is_refused(float_bundle, tmp_path):
    (tmp_path / "int8.safetensors").write_bytes(b"0" * 50)
    with pytest.raises(ArtifactError, match="cannot read the quantized model"):
        add_quantized(float_bundle, tmp_path / "out", tmp_path / "int8.safetensors")
    assert not (tmp_path / "out").exists()
