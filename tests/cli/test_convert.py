"""`sam3i-edge convert` on the official code's small checkpoints."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import read_manifest
from sam3i_edge.checkpoints import read_checkpoint
from sam3i_edge.cli.app import main
from sam3i_edge.model.weights import open_weights


@pytest.fixture
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a tokenizer and a licence."""
    return tmp_path_factory.mktemp("given")


@pytest.fixture(scope="module")
def base_bundle(converting, made_once) -> Bundle:
    folder = made_once("converted-base", lambda folder: converting.convert(converting.BASE, folder))
    return Bundle.open(folder / "bundle")


def test_the_bundle_holds_the_checkpoint_bit_for_bit(converting, converted):
    want = read_checkpoint(converting.STAGE3, config=converting.CONFIG).tensors
    got = open_weights(converted.root / "weights")
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], value) for name, value in want.items())
    assert {path.name for path in (converted.root / "weights").iterdir()} == {
        "base.safetensors", "simple.safetensors", "complex.safetensors", "model.json",
    }  # fmt: skip


def test_what_was_left_out_and_the_licence_travel_with_it(converting, converted, capsys):
    provenance = converted.manifest.provenance
    assert provenance["dropped: second text tower, attached by a defect and unused"] == 17
    assert provenance["trainer_inst_stage"] == "3"
    assert converted.manifest.variants["onnx-fp32"].boxes == converting.SLOTS
    assert converted.manifest.variants["onnx-fp32"].agreement["pairs"] == 6
    assert main(["info", str(converted.root)]) == 0
    printed = capsys.readouterr().out
    assert "You may use this, and may not pass it on." in printed
    assert "SAM License" in printed
    assert main(["info", str(converted.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["license_text"].startswith("You may use this")


def test_a_base_alone_gives_concept_alone(base_bundle):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    with Segmenter(base_bundle.root, threads=1) as segmenter:
        result = segmenter.segment(image, "the red star left of the ring")
        assert (result.level, result.level_chosen_by) == ("concept", "auto")
        with pytest.raises(ValueError, match="has no adapters for level 'complex', only for concept"):
            segmenter.segment(image, "star", level="complex")


def test_a_hub_id(converting, exporting, base_bundle, tmp_path, given, monkeypatch, capsys):
    """Its base gives the graphs of `base_bundle`, which are copied, not traced anew."""
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    asked, commit, revisions = {}, 10 * "0a1b", []

    def download(name, *, local_dir=None, **options):
        revisions.append(options["revision"])
        if local_dir is None:  # the Hub's own cache
            return str(tmp_path / "snapshots" / commit)
        asked.update(options, name=name)
        local_dir.mkdir(parents=True)
        state = torch.load(converting.BASE, weights_only=True)
        save_file(
            {key: value.clone() for key, value in state.items() if not value.is_complex()},
            local_dir / "model.safetensors",
        )
        converting.write_tokenizer(local_dir / "tokenizer.json")
        (local_dir / "LICENSE").write_text("terms of the hub")

    exporting.reuse_graphs(monkeypatch, base_bundle, "onnx-fp32")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    out = tmp_path / "out"
    arguments = ["convert", "org/sam3", "-o", str(out), "--config", str(converting.CONFIG), "--pairs", "3"]
    arguments += ["--threshold", "0.3", "--boxes", str(converting.SLOTS)]
    assert main([*arguments, "--revision", "v2", "--token", "secret", "--offline", "--json"]) == 0
    shown, notes = capsys.readouterr()
    assert json.loads(shown)["levels"] == ["concept"]
    assert "level concept only" in notes
    assert (asked["name"], revisions, asked["token"]) == ("org/sam3", ["v2", commit], "secret")
    assert read_manifest(out).provenance["source"] == f"org/sam3@{commit}"
    assert asked["local_files_only"] is True
    assert "*.safetensors" in asked["allow_patterns"]
    assert (out / "LICENSE").read_text() == "terms of the hub"
    assert "secret" not in (out / "bundle.json").read_text()

    def gated(*_, **__):
        raise GatedRepoError.__new__(GatedRepoError)  # its constructor wants a server's response

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    monkeypatch.setattr(huggingface_hub, "model_info", gated)
    capsys.readouterr()
    arguments[3] = str(tmp_path / "another")
    assert main(arguments) == 1
    assert "'org/sam3' is gated: accept its terms on its page there, then run 'hf auth login'" in (
        capsys.readouterr().err
    )


def test_wrong_use(converting, tmp_path, given, capsys):
    out = tmp_path / "out"
    whole = converting.arguments(converting.STAGE3, out, given)
    for arguments, message, code in (
        (
            ["convert", str(converting.STAGE3), "-o", str(out)],
            "/tokenizer.json does not exist: give --tokenizer with CLIP's",
            2,
        ),
        (
            [*whole, "--resolution", "300"],
            "300 px is not possible: want a multiple of 112, the nearest is 336",
            1,
        ),
        (
            [*whole[:2], "-o", str(out), "--tokenizer", str(given / "tokenizer.json")],
            "/LICENSE does not exist: give --license",
            2,
        ),
        (converting.arguments(tmp_path / "no.pt", out, given), "no.pt does not exist", 2),
        ([*whole, "--pairs", "0"], "pairs", 2),
    ):
        assert main(arguments) == code
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_weight_that_is_no_number_is_named(converting, tmp_path, given, capsys):
    state = torch.load(converting.BASE, weights_only=True)
    state["detector.geometry_encoder.cls_embed.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "base.pt")
    assert main(converting.arguments(tmp_path / "base.pt", tmp_path / "out", given)) == 1
    assert "the tensor geometry_encoder.cls_embed" in (said := capsys.readouterr().err)
    assert "holds NaN or an infinity" in said
    assert not (tmp_path / "out").exists()


def test_no_room_left_leaves_nothing_behind(converting, tmp_path, given):
    """The system refuses to write more than 64 KiB to a file."""
    script = "import sys; from sam3i_edge.cli.app import main; sys.exit(main(sys.argv[1:]))"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    done = subprocess.run(
        [sys.executable, "-c", script, *converting.arguments(converting.STAGE3, tmp_path / "out", given)],
        preexec_fn=limit,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert not list(tmp_path.iterdir())
