"""Uncertain labels as items of the review page, and what was decided there as labels again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sam3i_edge.data.annotations import IMAGES
from sam3i_edge.data.review.decisions import DECISIONS, Decision, read_decisions
from sam3i_edge.data.review.queue import QUEUE, read_queue
from sam3i_edge.masks import rle
from sam3i_edge.outputs.answer import inner_path


def items_of(line: Mapping[str, Any], instructions: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The lines of `review.jsonl` about a picture; see `review.queue.ReviewItem`.

    Targets are the labels of the instruction; others are what is just under its threshold and the labels of
    the other instructions, so that a person can take them instead.
    """
    for number, text in enumerate(instructions):
        result = line["results"][number]
        if not result["why"]:
            continue
        targets = [one["mask"] for one in result["instances"]]
        others = [one["mask"] for one in result["near"]]
        for other, its in enumerate(line["results"]):
            others += [one["mask"] for one in its["instances"] if other != number]
        yield {
            "id": item_id(line, number, text),
            "file": f"{IMAGES}/{inner_path(line['name'])}",
            "size": line["size"],
            "text": text,
            "level": result["level"],
            "granularity": "all" if targets else "none",
            "targets": targets,
            "others": others,
            "why": result["why"],
            "form": "label",
        }


def item_id(line: Mapping[str, Any], number: int, text: str) -> str:
    """What names an item: its content."""
    masks = (one["mask"]["counts"] for one in line["results"][number]["instances"])
    content = "\n".join((line["name"], text, *masks))
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def standing_decisions(folder: Path) -> dict[str, Decision]:
    """What was decided in a folder, by the item's id; nothing where nobody decided.

    Raises:
        DataError: the queue is damaged.
        OSError: a file cannot be read.
    """
    if not (folder / DECISIONS).exists() or not (folder / QUEUE).exists():
        return {}
    return read_decisions(folder, read_queue(folder).items).standing


def with_decisions(
    lines: Iterable[Mapping[str, Any]], instructions: Sequence[str], standing: Mapping[str, Decision]
) -> Iterator[Mapping[str, Any]]:
    """The lines, their labels replaced where a person decided: rejected ones are gone."""
    for line in lines:
        if not standing or "error" in line:
            yield line
            continue
        known = {
            one["mask"]["counts"]: one
            for result in line["results"]
            for one in (*result["instances"], *result["near"])
        }
        results = []
        for number, (text, result) in enumerate(zip(instructions, line["results"], strict=True)):
            decision = standing.get(item_id(line, number, text)) if result["why"] else None
            if decision is not None:
                masks = [mask.model_dump() for mask in decision.targets]
                result = {**result, "instances": [known.get(m["counts"]) or _new(m) for m in masks]}
            results.append(result)
        yield {**line, "results": results}


def _new(mask: Mapping[str, Any]) -> dict[str, Any]:
    """A mask that only the decision has, as a label that a person is sure of."""
    x, y, width, height = (float(side) for side in rle.box(mask))
    return {"score": 1.0, "box": [x, y, x + width, y + height], "mask": dict(mask)}
