import numpy as np
import pytest

from sam3i_edge.masks.label_image import label_image

LEFT = np.array([[True, True, False, False]])
MIDDLE = np.array([[False, True, True, False]])


def test_the_better_mask_lies_on_top():
    labels = label_image([LEFT, MIDDLE], [1, 2], (1, 4))
    assert labels.tolist() == [[1, 1, 2, 0]]
    assert labels.dtype == np.uint8


def test_many_labels_take_two_bytes():
    assert label_image([LEFT], [254], (1, 4)).dtype == np.uint8
    labels = label_image([LEFT, MIDDLE], [255, 300], (1, 4))
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[255, 255, 300, 0]]


def test_nothing_is_a_picture_of_zeros():
    assert not label_image([], [], (3, 2)).any()


@pytest.mark.parametrize("label", [0, 65_535])
def test_labels_with_a_meaning_of_their_own_are_refused(label):
    with pytest.raises(ValueError, match=r"1 to 65,534"):
        label_image([LEFT], [label], (1, 4))
