"""EfficientSAM3, SAM3-LiteText and SAM 3.1 files in their exact layouts, and what can be wrong with one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
import students

import official_files
from sam3i_edge.checkpoints import completion, load_checkpoint, read_checkpoint
from sam3i_edge.checkpoints.source import Source
from sam3i_edge.errors import ArtifactError
from sam3i_edge.model.sam3i import join_prompt
from sam3i_edge.model.weights import build_model

KEYS = sorted((students.FOLDER / "keys").glob("*.json"))
TRUNK = "detector.backbone.vision_backbone.trunk."
TABLE = "detector.backbone.language_backbone.encoder.positional_embedding.pos_embed.pos_embed"
State = dict[str, torch.Tensor]


@pytest.fixture
def repvit() -> State:
    return students.state("repvit")


def _save(tmp_path: Path, state: State, name: str = "file.pt") -> Path:
    """The container that merged files have. Each its own: what was opened before is mapped."""
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    torch.save({"model": state}, folder / name)
    return folder / name


def _read(tmp_path: Path, state: State, name: str = "file.pt", **options: object):
    return read_checkpoint(_save(tmp_path, state, name), **{"config": students.config("repvit"), **options})


def _without(state: State, *parts: str) -> State:
    return {key: value for key, value in state.items() if not any(part in key for part in parts)}


@pytest.mark.parametrize("path", KEYS, ids=lambda path: path.stem)
def test_every_key_of_a_released_layout_lands_once_in_the_right_shape(path, monkeypatch):
    """At full size, on tensors without storage."""
    listed = json.loads(path.read_text())
    state = {
        listed["prefix"] + key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for key, (shape, dtype) in listed["tensors"].items()
    }
    monkeypatch.setattr(completion, "open_source", lambda _: Source(state=state, sizes={}, notes={}))
    checkpoint = read_checkpoint(path)
    with torch.device("meta"):
        model = build_model(checkpoint.config, checkpoint.tensors)
    assert model.state_dict().keys() == checkpoint.tensors.keys()
    image = {"rv": "repvit", "tv": "tinyvit", "ev": "efficientvit", "lt": "vit", "sam31": "vit"}
    wanted = "tinyvit" if "tv" in path.stem else image[path.stem.split("_")[0]]
    assert checkpoint.config.backbone == wanted
    names = checkpoint.notes.get("students", "")
    if "backbone" in listed and wanted != "vit":
        assert f"{wanted}-{listed.get('variant', '11m').lower()}" in names
    if listed.get("text", "").startswith("MobileCLIP"):
        assert listed["text"].lower() in names
        assert checkpoint.config.text_context == listed["context"]
        assert not checkpoint.config.text_causal
    necks = "further necks, used by the tracker and for clicks only"
    assert (necks in checkpoint.dropped) == path.stem.startswith("sam31")


def test_the_python_door_takes_the_released_config():
    model = load_checkpoint(students.checkpoint("tinyvit"), students.config("tinyvit"))
    assert (model.config.text_context, model.config.image_size, model.levels) == (32, 252, ("concept",))
    again = load_checkpoint(
        students.checkpoint("tinyvit"), json.loads(students.config("tinyvit").read_text())["dims"]
    )
    assert again.config == model.config


@pytest.mark.parametrize("change", ["module.", "student_trunk.", "sam3_model.", "state_dict", "half"])
def test_spellings_of_keys_and_containers_do_not_matter(tmp_path, repvit, change):
    want = read_checkpoint(students.checkpoint("repvit"), config=students.config("repvit")).tensors
    state = repvit
    if change == "module.":
        state = {f"module.{key}": value for key, value in repvit.items()}
    elif change == "student_trunk.":
        state = {
            key.replace(f"{TRUNK}model.", f"{TRUNK}student_trunk.model."): v for key, v in repvit.items()
        }
    elif change == "sam3_model.":
        state = {key.replace("detector.", "sam3_model.", 1): value for key, value in repvit.items()}
    elif change == "half":
        state = {k: v.half() if v.is_floating_point() else v for k, v in repvit.items()}
    torch.save({"state_dict" if change == "state_dict" else "model": state}, tmp_path / "file.pth")
    got = read_checkpoint(tmp_path / "file.pth", config=students.config("repvit")).tensors
    assert got.keys() == want.keys()
    for name, value in got.items():
        torch.testing.assert_close(value.float(), want[name], rtol=0.02 if change == "half" else 0, atol=0.05)


def test_an_older_merge_loses_the_teachers_image_encoder_by_name(tmp_path, repvit):
    teacher = {
        f"{TRUNK}pos_embed": torch.zeros(1, 577, 8),
        f"{TRUNK}blocks.0.attn.qkv.weight": torch.zeros(24, 8),
        f"{TRUNK}ln_pre.weight": torch.zeros(8),
    }
    got = _read(tmp_path, {**repvit, **teacher})
    dropped = got.dropped["the teacher's image encoder, left in by an older merge"]
    assert sorted(dropped) == sorted(teacher)
    assert got.tensors.keys() == _read(tmp_path, repvit).tensors.keys()


def test_an_encoder_alone_says_what_completes_it(tmp_path, repvit):
    image = {
        key.removeprefix(f"{TRUNK}model."): v for key, v in repvit.items() if key.startswith(f"{TRUNK}model.")
    }
    assert {key.split(".")[0] for key in image} == {"backbone", "head"}
    with pytest.raises(ArtifactError, match=r"holds the image encoder alone: give --base .* sam3\.pt for an"):
        _read(tmp_path, image)
    whole = _read(tmp_path, repvit).tensors
    got = _read(tmp_path, image, base=students.checkpoint("repvit"))
    assert all(torch.equal(got.tensors[name], value) for name, value in whole.items())
    assert re.match(r"\d+ tensors come from the base: .*geometry encoder and text encoder", got.remarks[0])

    place = "detector.backbone.language_backbone."
    text = {key.removeprefix(place): v for key, v in repvit.items() if key.startswith(place)}
    assert {key.split(".")[0] for key in text} == {"encoder", "projector"}
    with pytest.raises(ArtifactError, match="holds the text encoder alone: give --base"):
        _read(tmp_path, text)
    got = _read(tmp_path, text, base=students.checkpoint("repvit"))
    assert got.tensors.keys() == whole.keys()


def test_a_base_fills_gaps_and_replaces_nothing(tmp_path, repvit):
    """As stage-3 files lack the geometry encoder, and their other tensors may differ from SAM3's."""
    other = {key: value + 1 if value.is_floating_point() else value for key, value in repvit.items()}
    torch.save({"model": other}, tmp_path / "base.pt")
    part = _without(repvit, "geometry_encoder.", "pixel_decoder.conv_layers.0")
    got = _read(tmp_path, part, base=tmp_path / "base.pt")
    whole = _read(tmp_path, repvit).tensors
    for name, value in got.tensors.items():
        filled = name.startswith("geometry_encoder.") or "pixel_decoder.conv_layers.0" in name
        assert torch.equal(value, whole[name] + 1 if filled else whole[name]), name
    assert "come from the base: geometry encoder and detector" in got.remarks[0]
    got = _read(tmp_path, repvit, base=tmp_path / "base.pt")
    assert got.remarks == ("the checkpoint is whole: nothing comes from the base",)


