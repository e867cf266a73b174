"""`sam3i-edge distill`, on pictures without annotations, and instructions for a student that has none."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sam3i_edge
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.cli import train as verb
from sam3i_edge.cli.app import main
from sam3i_edge.model.sam3i import SAM3I, adapter_of
from sam3i_edge.model.weights import load_model, save_weights
from sam3i_edge.train import released_curriculum
from sam3i_edge.train.run_config import TrainConfig

_spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parents[1] / "train" / "tiny.py")
tiny = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)

VIT = replace(
    tiny.TINY, image_size=56, backbone="vit", pretrain_image_size=28, window_size=2, vit_width=32,
    vit_depth=4, vit_heads=4, vit_mlp_dim=64, vit_global_blocks=(1,),
)  # fmt: skip


def weighted(base: Bundle, out: Path, config) -> Bundle:
    torch.manual_seed(0)
    model = SAM3I(config)
    with torch.no_grad():
        model.detector.decoder.presence_head.layers[-1].bias.fill_(2.0)
    with new_bundle(out, base=base) as folder:
        save_weights(model, folder.path / "weights")
        folder.finish(variants={}, model=config.to_dict())
    return Bundle.open(out)


@pytest.fixture(scope="module")
def pictures(scenes, tmp_path_factory):
    """Those of annotated scenes, without their annotations."""
    return shutil.copytree(scenes / "images", tmp_path_factory.mktemp("pictures") / "p")


@pytest.fixture(autouse=True)
def _small(light_training):
    """Batches, and validation, that take no time, and no thread that waits for another on a busy machine."""
    light_training(distillation={"images": 2, "instructions": 2, "log_every": 2, "checkpoint_every": 2})


def distill(bundle, pictures, out, *words):
    place = ["distill", str(bundle.root), "--images", str(pictures), "-o", str(out), "--vocabulary", "shapes"]
    return main([*place, "-d", "cpu", *words])


def losses(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" in row]


def test_half_the_width_learns_and_all_else_is_kept(float_bundle, pictures, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--width", "0.5", "--steps", "24", "--json"]
    assert distill(float_bundle, pictures, out, *words) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(out), "finished": True}
    small = load_model(out / "weights")
    assert small.config == replace(tiny.TINY, conv_widths=(8, 8, 8, 8))
    for name in ("base", "simple", "complex"):
        before, after = (
            load_file(place / f"{name}.safetensors")
            for place in (float_bundle.root / "weights", out / "weights")
        )
        kept = {key for key in after if not key.startswith("image_encoder.")}
        assert all(torch.equal(before[key], after[key]) for key in kept)
        assert before.keys() == after.keys()
    rows = losses(out)
    assert rows[-1]["teacher_maps"] < 0.7 * rows[0]["teacher_maps"]
    assert not any("box_giou" in row for row in rows)  # there are no targets to lose against
    figures = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][-1]
    assert {"presence", "concept"} <= set(figures["validation"])


class Killed(BaseException):
    """Leaves the trainer as a kill does: nothing that it would still have written is written."""


def test_a_killed_run_goes_on_to_the_same_weights(float_bundle, pictures, tmp_path, monkeypatch):
    words = ["--width", "0.5", "--steps", "6"]
    assert distill(float_bundle, pictures, tmp_path / "whole", *words) == 0

    def note(text):
        if text.startswith("distill 4/6 step"):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(verb, "note", note)
        with pytest.raises(Killed):
            distill(float_bundle, pictures, tmp_path / "parts", *words)
    assert torch.load(tmp_path / "parts" / "last.pt")["step"] == 2
    assert not (tmp_path / "parts" / "weights").exists()
    assert distill(float_bundle, pictures, tmp_path / "parts", *words) == 0
    texts = [(tmp_path / run / "weights" / "base.safetensors").read_bytes() for run in ("whole", "parts")]
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_another_trunk_is_trained_with_batch_norms_and_written_without(float_bundle, pictures, tmp_path):
    out = tmp_path / "run"
    words = ["--backbone", "repvit-m0.9", "--width", "0.17", "--steps", "4"]
    assert distill(float_bundle, pictures, out, *words) == 0
    small = load_model(out / "weights")
    assert (small.config.backbone, small.config.grid) == ("repvit", tiny.TINY.grid)
    assert not any("batch_norm" in name for name in small.state_dict())
    assert any("batch_norm" in name for name in torch.load(out / "last.pt")["model"])


@pytest.mark.slow
def test_blocks_are_chosen_once(tiny_bundle, pictures, tmp_path, capsys):
    bundle = weighted(tiny_bundle, tmp_path / "vit", VIT)
    out = tmp_path / "run"
    assert distill(bundle, pictures, out, "--keep-blocks", "3", "--steps", "2") == 0
    assert "keeping" in capsys.readouterr().err
    config = TrainConfig.read(out / "config.json")
    assert len(config.kept_blocks) == 3
    assert 1 in config.kept_blocks  # the global one
    assert load_model(out / "weights").config.vit_depth == 3
    assert distill(bundle, pictures, out, "--keep-blocks", "3", "--steps", "2") == 0
    assert "keeping" not in capsys.readouterr().err
    assert distill(bundle, pictures, tmp_path / "named", "--keep-blocks", "0,2", "--steps", "2") == 0
    assert TrainConfig.read(tmp_path / "named" / "config.json").kept_blocks == (0, 2)
    assert distill(bundle, pictures, tmp_path / "no", "--keep-blocks", "0") == 2
    assert "can keep 1 to 4 blocks, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what should be smaller: --backbone, --width or --keep-blocks"),
        (["--width", "0.5", "--keep-blocks", "2"], "leave --backbone and --width out"),
        (["--width", "2"], "above 0 and at most 1, got 2"),
        (["--backbone", "resnet"], "unknown backbone 'resnet'"),
        (["--keep-blocks", "some"], "is a number or a list such as 0,2,5,7, got 'some'"),
        (["--keep-blocks", "2"], "a conv image encoder has no blocks to drop"),
    ],
)
def test_wrong_wishes_leave_with_2(float_bundle, pictures, tmp_path, capsys, words, message):
    assert distill(float_bundle, pictures, tmp_path / "run", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_pictures_and_words_are_looked_at_first(float_bundle, pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert distill(float_bundle, tmp_path / "empty", tmp_path / "run", "--width", ".5") == 1
    assert "holds 0 pictures" in capsys.readouterr().err
    assert distill(float_bundle, pictures, tmp_path / "run", "--width", ".5", "--vocabulary", "no") == 1
    assert "vocabulary no" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_ranks(float_bundle, pictures, tmp_path):
    root = Path(sam3i_edge.__file__).parents[1]
    out = tmp_path / "run"
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m"),
            *("sam3i_edge", "distill", str(float_bundle.root), "--images", str(pictures), "-o", str(out)),
            *("--vocabulary", "shapes", "--width", "0.5", "--steps", "2", "-d", "cpu"),
        ],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=240,
    )
    assert load_model(out / "weights").config.conv_widths == (8, 8, 8, 8)


def test_a_student_without_instructions_learns_them_from_a_teacher(
    float_bundle, tiny_bundle, scenes, tmp_path, capsys
):
    """Its text encoder is another than the teacher's: wider, deeper, and not causal."""
    sizes = replace(
        tiny.TINY,
        adapter_dim=0,
        adapter_heads=4,
        text_width=24,
        text_layers=2,
        text_heads=2,
        text_causal=False,
    )
    student = weighted(tiny_bundle, tmp_path / "student", sizes)
    out = tmp_path / "run"
    words = ["train", "--bundle", str(student.root), "--data", str(scenes), "-o", str(out), "-d", "cpu"]
    words += ["--stage", "1", "--stage", "2", "--steps", "3", "--teacher", str(float_bundle.root)]
    assert main(words) == 0
    assert "has no adapters: new ones of bottleneck 8 are built" in capsys.readouterr().err
    config = TrainConfig.read(out / "config.json")
    assert [stage.renew for stage in config.stages] == [False, False]
    model = load_model(out / "weights")
    assert model.config == replace(sizes, adapter_dim=8)
    before = load_file(student.root / "weights" / "base.safetensors")
    after = load_file(out / "weights" / "base.safetensors")
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert before.keys() == after.keys()
    for name, value in model.state_dict().items():
        if adapter_of(name) and name.startswith("text_encoder.") and name.endswith("up_proj.weight"):
            assert bool(value.any()), name  # it starts at zero
    rows = losses(out)
    assert {"teacher_text", "box_giou"} <= set(rows[-1])


