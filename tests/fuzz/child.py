"""Runs the cases of one target in a process of its own, so that a crash is one failed case.

    python tests/fuzz/child.py TARGET FOLDER --seconds 8 [--first 0]
    python tests/fuzz/child.py TARGET FOLDER --case 17          # that case again

Case n of a target is the same at every run. FOLDER holds what `seeds.py` wrote, `case`, the number that
runs, and `cases` at the end, how many passed. A case passes when it ends in an answer that looks right, or in
an error that the interface documents; anything else ends this process with a traceback, a hang with those of
its threads.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import itertools
import json
import os
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import mutations
import numpy as np
from PIL import Image

from sam3i_edge.errors import ArtifactError, ImageError, Sam3iError, TrainingError

LIMIT = 60  # seconds of a case, on an idle machine far under one
MEMORY = 24 << 30  # bytes of address space: what asks for more by a field of a file fails here
TESTS = Path(__file__).parents[1]

Case = Callable[[random.Random, Path], None]


def _listed_again(root: Path) -> None:
    """Sizes and hashes of the manifest made anew, as whoever wants to mislead would."""
    import hashlib

    manifest = json.loads((root / "bundle.json").read_bytes())
    for name in manifest["files"]:
        content = (root / name).read_bytes()
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (root / "bundle.json").write_text(json.dumps(manifest))


def bundle(rng: random.Random, folder: Path) -> None:
    """A bundle with a damaged manifest or file whose hash fits: opened, verified, asked."""
    from sam3i_edge.bundle.folder import Bundle
    from sam3i_edge.segmenter import Segmenter

    root = folder / "damaged"
    shutil.copytree(folder / "bundle", root)
    try:
        names = sorted(path for path in root.rglob("*") if path.is_file())
        victim = rng.choice([root / "bundle.json", root / "tokenizer.json", *names])
        if victim.suffix == ".json" and rng.random() < 0.9:
            victim.write_bytes(mutations.mutated_json(rng, json.loads(victim.read_bytes())))
        else:
            victim.write_bytes(mutations.mutated_bytes(rng, victim.read_bytes()))
        if victim.name != "bundle.json":
            _listed_again(root)
        with contextlib.suppress(Sam3iError):
            Bundle.open(root).verify()
        image = np.random.default_rng(rng.randrange(9)).integers(0, 256, (40, 50, 3), np.uint8)
        try:
            with Segmenter(root, threads=1, device="cpu") as segmenter:
                result = segmenter.segment(image, "the red star", level=rng.choice(("auto", "concept")))
        except Sam3iError:
            return
        assert result.masks.shape[1:] == (40, 50), result.masks.shape
        assert ((result.scores >= 0) & (result.scores <= 1)).all(), result.scores
        assert np.isfinite(result.boxes).all(), result.boxes
    finally:
        shutil.rmtree(root)


_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO")
_MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "F", "I")


def image(rng: random.Random, folder: Path) -> None:
    """A damaged image file of every format, or an odd array."""
    from sam3i_edge.pipeline.preprocess import load_image, to_pixel_values

    numbers = np.random.default_rng(rng.randrange(1000))
    source: Any
    if rng.random() < 0.8:
        pixels = Image.fromarray(numbers.integers(0, 256, (24, 33, 3), np.uint8))
        for form, mode in ((rng.choice(_FORMATS), rng.choice(_MODES)), ("PNG", "RGB")):
            with contextlib.suppress(OSError, ValueError, KeyError), io.BytesIO() as file:  # not every mode
                pixels.convert(mode).save(file, form)
                source = file.getvalue()
                break
        if rng.random() < 0.9:
            source = mutations.mutated_bytes(rng, source)
    else:
        shape = [rng.choice((0, 1, 2, 3, 4, 5, 17, 40)) for _ in range(rng.choice((0, 1, 2, 2, 3, 3, 3, 4)))]
        kind = rng.choice(("u1", "u2", ">u2", "f2", "f4", "f8", "i4", "i8", "?", "c8", "O", "U3", "M8[s]"))
        source = np.asarray(numbers.random(shape) * rng.choice((1, 1, 255, 1e9))).astype(kind)
        if source.dtype.kind == "f" and source.size and rng.random() < 0.3:
            source.flat[0] = rng.choice((np.nan, np.inf, -1e-4, 1.0005))
        source = source[::-1] if source.ndim and rng.random() < 0.3 else source
    try:
        found = load_image(source, bgr=isinstance(source, np.ndarray) and rng.random() < 0.3)
    except ImageError:
        return
    assert found.dtype == np.uint8
    assert found.ndim == 3
    assert found.shape[2] == 3
    assert found.flags.c_contiguous
    if found.size < 1_000_000:
        values = to_pixel_values(found, rng.choice((1, 7, 32)), (0.5,) * 3, (0.5,) * 3)
        assert np.isfinite(values).all()


def tokenizer(rng: random.Random, folder: Path) -> None:
    """A damaged tokenizer.json: opened, and asked for one text twice."""
    from sam3i_edge.pipeline.tokenizer import Tokenizer

    content, path = (folder / "bundle" / "tokenizer.json").read_bytes(), folder / "tokenizer.json"
    parts = json.loads(content)
    if rng.random() < 0.4:  # parts of other tokenizers, half of which do not fit
        name, value = rng.choice(_PARTS)
        parts[name] = value
    damaged = mutations.mutated_json(rng, parts)
    path.write_bytes(damaged if rng.random() < 0.8 else mutations.mutated_bytes(rng, content))
    text = rng.choice(("the red star", "étoile 星 ★", "x" * 500, "<pad> <start>", "a\u0301\u200d"))
    try:
        opened = Tokenizer.from_file(path, start_id=1, end_id=2)
        ids, cut = opened.encode(text)
    except (ArtifactError, ValueError):
        return
    assert ids.shape == (32,)
    assert ids.dtype == np.int64
    assert cut >= 0
    assert 0 <= ids.min() <= ids.max() < opened.vocab_size
    assert (opened.encode(text).ids == ids).all()


_PARTS: tuple[tuple[str, Any], ...] = (
    ("normalizer", {"type": "NFKC"}),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAA"}),
    ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"}),
    ("normalizer", {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "Strip"}]}),
    ("pre_tokenizer", {"type": "FixedLength", "length": 3}),
    ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": " +"}, "behavior": "Removed", "invert": False}),
    ("pre_tokenizer", {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True}),
    ("pre_tokenizer", None),
    ("post_processor", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}),
    ("model", {"type": "WordLevel", "vocab": {"<pad>": 0, "<start>": 1, "<end>": 2}, "unk_token": "<pad>"}),
    ("model", {"type": "Unigram", "unk_id": 0, "vocab": [["<pad>", 0], ["<start>", -1], ["<end>", -2]]}),
    ("truncation", {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}),
)  # fmt: skip


def checkpoint(rng: random.Random, folder: Path) -> None:
    """A damaged official checkpoint, or weights of ours with a damaged model.json."""
    import torch

    from sam3i_edge.checkpoints import load_checkpoint
    from sam3i_edge.model.weights import load_model

    official = TESTS.parents[1] / "shared" / "fixtures" / "public"
    path, config = folder / "damaged.pt", official / "config.json"
    try:
        match rng.randrange(4) if official.is_dir() else 3:  # without its files, weights of ours
            case 0:
                path.write_bytes(mutations.mutated_bytes(rng, (official / "sam3i_stage3.pt").read_bytes()))
            case 1:
                config = folder / "config.json"
                changed = mutations.mutated_json(rng, json.loads((official / "config.json").read_bytes()))
                config.write_bytes(changed)
                path = official / "sam3i_stage3.pt"
            case 2:
                content = torch.load(official / "sam3i_stage3.pt", weights_only=True)
                for _ in range(rng.randint(1, 3)):
                    _damage_tensor(rng, content["model"])
                torch.save(content, path)
            case _:
                root = folder / "weights"
                shutil.copytree(folder / "model", root, dirs_exist_ok=True)
                victim = rng.choice([root / "model.json"] * 3 + sorted(root.glob("*.safetensors")))
                content = victim.read_bytes()
                if victim.suffix == ".json":
                    victim.write_bytes(mutations.mutated_json(rng, json.loads(content)))
                else:
                    victim.write_bytes(mutations.mutated_bytes(rng, content))
                load_model(root)
                return
        load_checkpoint(path, config)
    except ArtifactError:
        pass


def _damage_tensor(rng: random.Random, state: dict[str, Any]) -> None:
    import torch

    name = rng.choice(sorted(state))
    value = state[name]
    match rng.randrange(7):
        case 0:
            del state[name]
        case 1:
            state[name] = torch.full_like(value, torch.nan) if value.is_floating_point() else value.float()
        case 2:
            state[name] = value.to(torch.bfloat16 if rng.random() < 0.5 else torch.complex64)
        case 3:
            state[name] = value.to_sparse() if value.ndim else value[None]
        case 4:
            change = rng.choice((torch.flatten, lambda v: v[None], lambda v: v[..., :0], lambda v: v.mT))
            state[name] = change(value) if value.ndim > 1 else value[None]
        case 5:
            state[rng.choice((name + ".x", name.replace(".", ""), "a.b.99999999999.weight"))] = state.pop(
                name
            )
        case _:
            state[name] = rng.choice((None, "text", 3, [value], {"a": value}, torch.zeros(())))


def annotations(rng: random.Random, folder: Path) -> None:
    """A damaged annotation file: read, its masks drawn, and made into pairs."""
    from sam3i_edge.data.annotations import read_annotations
    from sam3i_edge.quantize.recorded_pairs import recorded_pairs

    data, path = folder / "data", folder / "data" / "annotations.json"
    whole = (folder / "annotations.json").read_bytes()
    damaged = rng.random() < 0.9
    path.write_bytes(
        mutations.mutated_json(rng, json.loads(whole)) if damaged else mutations.mutated_bytes(rng, whole)
    )
    try:
        for record in read_annotations(path):
            masks = record.masks()
            assert masks.dtype == bool
            assert masks.shape == (len(record.annotations), record.height, record.width), masks.shape
        assert recorded_pairs(data)
    except Sam3iError:
        pass


def sources(rng: random.Random, folder: Path) -> None:
    """A damaged file of annotated pictures of any kind: opened, and every scene and record of it made."""
    from sam3i_edge.data.sources import open_source
    from sam3i_edge.data.vocabulary import load_vocabulary

    root = folder / "sources"
    name = rng.choice(("scenes.jsonl", "instances.json", "refs.json", "table.parquet"))
    whole = (folder / "whole sources" / name).read_bytes()
    if name == "table.parquet" or rng.random() < 0.2:
        damaged = mutations.mutated_bytes(rng, whole)
    else:
        damaged = mutations.mutated_json(rng, json.loads(whole))
    victim = root / name
    victim.write_bytes(damaged)
    if name == "refs.json" and rng.random() < 0.3:
        victim.write_bytes(whole)
        instances = json.loads((folder / "whole sources" / "instances.json").read_bytes())
        (root / "instances.json").write_bytes(mutations.mutated_json(rng, instances))
    try:
        found = open_source(victim, load_vocabulary("tabletop"), images=folder / "data" / "images",
                            pixel_colors=rng.random() < 0.3)  # fmt: skip
        for number in range(len(found)):
            scene = found.scene(number)
            assert scene.listed.isdisjoint(scene.crowds)
            for thing in scene.objects:
                assert thing.mask.shape == scene.size
                assert thing.mask.any()
                assert np.isfinite([*thing.box, *thing.center]).all()
            for record in found.records(number):
                assert record.masks().shape == (1, record.height, record.width)
    except Sam3iError:
        pass
    finally:
        shutil.copyfile(folder / "whole sources" / "instances.json", root / "instances.json")


def config(rng: random.Random, folder: Path) -> None:
    """A damaged training config."""
    from sam3i_edge.train.run_config import TrainConfig

    path = folder / "train.json"
    content = (folder / "config.json").read_bytes()
    path.write_bytes(mutations.mutated_json(rng, json.loads(content)))
    try:
        found = TrainConfig.read(path)
    except TrainingError:
        return
    assert TrainConfig.from_json(found.to_json()) == found


def cli(rng: random.Random, folder: Path) -> None:
    """A command line of real verbs and options with values that mostly do not fit."""
    import typer

    from sam3i_edge.cli.app import app, main
    from sam3i_edge.measure import runner

    runner.run = lambda rows, results, **_: results  # what it measures takes minutes
    verbs = typer.main.get_command(app).commands
    name = rng.choice(sorted(verbs))
    arguments = [name]
    for parameter in verbs[name].params:
        if parameter.name == "help":
            continue
        chance = 0.95 if parameter.param_type_name == "argument" or parameter.required else 0.25
        # What is left out here would begin a run of hours on the bundled model.
        if rng.random() < chance or parameter.name == "model":
            value = [] if getattr(parameter, "is_flag", False) else [_value(rng, parameter.name, folder)]
            option = [] if parameter.param_type_name == "argument" else [rng.choice(parameter.opts)]
            arguments += option + value
    work = folder / "work"
    work.mkdir()
    os.chdir(work)
    out, err = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    stdin = io.TextIOWrapper(io.BytesIO(b"no image"))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            sys.stdin, before = stdin, sys.stdin
            code = main(arguments)
    finally:
        sys.stdin = before
        os.chdir(folder)
        shutil.rmtree(work)
    err.seek(0)
    said = err.read()
    assert code in (0, 1, 2), (code, arguments, said)
    assert "Traceback" not in said, (arguments, said)
    assert "a fault of sam3i-edge" not in said, (arguments, said)
    assert code == 0 or said.strip(), f"{arguments} failed and said nothing"


def _value(rng: random.Random, name: str, folder: Path) -> str:
    fitting = {
        "image": "picture.png", "model": "bundle", "bundle": "bundle", "data": "data", "source": "bundle",
        "config": "config.json", "out": "work/out", "output": "work/out.png", "instruction": "the red star",
    }  # fmt: skip
    if name in ("count", "limit", "pairs", "steps", "threads", "queries"):
        return rng.choice(("0", "1", "2", "-1", "1.5", "x", "", "nan", str(10**20), "\u0662"))
    if name in fitting and rng.random() < 0.6:
        value = fitting[name]
        return value if name == "instruction" else str(folder / value)
    path = rng.choice(("bundle", "data", "missing", "picture.png", "config.json", "work", "data/images", "."))
    return rng.choice(
        (str(folder / path), "", " ", "-", "--", "0", "-1", "nan", "inf", "1e400", "cpu", "onnx", "int8,fp16",
         "a/b", "\udcff", "é", "x" * 5000, "../..", "10,20,30,40:-", "1,2,3", "/dev/null", "/proc/self/mem"),
    )  # fmt: skip


TARGETS: dict[str, Case] = {
    function.__name__: function
    for function in (bundle, image, tokenizer, checkpoint, annotations, sources, config, cli)
}


def main() -> None:
    """Reads the command line and runs cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--case", type=int)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    folder = given.folder.resolve()
    first = given.first if given.case is None else given.case
    end = 0.0
    for number in itertools.count(first):
        (folder / "case").write_text(str(number))
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        TARGETS[given.target](random.Random(f"{given.target} {number}"), folder)
        faulthandler.cancel_dump_traceback_later()
        end = end or time.monotonic() + given.seconds  # the first case imports what it needs
        if given.case is not None or time.monotonic() >= end:
            break
    (folder / "cases").write_text(str(number + 1 - first))


if __name__ == "__main__":
    main()
