"""Prints the agent's way beside one pass: the tables of docs/agent.md.

    python scripts/agent_table.py sam3i-nano --scenes 40
    python scripts/agent_table.py BUNDLE --data VAL

Every simple and complex instruction of drawn scenes (or of SAM3-I annotations: VAL/annotations.json and
VAL/images) is answered in one pass at its level, and through agents whose reasoner knows the annotations and
errs at set rates. A model behind an endpoint is asked by `sam3i-edge evaluate BUNDLE --data VAL --agent URL`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sam3i_edge import Segmenter
from sam3i_edge.data.annotations import ANNOTATIONS, IMAGES, read_annotations, write_scenes
from sam3i_edge.data.records import Record
from sam3i_edge.evaluate.agent.comparison import instructions, through
from sam3i_edge.evaluate.agent.loop import Agent, Cost
from sam3i_edge.evaluate.agent.oracle import Oracle
from sam3i_edge.evaluate.report import OVERALL, Report
from sam3i_edge.evaluate.run import evaluate

_TIMED = 40  # passes


def main() -> None:
    """Asks and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--scenes", type=int, default=40, help="drawn, or the first so many pictures of VAL")
    parser.add_argument("--data", type=Path, help="annotations; drawn scenes without it")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--errors", type=float, nargs="+", default=[0.0, 0.1, 0.3], help="shares of answers")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = given.data or Path(folder) / "drawn"
        if given.data is None:
            write_scenes(data, given.scenes, given.seed)
        records = read_annotations(data / ANNOTATIONS)
        asked, images = instructions(records), data / IMAGES
        with Segmenter(given.model, threads=1) as segmenter, tqdm(total=1.0) as bar:
            segmenter.prepare()
            ms = _pass_ms(segmenter, asked, images)

            def tell(words: str, share: float) -> None:
                bar.set_description(words)
                bar.update(share - bar.n)

            direct = evaluate(segmenter, asked, images, limit=given.scenes, progress=tell)
            ways: dict[str, tuple[Report, tuple[Cost, ...]]] = {"one pass at its level": (direct, ())}
            for share in given.errors:
                agent = Agent(segmenter, Oracle(records, images, errors=share))
                bar.reset()
                name = f"agent, {share:.0%} of its answers wrong" if share else "agent that knows the answers"
                ways[name] = through(agent, asked, images, limit=given.scenes, progress=tell)
    _print_quality(ways)
    _print_costs(ways, ms)


def _print_quality(ways: dict[str, tuple[Report, tuple[Cost, ...]]]) -> None:
    print(
        "| way | level | instructions | gIoU | gIoU with none | P@0.5 | none |\n|---|---|---|---|---|---|---|"
    )
    for name, (report, _) in ways.items():
        for level in ("simple", "complex", OVERALL):
            cell = report.cell(level)
            print(
                f"| {name} | {level} | {cell.pairs} | {_figure(cell.giou)} | {cell.giou_with_none:.3f} | "
                f"{_figure(cell.p_at_50)} | {_figure(cell.none_accuracy)} |"
            )


def _print_costs(ways: dict[str, tuple[Report, tuple[Cost, ...]]], ms: float) -> None:
    print("\n| way | calls of the reasoner | passes | ms of passes |\n|---|---|---|---|")
    for name, (_, costs) in ways.items():
        calls = np.mean([cost.calls for cost in costs] or [0])
        passes = np.mean([cost.passes for cost in costs] or [1])
        print(f"| {name} | {calls:.2f} | {passes:.2f} | {passes * ms:.1f} |")
    print(f"\nA pass, from words to masks, takes {ms:.1f} ms of one core.")


def _pass_ms(segmenter: Segmenter, records: list[Record], images: Path) -> float:
    """Median time of the processor from words that are new to masks, which a busy machine leaves as it is."""
    scene = segmenter.encode(images / records[0].file_name)
    times = []
    for record in records[:_TIMED]:
        started = time.process_time()
        for text in (record.simple or record.complex)[:1]:
            scene.segment(text, level="simple").masks.any()
        times.append(time.process_time() - started)
    return 1e3 * float(np.median(times))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
