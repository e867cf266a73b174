from __future__ import annotations

import cv2
import numpy as np
import pytest

from sam3i_edge.data.batch import BatchShape
from sam3i_edge.data.picture_batches import PictureBatches, pictures_in
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError
from sam3i_edge.levels import LEVELS

SHAPE = BatchShape(images=2, instructions=3, mask_instructions=2, image_size=32, mask_size=8)
COUNT = 24


@pytest.fixture
def folder(tmp_path):
    """Pictures that are brighter the later their name comes, in two folders, and what is no picture."""
    (tmp_path / "more").mkdir()
    for number in range(COUNT):
        place = tmp_path / ("more" if number % 2 else "") / f"{number:02}.png"
        value = np.full((20, 30, 3), 10 * number, np.uint8)
        value[:, :15] += 5
        cv2.imwrite(str(place), value)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def encode(text):
    words = min(len(text.split()), 16)
    return np.pad(1 + np.arange(words), (0, 16 - words))


def batches(folder, **options):
    given = {"seed": 0, "stream": 0, "level_weights": dict.fromkeys(LEVELS, 1.0)} | options
    return PictureBatches(pictures_in(folder), load_vocabulary("shapes"), SHAPE, encode, **given)


def brightness(batch):
    """Which pictures a batch shows: the mean is 10 n + 2.5."""
    means = (batch.pixel_values.mean((1, 2, 3)) * 0.5 + 0.5) * 255
    return [round((float(mean) - 2.5) / 10) for mean in means]


def test_every_picture_comes_once_and_none_that_is_kept_for_validation(folder):
    train, held_out = batches(folder), batches(folder, part="validation", augment=False)
    names = [path.name for path in pictures_in(folder)]
    assert len(names) == COUNT
    kept = set(brightness(held_out[0]))
    rounds = -(-(COUNT - len(kept)) // SHAPE.images)
    shown = [number for n in range(rounds) for number in brightness(train[n])]
    assert set(shown) == set(range(COUNT)) - kept
    assert len(set(shown[: COUNT - len(kept)])) == COUNT - len(kept)  # none comes again before
    assert len(kept) == 2  # every twentieth


def test_a_batch_asks_without_a_target_and_is_the_same_again(folder):
    batch, again = batches(folder)[3], batches(folder)[3]
    assert (batch.pixel_values == again.pixel_values).all()
    assert batch.texts == again.texts
    assert batch.input_ids.shape == (6, 16)
    assert batch.concept_ids.shape == (0, 16)
    assert len(batch.target_pair) == len(batch.object_masks) == 0
    assert batch.union_masks(batch.mask_index).shape == (4, 8, 8)
    levels = {int(level) for n in range(8) for level in batches(folder)[n].level}
    assert levels == {0, 1, 2}
    assert {int(v) for v in batches(folder, level_weights={"concept": 1.0})[0].level} == {0}


def test_half_of_them_are_mirrored(folder):
    train = batches(folder)
    left, right = 0, 0
    for number in range(COUNT // SHAPE.images):
        pixels = train[number].pixel_values
        brighter = pixels[..., :8].mean((1, 2, 3)) > pixels[..., 24:].mean((1, 2, 3))
        left, right = left + int(brighter.sum()), right + int((~brighter).sum())
    assert left > 3
    assert right > 3
    held_out = batches(folder, part="validation", augment=False)[0].pixel_values
    assert (held_out[..., :8].mean((1, 2, 3)) > held_out[..., 24:].mean((1, 2, 3))).all()


def test_folders_without_pictures_and_damaged_ones(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds 0 pictures, want two at least"):
        pictures_in(tmp_path / "empty")
    for path in pictures_in(folder):
        path.write_bytes(b"no picture any more")
    with pytest.raises(DataError, match="take it out of the folder"):
        batches(folder)[0]
