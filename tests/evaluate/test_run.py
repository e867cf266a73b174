from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam3i_edge.data.annotations import Annotation, Record, read_annotations, write_scenes
from sam3i_edge.errors import DataError
from sam3i_edge.evaluate.report import OVERALL
from sam3i_edge.evaluate.run import LevelChoice, evaluate
from sam3i_edge.levels import Level, route
from sam3i_edge.masks import rle

_SIZE = (8, 10)


@dataclass
class _Found:
    masks: np.ndarray
    presence: float
    level: Level
    threshold: float


@dataclass
class _Picture:
    name: str
    model: _Model

    def segment(self, instruction: str, *, level: LevelChoice, threshold: float | None) -> _Found:
        self.model.asked.append((self.name, instruction, level, threshold))
        self.model.alive_when_asked.append(sum(one() is not None for one in self.model.made))
        masks, presence = self.model.answers[self.name, instruction]
        masks = masks.copy()
        self.model.made.append(weakref.ref(masks))
        used: Level = route(instruction) if level == "auto" else level
        return _Found(masks, presence, used, 0.5 if threshold is None else threshold)


@dataclass
class _Model:
    """Answers by (file name, instruction), and keeps account of what it was asked."""

    answers: dict[tuple[str, str], tuple[np.ndarray, float]]
    encoded: list[str] = field(default_factory=list)
    asked: list[tuple[str, str, str, float | None]] = field(default_factory=list)
    made: list[Any] = field(default_factory=list)
    alive_when_asked: list[int] = field(default_factory=list)

    def encode(self, image: Path) -> _Picture:
        self.encoded.append(image.name)
        return _Picture(image.name, self)


def _strip(*columns: slice) -> np.ndarray:
    """One mask per slice of columns, [N, 8, 10]."""
    masks = np.zeros((len(columns), *_SIZE), bool)
    for mask, column in zip(masks, columns, strict=True):
        mask[:, column] = True
    return masks


def _record(
    image_id: int,
    name: str,
    granularity: Any,
    masks: np.ndarray,
    concept: Sequence[str] = (),
    simple: Sequence[str] = (),
    complex: Sequence[str] = (),
) -> Record:
    return Record(
        image_id=image_id,
        file_name=name,
        width=_SIZE[1],
        height=_SIZE[0],
        concept=list(concept),
        simple=list(simple),
        complex=list(complex),
        granularity=granularity,
        annotations=tuple(
            Annotation(id=100 * image_id + i, category="", bbox=None, segmentation=rle.encode(mask))
            for i, mask in enumerate(masks)
        ),
    )


_NOTHING = _strip()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def records() -> list[Record]:
    # The pictures alternate: they must be grouped all the same.
    return [
        _record(
            1, "a.png", "one", _strip(slice(0, 4)), ["star"], ["the red star", "never asked"], ["the one"]
        ),
        _record(2, "b.png", "none", _NOTHING, ["ring"], ["the red ring"]),
        _record(3, "a.png", "all", _strip(slice(0, 4), slice(5, 9)), ["circle"]),
        _record(4, "b.png", None, _strip(slice(0, 2)), ["cross"], complex=["what adds"]),
        _record(5, "b.png", "subset", _strip(slice(0, 2)), ["not asked"]),
    ]


@pytest.fixture
def model() -> _Model:
    return _Model(
        {
            ("a.png", "the red star"): (_strip(slice(0, 2)), 0.9),  # half of it
            ("a.png", "the one"): (_strip(slice(4, 8)), 0.8),  # beside it
            ("a.png", "circle"): (_strip(slice(5, 9), slice(0, 4)), 0.7),
            ("b.png", "ring"): (_NOTHING, 0.1),
            ("b.png", "the red ring"): (_strip(slice(0, 1)), 0.6),
            ("b.png", "cross"): (_strip(slice(0, 2)), 0.9),
            ("b.png", "what adds"): (_NOTHING, 0.2),
        }
    )


def test_asks_the_first_instruction_of_each_column_once_on_a_picture_encoded_once(
    model: _Model, records: list[Record], images: Path
) -> None:
    report = evaluate(model, records, images)
    assert model.encoded == ["a.png", "b.png"]
    assert model.asked == [
        ("a.png", "the red star", "simple", None),
        ("a.png", "the one", "complex", None),
        ("a.png", "circle", "concept", None),
        ("b.png", "ring", "concept", None),
        ("b.png", "the red ring", "simple", None),
        ("b.png", "cross", "concept", None),
        ("b.png", "what adds", "complex", None),
    ]
    assert (report.images, report.threshold) == (2, 0.5)
    assert (report.encode.count, report.instruction.count) == (2, 7)
    assert 0 < report.instruction.median_ms <= report.instruction.p90_ms


