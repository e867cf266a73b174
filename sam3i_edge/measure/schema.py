"""`results.json`, what a benchmark found, schema version 2. docs/benchmarks.md says how they are measured.

Figures that could not be measured are null, never zero and never estimated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.devices.machine import Machine
from sam3i_edge.errors import DataError
from sam3i_edge.files import write_whole

SCHEMA_VERSION = 2
RESULTS = "results.json"

# Steps of one query, in order. "end_to_end" is measured around them, "instruction" sums up the last three.
STEPS = ("preprocess", "encode_image", "encode_text", "detect", "postprocess")
INSTRUCTION, END_TO_END = "instruction", "end_to_end"

Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Settings(_Part):
    """How it was measured.

    Attributes:
        budget: "quick" or "full".
        threads: threads of the runtime; each process is held to as many cores.
        queries: least number of timed queries of a row; seconds: least time that they take.
        pairs: (image, instruction) pairs of the agreement, all levels together.
        starts: fresh processes of the cold start.
        scenes: drawn scenes of the accuracy, where `data` is None.
        data: name of the data set's folder, or None for drawn scenes.
        picture: (H, W) of the timed pictures, pixels.
    """

    budget: Literal["quick", "full"]
    threads: int
    queries: int
    seconds: float
    pairs: int
    starts: int
    scenes: int
    data: str | None
    picture: tuple[int, int]


class Conditions(_Part):
    """State of the machine at one moment; None where it cannot be read.

    Attributes:
        utc: ISO 8601.
        load: load average of the last minute: other work on the machine falsifies the figures.
        celsius: the warmest sensor.
        megahertz: mean clock of the cores.
        governor: of the first core's clock.
    """

    utc: str
    load: float | None
    celsius: float | None
    megahertz: float | None
    governor: str | None


class Latency(_Part):
    """One step's time in ms: percentiles, mean, coefficient of variation, and every sample in order.

    With fewer than 100 samples p99 lies between the two slowest.
    """

    count: int
    p50: float
    p90: float
    p99: float
    mean: float
    variation: float
    samples: tuple[float, ...]


class Ratio(_Part):
    """How many times faster than the float row: quotient of medians, with a 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class Accuracy(_Part):
    """Against annotated masks, 0..1: see `sam3i_edge.evaluate.report.Cell`."""

    pairs: int
    giou: float | None
    p_at_50: float | None
    presence: Share


class Row(_Part):
    """One runtime x precision x level.

    Attributes:
        model: name of the bundle.
        variant: folder of its graphs.
        device, runtime, precision, level: what ran.
        status: "ok"; "disagrees": the agreement failed, so there is no speed; "failed"; "interrupted".
        problem: why it is not "ok", or None.
        reference: whether this is the float row that others are compared with.
        agreement: fields of `sam3i_edge.agreement.Agreement`, over all levels, or None.
        accuracy: on scenes or data, or None.
        latency: step -> times; empty where there is no speed.
        speedup: end to end against the float row's queries in between, or None for that row itself.
        warm_up: queries before the timed ones; stable: whether their median had settled.
        slowed: the last third's median is more than 10 % above the first third's.
        cold_start_ms: process start to first masks, one value a fresh process.
        throughput: queries a second, one after the other, or None.
        peak_memory_bytes: most memory of a process that opens the model and asks 8 queries, or None.
        image_size: side of the picture that the model takes, pixels.
        size_bytes: files that the variant reads.
        joules: energy a query of the processor packages, of the GPU alone on "cuda", or None where there is
            nothing to read.
        before, after: state of the machine around the row.
    """

    model: str
    variant: str
    device: str
    runtime: str
    precision: str
    level: str
    image_size: int
    status: Literal["ok", "disagrees", "failed", "interrupted"]
    problem: str | None = None
    reference: bool = False
    agreement: dict[str, float] | None = None
    accuracy: Accuracy | None = None
    latency: dict[str, Latency] = {}
    speedup: Ratio | None = None
    warm_up: int = 0
    stable: bool | None = None
    slowed: bool | None = None
    cold_start_ms: tuple[float, ...] = ()
    throughput: float | None = None
    peak_memory_bytes: int | None = None
    size_bytes: int
    joules: float | None = None
    before: Conditions
    after: Conditions | None = None

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What names the row in a comparison."""
        return self.model, self.device, self.runtime, self.precision, self.level


class Skipped(_Part):
    """A row that this machine cannot run, and why."""

    model: str
    device: str
    runtime: str
    precision: str
    reason: str


class Results(_Part):
    """The content of `results.json`.

    Attributes:
        complete: every planned row was run. Rows of an interrupted run are kept.
        commit: of the source, with "+" where it was changed; None outside a repository.
    """

    schema_version: Literal[2] = 2
    complete: bool
    started: Conditions
    finished: Conditions | None = None
    machine: Machine
    versions: dict[str, str]
    commit: str | None
    settings: Settings
    rows: tuple[Row, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def write(self, path: Path) -> None:
        """Writes the file whole, or leaves what was there.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        write_whole(path, self.model_dump_json(indent=1) + "\n")


def read_results(path: Path) -> Results:
    """Reads a results file.

    Raises:
        DataError: it is missing, damaged, of another schema, or no results file.
    """
    try:
        return Results.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}; want a {RESULTS} of 'sam3i-edge benchmark'"
        ) from error
    except ValidationError as error:
        raise DataError(
            f"{path} is no {RESULTS} of schema version {SCHEMA_VERSION}: {first_problem(error)}; "
            "measure again with 'sam3i-edge benchmark'"
        ) from error