@pytest.mark.slow
def test_a_student_without_a_teacher_builds_its_own(tiny_bundle, scenes, tmp_path):
    student = weighted(tiny_bundle, tmp_path / "student", replace(tiny.TINY, adapter_dim=0, adapter_heads=4))
    out = tmp_path / "run"
    words = ["train", "--bundle", str(student.root), "--data", str(scenes), "-o", str(out), "-d", "cpu"]
    assert main([*words, "--stage", "1", "--stage", "2", "--steps", "1"]) == 0
    config = TrainConfig.read(out / "config.json")
    assert [stage.renew for stage in config.stages] == [False, True]
    assert load_model(out / "weights").config.adapter_dim == 64


@pytest.mark.slow
def test_a_student_learns_by_the_released_curriculum(tiny_bundle, scenes, tmp_path, monkeypatch):
    """Its tokens all see each other."""
    monkeypatch.setattr(released_curriculum, "BATCH", 2)
    sizes = replace(tiny.TINY, adapter_dim=0, adapter_heads=4, text_causal=False)
    student = weighted(tiny_bundle, tmp_path / "student", sizes)
    out = tmp_path / "run"
    words = ["train", "--bundle", str(student.root), "--data", str(scenes), "-o", str(out), "-d", "cpu"]
    assert main([*words, "--official", "--steps", "1"]) == 0
    assert {row["stage"] for row in losses(out)} >= {"1", "2", "3"}
    assert "align_kl" in losses(out)[-1]
    before = load_file(student.root / "weights" / "base.safetensors")
    after = load_file(out / "weights" / "base.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], value) for name, value in after.items())
    learned = load_model(out / "weights").state_dict()
    for kind in ("simple", "bridge", "complex"):
        text = [v for n, v in learned.items() if n.startswith("text_encoder.") and adapter_of(n) == kind]
        assert any(bool(value.any()) for value in text if value.ndim == 2), kind


@pytest.mark.slow
def test_a_student_without_instructions_is_trained_as_quantized(tiny_bundle, scenes, tmp_path):
    student = weighted(tiny_bundle, tmp_path / "student", replace(tiny.TINY, adapter_dim=0))
    words = ["train", "--bundle", str(student.root), "--data", str(scenes), "-o", str(tmp_path / "run")]
    assert main([*words, "-d", "cpu", "--qat", "int8", "--steps", "1"]) == 0
    assert [s.name for s in TrainConfig.read(tmp_path / "run" / "config.json").stages] == ["base"]
