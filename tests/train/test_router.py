from __future__ import annotations

import numpy as np
import pytest
import torch

from sam3i_edge.data.families import HELD_OUT
from sam3i_edge.levels import LEVELS
from sam3i_edge.pipeline.tokenizer import train_bpe
from sam3i_edge.train.router import Router, RouterGraph, Text, accuracy, held_out, train_router, written


@pytest.fixture(scope="module")
def texts():
    return written(["shapes"], 40, 0)


@pytest.fixture(scope="module")
def encode(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("router") / "tokenizer.json"
    tokenizer = train_bpe([one.text for one in texts], 500, path)
    return lambda text: tokenizer.encode(text).ids


def _embedding():
    return torch.randn(500, 24, generator=torch.Generator().manual_seed(1))


def _level(router, encode):
    return lambda text: LEVELS[int(router(torch.from_numpy(encode(text))[None]).argmax())]


def test_texts_of_all_levels_alike_and_held_out_families_apart(texts):
    counts = [sum(one.level == level for one in texts) for level in LEVELS]
    assert min(counts) > 0.9 * max(counts)
    assert not {one.family for one in texts} & set(HELD_OUT)
    apart = held_out(["shapes"], 10, 1)
    assert {one.family for one in apart if one.level != "concept"} == set(HELD_OUT)
    assert any(one.level == "concept" for one in apart)
    assert written(["shapes"], 3, 5) == written(["shapes"], 3, 5) != written(["shapes"], 3, 6)


def test_it_learns_what_it_is_shown_and_its_embeddings_stay(texts, encode):
    embedding = _embedding()
    router = train_router(embedding, encode, texts, epochs=20)
    other = written(["shapes"], 10, 7)
    right = accuracy(_level(router, encode), other)
    assert min(right.values()) > 0.8, right
    assert torch.equal(router.embedding, embedding)
    again = train_router(embedding, encode, texts[:200], epochs=1)
    twice = train_router(embedding, encode, texts[:200], epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), twice.parameters(), strict=True))


def test_padding_counts_nothing_and_the_graph_is_the_router(encode):
    torch.manual_seed(3)
    router = Router(_embedding()).eval()
    ids = torch.from_numpy(encode("the red star"))[None]
    short = ids[:, : int((ids != 0).sum()) + 1]
    torch.testing.assert_close(router(ids), router(short))
    graph = RouterGraph(router)
    torch.testing.assert_close(graph(ids), router(ids))
    assert graph.channels.shape == (500, 32)
    moved = ids.clone()
    moved[0, 2], moved[0, 3] = ids[0, 3], ids[0, 2]
    assert not torch.allclose(router(moved), router(ids))  # the order of words counts


def test_accuracy_is_told_by_level():
    texts = [Text("a", "simple", ""), Text("b", "simple", ""), Text("c", "complex", "")]
    assert accuracy(lambda text: "simple", texts) == {"simple": 1.0, "complex": 0.0}
    assert np.isclose(accuracy(lambda text: "simple" if text == "a" else "complex", texts)["simple"], 0.5)
