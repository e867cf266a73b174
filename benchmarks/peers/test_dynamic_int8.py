"""ONNX Runtime's `quantize_dynamic` on our float graphs, as others ship it, in turn with our variants."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from sam3i_edge.agreement import compare
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.writing import new_bundle
from sam3i_edge.measure.plan import Planned, variant_bytes
from sam3i_edge.measure.process import RowProcess
from sam3i_edge.measure.questions import gate_pairs, questions
from sam3i_edge.measure.schema import END_TO_END
from sam3i_edge.measure.statistics import speedup
from studies.findings import Peer

LEVEL, PAIRS, BLOCKS = "simple", 60, 8
PRECISION = "dynamic"


def dynamic_bundle(bundle: Bundle, variant: str, kind: QuantType, folder: Path) -> Bundle:
    """The bundle with every graph of a float variant quantized by ONNX Runtime."""
    base = bundle.manifest.variants[variant]
    name = f"onnx-{PRECISION}"
    with new_bundle(folder, base=bundle) as made:
        (made.path / name).mkdir()
        graphs = {}
        for graph, path in bundle.graphs(variant).items():
            graphs[graph] = f"{name}/{graph}.onnx"
            # Its shape inference contradicts shapes that are written down inside the graph.
            model = onnx.load(path)
            del model.graph.value_info[:]
            quantize_dynamic(model, made.path / graphs[graph], weight_type=kind, per_channel=True)
        made.finish(variants={name: base.model_copy(update={"precision": PRECISION, "graphs": graphs})})
    return Bundle.open(folder)


@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
def test_dynamic_int8(kind: str, rows: Any, tmp_path: Path) -> None:
    candidates = [row for row in rows.plan.rows if row.runtime == "onnxruntime" and row.device == "cpu"]
    floats = [row for row in candidates if row.precision == "fp32"]
    if not floats:
        pytest.skip("the model has no onnxruntime fp32 variant among the rows")
    source = floats[0]
    made = dynamic_bundle(source.bundle, source.variant, QuantType[kind], tmp_path / "bundle")
    theirs = Planned(
        bundle=made, model=f"quantize_dynamic {kind}", variant=f"onnx-{PRECISION}", device="cpu",
        runtime="onnxruntime", precision=PRECISION, levels=source.levels,
        side=source.side,
        size_bytes=variant_bytes(made, f"onnx-{PRECISION}"),
    )  # fmt: skip
    asked, pairs = questions(LEVEL), gate_pairs(PAIRS, [LEVEL])
    for own in candidates:
        with contextlib.ExitStack() as stack:
            mine, peer = (stack.enter_context(RowProcess(row, rows.threads)) for row in (own, theirs))
            for process in (mine, peer):
                process.start(asked[0])
                process.call("load", asked)
                process.timed(16)
            agreement = compare(mine.call("answers", pairs), peer.call("answers", pairs))
            mine_ms: list[float] = []
            peer_ms: list[float] = []
            for _ in range(BLOCKS):
                peer_ms += peer.timed(8)[0][END_TO_END]
                mine_ms += mine.timed(8)[0][END_TO_END]
        rows.find(
            peers=(
                *rows.findings.peers,
                Peer(
                    task=f"segment, level {LEVEL}, end to end",
                    peer=f"quantize_dynamic {kind}, {theirs.size_bytes / 1e6:.1f} MB",
                    ours=f"{own.name}, {own.size_bytes / 1e6:.1f} MB",
                    peer_ms=float(np.median(peer_ms)),
                    ours_ms=float(np.median(mine_ms)),
                    speedup=speedup(peer_ms, mine_ms),
                    agreement=f"the peer beside ours on {agreement}",
                ),
            )
        )
