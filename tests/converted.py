"""The official code's small checkpoints, converted by `sam3i-edge convert`."""

from __future__ import annotations

import sys
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers

from sam3i_edge.cli.app import main

sys.path.insert(0, str(Path(__file__).with_name("model")))
import official

STAGE3, BASE, CONFIG = (official.FOLDER / name for name in ("sam3i_stage3.pt", "sam3_base.pt", "config.json"))
SLOTS = 4  # the official case has two boxes, so that two slots are padding


def write_tokenizer(path: Path) -> None:
    """Letters as tokens, for a vocabulary of 320 with the official places of start and end."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [f"<unused{number}>" for number in range(len(tokens), 318)]
    backend = tokenizers.Tokenizer(
        models.BPE({token: n for n, token in enumerate(tokens)}, [], end_of_word_suffix="</w>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_tokens(["<start_of_text>", "<end_of_text>"])
    backend.save(str(path))


def arguments(source: Path, out: Path, folder: Path) -> list[str]:
    """What converts a checkpoint; tokenizer and licence are written to `folder`."""
    texts, terms = folder / "tokenizer.json", folder / "LICENSE"
    write_tokenizer(texts)
    terms.write_text("You may use this, and may not pass it on.\n")
    return [
        "convert", str(source), "-o", str(out), "--config", str(CONFIG), "--tokenizer", str(texts),
        "--license", str(terms), "--pairs", "6", "--threshold", "0.443", "--boxes", str(SLOTS),
    ]  # fmt: skip


def convert(source: Path, folder: Path) -> None:
    """Writes `bundle` into the folder."""
    assert main(arguments(source, folder / "bundle", folder)) == 0
