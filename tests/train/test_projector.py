from __future__ import annotations

import numpy as np
import pytest
import torch

from official_files import FOLDER
from sam3i_edge.levels import LEVELS
from sam3i_edge.train.projector import Projector, concept_numbers

NAMES = ("simple_query_proj", "complex_query_proj", "concept_proj")  # one module in the released code


def official(name: str) -> Projector:
    state = torch.load(FOLDER / "sam3i_stage3.pt", weights_only=True)["model"]
    own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
    projector = Projector(own["0.weight"].shape[0])
    projector.layers.load_state_dict(own)
    return projector


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_what_the_released_one_gives(name):
    projector = official(name)
    with np.load(FOLDER / "outputs.npz") as outputs, torch.no_grad():
        for level in LEVELS:
            for prompt in ("p0", "p1", "p2"):
                text = torch.from_numpy(outputs[f"{level}.{prompt}.text_features"])
                found = projector(text[None])[0].numpy()
                wanted = outputs[f"{level}.{prompt}.projector_output"]
                assert np.linalg.norm(found - wanted) <= 1e-6 * np.linalg.norm(wanted)


def test_half_precision_is_projected_in_float32():
    projector = Projector(8)
    text = torch.randn(2, 32, 8).bfloat16()
    assert projector(text).dtype == torch.float32
    torch.testing.assert_close(projector(text), projector(text.float()))


def test_concepts_that_read_alike_have_one_number():
    ids = torch.tensor([[5, 2, 0], [5, 3, 0], [5, 2, 0], [1, 9, 9]])
    numbers = concept_numbers(ids)
    assert (numbers[:, None] == numbers).tolist() == [
        [True, False, True, False],
        [False, True, False, False],
        [True, False, True, False],
        [False, False, False, True],
    ]
