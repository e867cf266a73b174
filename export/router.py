"""A router for a bundle: trained, compared with the rules, and written where it wins."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.bundle.manifest import ROUTER
from sam3i_edge.bundle.writing import check_target, new_bundle
from sam3i_edge.errors import ArtifactError, ExportError
from sam3i_edge.export.onnx.graph_file import save, traced
from sam3i_edge.levels import Level, route
from sam3i_edge.model.graph_specs import GraphSpec
from sam3i_edge.model.weights import open_weights
from sam3i_edge.pipeline.instruction import check_instruction
from sam3i_edge.pipeline.router import Router
from sam3i_edge.pipeline.tokenizer import Tokenizer
from sam3i_edge.runtimes import Progress, untold
from sam3i_edge.train.router import RouterGraph, Text, accuracy, held_out, train_router, written

MARGIN: Final = 0.02  # of accuracy in wordings that it never saw, a mean over levels, above that of the rules
_EMBEDDING: Final = "text_encoder.token_embedding.weight"
_LOGITS: Final = 1e-4  # most that the graph's logits may differ from the trained router's
_TIMED: Final = 200


@dataclass(frozen=True, slots=True)
class RouterRow:
    """How often both are right about some texts.

    Attributes:
        name: of the texts.
        texts: how many.
        rules: accuracy by level, of `levels.route`.
        router: the same of the router.
    """

    name: str
    texts: int
    rules: dict[Level, float]
    router: dict[Level, float]

    @property
    def means(self) -> tuple[float, float]:
        """Of the rules and of the router, over levels."""
        return statistics.mean(self.rules.values()), statistics.mean(self.router.values())


@dataclass(frozen=True, slots=True)
class RouterReport:
    """What came of a router.

    Attributes:
        rows: wordings of training first, wordings that it never saw second, then those for each vocabulary
            that it never saw.
        ms: processor time of an instruction, tokens included, median.
        bytes: of the graph's file.
    """

    rows: tuple[RouterRow, ...]
    ms: float
    bytes: int


def add_router(
    bundle: Bundle,
    out: Path,
    *,
    vocabularies: Sequence[str] = ("shapes", "tabletop"),
    unseen: Sequence[str] = ("coco",),
    scenes: int = 400,
    seed: int = 0,
    margin: float = MARGIN,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RouterReport:
    """Writes a bundle with a router, which all its variants use where the caller names no level.

    It is written only where it is better than the rules at wordings that it never saw.

    Args:
        bundle: with float weights, of a model with adapters.
        out: folder of the bundle to write; with `overwrite` it may be the bundle's own.
        vocabularies: whose words it learns.
        unseen: vocabularies that only measure it.
        scenes: made up for each vocabulary, from 10.
        seed: decides what is written, and how training goes.
        margin: least lead over the rules, see `MARGIN`.
        overwrite: replace `out` when it is a bundle.
        progress: called with a sentence on each step, and the share of it that is done.

    Raises:
        ValueError: `scenes` is below 10, there is no vocabulary, or `margin` is not 0 to 1.
        ArtifactError: the bundle lacks weights or adapters, or `out` may not be written.
        ExportError: the router does not win, or its graph differs from it.
        DataError: a vocabulary is none.
    """
    tell = progress or untold
    if scenes < 10 or not vocabularies or not 0 <= margin <= 1:
        raise ValueError(
            f"want 10 scenes or more, a vocabulary and a margin of 0 to 1, got {scenes}, "
            f"{list(vocabularies)} and {margin}"
        )
    check_target(out, overwrite)
    weights = bundle.verify().weights()
    if weights is None or any(len(variant.levels) < 2 for variant in bundle.manifest.variants.values()):
        lacks = (
            "float weights, whose embeddings a router reads" if weights is None else "levels to choose from"
        )
        raise ArtifactError(f"bundle {bundle.root} has no {lacks}: no router can be made for it")
    tokenizer = bundle.tokenizer()
    texts = written(vocabularies, scenes, seed, progress=tell)
    embedding = open_weights(weights, "text_encoder")[_EMBEDDING]
    trained = train_router(
        embedding, lambda text: tokenizer.encode(text).ids, texts, seed=seed, progress=tell
    )
    few = max(10, scenes // 5)
    asked = {
        "wordings of training": written(vocabularies, few, seed + 1, each=3),
        "wordings never seen": held_out(vocabularies, few, seed + 2),
        **{f"wordings never seen, {name}": held_out([name], few, seed + 3) for name in unseen},
    }
    with new_bundle(out, overwrite=overwrite, base=bundle) as folder:
        file = folder.path / ROUTER
        file.unlink(missing_ok=True)  # of the base, and perhaps a link
        spec = GraphSpec(
            "router",
            RouterGraph(trained).eval(),
            {"input_ids": torch.from_numpy(tokenizer.encode("star").ids)[None]},
            ("level_logits",),
        )
        save(traced(spec), file)
        router = Router(file, tokenizer)
        _check(router, trained, tokenizer, texts[:: max(1, len(texts) // 100)])

        def level(text: str) -> Level:
            return router.level(check_instruction(text))

        rows = tuple(
            RouterRow(name, len(some), accuracy(route, some), accuracy(level, some))
            for name, some in asked.items()
        )
        report = RouterReport(rows, _milliseconds(level, texts[:_TIMED]), file.stat().st_size)
        router.close()
        _accept(report, margin)
        rules, ours = rows[1].means
        found = {"router_held_out": round(ours, 4), "rules_held_out": round(rules, 4)}
        folder.finish(variants={}, provenance={**bundle.manifest.provenance, **found})
    return report


def _accept(report: RouterReport, margin: float) -> None:
    rules, ours = report.rows[1].means
    if ours < rules + margin:
        raise ExportError(
            f"the router is right about {ours:.1%} of the wordings that it never saw and the rules about "
            f"{rules:.1%}: it must lead by {100 * margin:g} points, so the rules stay and nothing was written"
        )


def _check(router: Router, trained: torch.nn.Module, tokenizer: Tokenizer, texts: Sequence[Text]) -> None:
    """Compares the graph with the module that was trained."""
    for one in texts:
        ids = tokenizer.encode(one.text).ids
        want = trained(torch.from_numpy(ids)[None]).numpy()
        difference = float(np.abs(router.logits(ids) - want).max())
        if not difference <= _LOGITS:
            raise ExportError(f"the router's graph differs from it by {difference:.2g} at {one.text!r}")


def _milliseconds(level: Callable[[str], Level], texts: Sequence[Text]) -> float:
    times = []
    for one in texts:
        started = time.process_time()
        level(one.text)
        times.append(time.process_time() - started)
    return 1e3 * statistics.median(times)
