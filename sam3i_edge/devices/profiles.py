"""Devices as data, and the choice of what runs: device, runtime, precision, variant.

Nothing is chosen silently. What the caller names is used or an error says why not; what is left on
"auto" is chosen by the order in the table, and the reason travels with every result.
"""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sam3i_edge import runtimes
from sam3i_edge.bundle.folder import Bundle
from sam3i_edge.devices import jetson, nvidia
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable, UnknownDevice

_ROOT = Path("/")
_INTEL = "0x8086"  # PCI's number of the vendor


def _jetson_missing(root: Path) -> str | None:
    if jetson.detect(root) is not None:
        return None
    return "no Tegra release file (/etc/nv_tegra_release) and no Tegra in the device tree"


def _nvidia_missing(_: Path) -> str | None:
    return nvidia.gpu_missing()


def _apple_missing(_: Path) -> str | None:
    return None if sys.platform == "darwin" else f"it needs macOS, this is {platform.system()}"


def _intel_missing(nodes: str, kind: str) -> Callable[[Path], str | None]:
    def missing(root: Path) -> str | None:
        if sys.platform != "linux":
            return None  # the runtime's own list of devices tells
        for vendor in root.glob(f"sys/class/{nodes}/device/vendor"):
            if vendor.read_text().strip() == _INTEL:
                return None
        return f"no {kind} of Intel below /sys/class/{nodes}"

    return missing


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """What a device can run, in order of preference.

    Attributes:
        name: what users write.
        detected: how this version finds out that the device is here, in words.
        missing: says why the machine below a root folder has no such device, or None where it has.
        runtimes: names in the table of `sam3i_edge.runtimes`, best first.
        precisions: what "auto" takes, best first. A precision outside this list runs only on request.
        refuses: precisions that never run here, with the reason.
        builds: precisions of engines that are built here; where the bundle has no variant at one of them, the
            engine is built from its fp32 graphs.
        auto: whether device="auto" may choose it.
    """

    name: str
    detected: str
    missing: Callable[[Path], str | None]
    runtimes: tuple[str, ...]
    precisions: tuple[str, ...]
    refuses: tuple[tuple[str, str], ...] = ()
    builds: tuple[str, ...] = ()
    auto: bool = True


