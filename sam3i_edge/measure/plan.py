"""Which rows to run: every runtime x precision of the bundles that this machine can run, at every level."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.devices.profiles import DEVICES, check_device, choose
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable
from sam3i_edge.levels import Level
from sam3i_edge.measure.schema import Skipped
from sam3i_edge.runtimes import RUNTIMES

FLOAT = "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A variant of a bundle on a device.

    Attributes:
        bundle: where it is from.
        model: its name; with its side, or its folder's name, where another bundle has the same kind of row.
        variant: name in the manifest.
        device, runtime, precision: how it runs.
        levels: the levels that it answers.
        side: of the square picture that it takes, pixels.
        size_bytes: files that it reads.
    """

    bundle: Bundle
    model: str
    variant: str
    device: str
    runtime: str
    precision: str
    levels: tuple[Level, ...]
    side: int
    size_bytes: int

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What its rows' keys begin with."""
        return self.model, self.device, self.runtime, self.precision

    @property
    def name(self) -> str:
        """Model, device, runtime and precision in one word."""
        return "/".join(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run.

    Attributes:
        rows: in the order of the bundles and their variants, each content once.
        skipped: what cannot run here, and why.
        references: folder of a bundle -> its float row, which need not be among `rows`.
    """

    rows: tuple[Planned, ...]
    skipped: tuple[Skipped, ...]
    references: dict[Path, Planned]


def plan(
    bundles: Sequence[Bundle],
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    resolution: int | None = None,
) -> Plan:
    """Finds the rows; opens no graph, but tries each runtime on each device.

    Args:
        bundles: verified bundles. A variant whose files lie in an earlier one is taken once.
        device: "auto" for every device of this machine, or one of them.
        precision: "auto" for all, or one.
        runtime: "auto" for all, or one.
        resolution: bundles of this side alone, pixels; None for all. A bundle has one, fixed at its export.

    Raises:
        ArtifactError: no bundle has that side.
        UnknownDevice: no such device is known.
        ValueError: the runtime is not known.
        RuntimeUnavailable: the device is not here, or nothing that was asked for runs here.
    """
    check_device(device)
    if runtime not in ("auto", *RUNTIMES):
        raise ValueError(f"unknown runtime {runtime!r}; choose from auto, {', '.join(RUNTIMES)}")
    bundles = _of_side(bundles, resolution)
    found: list[Planned] = []
    skipped: list[Skipped] = []
    for bundle in bundles:
        found += _rows(bundle, skipped)
    rows: list[Planned] = []
    seen: set[tuple[object, ...]] = set()
    for row in found:
        wanted = (device, precision, runtime)
        if any(want not in ("auto", got) for want, got in zip(wanted, _kind(row), strict=True)):
            continue
        content = (*_kind(row), *_hashes(row.bundle, row.variant))
        if content not in seen:
            seen.add(content)
            rows.append(row)
    skipped = [
        row
        for row in skipped
        if device in ("auto", row.device) and precision in ("auto", row.precision)
        and runtime in ("auto", row.runtime)
    ]  # fmt: skip
    if not rows:
        why = "; ".join(f"{row.device} {row.runtime} {row.precision}: {row.reason}" for row in skipped)
        has = ", ".join(sorted({f"{v.runtime} {v.precision}" for b in bundles
                                for v in b.manifest.variants.values()}))  # fmt: skip
        raise RuntimeUnavailable(
            f"nothing to measure for device {device}, runtime {runtime}, precision {precision}: the model "
            f"has {has}" + (f"; {why}" if why else "")
        )
    rows = _told_apart(rows, lambda row: f"{row.side} px")
    rows = _told_apart(rows, lambda row: f"({row.bundle.root.name})")
    references: dict[Path, Planned] = {}
    for row in sorted(found, key=lambda row: row.device != "cpu"):
        if row.precision == FLOAT:
            references.setdefault(row.bundle.root, row)
    return Plan(rows=tuple(rows), skipped=tuple(skipped), references=references)


def _of_side(bundles: Sequence[Bundle], resolution: int | None) -> Sequence[Bundle]:
    sides = {bundle.root: bundle.manifest.preprocessing.image_size for bundle in bundles}
    kept = [bundle for bundle in bundles if resolution in (None, sides[bundle.root])]
    if not kept:
        has = ", ".join(f"{b.manifest.name} {sides[b.root]}" for b in bundles)
        raise ArtifactError(
            f"no bundle takes pictures of {resolution} px ({has}): a bundle has one side, fixed when it "
            f"was made. Make one with 'sam3i-edge convert CHECKPOINT --resolution {resolution}' and name it "
            "with -m"
        )
    return kept


def _told_apart(rows: Sequence[Planned], word: Callable[[Planned], str]) -> list[Planned]:
    """Adds a word to the model's name where rows of one name and kind differ in it."""
    words: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        words.setdefault(row.key, set()).add(word(row))
    return [
        replace(row, model=f"{row.model} {word(row)}") if len(words[row.key]) > 1 else row for row in rows
    ]


def _kind(row: Planned) -> tuple[str, str, str]:
    return row.device, row.precision, row.runtime


def _rows(bundle: Bundle, skipped: list[Skipped]) -> list[Planned]:
    """What of one bundle runs here; what does not is added to `skipped`."""
    rows = []
    held = {(v.runtime, v.precision) for v in bundle.manifest.variants.values()}
    for device, profile in DEVICES.items():
        if profile.missing(Path("/")) is not None:
            continue
        wanted = [(r, p) for r in profile.runtimes for p in _precisions(r, profile.builds, held)]
        for runtime, precision in wanted:
            try:
                choice = choose(bundle, device, precision, runtime)
            except (ArtifactError, RuntimeUnavailable) as error:
                skipped.append(
                    Skipped(
                        model=bundle.manifest.name,
                        device=device,
                        runtime=runtime,
                        precision=precision,
                        reason=" ".join(str(error).split()),
                    )
                )
                continue
            rows.append(
                Planned(
                    bundle=bundle,
                    model=bundle.manifest.name,
                    variant=choice.variant,
                    device=device,
                    runtime=runtime,
                    precision=precision,
                    levels=bundle.manifest.variants[choice.variant].levels,
                    side=bundle.manifest.preprocessing.image_size,
                    size_bytes=variant_bytes(bundle, choice.variant),
                )
            )
    return rows


def _precisions(runtime: str, builds: Sequence[str], held: set[tuple[str, str]]) -> list[str]:
    """Precisions that the bundle holds for a runtime, and what a device builds from its float graphs."""
    found = [precision for name, precision in sorted(held) if name == runtime]
    if builds and ("onnxruntime", FLOAT) in held:
        found += [precision for precision in builds if precision not in found]
    return found


def variant_bytes(bundle: Bundle, variant: str) -> int:
    """Bytes of the files that a variant reads: its folder, and the weights that its graphs name."""
    return sum(bundle.manifest.files[name].bytes for name in _files(bundle, variant))


def _hashes(bundle: Bundle, variant: str) -> tuple[str, ...]:
    return tuple(bundle.manifest.files[name].sha256 for name in _files(bundle, variant))


def _files(bundle: Bundle, variant: str) -> list[str]:
    graphs = bundle.manifest.variants[variant].graphs.values()
    folders = {f"{PurePosixPath(name).parent}/" for name in graphs}
    for name in graphs:
        if name.endswith(".json"):  # a graph of the eager runtime, which names its weights
            source = str(json.loads(bundle.file(name).read_text(encoding="utf-8"))["source"])
            folders.add(source if source in bundle.manifest.files else f"{source}/")
    return sorted(name for name in bundle.manifest.files if name.startswith(tuple(folders)))
