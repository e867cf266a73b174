"""What a model of tables says of five photographs that come with scikit-image: nothing is left out.

    pip download --no-deps scikit-image && unzip scikit_image*.whl 'skimage/data/*'
    python scripts/photographs.py skimage/data photographs.jpg --model sam3i-table

Of every photograph each noun of the vocabulary "tabletop" is asked for once. Prints a table for the docs:
what is there, what was found with its score, and how many nouns were answered rightly. The picture shows the
masks of the best answer of each photograph.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import cv2
import numpy as np

from sam3i_edge import Segmenter
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.masks import overlay

# Photographs in the wheel that show things close by, and what of the vocabulary is in them.
PHOTOGRAPHS: Final = {
    "coffee.png": {"cup", "spoon", "plate"},
    "camera.png": {"camera"},
    "astronaut.png": set[str](),
    "chelsea.png": set[str](),
    "motorcycle_left.png": set[str](),
}
SIDE: Final = 360


def main() -> None:
    """Asks, prints the table and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photographs", type=Path, help="folder skimage/data of the wheel")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    given = parser.parse_args()
    nouns = list(load_vocabulary("tabletop").categories)
    cells = []
    print("| photograph | there | found, with the best score | nouns answered rightly |\n|---|---|---|---|")
    with Segmenter(given.model) as segmenter, TemporaryDirectory() as folder:
        for name, there in PHOTOGRAPHS.items():
            scene = segmenter.encode(given.photographs / name)
            answers = {noun: scene.segment(noun, level="concept") for noun in nouns}
            found = {noun: float(answer.scores.max()) for noun, answer in answers.items() if len(answer)}
            right = sum((noun in found) == (noun in there) for noun in nouns)
            best_first = sorted(found, key=found.__getitem__, reverse=True)
            shown = ", ".join(f"{noun} {found[noun]:.2f}" for noun in best_first)
            row = (name, ", ".join(sorted(there)) or "-", shown or "-", f"{right} of {len(nouns)}")
            print(f"| {' | '.join(row)} |")
            best = answers[(*best_first, nouns[0])[0]]
            drawn = cv2.imread(str(best.save(Path(folder) / "cell.png", dim=False)))[:, :, ::-1]
            width = round(drawn.shape[1] * SIDE / drawn.shape[0])
            cells.append(cv2.resize(drawn, (width, SIDE), interpolation=cv2.INTER_AREA))
    overlay.write(np.hstack(cells), given.out)


if __name__ == "__main__":
    main()