def test_without_a_geometry_encoder_the_cls_slot_is_masked(tmp_path, repvit):
    part = _without(repvit, "geometry_encoder.")
    checkpoint = _read(tmp_path, part)
    assert not checkpoint.config.geometry
    assert "the image's CLS slot of the prompt is masked" in checkpoint.remarks[-1]
    model = load_checkpoint(_save(tmp_path, part), students.config("repvit"))
    assert model.box_encoder is None
    whole = students.build("repvit")
    ids = students.prompt_of("repvit", "p0")
    with torch.no_grad():
        pixels = torch.from_numpy(students.arrays("repvit", "inputs")["pixel_values"])
        *maps, cls_token = model.image_encoder(pixels)
        assert not cls_token.any()
        text = model.text_encoder(ids, "concept")
        level = torch.zeros(1, dtype=torch.int64)
        prompt, mask = join_prompt(text, ids, torch.randn(1, 1, 32))
        found = model.detector(*maps, prompt, mask, level)
        mask[:, -1] = False
        want = whole.detector(*maps, prompt, mask, level)
    assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True))


def test_presence_is_required_or_left_out_of_the_scores(tmp_path, repvit):
    parts = ("presence_token",)  # of the token, its norm and its head
    bare = _without(repvit, *parts)
    with pytest.raises(ArtifactError, match=r"has no presence tensors .*or --no-presence to score without"):
        _read(tmp_path, bare)
    found = {}
    for name, state in (("token", repvit), ("none", bare)):
        path = _save(tmp_path, state)
        found[name] = load_checkpoint(path, students.config("repvit"), presence=False)
        assert found[name].config.presence == name
    want = students.arrays("repvit", "outputs")
    ids = students.prompt_of("repvit", "p0")
    with torch.no_grad():
        pixels = torch.from_numpy(students.arrays("repvit", "inputs")["pixel_values"])
        *maps, cls_token = found["token"].image_encoder(pixels)
        prompt, mask = join_prompt(found["token"].text_encoder(ids, "concept"), ids, cls_token)
        level = torch.zeros(1, dtype=torch.int64)
        scores, _, _, presence = found["token"].detector(*maps, prompt, mask, level)
        logits = torch.from_numpy(want["concept.p0.pred_logits"])
        torch.testing.assert_close(
            scores[0], logits.sigmoid().sort(descending=True).values, rtol=0, atol=2e-5
        )
        assert presence.item() == 0
        # Without the token queries attend to themselves alone, whatever lies in its slot.
        decoder = found["none"].detector.decoder
        assert not any(name.startswith("presence") for name, _ in decoder.named_parameters())
        bare_out = found["none"].detector.predict(*maps, prompt, mask, level)
        assert not torch.allclose(bare_out.logits[-1, 0], logits, rtol=0, atol=1e-4)
        layer, h = decoder.layers[0], torch.randn(1, 21, 32)
        seen = layer.self_attn(h, h, h, decoder.self_bias)[:, 1:]
        alone = layer.self_attn(h[:, 1:], h[:, 1:], h[:, 1:])
        torch.testing.assert_close(seen, alone)


