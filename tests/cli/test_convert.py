"""`sam3i-edge convert` on the official code's small checkpoints."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import models, pre_tokenizers

from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import read_manifest
from sam3i_edge.checkpoints import read_checkpoint
from sam3i_edge.cli.app import main
from sam3i_edge.levels import LEVELS
from sam3i_edge.model.weights import open_weights
from sam3i_edge.runtimes import open_runtime

sys.path[:0] = [str(Path(__file__).parents[1] / "model"), str(Path(__file__).parents[1] / "export")]
import official  # noqa: E402
import test_official_boxes as parity  # noqa: E402

STAGE3, BASE, CONFIG = (official.FOLDER / name for name in ("sam3i_stage3.pt", "sam3_base.pt", "config.json"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Letters as tokens, for a vocabulary of 320 with the official places of start and end."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [f"<unused{number}>" for number in range(len(tokens), 318)]
    backend = tokenizers.Tokenizer(
        models.BPE({token: n for n, token in enumerate(tokens)}, [], end_of_word_suffix="</w>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_tokens(["<start_of_text>", "<end_of_text>"])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    backend.save(str(path))
    return path


def _arguments(source: Path, out: Path, texts: Path) -> list[str]:
    terms = texts.with_name("LICENSE")
    terms.write_text("You may use this, and may not pass it on.\n")
    return [
        "convert", str(source), "-o", str(out), "--config", str(CONFIG), "--tokenizer", str(texts),
        "--license", str(terms), "--pairs", "6", "--threshold", "0.443", "--boxes", str(parity.SLOTS),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Bundle:
    out = tmp_path_factory.mktemp("converted") / "bundle"
    assert main(_arguments(STAGE3, out, texts)) == 0
    return Bundle.open(out)


@pytest.fixture(scope="module")
def run(bundle: Bundle):
    opened = {
        name: open_runtime("onnxruntime", path, "cpu") for name, path in bundle.graphs("onnx-fp32").items()
    }
    yield lambda graph, inputs: opened[graph].run(inputs)
    for runtime in opened.values():
        runtime.close()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", ["p0", "p1", "p2", "box"])
def test_the_bundle_gives_the_official_results(run, level, case):
    boxes = parity._official_boxes() if case == "box" else None
    prompt = official.BOX_PROMPT if case == "box" else int(case[1])
    parity._assert_official(level, case, *parity._detect(run, level, prompt, boxes))


def test_the_bundle_holds_the_checkpoint_bit_for_bit(bundle):
    want = read_checkpoint(STAGE3, config=CONFIG).tensors
    got = open_weights(bundle.root / "weights")
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], value) for name, value in want.items())
    assert {path.name for path in (bundle.root / "weights").iterdir()} == {
        "base.safetensors", "simple.safetensors", "complex.safetensors", "model.json",
    }  # fmt: skip


def test_what_was_left_out_and_the_licence_travel_with_it(bundle, capsys):
    provenance = bundle.manifest.provenance
    assert provenance["dropped: second text tower, attached by a defect and unused"] == 17
    assert provenance["trainer_inst_stage"] == "3"
    assert bundle.manifest.variants["onnx-fp32"].boxes == parity.SLOTS
    assert bundle.manifest.variants["onnx-fp32"].agreement["pairs"] == 6
    assert main(["info", str(bundle.root)]) == 0
    printed = capsys.readouterr().out
    assert "You may use this, and may not pass it on." in printed
    assert "SAM License" in printed
    assert main(["info", str(bundle.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["license_text"].startswith("You may use this")


def test_a_base_alone_gives_concept_alone(tmp_path, texts, capsys):
    assert main([*_arguments(BASE, tmp_path / "out", texts), "--json"]) == 0
    out, notes = capsys.readouterr()
    assert json.loads(out)["levels"] == ["concept"]
    assert "level concept only" in notes
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    with Segmenter(tmp_path / "out", threads=1) as segmenter:
        result = segmenter.segment(image, "the red star left of the ring")
        assert (result.level, result.level_chosen_by) == ("concept", "auto")
        with pytest.raises(ValueError, match="has no adapters for level 'complex', only for concept"):
            segmenter.segment(image, "star", level="complex")


def test_a_hub_id(tmp_path, texts, monkeypatch, capsys):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    asked, commit, revisions = {}, 10 * "0a1b", []

    def download(name, *, local_dir=None, **options):
        revisions.append(options["revision"])
        if local_dir is None:  # the Hub's own cache
            return str(tmp_path / "snapshots" / commit)
        asked.update(options, name=name)
        local_dir.mkdir(parents=True)
        state = torch.load(BASE, weights_only=True)
        save_file(
            {key: value.clone() for key, value in state.items() if not value.is_complex()},
            local_dir / "model.safetensors",
        )
        shutil.copyfile(texts, local_dir / "tokenizer.json")
        (local_dir / "LICENSE").write_text("terms of the hub")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    out = tmp_path / "out"
    arguments = ["convert", "org/sam3", "-o", str(out), "--config", str(CONFIG), "--pairs", "3"]
    arguments += ["--threshold", "0.3", "--boxes", "0"]
    assert main([*arguments, "--revision", "v2", "--token", "secret", "--offline"]) == 0
    assert (asked["name"], revisions, asked["token"]) == ("org/sam3", ["v2", commit], "secret")
    assert read_manifest(out).provenance["source"] == f"org/sam3@{commit}"
    assert asked["local_files_only"] is True
    assert "*.safetensors" in asked["allow_patterns"]
    assert (out / "LICENSE").read_text() == "terms of the hub"
    assert "secret" not in (out / "bundle.json").read_text()

    def gated(*_, **__):
        raise GatedRepoError.__new__(GatedRepoError)  # its constructor wants a server's response

    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    capsys.readouterr()
    arguments[3] = str(tmp_path / "another")
    assert main(arguments) == 1
    assert "'org/sam3' is gated: accept its terms on its page there, then run 'hf auth login'" in (
        capsys.readouterr().err
    )


def test_wrong_use(tmp_path, texts, capsys):
    out = tmp_path / "out"
    whole = _arguments(STAGE3, out, texts)
    for arguments, message, code in (
        (
            ["convert", str(STAGE3), "-o", str(out)],
            "/tokenizer.json does not exist: give --tokenizer with CLIP's",
            2,
        ),
        (
            [*whole, "--resolution", "300"],
            "300 px is not possible: want a multiple of 112, the nearest is 336",
            1,
        ),
        (
            [*whole[:2], "-o", str(out), "--tokenizer", str(texts)],
            "/LICENSE does not exist: give --license",
            2,
        ),
        (_arguments(tmp_path / "no.pt", out, texts), "no.pt does not exist", 2),
        ([*whole, "--pairs", "0"], "pairs", 2),
    ):
        assert main(arguments) == code
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_room_left_leaves_nothing_behind(tmp_path, texts):
    """The system refuses to write more than 64 KiB to a file."""
    script = "import sys; from sam3i_edge.cli.app import main; sys.exit(main(sys.argv[1:]))"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    done = subprocess.run(
        [sys.executable, "-c", script, *_arguments(STAGE3, tmp_path / "out", texts)],
        preexec_fn=limit,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert not list(tmp_path.iterdir())
