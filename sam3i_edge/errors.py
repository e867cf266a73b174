"""Every error the SDK raises on purpose.

Sam3iError
    RuntimeUnavailable    a runtime or device is unknown, not installed, or refuses to run
        UnknownDevice     a device name is none that this version knows (also a ValueError)
    ArtifactError         a bundle's or checkpoint's file is missing, damaged, or not what it should be
        UnknownModel      a model name is no bundled model, no folder and no Hub id (also a ValueError)
    ImageError            an image cannot be read or has no usable pixels (also a ValueError)
    StreamError           a camera or video cannot be opened, stalls or stops giving frames
    InstructionError      an instruction is empty or absurdly long (also a ValueError)
    DataError             an annotation file does not follow the SAM3-I layout
    TrainingError         a training run cannot start, resume or continue
    ExportError           a model could not be converted
        ParityError       it converted, but disagrees with PyTorch

Bad plain arguments stay ValueError and TypeError.
"""

from __future__ import annotations


class Sam3iError(Exception):
    """Base of every error below, so callers can catch one name."""


class RuntimeUnavailable(Sam3iError):  # noqa: N818  (the name says what happened)
    """A runtime or device is unknown, not installed, or refuses to run."""


class UnknownDevice(RuntimeUnavailable, ValueError):  # noqa: N818  (the name says what happened)
    """A device name is none that this version knows."""


class ArtifactError(Sam3iError):
    """A bundle's or checkpoint's file is missing, damaged, or not what it should be."""


class UnknownModel(ArtifactError, ValueError):  # noqa: N818  (the name says what happened)
    """A model name is no bundled model, no folder and no Hub id."""


class ImageError(Sam3iError, ValueError):
    """An image cannot be read or has no usable pixels."""


class StreamError(Sam3iError):
    """A camera or video cannot be opened, stalls or stops giving frames."""


class InstructionError(Sam3iError, ValueError):
    """An instruction is empty or absurdly long."""


class DataError(Sam3iError):
    """An annotation file does not follow the SAM3-I layout."""


class TrainingError(Sam3iError):
    """A training run cannot start, resume or continue."""


class ExportError(Sam3iError):
    """A model could not be converted."""


class ParityError(ExportError):
    """The converted model disagrees with PyTorch beyond the tolerance."""

    def __init__(self, output: str, difference: float, tolerance: float) -> None:
        super().__init__(f"{output}: max |difference| {difference:.3g} > tolerance {tolerance:.3g}")
        self.output, self.difference, self.tolerance = output, difference, tolerance
