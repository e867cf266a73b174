from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sam3i_edge.data.records import Annotation, Record, scene_records, targets_of
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError
from sam3i_edge.masks import rle

SCENES = [draw_scene(np.random.default_rng(seed), (120, 160)) for seed in range(25)]
WORDS = load_vocabulary("shapes")
RECORDS = [scene_records(scene, WORDS, np.random.default_rng(i)) for i, scene in enumerate(SCENES)]


def test_targets_are_masks_of_the_scene() -> None:
    for scene, records in zip(SCENES, RECORDS, strict=True):
        drawn = {mask.tobytes() for mask in scene.masks}
        for record in records:
            masks = targets_of(record)
            assert masks.shape == (len(record.annotations), 120, 160)
            assert masks.dtype == np.bool_
            assert len({mask.tobytes() for mask in masks}) == len(masks)
            assert {mask.tobytes() for mask in masks} <= drawn
            for mask, annotation in zip(masks, record.annotations, strict=True):
                assert annotation.bbox == rle.box(rle.encode(mask))


def test_concept_is_exact_where_it_counts() -> None:
    """For all and none the concept means the targets; else it names their noun."""
    for scene, records in zip(SCENES, RECORDS, strict=True):
        for record in records:
            categories = {annotation.category for annotation in record.annotations}
            assert len(categories) <= 1
            shapes = {
                item.category
                for item, mask in zip(scene.objects, scene.masks, strict=True)
                if any(np.array_equal(mask, target) for target in record.masks())
            }
            assert categories <= (shapes if len(shapes) == 1 else {"shape"})
            if record.granularity in ("one", "subset"):
                assert record.concept == list(categories)
            elif record.granularity == "none":
                assert not record.annotations
                words = " ".join(record.concept).lower().split()
                assert not any(
                    words
                    in ([item.category], [f"{item.category}s"], [item.attributes["color"], item.category])
                    for item in scene.objects
                )


def test_every_granularity_and_most_levels_occur() -> None:
    records = [record for group in RECORDS for record in group]
    counts = Counter(record.granularity for record in records)
    assert set(counts) == {"one", "subset", "all", "none"}
    assert 0.1 < counts["none"] / len(records) < 0.25
    both = sum(bool(record.simple) and bool(record.complex) for record in records)
    assert both > 0.75 * len(records)
    assert all(record.concept or record.simple or record.complex for record in records)


def test_ids_and_repetition() -> None:
    def written() -> list[Record]:
        return scene_records(SCENES[3], WORDS, np.random.default_rng(3), file_name="a.png", first_id=40)

    records = written()
    assert [record.image_id for record in records] == list(range(40, 40 + len(records)))
    numbers = [annotation.id for record in records for annotation in record.annotations]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {record.file_name for record in records} == {"a.png"}
    assert records == scene_records(
        SCENES[3], WORDS, np.random.default_rng(3), file_name="a.png", first_id=40
    )


def test_run_lengths_must_fit_the_picture() -> None:
    annotation = Annotation(id=5, category="", bbox=None, segmentation=rle.encode(np.ones((4, 6), np.bool_)))
    record = Record(
        image_id=9,
        file_name="x.png",
        width=6,
        height=4,
        concept=[],
        simple=["it"],
        complex=[],
        annotations=(annotation,),
        source="f.json",
    )
    assert record.masks().all()
    with pytest.raises(
        DataError, match=r"f.json: image 9, annotation 5: segmentation is 4 x 6 .* its image 5 x 6"
    ):
        replace(record, height=5).masks()
    damaged = replace(annotation, segmentation={"size": [4, 6], "counts": [23]})
    with pytest.raises(DataError, match="annotation 5: segmentation: counts cover 23 pixels"):
        replace(record, annotations=(damaged,)).masks()
