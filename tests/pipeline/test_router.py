from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sam3i_edge import Segmenter
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import ROUTER
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.levels import LEVELS, route
from sam3i_edge.pipeline.instruction import check_instruction
from sam3i_edge.pipeline.router import Router

PICTURE = np.full((40, 60, 3), 90, np.uint8)


def _write(path, table, output="level_logits", tokens=32):
    """A graph that sums rows of a table [V, 3] over the tokens."""
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, tokens])
    logits = helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, table.shape[1]])
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axes"], [output], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(table.astype(np.float32), "table"),
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
    ]
    graph = helper.make_graph(nodes, "router", [ids], [logits], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def _routed(bundle, out, table, **options):
    """The bundle with a router."""
    with new_bundle(out, base=bundle) as folder:
        _write(folder.path / ROUTER, table, **options)
        folder.finish(variants={})
    return Bundle.open(out)


@pytest.fixture
def by_star(tiny_bundle, tmp_path):
    """A bundle whose router says complex where the tokens of "star" are, and concept where they are not."""
    tokenizer = tiny_bundle.tokenizer()
    table = np.zeros((tokenizer.vocab_size, 3))
    for word in set(tokenizer.encode("star").ids) - {0, 1, 2}:
        table[word, 2] = 1.0
    table[1, 0] = 0.5  # the start of any text
    return _routed(tiny_bundle, tmp_path / "routed", table)


def test_a_bundle_with_a_router_is_routed_by_it_and_says_so(by_star):
    router = Router(by_star.router(), by_star.tokenizer())
    assert [router.level(check_instruction(text)) for text in ("  A STAR!", "a hexagon")] == [
        "complex",
        "concept",
    ]
    assert route("star") == "concept"  # it is not the rules that chose
    with Segmenter(by_star.root) as segmenter:
        result = segmenter.segment(PICTURE, "star")
        assert (result.level, result.level_chosen_by) == ("complex", "router")
        told = segmenter.segment(PICTURE, "star", level="simple")
        assert (told.level, told.level_chosen_by) == ("simple", "caller")
        assert type(result).from_json(result.to_json()).level_chosen_by == "router"
    with pytest.raises(RuntimeUnavailable, match="closed"):
        segmenter.segment(PICTURE, "star")
    router.close()
    with pytest.raises(RuntimeUnavailable):
        router.level("star")


def test_a_bundle_without_one_keeps_to_the_rules(tiny_bundle):
    assert tiny_bundle.router() is None
    with Segmenter(tiny_bundle.root) as segmenter:
        for text in ("star", "the red star left of the ring"):
            result = segmenter.segment(PICTURE, text)
            assert (result.level, result.level_chosen_by) == (route(text), "auto")


def test_boxes_alone_are_asked_at_concept(tiny_box_bundle, tmp_path):
    table = np.zeros((tiny_box_bundle.tokenizer().vocab_size, 3))
    table[1, 2] = 1.0  # complex, always
    routed = _routed(tiny_box_bundle, tmp_path / "routed", table)
    with Segmenter(routed.root) as segmenter:
        result = segmenter.segment(PICTURE, boxes=[[5, 5, 20, 20]])
        assert (result.level, result.level_chosen_by) == ("concept", "auto")
        assert segmenter.segment(PICTURE, "star", boxes=[[5, 5, 20, 20]]).level == "complex"


@pytest.mark.parametrize(
    ("table", "options", "told"),
    [
        (np.zeros((400, 3)), {"output": "logits"}, "no router"),
        (np.zeros((400, 4)), {}, "no router"),
        (np.full((400, 3), np.nan), {}, "no router"),
        (np.zeros((400, 3)), {"tokens": 16}, "does not fit the bundle's tokenizer"),
    ],
)
def test_a_graph_that_is_no_router_is_told(tiny_bundle, tmp_path, table, options, told):
    _write(tmp_path / ROUTER, table, **options)
    router = Router(tmp_path / ROUTER, tiny_bundle.tokenizer())
    with pytest.raises(ArtifactError, match=told):
        router.level("star")


def test_a_router_that_was_changed_is_refused(by_star, tmp_path):
    shutil.copytree(by_star.root, tmp_path / "changed")
    with (tmp_path / "changed" / ROUTER).open("ab") as file:
        file.write(b"more")
    with pytest.raises(ArtifactError, match=ROUTER):
        Segmenter(tmp_path / "changed")


def test_what_is_made_of_a_routed_bundle_keeps_the_router(by_star, tmp_path):
    with new_bundle(tmp_path / "more", base=by_star) as folder:
        folder.finish(variants={})
    assert Bundle.open(tmp_path / "more").router().read_bytes() == by_star.router().read_bytes()


def test_levels_are_three(by_star):
    assert Router(by_star.router(), by_star.tokenizer()).logits(np.zeros(32, np.int64)).shape == (
        len(LEVELS),
    )
