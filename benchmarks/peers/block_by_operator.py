"""One block of the official ViT at 1008 px, operator by operator: our int8 beside NNCF's W8A8.

    python benchmarks/peers/block_by_operator.py [--global] [--rounds 5]

Both are made from the same random weights and calibrated on the same tokens. OpenVINO runs ours in float32
beside the integers (int8) and in bfloat16 (int8-bf16), NNCF's in float32 and, as OpenVINO does when told
nothing, in bfloat16; ONNX Runtime runs ours. In turn, one thread. Prints processor time, and that of each
kind of kernel by its share in OpenVINO's own counters. A picture: 28 blocks with windows and 4 that see all.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["NNCF_CI"] = "1"  # no telemetry

import nncf
import numpy as np
import openvino
import torch
from torch import nn

from sam3i_edge.export.onnx.graph_file import write_graph
from sam3i_edge.export.openvino.ir import write_ir
from sam3i_edge.model.config import PRESETS
from sam3i_edge.model.graph_specs import GraphSpec
from sam3i_edge.model.position import rotary_tables
from sam3i_edge.model.vit import ViTBlock
from sam3i_edge.quantize.ranges import exact_scale, round_to
from sam3i_edge.quantize.spec import Layer, QuantSpec, replace_module
from sam3i_edge.runtimes import open_runtime
from sam3i_edge.runtimes.ov import shared_core


class OneBlock(nn.Module):
    """A block with its rotary tables."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        sizes = PRESETS["sam3i"]
        window = sizes.grid if whole else sizes.window_size
        self.block = ViTBlock(sizes, window)
        tables = rotary_tables(window, sizes.vit_width // sizes.vit_heads, sizes.window_size / window)
        for name, table in zip(("own", "after", "before"), tables, strict=True):
            self.register_buffer(name, table, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[1, N, C] -> the same."""
        out: torch.Tensor = self.block(x, (self.own, self.after, self.before))
        return out


@torch.no_grad()
def quantized(module: nn.Module, tokens: torch.Tensor) -> QuantSpec:
    """Our int8 of the module's linear layers, ranges by the largest magnitude."""
    largest: dict[str, float] = {}
    linear = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, given, name=name: largest.update({name: float(given[0].abs().max())})
        )
        for name, layer in linear.items()
    ]
    module(tokens)
    for hook in hooks:
        hook.remove()
    layers, tensors = {}, {k: v for k, v in module.state_dict().items() if ".norm" in k}
    for name, layer in linear.items():
        scale = exact_scale(layer.weight.abs().amax(1) / 127)
        given = float(exact_scale(torch.tensor(largest[name] / 127)))
        layers[name] = Layer(kind="linear", bits=8, input_scale=given)
        tensors[f"{name}.weight"] = round_to(layer.weight, scale[:, None], -127, 127)
        tensors[f"{name}.weight_scale"] = scale
        tensors[f"{name}.bias"] = (layer.bias / (scale * given)).round() * (scale * given)
    return QuantSpec("int8", layers, tensors)


@contextmanager
def ways(whole: bool, folder: Path) -> Iterator[dict[str, Any]]:
    """Writes and opens every way: name -> what runs the tokens."""
    torch.manual_seed(0)
    module, tokens = (
        OneBlock(whole).eval(),
        torch.randn(1, PRESETS["sam3i"].grid ** 2, PRESETS["sam3i"].vit_width),
    )
    with torch.no_grad():
        program = torch.export.export(module, (tokens,), strict=False)
    plain = openvino.convert_model(program)
    plain.reshape(list(tokens.shape))
    theirs = nncf.quantize(
        plain,
        nncf.Dataset([tokens.numpy()]),
        subset_size=1,
        model_type=nncf.ModelType.TRANSFORMER,
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
    )
    spec = quantized(module, tokens)
    for name in spec.layers:
        replace_module(module, name, spec.module(name))
    write_graph(GraphSpec("block", module, {"x": tokens}, ("y",)), folder, {}, quantized=spec)
    write_ir(folder / "block.onnx", folder / "block.xml", "int8")
    ours = shared_core().read_model(folder / "block.xml")
    given = tokens.numpy()

    def compiled(model: Any, precision: str) -> Any:
        config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True}
        if "DYNAMIC_QUANTIZATION_GROUP_SIZE" in shared_core().get_property("CPU", "SUPPORTED_PROPERTIES"):
            config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
        request = shared_core().compile_model(model, "CPU", config).create_infer_request()

        def run() -> Any:
            request.infer([given], share_inputs=True, share_outputs=True)
            return request.profiling_info

        return run

    runtime = open_runtime("onnxruntime", folder / "block.onnx", "cpu", threads=1)

    def by_onnxruntime() -> Any:
        runtime.run({"x": given})
        return ()

    yield {
        "OpenVINO int8": compiled(ours, "f32"),
        "OpenVINO int8-bf16": compiled(ours, "bf16"),
        "NNCF W8A8, float32": compiled(theirs, "f32"),
        "NNCF W8A8, bfloat16": compiled(theirs, "bf16"),
        "ONNX Runtime int8": by_onnxruntime,
    }


def main() -> None:
    """Prints a table for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--global", dest="whole", action="store_true", help="a block that sees the whole picture"
    )
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    spent: dict[str, list[float]] = defaultdict(list)
    kernels: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with TemporaryDirectory() as place, ways(given.whole, Path(place)) as opened:
        for number in range(given.rounds + 1):
            for name, run in opened.items():
                began = time.process_time()
                profile = run()
                if not number:
                    continue
                spent[name].append(1e3 * (time.process_time() - began))
                sums: dict[str, float] = defaultdict(float)
                for node in profile:
                    sums[f"{node.node_type} {node.exec_type}"] += node.real_time.total_seconds() * 1e3
                for kind, ms in sums.items():
                    kernels[name][kind].append(ms)
    for name, values in spent.items():
        typical = float(np.median(values))
        print(f"\n{name}: {typical:,.0f} ms of processor time, {min(values):,.0f} at least")
        medians = {kind: float(np.median(ms)) for kind, ms in kernels[name].items()}
        for kind, ms in sorted(medians.items(), key=lambda item: -item[1]):
            print(f"  {typical * ms / sum(medians.values()):7,.1f} ms  {kind}")


if __name__ == "__main__":
    main()
