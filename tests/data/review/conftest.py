"""A folder with four instructions to decide, as `sam3i-edge instruct` leaves one."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from sam3i_edge.data.annotations import write_scenes
from sam3i_edge.data.review.server import review_server
from sam3i_edge.data.scenes import draw_scene
from sam3i_edge.masks import rle

TEXTS = ("the red one left of the ring", "every shape without a corner", "the odd one out", "what rolls")
SEED = 7


@pytest.fixture(scope="session")
def lines() -> list[dict]:
    """The content of review.jsonl: masks are those of the drawn scenes, two targets in the second item."""
    found = []
    for number, text in enumerate(TEXTS):
        drawn = draw_scene(np.random.default_rng((SEED, number)))
        masks, targets = [rle.encode(mask) for mask in drawn.masks], 2 if number == 1 else 1
        found.append(
            {
                "id": f"item-{number}",
                "file": f"images/{number:06d}.png",
                "size": list(drawn.image.shape[:2]),
                "text": text,
                "level": "complex" if number else "simple",
                "granularity": "subset" if number == 1 else "one",
                "targets": masks[:targets],
                "others": masks[targets:],
                "numbers": [4, 7, *range(10, 8 + len(masks))] if number == 2 else [],
                "why": "the color of one object is unknown",
                "form": "relation",
            }
        )
    return found


@pytest.fixture
def folder(made_once, tmp_path: Path, lines: list[dict]) -> Path:
    """annotations.json, images/ and review.jsonl."""
    drawn = made_once("to-review", lambda folder: write_scenes(folder, len(TEXTS), SEED))
    folder = Path(shutil.copytree(drawn, tmp_path / "set"))
    (folder / "review.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def server(folder):
    """A server of the folder that answers."""
    with review_server(folder) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()