def test_figures_worked_out_by_hand(model: _Model, records: list[Record], images: Path) -> None:
    report = evaluate(model, records, images)
    concept = report.cell("concept")
    assert (concept.pairs, concept.pairs_with_target) == (3, 2)
    assert (concept.giou, concept.giou_with_none, concept.p_at_50) == (1.0, 1.0, 1.0)
    assert (concept.found_accuracy, concept.presence_accuracy, concept.none_accuracy) == (1.0, 1.0, 1.0)
    assert report.cgf1["concept"].cgf1 == pytest.approx(1.0, abs=1e-3)
    assert report.cell("concept", "unstated").pairs == 1
    simple = report.cell("simple")
    assert simple.giou == pytest.approx(0.5)
    assert simple.giou_with_none == pytest.approx(0.25)
    assert simple.ciou == pytest.approx(16 / (32 + 8))
    assert (simple.p_at_50, simple.found_accuracy, simple.none_accuracy) == (1.0, 0.5, 0.0)
    assert report.cell("complex").giou == 0.0
    assert report.cell("complex", "one").presence_accuracy == 1.0
    assert report.cell().giou == pytest.approx((1 + 1 + 0.5 + 0 + 0) / 5)
    by_instruction = {o.instruction: o for o in report.outcomes}
    assert by_instruction["circle"].match.ious == (1.0, 1.0)
    assert (by_instruction["circle"].image_id, by_instruction["circle"].file_name) == (3, "a.png")


def test_auto_lets_the_model_choose_and_reports_its_choice(
    model: _Model, records: list[Record], images: Path
) -> None:
    report = evaluate(model, records, images, choose_level=True)
    assert {level for *_, level, _ in model.asked} == {"auto"}
    assert report.routing == {"concept": {"concept": 3}, "simple": {"simple": 2}, "complex": {"complex": 2}}
    assert report.routing_accuracy == 1.0
    assert evaluate(model, records, images).routing_accuracy is None


def test_threshold_limit_progress_and_conditions_are_passed_on(
    model: _Model, records: list[Record], images: Path
) -> None:
    seen: list[tuple[str, float]] = []
    report = evaluate(
        model,
        records,
        images,
        threshold=0.7,
        limit=1,
        progress=lambda words, share: seen.append((words, share)),
        conditions={"device": "cpu"},
    )
    assert {threshold for *_, threshold in model.asked} == {0.7}
    assert report.threshold == 0.7
    assert (model.encoded, seen) == (["a.png"], [("picture 1 of 1", 1)])
    assert report.conditions == {"device": "cpu"}
    evaluate(model, records, images, progress=lambda words, share: seen.append((words, share)))
    assert seen[1:] == [("picture 1 of 2", 0.5), ("picture 2 of 2", 1)]


def test_dense_masks_do_not_pile_up(model: _Model, images: Path) -> None:
    many = [_record(i, "a.png", "one", _strip(slice(0, 4)), simple=["the red star"]) for i in range(50)]
    evaluate(model, many, images)
    assert len(model.alive_when_asked) == 50
    assert max(model.alive_when_asked) <= 1


def test_a_missing_picture_is_told_before_anything_runs(
    model: _Model, records: list[Record], images: Path
) -> None:
    (images / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 pictures are missing, the first is .*b\.png"):
        evaluate(model, records, images)
    assert model.encoded == []
    assert evaluate(model, records, images, limit=1).images == 1


def test_a_picture_of_another_size_than_its_record_is_told(model: _Model, images: Path) -> None:
    wide = Record(
        image_id=9, file_name="a.png", width=11, height=8, concept=[], simple=["the red star"], complex=[]
    )
    with pytest.raises(DataError, match=r"a\.png is 8 x 10 pixels .* record 9 says 8 x 11"):
        evaluate(model, [wide], images)


def test_nothing_to_ask_is_an_error(model: _Model, images: Path) -> None:
    silent = _record(1, "a.png", "one", _strip(slice(0, 1)), concept=["star"])
    for records in ([], [silent]):
        with pytest.raises(DataError, match="no record has an instruction"):
            evaluate(model, records, images)
    with pytest.raises(ValueError, match="at least 1 picture, got 0"):
        evaluate(model, [silent], images, limit=0)


def test_an_oracle_is_perfect_on_drawn_scenes_read_from_disk(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", 4, 11)
    records = read_annotations(tmp_path / "scenes" / "annotations.json")
    answers = {
        (record.file_name, text): (record.masks(), float(bool(record.annotations)))
        for record in records
        for text in (*record.simple, *record.complex, *record.concept)
        if text not in record.concept or record.granularity in ("all", "none")
    }
    report = evaluate(_Model(answers), records, tmp_path / "scenes" / "images")
    assert report.images == 4
    assert {"simple", "complex", "concept", OVERALL} == set(report.cgf1)
    for level in report.cgf1:
        cell = report.cell(level)
        assert (cell.giou, cell.giou_with_none, cell.ciou, cell.p_at_50) == (1.0, 1.0, 1.0, 1.0)
        assert (cell.found_accuracy, cell.presence_accuracy) == (1.0, 1.0)
    assert report.cell(granularity="none").none_accuracy == 1.0
    assert report.cgf1[OVERALL].cgf1 > 0.999
