"""The scenes that scripts ask a model about, drawn or of a folder, as the command line says."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sam3i_edge.data.scene import Scene
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.sources.open import open_source
from sam3i_edge.data.vocabulary import Vocabulary, load_vocabulary


def from_command_line(
    description: str | None, *, count: int, seed: int
) -> tuple[str, Vocabulary, Iterator[tuple[Scene, np.random.Generator]]]:
    """The model that is named, the words to ask in, and each scene with a generator for its questions."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--scenes", type=int, default=count)
    parser.add_argument("--data", type=Path, help="scene files; drawn shapes without it")
    parser.add_argument("--vocabulary", default="shapes")
    parser.add_argument("--seed", type=int, default=seed)
    given = parser.parse_args()
    vocabulary = load_vocabulary(given.vocabulary)
    return given.model, vocabulary, _scenes(given, vocabulary)


def _scenes(given: argparse.Namespace, vocabulary: Vocabulary) -> Iterator[tuple[Scene, np.random.Generator]]:
    source = None if given.data is None else open_source(given.data, vocabulary)
    count = given.scenes if source is None else min(given.scenes, len(source))
    for number in tqdm(range(count), unit="scene"):
        seed = (given.seed, number)
        scene = draw_scene(np.random.default_rng(seed)) if source is None else source.scene(number)
        yield scene, np.random.default_rng(seed)
