"""Scenes to show what the bundled model does, and instructions of every level that fit them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np

    from sam3i_edge.data.instructions import Granularity, Instruction
    from sam3i_edge.data.scene import Scene
    from sam3i_edge.data.vocabulary import Vocabulary
    from sam3i_edge.levels import Level

TABLES: Final = Path(__file__).parents[1] / "assets" / "tables"  # a scene file, rendered by tabletop/

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
    from sam3i_edge.data.vocabulary import load_vocabulary

    rng = np.random.default_rng(seed)
    drawn = draw_scene(rng, _SIZE, objects=_OBJECTS)
    return drawn, _instructions(drawn, load_vocabulary("shapes"), rng)


def table_example(seed: int) -> tuple[Scene, list[Instruction]]:
    """One of the rendered tables that the package brings, and what to ask of it."""
    import numpy as np

    from sam3i_edge.data.sources.scene_file import SceneFileSource
    from sam3i_edge.data.vocabulary import load_vocabulary

    vocabulary = load_vocabulary("tabletop")
    tables = SceneFileSource(TABLES, vocabulary)
    scene = tables.scene(seed % len(tables))
    return scene, _instructions(scene, vocabulary, np.random.default_rng(seed))


def _instructions(scene: Scene, vocabulary: Vocabulary, rng: np.random.Generator) -> list[Instruction]:
    from sam3i_edge.data.instructions import write_instruction

    chosen: dict[str, Instruction] = {}
    for level, granularity in _ASKED:
        written = [write_instruction(scene, vocabulary, rng, level, granularity) for _ in range(_DRAFTS)]
        fitting = {
            one.text: one
            for one in written
            if one is not None and one.text.islower() and one.text[-1].isalpha() and one.text not in chosen
        }
        # Of what the scene allows, the phrase that reads best in a table.
        for text in sorted(fitting, key=len)[len(fitting) // 2 :][:1]:
            chosen[text] = fitting[text]
    return list(chosen.values())
