"""The evaluator of Core ML packages: every operator, the package on disk, and the agreement gate."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sam3i_edge.agreement import check, compare, drawn_pairs
from sam3i_edge.bundle.manifest import Preprocessing
from sam3i_edge.errors import ArtifactError, ExportError, ParityError, RuntimeUnavailable
from sam3i_edge.export.coreml.mil_ops import OPERATORS, Operands
from sam3i_edge.export.coreml.mil_reference import MilGraphs, MilProgram, quiet
from sam3i_edge.export.coreml.package import PackageOptions, file_name, write_package
from sam3i_edge.export.staged import TorchGraphs, answers
from sam3i_edge.model.graph_specs import GraphSpec
from sam3i_edge.pipeline.tokenizer import Tokenizer

with quiet():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder, Function

_RNG = np.random.default_rng(0)


def _floats(*shape):
    return _RNG.standard_normal(shape).astype(np.float32)


X, Y, SQUARE = _floats(2, 3, 4, 6), _floats(2, 3, 4, 6), _floats(3, 3)
POSITIVE = np.abs(X) + 0.1
TRUTH = X > 0
KERNEL, TRANSPOSED, CHANNELS = _floats(5, 3, 3, 2), _floats(3, 5, 2, 3), _floats(3)
INT8 = _RNG.integers(-127, 128, (4, 6)).astype(np.int8)
INT4 = _RNG.integers(-8, 8, (2, 64)).astype(np.int8)
SCALES = np.array([0.5, 0.25, 0.125, 0.0625], np.float32)
BLOCKS = np.array([[0.5, 0.25], [0.125, 2.0]], np.float32)
T = torch.from_numpy

# Operator -> parameters, and where coremltools cannot evaluate it, what torch gives.
CASES = [
    ("abs", {"x": X}, None),
    ("add", {"x": X, "y": CHANNELS[None, :, None, None]}, None),
    (
        "batch_norm",
        {"x": X, "mean": CHANNELS, "variance": np.abs(CHANNELS), "gamma": CHANNELS + 1, "beta": CHANNELS},
        (X - CHANNELS[:, None, None]) / np.sqrt(np.abs(CHANNELS[:, None, None]) + 1e-5)
        * (CHANNELS[:, None, None] + 1)
        + CHANNELS[:, None, None],
    ),
    ("cast", {"x": X * 10, "dtype": "int32"}, None),
    ("cast", {"x": X, "dtype": "bool"}, None),
    ("cast", {"x": TRUTH, "dtype": "fp32"}, None),
    ("cast", {"x": np.array([3, 65535], np.int32), "dtype": "uint16"}, None),
    ("ceil", {"x": X}, None),
    ("clip", {"x": X, "alpha": -0.5, "beta": 0.25}, None),
    ("concat", {"values": (X, Y), "axis": 1}, None),
    (
        "conv",
        {"x": X, "weight": KERNEL, "bias": _floats(5) * 0, "strides": [2, 1], "pad_type": "custom",
         "pad": [1, 0, 2, 1]},
        F.conv2d(F.pad(T(X), (2, 1, 1, 0)), T(KERNEL), stride=(2, 1)),
    ),
    ("conv", {"x": X, "weight": KERNEL, "dilations": [1, 2], "pad_type": "valid"},
     F.conv2d(T(X), T(KERNEL), dilation=(1, 2))),
    ("conv_transpose", {"x": X, "weight": TRANSPOSED, "strides": [2, 2]},
     F.conv_transpose2d(T(X), T(TRANSPOSED), stride=2)),
    ("conv_transpose", {"x": X, "weight": TRANSPOSED, "strides": [2, 2], "pad_type": "custom",
                        "pad": [1, 1, 1, 1]},
     F.conv_transpose2d(T(X), T(TRANSPOSED), stride=2, padding=1)),
    ("cos", {"x": X}, None),
    ("sigmoid_hard", {"x": X, "alpha": 0.5, "beta": 0.25}, None),
    ("thresholded_relu", {"x": X.copy(), "alpha": 0.25}, None),  # coremltools writes into what it is given
    ("upsample_bilinear", {"x": X, "scale_factor_height": 2.0, "scale_factor_width": 1.5,
                           "align_corners": False},
     F.interpolate(T(X), scale_factor=(2.0, 1.5), mode="bilinear", align_corners=False)),
    ("dequantize", {"input": INT8, "scale": np.float32(0.5)}, INT8 * 0.5),
    ("dequantize", {"input": INT8, "scale": SCALES, "zero_point": np.int8([1, 0, -3, 2]), "axis": 0},
     (INT8 - np.array([[1], [0], [-3], [2]])) * SCALES[:, None]),
    ("equal", {"x": np.sign(X), "y": np.sign(Y)}, None),
    ("expand_dims", {"x": X, "axes": [0]}, None),
    ("gather", {"x": X, "indices": np.array([[1, 0], [-1, 2]], np.int32), "axis": 2}, None),
    ("gather_along_axis", {"x": X, "indices": np.ones((2, 2, 4, 6), np.int32), "axis": 1}, None),
    ("gelu", {"x": X, "mode": "EXACT"}, None),
    ("gelu", {"x": X, "mode": "TANH_APPROXIMATION"}, None),
    ("greater", {"x": X, "y": Y}, None),
    ("greater_equal", {"x": X, "y": 0.0}, None),
    ("identity", {"x": X}, None),
    ("layer_norm", {"x": X, "axes": [-1], "gamma": _floats(6), "beta": _floats(6), "epsilon": 1e-3}, None),
    ("layer_norm", {"x": X, "axes": [2, 3], "epsilon": 1e-5}, None),
    ("less", {"x": X, "y": Y}, None),
    ("less_equal", {"x": X, "y": Y}, None),
    ("linear", {"x": X, "weight": _floats(5, 6), "bias": _floats(5)}, None),
    ("log", {"x": POSITIVE, "epsilon": 0.01}, None),
    ("logical_and", {"x": TRUTH, "y": Y > 0}, None),
    ("logical_not", {"x": TRUTH}, None),
    ("matmul", {"x": X, "y": Y, "transpose_y": True}, None),
    ("matmul", {"x": X, "y": Y, "transpose_x": True}, None),
    ("maximum", {"x": X, "y": Y}, None),
    ("minimum", {"x": X, "y": Y}, None),
    ("mul", {"x": X, "y": Y}, None),
    ("not_equal", {"x": np.array([0, 1], np.int32), "y": np.int32(0)}, None),
    ("pad", {"x": X, "pad": [0, 0, 0, 0, 1, 0, 0, 2], "mode": "constant", "constant_val": 1.5}, None),
    ("quantize", {"input": X * 9, "scale": np.float32(0.125), "output_dtype": "int8"}, None),
    ("quantize", {"input": X[0, :, 0], "scale": CHANNELS**2 + 0.01, "axis": 0, "output_dtype": "int8"}, None),
    ("real_div", {"x": X, "y": POSITIVE}, None),
    ("reduce_mean", {"x": X, "axes": [1, 3], "keep_dims": True}, None),
    ("reduce_sum", {"x": X, "axes": [-1], "keep_dims": False}, None),
    ("relu", {"x": X}, None),
    ("relu6", {"x": X * 9}, None),
    ("reshape", {"x": X, "shape": [6, -1]}, None),
    ("select", {"cond": TRUTH, "a": X, "b": Y}, None),
    ("sigmoid", {"x": X}, None),
    ("sign", {"x": X}, None),
    ("sin", {"x": X}, None),
    ("slice_by_index", {"x": X, "begin": [0, 1, 0, 1], "end": [0, 2, -1, 6], "stride": [1, 1, 1, 2],
                        "end_mask": [True, False, False, False],
                        "squeeze_mask": [False, True, False, False]}, None),
    ("softmax", {"x": X * 20, "axis": 2}, None),
    ("split", {"x": X, "axis": -1, "split_sizes": [2, 4]}, None),
    ("sqrt", {"x": POSITIVE}, None),
    ("square", {"x": X}, None),
    ("squeeze", {"x": X[:, :1], "axes": [1]}, None),
    ("stack", {"values": (X, Y), "axis": -1}, None),
    ("sub", {"x": X, "y": Y}, None),
    ("tile", {"x": X, "reps": [1, 2, 1, 3]}, None),
    ("topk", {"x": X, "k": 3, "axis": 3}, None),
    ("topk", {"x": X, "k": 2, "axis": 1, "ascending": True}, None),
    ("transpose", {"x": X, "perm": [0, 2, 3, 1]}, None),
    ("upsample_nearest_neighbor", {"x": X, "scale_factor_height": 2.0, "scale_factor_width": 3.0},
     X.repeat(2, 2).repeat(3, 3)),
]  # fmt: skip


def _build(kind, parameters, target=ct.target.iOS17):
    with Function({}, opset_version=target):
        made = getattr(Builder, kind)(**parameters)
    return (made[0] if isinstance(made, (tuple, list)) else made).op


def _evaluate(op):
    values = {}
    for given in op.inputs.values():
        for var in given if isinstance(given, (tuple, list)) else [given]:
            if not isinstance(var.val, str):
                values[var.name] = torch.from_numpy(np.array(var.val))
    found = OPERATORS[op.op_type](Operands(op, values))
    return [value.numpy() for value in (found if isinstance(found, tuple) else (found,))]


@pytest.mark.parametrize(("kind", "parameters", "expected"), CASES, ids=[case[0] for case in CASES])
def test_operator_computes_what_coremltools_says(kind, parameters, expected):
    op = _build(kind, parameters)
    wanted = [var.val for var in op.outputs]
    assert (wanted[0] is None) == (expected is not None), "one oracle, coremltools' own where it has one"
    if expected is not None:
        wanted = [np.asarray(expected)]
    found = _evaluate(op)
    assert len(found) == len(wanted)
    for value, want in zip(found, wanted, strict=True):
        assert value.shape == np.shape(want)
        np.testing.assert_allclose(value, want, rtol=2e-6, atol=2e-6)


def test_weights_of_8_bits_are_decoded():
    zeros = np.int8([0, 1, 0, -2])
    parameters = {"quantized_data": INT8, "scale": SCALES, "zero_point": zeros, "axis": 0}
    op = _build("constexpr_affine_dequantize", parameters)
    (found,) = _evaluate(op)
    np.testing.assert_array_equal(found, op.materialized_val_inference())
    np.testing.assert_array_equal(found, (INT8.astype(np.float32) - zeros[:, None]) * SCALES[:, None])


@pytest.mark.parametrize("offset", [None, np.array([[1, -2], [3, -8]], np.int8)], ids=["plain", "offset"])
def test_weights_of_4_bits_are_decoded(offset):
    int4 = ct.converters.mil.mil.types.nptype_from_builtin(ct.converters.mil.mil.types.int4)
    shifts = {} if offset is None else {"offset": offset.astype(int4)}
    op = _build(
        "constexpr_blockwise_shift_scale",
        {"data": INT4.astype(int4), "scale": BLOCKS, **shifts},
        ct.target.iOS18,
    )
    (found,) = _evaluate(op)
    np.testing.assert_array_equal(found, op.materialized_val_inference())
    shifted = INT4 - (0 if offset is None else offset.repeat(32, 1))
    np.testing.assert_array_equal(found, shifted * BLOCKS.repeat(32, 1))


def test_every_operator_has_a_test():
    compressed = {"constexpr_affine_dequantize", "constexpr_blockwise_shift_scale"}
    assert {case[0] for case in CASES} | compressed == set(OPERATORS)


@pytest.mark.parametrize(
    ("kind", "parameters", "complaint"),
    [
        ("conv", {"x": X, "weight": KERNEL, "pad_type": "same"}, "pads as 'same'"),
        ("gelu", {"x": X, "mode": "SIGMOID_APPROXIMATION"}, "has mode 'SIGMOID_APPROXIMATION'"),
        ("pad", {"x": X, "pad": [1, 1], "mode": "reflect"}, "pads in mode 'reflect'"),
        ("concat", {"values": (X, X), "axis": 1, "interleave": True}, "interleaves"),
        ("layer_norm", {"x": X, "axes": [1]}, r"normalises axes \[1\] of 4"),
        ("cast", {"x": np.array([70000], np.int32), "dtype": "uint16"}, "casts values 70000 to 70000"),
    ],
    ids=["conv", "gelu", "pad", "concat", "layer_norm", "cast"],
)
def test_what_the_reference_does_not_know_is_an_error_that_names_the_operation(kind, parameters, complaint):
    op = _build(kind, parameters)
    with pytest.raises(ExportError, match=complaint) as caught:
        _evaluate(op)
    assert op.name in str(caught.value)


class _Rounding(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 1000.0) - 1000.0


class _Unknown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.erf(x)


def _write(module, folder, precision="fp16"):
    spec = GraphSpec("toy", module.eval(), {"x": torch.zeros(1, 4)}, ("y",))
    return write_package(spec, folder, PackageOptions(precision=precision))


def test_what_is_stored_in_float16_is_rounded(tmp_path):
    program = MilProgram(_write(_Rounding(), tmp_path))
    x = np.array([[0.0, 0.3, 0.7, 3.3]], np.float32)
    wanted = ((x.astype(np.float16) + np.float16(1000)).astype(np.float16) - np.float16(1000)).astype(
        np.float32
    )
    np.testing.assert_array_equal(program.run({"x": x})["y"], wanted)
    assert (wanted != x).any()


def test_float16_overflow_is_found(tmp_path):
    program = MilProgram(_write(_Rounding(), tmp_path))
    assert np.isfinite(program.run({"x": np.full((1, 4), 60000, np.float32)})["y"]).all()
    with pytest.raises(ExportError, match=r"the add '.*' leaves what float16 holds \(65,504\)"):
        program.run({"x": np.full((1, 4), 65000, np.float32)})


def test_an_unknown_operator_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"operator 'erf' \(operation '.*erf.*'\), which has no reference"):
        _write(_Unknown(), tmp_path)


def test_it_has_the_methods_of_a_runtime(packages):
    program = MilProgram(packages / file_name("text_encoder.simple"))
    with pytest.raises(ValueError, match="wants the inputs input_ids, got none"):
        program.run({})
    with pytest.raises(ValueError, match=r"is int32 \[1, 32\], want int64 \[1, 32\]"):
        program.run({"input_ids": np.zeros((1, 32), np.int32)})
    program.close()
    program.close()
    with pytest.raises(RuntimeUnavailable, match="was closed"):
        program.run({"input_ids": np.zeros((1, 32), np.int64)})


def test_packages_that_are_not_ours_or_damaged_are_refused(packages, tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        MilProgram(tmp_path / "absent.mlpackage")
    damaged = tmp_path / "damaged.mlpackage"
    shutil.copytree(packages / file_name("detector"), damaged)
    model = damaged / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="is damaged"):
        MilProgram(damaged)


def _gate(exported, paths, count=24):
    manifest = exported.manifest
    encode = Tokenizer.from_file(exported.bundle / "tokenizer.json", start_id=1, end_id=2)
    spec = Preprocessing(image_size=manifest.preprocessing.image_size)
    pairs = drawn_pairs(count, 12)  # of others too many queries of random weights tie, and float16 swaps them
    sources = TorchGraphs(exported.bundle / "weights", exported.model.config), MilGraphs(paths)
    return compare(*(answers(source, pairs, encode, spec, 0.5) for source in sources))


def _paths(folder):
    graphs = ["image_encoder", *(f"text_encoder.{n}" for n in ("concept", "simple", "complex")), "detector"]
    return {graph: folder / file_name(graph) for graph in graphs}


def test_the_agreement_gate_runs_on_packages(exported, packages):
    agreement = _gate(exported, _paths(packages))
    assert agreement.instances > 0
    check(agreement, "fp16")


def test_a_flipped_byte_of_the_weights_changes_the_verdict(exported, packages, tmp_path):
    """The evaluator reads the file that is shipped: the exponent of a weight of the image encoder's last
    layer becomes another."""
    folder = tmp_path / "flipped"
    shutil.copytree(packages, folder)
    path = folder / file_name("image_encoder")
    weights = path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    content = bytearray(weights.read_bytes())
    bias = exported.model.image_encoder.neck[2].bias.detach().numpy().astype(np.float16).tobytes()
    place = content.index(bias) + 1  # little endian: sign and exponent
    content[place] ^= 0x40
    weights.write_bytes(content)
    agreement = _gate(exported, _paths(folder), count=12)
    with pytest.raises(ParityError):
        check(agreement, "fp16")
