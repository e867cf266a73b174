"""The commands of docs/students.md, from a Hub id to masks, on a file that lies as the released ones do."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
import students

from sam3i_edge.agreement import LIMITS, Limits
from sam3i_edge.bundle.manifest import read_manifest
from sam3i_edge.cli.app import main
from sam3i_edge.masks import overlay

PAGE = Path(__file__).parents[2] / "docs" / "students.md"
ROUGH = Limits(same_count=0.0, mean_iou=0.0, min_iou=0.0, score=None, box_px=None)


def _commands() -> dict[str, list[str]]:
    """Verb -> the words of its line on the page, with its variables put in."""
    block = re.search(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    variables = dict(re.findall(r"^(\w+)=(\S+)$", block, re.MULTILINE))
    lines = [line for line in block.splitlines() if line.startswith("sam3i-edge ")]
    for name, value in variables.items():
        lines = [line.replace(f"${name}", value) for line in lines]
    return {words[1]: words[1:] for words in map(shlex.split, lines)}


def test_the_page_names_a_repository_and_a_file_in_it(tmp_path, monkeypatch, capsys):
    from sam3i_edge.bundle.hub import split_file

    source = _commands()["convert"][1]
    assert split_file(source) == (
        "Simon7108528/EfficientSAM3",
        "sam3_litetext/sam3_litetext_mobileclip_s0_ctx16.pt",
    )
    for name in (
        "org/name",
        "org/../x.pt",
        "org/name/../../x.pt",
        "a.pt",
        "/org/name/x.pt",
        "org/name/x.txt",
    ):
        assert split_file(name) == (name, None)

    import huggingface_hub

    def nothing(name, *, local_dir=None, **options):
        if local_dir is not None:
            local_dir.mkdir(parents=True)
        return str(tmp_path / "snapshots" / ("0" * 40))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)
    assert main(["convert", source, "-o", str(tmp_path / "out"), "--offline"]) == 1
    assert "'Simon7108528/EfficientSAM3' has no file 'sam3_litetext/" in capsys.readouterr().err


@pytest.mark.slow
def test_the_five_commands_lead_to_masks(tmp_path, monkeypatch, converting, capsys):
    """At reduced size, which --config says; with few pairs, and limits that random weights keep."""
    import huggingface_hub

    asked = {}

    def download(name, *, local_dir=None, **options):
        if local_dir is not None:
            asked.update(options, name=name)
            file = local_dir / "sam3_litetext" / "sam3_litetext_mobileclip_s0_ctx16.pt"
            file.parent.mkdir(parents=True)
            file.write_bytes(students.checkpoint("efficientvit").read_bytes())
        return str(tmp_path / "snapshots" / ("0a1b" * 10))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setitem(LIMITS, "int8", ROUGH)
    monkeypatch.chdir(tmp_path)
    converting.write_tokenizer(tmp_path / "bpe_simple_vocab_16e6.txt.gz")
    Path("LICENSE").write_text("terms of the file")
    overlay.write(np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8), Path("photo.jpg"))

    words = _commands()
    assert list(words) == ["convert", "quantize", "info", "segment"]
    words["convert"][words["convert"].index("--resolution") + 1] = "252"
    words["convert"] += [
        "--config",
        str(students.config("efficientvit")),
        "--pairs",
        "6",
        "--threshold",
        "0.3",
    ]
    words["quantize"] += ["--pairs", "6", "--calibration-pairs", "40"]
    for verb in ("convert", "quantize", "info"):
        assert main(words[verb]) == 0, verb
    assert asked["allow_patterns"] == ["sam3_litetext/sam3_litetext_mobileclip_s0_ctx16.pt", "LICENSE*"]
    assert "terms of the file" in capsys.readouterr().out
    manifest = read_manifest(Path("small"))
    assert manifest.tokenizer.context_length == 16
    assert manifest.provenance["source"].startswith("Simon7108528/EfficientSAM3/sam3_litetext/")
    int8 = manifest.variants["onnx-int8"]
    assert int8.agreement["integer_share"] >= 0.95
    assert main([*words["segment"], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["level"] == "concept"
    assert Path("masks.png").is_file()
