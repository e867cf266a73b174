from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnxscript.rewriter import RewriteRule

from sam3i_edge.export.onnx import graph_file
from sam3i_edge.export.onnx.graph_file import DATA_FILE, OPSET
from sam3i_edge.model.graph_specs import GraphSpec, graph_specs
from sam3i_edge.model.weights import read_config
from sam3i_edge.runtimes import open_runtime

GRAPHS = ("image_encoder", "text_encoder.concept", "text_encoder.simple", "text_encoder.complex", "detector")
NAMES = {
    "image_encoder": (["pixel_values"], ["fpn_4x", "fpn_2x", "fpn_1x", "cls_token"]),
    "text_encoder.simple": (["input_ids"], ["text_features"]),
    "detector": (
        ["fpn_4x", "fpn_2x", "fpn_1x", "prompt", "prompt_mask", "level"],
        ["scores", "boxes", "mask_logits", "presence"],
    ),
}


def _path(exported, graph):
    return exported.bundle / exported.manifest.variants["onnx-fp32"].graphs[graph]


@pytest.mark.parametrize("graph", NAMES)
def test_names_are_the_designs(exported, graph):
    loaded = onnx.load(_path(exported, graph), load_external_data=False)
    assert [i.name for i in loaded.graph.input] == NAMES[graph][0]
    assert [o.name for o in loaded.graph.output] == NAMES[graph][1]
    assert {o.domain: o.version for o in loaded.opset_import}[""] == OPSET


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_graph_equals_the_model(exported, graph, level):
    spec = next(s for s in graph_specs(exported.model) if s.name == graph)
    generator = torch.Generator().manual_seed(level)
    inputs = {}
    for name, example in spec.inputs.items():
        if name == "level":
            inputs[name] = torch.tensor([level])
        elif name == "input_ids":
            inputs[name] = torch.randint(0, 300, example.shape, generator=generator)
        elif name == "prompt_mask":
            inputs[name] = torch.arange(example.shape[1])[None] % 3 != 1
        else:
            inputs[name] = torch.randn(example.shape, generator=generator)
    with torch.no_grad():
        want = spec.module(*inputs.values())
    want = want if isinstance(want, tuple) else (want,)
    runtime = open_runtime("onnxruntime", _path(exported, graph), "cpu")
    got = runtime.run({name: value.numpy() for name, value in inputs.items()})
    runtime.close()
    for name, value in zip(spec.outputs, want, strict=True):
        scale = max(float(value.abs().max()), 1.0)
        np.testing.assert_allclose(got[name], value.numpy(), rtol=0, atol=1e-5 * scale, err_msg=name)


def test_text_encoders_share_their_base_weights(exported):
    """The data file holds each tensor once, whatever constant folding called it."""
    used: dict[int, int] = {}
    total = 0
    for graph in GRAPHS:
        for tensor in onnx.load(_path(exported, graph), load_external_data=False).graph.initializer:
            place = {e.key: e.value for e in tensor.external_data}
            if place:
                assert place["location"] == DATA_FILE
                used[int(place["offset"])] = int(place["length"])
                total += int(place["length"])
    size = (_path(exported, "detector").parent / DATA_FILE).stat().st_size
    assert sum(used.values()) <= size < sum(used.values()) + 64 * len(used)
    base = exported.model.text_encoder.token_embedding.weight.numel() * 4
    assert total - sum(used.values()) >= 2 * base


def test_no_path_of_the_exporting_machine_is_left(exported):
    for graph in GRAPHS:
        content = _path(exported, graph).read_bytes()
        assert b"site-packages" not in content
        assert b".py" not in content


def test_export_traces_aten_operators_only(exported):
    for spec in graph_specs(exported.model):
        program = torch.export.export(spec.module, tuple(spec.inputs.values()))
        calls = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
        assert calls
        assert all(c.startswith(("aten.", "<built-in function getitem>")) for c in calls), set(calls)


def test_a_graph_is_named_before_it_is_exported(exported, monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr(graph_file, "call", lambda *given, **options: (told.append(given[5]), ({}, 0))[1])
    weights = exported.bundle / "weights"
    graph_file.export_onnx(
        weights, read_config(weights), tmp_path, progress=lambda words, share: told.append((words, share))
    )
    for number, graph in enumerate(GRAPHS):
        words = f"exporting {graph}"
        assert told[3 * number : 3 * number + 3] == [
            (words, number / len(GRAPHS)), graph, (words, (number + 1) / len(GRAPHS))
        ]  # fmt: skip


class _Wordy(torch.nn.Module):
    """Says what seven of the exporter's rules shorten, among them the three that our graphs need."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(2, 5, 3, bias=False), torch.nn.BatchNorm2d(5)

    def forward(self, x):
        y = x.permute(2, 0, 1).permute(1, 2, 0).reshape(6, 4).reshape(2, 3, 4)
        return self.norm(self.conv(y.unsqueeze(0))).unsqueeze(0).unsqueeze(0) * 1.0 + 0.0


def test_the_short_cut_of_these_tests_leaves_every_rule_that_fits(monkeypatch):
    spec = GraphSpec("wordy", _Wordy().eval(), {"x": torch.rand(2, 3, 4)}, ("y",))
    short_cut, every_rule = RewriteRule.try_rewrite, RewriteRule.try_rewrite.__wrapped__
    nodes = []
    for way in (short_cut, every_rule, lambda *given, **options: None):
        monkeypatch.setattr(RewriteRule, "try_rewrite", way)
        nodes.append([str(node) for node in graph_file.traced(spec).graph])
    assert nodes[0] == nodes[1]
    assert len(nodes[0]) < len(nodes[2])