def test_sam_31_has_other_necks_and_is_not_mixed_with_sam_3(tmp_path, repvit):
    neck = "detector.backbone.vision_backbone."
    newer = _without(repvit, "vision_backbone.convs.3.")
    for name, value in list(newer.items()):
        for other in ("interactive_convs", "propagation_convs"):
            if name.startswith(f"{neck}convs."):
                newer[name.replace(".convs.", f".{other}.")] = value + 1
    newer["tracker.model.x"] = torch.zeros(1)
    got = _read(tmp_path, newer)
    want = _read(tmp_path, repvit)
    assert all(torch.equal(got.tensors[name], value) for name, value in want.tensors.items())
    assert len(got.dropped["further necks, used by the tracker and for clicks only"]) > 20
    with pytest.raises(ArtifactError, match=r"was made of SAM 3\.1, its --base of SAM 3, whose values are"):
        _read(tmp_path, _without(newer, "geometry_encoder."), base=students.checkpoint("repvit"))


def test_the_context_comes_from_the_option_the_file_or_its_name(tmp_path, repvit):
    dims = json.loads(students.config("repvit").read_text())["dims"]
    del dims["text"]["context"]
    assert repvit[TABLE].shape[2] == 77
    for name, options, context in (
        ("a.pt", {"context": 20}, 20),
        ("text_ctx16.pt", {}, 16),
        ("a.pt", {}, 32),
        ("text_ctx16.pt", {"context": 32}, 32),
    ):
        got = _read(tmp_path, repvit, name=name, **{"config": dims, **options})
        assert got.config.text_context == context
        assert got.tensors["text_encoder.position_embedding"].shape == (context, 64)
        guessed = "context" not in options
        assert any("77 rows, which do not tell the context" in text for text in got.remarks) == guessed
    short = {**repvit, TABLE: repvit[TABLE][:, :, :16]}
    got = _read(tmp_path, short, name="text_ctx32.pt", config=dims)
    assert (got.config.text_context, got.remarks) == (16, ())
    torch.save({"model": repvit, "meta": {"text_context_length": 24}}, tmp_path / "meta.pt")
    assert read_checkpoint(tmp_path / "meta.pt", config=dims).config.text_context == 24
    with pytest.raises(ArtifactError, match=r"a context of 32 tokens is not possible: .* has 16 rows"):
        _read(tmp_path, short, config=dims, context=32)


