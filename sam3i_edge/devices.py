"""Devices as data, and the choice of what runs: device, runtime, precision, variant.

Nothing is chosen silently. What the caller names is used or an error says why not; what is left on
"auto" is chosen by the order in the table, and the reason travels with every result.
"""

from __future__ import annotations

from dataclasses import dataclass

from sam3i_edge import runtimes
from sam3i_edge.bundle import Bundle
from sam3i_edge.errors import ArtifactError, RuntimeUnavailable, UnknownDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """What a device can run, in order of preference.

    Attributes:
        name: what users write.
        detected: how this version finds out that the device is here, in words.
        runtimes: names in the table of `sam3i_edge.runtimes`, best first.
        precisions: what "auto" takes, best first. A precision outside this list runs only on request.
        refuses: precisions that never run here, with the reason.
    """

    name: str
    detected: str
    runtimes: tuple[str, ...]
    precisions: tuple[str, ...]
    refuses: tuple[tuple[str, str], ...] = ()


# The order is that of device="auto".
DEVICES: dict[str, DeviceProfile] = {
    "cpu": DeviceProfile(
        name="cpu",
        detected="a graph of one addition runs on it",
        runtimes=("onnxruntime",),
        precisions=("fp32",),
        refuses=(("fp16", "processors compute it in float32, slower than fp32"),),
    ),
}

# Named in the design, and not in this version: the message must not read like a typing error.
_LATER = ("cuda", "jetson", "intel-gpu", "intel-npu", "apple")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What will run.

    Attributes:
        device: name of the profile.
        runtime: name of the runtime.
        precision: "fp32", "int8", ...
        variant: the bundle's variant of that runtime and precision.
        reason: one sentence: what was asked for, and what "auto" chose and why.
    """

    device: str
    runtime: str
    precision: str
    variant: str
    reason: str


def profile(device: str) -> DeviceProfile:
    """Gives a device's row; "auto" gives the first.

    Raises:
        UnknownDevice: no such row (a RuntimeUnavailable and a ValueError).
    """
    if device == "auto":
        return next(iter(DEVICES.values()))
    if device in DEVICES:
        return DEVICES[device]
    known = ", ".join(("auto", *DEVICES))
    if device in _LATER:
        raise UnknownDevice(f"device {device!r} comes with a later version; this one has {known}")
    raise UnknownDevice(
        f"unknown device {device!r}; this version has {known} (later versions: {', '.join(_LATER)})"
    )


def choose(bundle: Bundle, device: str = "auto", precision: str = "auto", runtime: str = "auto") -> Choice:
    """Picks the variant of `bundle` to run, and proves that its runtime works.

    Args:
        bundle: the model.
        device: "auto" or a name in `DEVICES`.
        precision: "auto" or a precision, such as "fp32".
        runtime: "auto" or a name in `sam3i_edge.runtimes.RUNTIMES`.

    Raises:
        UnknownDevice: `device` is not known to this version.
        RuntimeUnavailable: `runtime` is unknown, does not serve the device, does not work here, or the
            device refuses the precision.
        ArtifactError: the bundle has no variant that fits.
    """
    row = profile(device)
    if runtime not in ("auto", *runtimes.RUNTIMES):
        raise RuntimeUnavailable(
            f"unknown runtime {runtime!r}; choose from auto, {', '.join(runtimes.RUNTIMES)}"
        )
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
    for name in candidates:
        for level in wanted:
            variant = _variant(bundle, name, level)
            if variant is not None:
                runtimes.probe(name, row.name)
                reason = _reason(device, precision, runtime, row.name, name, level)
                return Choice(device=row.name, runtime=name, precision=level, variant=variant, reason=reason)
    existing = ", ".join(
        f"{name} ({variant.runtime}, {variant.precision})"
        for name, variant in bundle.manifest.variants.items()
    )
    raise ArtifactError(
        f"bundle {bundle.manifest.name!r} has no variant for {' or '.join(candidates)} "
        f"at {' or '.join(wanted)}; it has {existing}. Make one with 'sam3i-edge export'"
    )


def _variant(bundle: Bundle, runtime: str, precision: str) -> str | None:
    for name, variant in bundle.manifest.variants.items():
        if (variant.runtime, variant.precision) == (runtime, precision):
            return name
    return None


def _reason(device: str, precision: str, runtime: str, *chosen: str) -> str:
    words = []
    for kind, asked, got in zip(
        ("device", "runtime", "precision"), (device, runtime, precision), chosen, strict=True
    ):
        words.append(f"{kind} {got} ({'chosen by auto' if asked == 'auto' else 'asked for'})")
    return ", ".join(words) + "; the runtime was tried on the device"
