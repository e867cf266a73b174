"""A bundle of real, tiny ONNX graphs with the names and shapes of the real ones, made in milliseconds.

Nothing is trained: every output depends on the image, the instruction, the padding mask and the level, so
that a mix-up of any of them changes the result.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import License, Preprocessing, TokenizerSpec, Variant
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.levels import LEVELS
from sam3i_edge.pipeline.tokenizer import train_bpe

IMAGE_SIZE, CHANNELS, QUERIES, MASK_SIZE, TOKENS = 32, 8, 4, 8, 32

PHRASES = ["star", "the red star left of the ring", "every large square", "the shape with three corners"]


def write_tiny_bundle(target: Path, *, boxes: int = 0, overwrite: bool = False) -> Bundle:
    """Writes the bundle, which takes as many `boxes`, to `target` and opens it."""
    rng = np.random.default_rng(0)
    with new_bundle(target, overwrite=overwrite) as folder:
        train_bpe(PHRASES * 3, 300, folder.path / "tokenizer.json")
        (folder.path / "LICENSE").write_text("Apache-2.0\n")
        graphs = {"image_encoder": _image_encoder(rng), "detector": _detector(rng, TOKENS + boxes + 1)}
        graphs |= {f"text_encoder.{level}": _text_encoder(rng) for level in LEVELS}
        if boxes:
            graphs["box_encoder"] = _box_encoder(rng, boxes)
        (folder.path / "onnx-fp32").mkdir()
        for name, model in graphs.items():
            _save(model, folder.path / "onnx-fp32" / f"{name}.onnx")
        folder.finish(
            name="tiny",
            model={"hidden_size": CHANNELS},
            preprocessing=Preprocessing(image_size=IMAGE_SIZE),
            tokenizer=TokenizerSpec(start_id=1, end_id=2),
            license=License(name="Apache-2.0"),
            provenance={"seed": 0},
            variants={
                "onnx-fp32": Variant(
                    runtime="onnxruntime",
                    precision="fp32",
                    graphs={name: f"onnx-fp32/{name}.onnx" for name in graphs},
                    boxes=boxes,
                )
            },
        )
    return Bundle.open(target)


def _save(model: onnx.ModelProto, path: Path) -> None:
    onnx.checker.check_model(model)
    location = path.with_suffix(".data").name  # weights beside the graph, as in real bundles
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=256)


def _model(nodes, inputs, outputs, weights) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def _image_encoder(rng: np.random.Generator) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["pixel_values", "w"], ["fpn_4x"], strides=[4, 4], kernel_shape=[4, 4]),
        helper.make_node("AveragePool", ["fpn_4x"], ["fpn_2x"], strides=[2, 2], kernel_shape=[2, 2]),
        helper.make_node("AveragePool", ["fpn_2x"], ["fpn_1x"], strides=[2, 2], kernel_shape=[2, 2]),
        helper.make_node("ReduceMean", ["fpn_1x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "cls_shape"], ["cls_token"]),
    ]
    c, m = CHANNELS, MASK_SIZE
    return _model(
        nodes,
        [("pixel_values", TensorProto.FLOAT, [1, 3, IMAGE_SIZE, IMAGE_SIZE])],
        [
            ("fpn_4x", TensorProto.FLOAT, [1, c, m, m]),
            ("fpn_2x", TensorProto.FLOAT, [1, c, m // 2, m // 2]),
            ("fpn_1x", TensorProto.FLOAT, [1, c, m // 4, m // 4]),
            ("cls_token", TensorProto.FLOAT, [1, 1, c]),
        ],
        {"w": _normal(rng, c, 3, 4, 4), "cls_shape": np.array([1, 1, c])},
    )


def _text_encoder(rng: np.random.Generator) -> onnx.ModelProto:
    return _model(
        [helper.make_node("Gather", ["table", "input_ids"], ["text_features"], axis=0)],
        [("input_ids", TensorProto.INT64, [1, TOKENS])],
        [("text_features", TensorProto.FLOAT, [1, TOKENS, CHANNELS])],
        {"table": _normal(rng, 300, CHANNELS)},
    )


def _box_encoder(rng: np.random.Generator, boxes: int) -> onnx.ModelProto:
    """A token a box from its place and label; the CLS token adds the real ones to the image's mean."""
    c, m = CHANNELS, MASK_SIZE
    make = helper.make_node
    nodes = [
        make("GreaterOrEqual", ["labels", "zero"], ["valid"]),
        make("Max", ["labels", "zero"], ["row"]),
        make("Gather", ["label_table", "row"], ["label_rows"], axis=0),
        make("MatMul", ["boxes", "w"], ["places"]),
        make("Add", ["places", "label_rows"], ["tokens"]),  # [1, B, C]
        make("Cast", ["valid"], ["valid_float"], to=TensorProto.FLOAT),
        make("Unsqueeze", ["valid_float", "axis_2"], ["weight"]),
        make("Mul", ["tokens", "weight"], ["kept"]),
        make("ReduceSum", ["kept", "axis_1"], ["summed"], keepdims=1),
        make("ReduceMean", ["fpn_1x"], ["mean"], axes=[2, 3], keepdims=0),
        make("Unsqueeze", ["mean", "axis_1"], ["image"]),
        make("Add", ["summed", "image"], ["cls"]),
        make("Concat", ["tokens", "cls"], ["geometry_tokens"], axis=1),
        make("Concat", ["valid", "always"], ["geometry_mask"], axis=1),
    ]
    return _model(
        nodes,
        [
            ("boxes", TensorProto.FLOAT, [1, boxes, 4]),
            ("labels", TensorProto.INT64, [1, boxes]),
            ("fpn_1x", TensorProto.FLOAT, [1, c, m // 4, m // 4]),
        ],
        [
            ("geometry_tokens", TensorProto.FLOAT, [1, boxes + 1, c]),
            ("geometry_mask", TensorProto.BOOL, [1, boxes + 1]),
        ],
        {
            "zero": np.array(0),
            "axis_1": np.array([1]),
            "axis_2": np.array([2]),
            "always": np.ones((1, 1), bool),
            "w": 4 * _normal(rng, 4, c),
            "label_table": _normal(rng, 2, c),
        },
    )


def _detector(rng: np.random.Generator, tokens: int) -> onnx.ModelProto:
    c, m, k = CHANNELS, MASK_SIZE, QUERIES
    make = helper.make_node
    nodes = [
        make("Cast", ["prompt_mask"], ["valid"], to=TensorProto.FLOAT),
        make("Unsqueeze", ["valid", "axis_2"], ["weight"]),
        make("Mul", ["prompt", "weight"], ["kept"]),
        make("ReduceSum", ["kept", "axis_1"], ["summed"], keepdims=0),
        make("Gather", ["level_table", "level"], ["level_row"], axis=0),
        make("Add", ["summed", "level_row"], ["p"]),  # [1, C]
        make("Mul", ["queries", "p"], ["q"]),  # [K, C]
        make("ReduceMean", ["q"], ["q_mean"], axes=[1], keepdims=0),
        make("ReduceMean", ["fpn_2x"], ["shift"], axes=[0, 1, 2, 3], keepdims=0),
        make("Add", ["q_mean", "shift"], ["raw"]),
        make("Sigmoid", ["raw"], ["unsorted"]),
        make("TopK", ["unsorted", "k"], ["best", "order"]),
        make("Reshape", ["best", "scores_shape"], ["scores"]),
        make("Gather", ["corners", "order"], ["sorted_corners"], axis=0),
        make("Reshape", ["sorted_corners", "boxes_shape"], ["boxes"]),
        make("Gather", ["q", "order"], ["sorted_q"], axis=0),
        make("Reshape", ["fpn_4x", "pixels_shape"], ["pixels"]),
        make("MatMul", ["sorted_q", "pixels"], ["flat_masks"]),
        make("Reshape", ["flat_masks", "masks_shape"], ["mask_logits"]),
        make("ReduceMean", ["fpn_1x"], ["bias"], axes=[0, 1, 2, 3], keepdims=0),
        make("ReduceMean", ["p"], ["p_mean"], axes=[1], keepdims=1),
        make("Add", ["p_mean", "bias"], ["presence"]),
    ]
    corners = np.sort(rng.uniform(size=(k, 2, 2)), axis=1).reshape(k, 4).astype(np.float32)
    weights = {
        "axis_1": np.array([1]),
        "axis_2": np.array([2]),
        "k": np.array([k]),
        "level_table": 4 * _normal(rng, len(LEVELS), c),
        "queries": _normal(rng, k, c),
        "corners": corners,
        "scores_shape": np.array([1, k]),
        "boxes_shape": np.array([1, k, 4]),
        "pixels_shape": np.array([c, m * m]),
        "masks_shape": np.array([1, k, m, m]),
    }
    inputs = [
        ("fpn_4x", TensorProto.FLOAT, [1, c, m, m]),
        ("fpn_2x", TensorProto.FLOAT, [1, c, m // 2, m // 2]),
        ("fpn_1x", TensorProto.FLOAT, [1, c, m // 4, m // 4]),
        ("prompt", TensorProto.FLOAT, [1, tokens, c]),
        ("prompt_mask", TensorProto.BOOL, [1, tokens]),
        ("level", TensorProto.INT64, [1]),
    ]
    outputs = [
        ("scores", TensorProto.FLOAT, [1, k]),
        ("boxes", TensorProto.FLOAT, [1, k, 4]),
        ("mask_logits", TensorProto.FLOAT, [1, k, m, m]),
        ("presence", TensorProto.FLOAT, [1, 1]),
    ]
    return _model(nodes, inputs, outputs, weights)
