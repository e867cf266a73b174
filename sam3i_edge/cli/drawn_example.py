"""A scene to show what the bundled model does, and instructions of every level that fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from sam3i_edge.data.instructions import Granularity, Instruction
    from sam3i_edge.data.scene import Scene
    from sam3i_edge.levels import Level

# Asked in this order, where the scene allows; "none" asks for something that is not there.
_ASKED: tuple[tuple[Level, Granularity], ...] = (
    ("concept", "all"),
    ("simple", "one"),
    ("simple", "subset"),
    ("complex", "one"),
    ("complex", "all"),
    ("complex", "none"),
)
_SIZE = (320, 448)
_OBJECTS = 8
_DRAFTS = 12


def draw_example(seed: int) -> tuple[Scene, list[Instruction]]:
    """A drawn scene, and what to ask of it, a level after the other."""
    import numpy as np

    from sam3i_edge.data.scenes import draw_scene

    rng = np.random.default_rng(seed)
    drawn = draw_scene(rng, _SIZE, objects=_OBJECTS)
    return drawn, _instructions(drawn, rng)


def _instructions(drawn: Scene, rng: np.random.Generator) -> list[Instruction]:
    from sam3i_edge.data.instructions import write_instruction
    from sam3i_edge.data.vocabulary import load_vocabulary

    vocabulary = load_vocabulary("shapes")
    chosen = []
    for level, granularity in _ASKED:
        written = [write_instruction(drawn, vocabulary, rng, level, granularity) for _ in range(_DRAFTS)]
        fitting = [
            one for one in written if one is not None and one.text.islower() and one.text[-1].isalpha()
        ]
        # Of what the scene allows, the phrase that reads best in a table.
        chosen += sorted(fitting, key=lambda one: len(one.text))[len(fitting) // 2 :][:1]
    return chosen
