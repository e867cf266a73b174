"""Changes to graphs for OpenVINO's CPU device.

Without two of them quantized graphs give other results than they define: found with OpenVINO 2026.4 by
comparing single layers with the quantized model in PyTorch. One makes attention faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from openvino import opset13 as ops

# Ends the name of the division that stands behind a convolution, whose own name OpenVINO drops then.
BEHIND = "/in-steps"


def run_constant_layers(model: openvino.Model) -> None:
    """Makes layers that read a constant, such as a learned token, depend on an input, whose part is zero.

    Quantized weights keep such layers from being folded. OpenVINO would run them once, at the first
    inference, and use the memory of what they gave for other things: from the second inference on the results
    would be wrong. Run each time they are right, and their integers stay in the file.
    """
    dynamic: dict[str, bool] = {}
    reads = []
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        sources = [node.input_value(n).get_node() for n in range(node.get_input_size())]
        moves = kind == "Parameter" or any(dynamic[source.get_friendly_name()] for source in sources)
        if not moves and kind in ("MatMul", "FakeQuantize") and sources[0].get_type_name() == "Constant":
            reads.append(node.input(0))
            moves = True
        dynamic[node.get_friendly_name()] = moves
    if not reads:
        return
    source = next(port for port in model.inputs if port.get_element_type().is_real())
    value = ops.gather(ops.reshape(source, np.array([-1]), False), np.array([0]), np.int64(0))
    zero = ops.multiply(value, np.zeros(1, np.float32))
    for read in reads:
        read.replace_source_output(ops.add(read.get_source_output(), zero).output(0))
    model.validate_nodes_and_infer_types()


def round_before_sums(model: openvino.Model) -> None:
    """Writes the quantized output of a convolution that goes into a sum as a division, rounding and clipping.

    As a FakeQuantize it is fused with the convolution, the sum and the quantization behind, and is then left
    unrounded: in sam3i-nano one value in eight moved by a step. The integer kernel stays.
    """
    for node in model.get_ordered_ops():
        name = _convolution(node.input_value(0).get_node()) if node.get_type_name() == "FakeQuantize" else ""
        if not name:
            continue
        readers = list(node.output(0).get_target_inputs())
        if not any(reader.get_node().get_type_name() == "Add" for reader in readers):
            continue
        low, high = (np.array(node.input_value(n).get_node().data).reshape(-1) for n in (1, 2))
        steps = node.get_attributes()["levels"] - 1
        scale = ((high - low) / np.float32(steps)).astype(np.float32)
        divided = ops.divide(node.input_value(0), scale)
        divided.set_friendly_name(f"{name}{BEHIND}")
        whole = ops.round(divided, "half_to_even")
        least, most = (float(np.rint(bound[0] / scale[0])) for bound in (low, high))
        value = ops.multiply(ops.clamp(whole, least, most), scale)
        for reader in readers:
            reader.replace_source_output(value.output(0))
    model.validate_nodes_and_infer_types()


def join_queries(model: openvino.Model) -> None:
    """Lets attention whose queries an export took in pieces (`sam3i_edge.model.attention`) take all at once.

    OpenVINO never holds all logits, and packs keys and values anew for each piece.
    """
    for joined in model.get_ordered_ops():
        if joined.get_type_name() != "Concat":
            continue
        readers = [_reads_queries(joined.input_value(n).get_node()) for n in range(joined.get_input_size())]
        split = (
            {} if None in readers else {r.get_source_output().get_node().get_friendly_name() for r in readers}
        )
        if len(split) != 1:
            continue
        attended = joined.input_value(0)
        readers[0].replace_source_output(readers[0].get_source_output().get_node().input_value(0))
        for reader in joined.output(0).get_target_inputs():
            reader.replace_source_output(attended)
    model.validate_nodes_and_infer_types()


def _reads_queries(node: openvino.Node) -> Any:
    """The input by which attention reads a piece of its queries; None where there is no such thing."""
    softmax = False
    while node.get_type_name() in ("MatMul", "Softmax", "Add", "Multiply"):
        softmax = softmax or node.get_type_name() == "Softmax"
        source = node.input_value(0).get_node()
        if source.get_type_name() in ("Split", "VariadicSplit"):
            return node.input(0) if softmax else None
        node = source
    return None


def _convolution(node: openvino.Node) -> str:
    """The name of a convolution, also of one with its bias; empty for anything else."""
    terms = [node]
    if node.get_type_name() == "Add":
        terms = [node.input_value(n).get_node() for n in range(2)]
    return next((str(t.get_friendly_name()) for t in terms if t.get_type_name().endswith("Convolution")), "")
