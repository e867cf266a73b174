"""`pareto.png` and `pareto.svg`, by matplotlib (extra `bench`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from sam3i_edge.files import write_whole
from sam3i_edge.measure.pareto import Configuration, front
from sam3i_edge.measure.svg import COLORS

_LARGEST = 1400  # points squared
_MARKERS = ("o", "s", "^", "D")  # one for every round of colours


def pareto(found: Sequence[Configuration], folder: Path, title: str) -> tuple[Path, Path]:
    """Draws accuracy against p90 latency, the files' size as area, and the Pareto front.

    Args:
        found: at least one.
        folder: where pareto.png and pareto.svg go.
        title: a line above.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    # Without pyplot, which keeps figures and opens windows.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.8), layout="constrained")
    axes = figure.subplots()
    best = front(found)
    axes.plot(
        [one.p90_ms for one in best],
        [one.giou for one in best],
        "--",
        color="#888",
        drawstyle="steps-post",
        label="Pareto front",
        zorder=1,
    )
    largest = max(one.size_bytes for one in found)
    for number, one in enumerate(found):
        axes.scatter(
            one.p90_ms,
            one.giou,
            s=_LARGEST * one.size_bytes / largest,
            color=COLORS[number % len(COLORS)],
            marker=_MARKERS[number // len(COLORS) % len(_MARKERS)],
            alpha=0.6,
            label=f"{one.name}, {one.size_bytes / 1e6:.1f} MB",
            zorder=2,
        )
    axes.margins(0.2, 0.35)
    axes.set_xlabel("end to end, p90 of the slowest level, ms (lower is better)")
    axes.set_ylabel("gIoU, mean of the levels")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    legend = axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), labelspacing=0.8)
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([60])
    paths = folder / "pareto.png", folder / "pareto.svg"
    for path, canvas in zip(paths, (FigureCanvasAgg, FigureCanvasSVG), strict=True):
        drawn = io.BytesIO()
        canvas(figure).print_figure(
            drawn, dpi=130, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None
        )
        write_whole(path, drawn.getvalue())
    return paths