@pytest.mark.parametrize("family", students.FAMILIES)
def test_any_side_that_patches_of_14_make(tmp_path, family):
    model = load_checkpoint(students.checkpoint(family), students.config(family), resolution=168)
    with torch.no_grad():
        *maps, _ = model.image_encoder(torch.zeros(1, 3, 168, 168))
    assert [level.shape[-1] for level in maps] == [48, 24, 12]
    with pytest.raises(ArtifactError, match="500 px is not possible: want a multiple of 14, the nearest is"):
        read_checkpoint(students.checkpoint(family), config=students.config(family), resolution=500)


@pytest.mark.parametrize("family", students.FAMILIES)
def test_an_unknown_size_names_the_tensors_that_decided(family):
    with pytest.raises(
        ArtifactError, match=rf"is a {family} of unknown size: its tensors say trunk_widths \[.*--config"
    ):
        read_checkpoint(students.checkpoint(family))
    dims = json.loads(students.config(family).read_text())["dims"]
    del dims["text"]
    with pytest.raises(ArtifactError, match=r"width 64 .*want mobileclip-s0, .*says text_heads"):
        read_checkpoint(students.checkpoint(family), config={**dims, "text": {"context": 16}})


def test_mixed_and_unknown_files_are_refused(tmp_path, repvit):
    tinyvit = students.state("tinyvit")
    inner = f"{TRUNK}model.backbone.model."
    trunk = {key: value for key, value in tinyvit.items() if key.startswith(inner)}
    with pytest.raises(ArtifactError, match="image encoders of RepViT and TinyViT are mixed"):
        _read(tmp_path, {**repvit, **trunk})
    own = "detector.backbone.language_backbone.encoder.transformer.resblocks.0.ln_1.weight"
    with pytest.raises(ArtifactError, match="two text encoders are mixed in this file, SAM3's and a"):
        _read(tmp_path, {**repvit, own: torch.zeros(8)})
    other = _without(repvit, inner) | {f"{inner}patches.0.weight": torch.zeros(8)}
    with pytest.raises(ArtifactError, match=r"of no kind known here, by .*patches\.0\.weight: want RepViT"):
        _read(tmp_path, other)
    with pytest.raises(ArtifactError, match="checkpoint keys are unknown"):
        _read(tmp_path, {**repvit, f"{inner}features.1.extra.weight": torch.zeros(8)})
    norm = f"{inner}features.0.0.bn.running_var"
    with pytest.raises(ArtifactError, match=r"features\.0\.0\.bn\.running_var is missing beside"):
        _read(tmp_path, _without(repvit, norm))
    with pytest.raises(ArtifactError, match="does not fit the tensors beside it"):
        _read(tmp_path, {**repvit, norm: torch.ones(3)})
    adapters = official_files.FOLDER / "sam3i_stage3.pt"
    with pytest.raises(ArtifactError, match="a student in its place: leave --adapters out"):
        _read(tmp_path, repvit, adapters=adapters)


def test_a_config_that_describes_no_student_is_refused():
    dims = json.loads(students.config("repvit").read_text())["dims"]
    for change, message in (
        ({"grid": 15}, "image_size 224 and a grid of 15"),
        ({"trunk": "resnet"}, "does not describe a student"),
        ({"trunk_config": {}}, "does not describe a student"),
        ({"trunk_config": {"cfgs": [[5, 2, 16, 1, 0, 1]]}}, "block 1 has kernel 5"),
        ({"trunk_channels": 47}, "trunk_channels 47 and widths"),
        ({"trunk_projection": 47}, "the config says vit_width 47, the tensors say 48"),
    ):
        with pytest.raises(ArtifactError, match=message):
            read_checkpoint(students.checkpoint("repvit"), config={**dims, **change})