# The order is that of device="auto".
DEVICES: dict[str, DeviceProfile] = {
    row.name: row
    for row in (
        DeviceProfile(
            name="jetson",
            detected="a Tegra release file, or a Tegra in the device tree",
            missing=_jetson_missing,
            runtimes=("onnxruntime",),
            precisions=("fp16", "fp32"),
            builds=("fp16", "fp32"),
        ),
        DeviceProfile(
            name="cuda",
            detected="the NVIDIA driver counts at least one GPU",
            missing=_nvidia_missing,
            runtimes=("eager", "onnxruntime"),
            precisions=("fp16", "fp32"),
        ),
        DeviceProfile(
            name="apple",
            detected="the system is macOS",
            missing=_apple_missing,
            runtimes=("coreml",),
            precisions=("fp16", "int8", "int4"),
        ),
        DeviceProfile(
            name="intel-gpu",
            detected="a render node of Intel's (macOS and Windows: OpenVINO lists it)",
            missing=_intel_missing("drm/renderD*", "GPU"),
            runtimes=("openvino",),
            precisions=("fp16", "fp32"),
        ),
        DeviceProfile(
            name="intel-npu",
            detected="an accelerator node of Intel's (Windows: OpenVINO lists it)",
            missing=_intel_missing("accel/accel*", "NPU"),
            runtimes=("openvino",),
            precisions=("fp16", "int8"),
            auto=False,
        ),
        DeviceProfile(
            name="cpu",
            detected="a tiny graph runs on it",
            missing=lambda _: None,
            runtimes=("onnxruntime", "openvino", "eager", "litert"),
            precisions=("fp32", "int8w"),  # the second has float activations, and fewer bytes
            refuses=(("fp16", "processors compute it in float32, slower than fp32"),),
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What will run.

    Attributes:
        device: name of the profile.
        runtime: name of the runtime.
        precision: "fp32", "int8", ...
        variant: the variant of the bundle whose graphs run.
        builds: an engine is built from the graphs, at `precision`.
        reason: one sentence: what was asked for, and what "auto" chose and why.
    """

    device: str
    runtime: str
    precision: str
    variant: str
    builds: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a `Segmenter` runs.

    Attributes:
        model: name of the bundle.
        bundle: its folder.
        variant: the variant of the bundle that was opened.
        device: profile that runs.
        runtime: runtime that runs.
        precision: precision that runs.
        reason: one sentence: what was asked for, and what "auto" chose.
        image_size: side of the square that images are resized to, pixels.
        threshold: least score of an instance when a call names none.
        max_boxes: most boxes of one call; 0 where the model takes no box prompts.
    """

    model: str
    bundle: Path
    variant: str
    device: str
    runtime: str
    precision: str
    reason: str
    image_size: int
    threshold: float
    max_boxes: int

    @property
    def boxes(self) -> NoReturn:
        """The old name of `max_boxes`; raises AttributeError."""
        raise AttributeError("Info has no 'boxes': it is called max_boxes")


def check_device(device: str, root: Path = _ROOT) -> None:
    """Checks that a device is known and here; "auto" always is.

    Args:
        device: "auto" or a name in `DEVICES`.
        root: folder that stands for "/".

    Raises:
        UnknownDevice: no such name (a RuntimeUnavailable and a ValueError).
        RuntimeUnavailable: the machine has no such device.
    """
    if device == "auto":
        return
    if device not in DEVICES:
        raise UnknownDevice(f"unknown device {device!r}; this version has auto, {', '.join(DEVICES)}")
    why = DEVICES[device].missing(root)
    if why is not None:
        raise RuntimeUnavailable(
            f"device {device!r} is not on this machine: {why}; use device='cpu', or 'auto' for the best here"
        )


def choose(
    bundle: Bundle, device: str = "auto", precision: str = "auto", runtime: str = "auto", root: Path = _ROOT
) -> Choice:
    """Picks the variant of `bundle` to run, and proves that its runtime works.

    Args:
        bundle: the model.
        device: "auto" or a name in `DEVICES`.
        precision: "auto" or a precision, such as "fp32".
        runtime: "auto" or a name in `sam3i_edge.runtimes.RUNTIMES`.
        root: folder that stands for "/".

    Raises:
        UnknownDevice: `device` is not known to this version.
        RuntimeUnavailable: `runtime` is unknown, does not serve the device, or does not work here; the device
            is not here, or refuses the precision.
        ArtifactError: the bundle has no variant that fits.
    """
    check_device(device, root)
    if runtime not in ("auto", *runtimes.RUNTIMES):
        raise RuntimeUnavailable(
            f"unknown runtime {runtime!r}; choose from auto, {', '.join(runtimes.RUNTIMES)}"
        )
    if device != "auto":
        return _choose_on(DEVICES[device], bundle, device, precision, runtime)
    served = [row for row in DEVICES.values() if row.auto and runtime in ("auto", *row.runtimes)]
    passed: list[tuple[str, ArtifactError | RuntimeUnavailable]] = []
    for row in served:
        if row.missing(root) is not None:
            continue
        try:
            choice = _choose_on(row, bundle, device, precision, runtime)
        except (ArtifactError, RuntimeUnavailable) as error:
            passed.append((row.name, error))
            continue
        over = "".join(f"; passed over {name}, which is here: {error}" for name, error in passed)
        return dataclasses.replace(choice, reason=choice.reason + over)
    if passed:
        raise passed[-1][1]
    reasons = "; ".join(f"{row.name}: {row.missing(root)}" for row in served)
    raise RuntimeUnavailable(f"runtime {runtime!r} serves no device of this machine ({reasons})")


def _choose_on(row: DeviceProfile, bundle: Bundle, device: str, precision: str, runtime: str) -> Choice:
    """The choice on one device; `device`, `precision` and `runtime` are what was asked for."""
    if runtime != "auto" and runtime not in row.runtimes:
        raise RuntimeUnavailable(
            f"runtime {runtime!r} does not serve device {row.name!r}; it has {', '.join(row.runtimes)}"
        )
    refused = dict(row.refuses)
    if precision in refused:
        raise RuntimeUnavailable(
            f"device {row.name!r} does not run {precision} ({refused[precision]}): "
            f"ask for {', '.join(row.precisions)} or auto"
        )
    candidates = row.runtimes if runtime == "auto" else (runtime,)
    wanted = row.precisions if precision == "auto" else (precision,)
    failed: list[RuntimeUnavailable] = []
    for name in candidates:
        found = _first_variant(row, bundle, name, wanted)
        if found is None:
            continue
        level, variant = found
        try:
            runtimes.probe(name, row.name)
        except RuntimeUnavailable as error:
            failed.append(error)
            continue
        reason = _reason((device, precision, runtime), (row.name, level, name))
        if level != bundle.manifest.variants[variant].precision:
            reason += f"; the {level} engine is built from {variant}"
        reason += "".join(f"; passed over: {error}" for error in failed)
        return Choice(
            device=row.name,
            runtime=name,
            precision=level,
            variant=variant,
            builds=bool(row.builds),
            reason=reason,
        )
    if failed:
        raise failed[0]
    existing = ", ".join(
        f"{name} ({variant.runtime}, {variant.precision})"
        for name, variant in bundle.manifest.variants.items()
    )
    raise ArtifactError(
        f"bundle {bundle.manifest.name!r} has no variant for {' or '.join(candidates)} "
        f"at {' or '.join(wanted)}; it has {existing}. Make one with 'sam3i-edge export'"
    )


def _first_variant(
    row: DeviceProfile, bundle: Bundle, runtime: str, precisions: tuple[str, ...]
) -> tuple[str, str] | None:
    """The first precision that the bundle has for a runtime or that can be built, and its variant."""
    held = {(v.runtime, v.precision): name for name, v in bundle.manifest.variants.items()}
    for precision in precisions:
        sources = (precision, "fp32") if precision in row.builds else (precision,)
        for source in sources:
            if (runtime, source) in held:
                return precision, held[runtime, source]
    return None


def _reason(asked: tuple[str, str, str], chosen: tuple[str, str, str]) -> str:
    words = {
        kind: f"{kind} {got} ({'chosen by auto' if ask == 'auto' else 'asked for'})"
        for kind, ask, got in zip(("device", "precision", "runtime"), asked, chosen, strict=True)
    }
    listed = ", ".join(words[kind] for kind in ("device", "runtime", "precision"))
    return f"{listed}; the runtime was tried on the device"
