"""A folder under review: what the page is shown of it, and what it does with a click."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from sam3i_edge.data.annotations import IMAGES
from sam3i_edge.data.review.decisions import Decision, append_decision, now, read_decisions
from sam3i_edge.data.review.queue import QUEUE, ReviewItem, Words, read_queue
from sam3i_edge.errors import ImageError
from sam3i_edge.loopback import Refused
from sam3i_edge.pipeline.preprocess import load_image

_JPEG_QUALITY: Final = 92


class Click(BaseModel):
    """What the page sends."""

    id: Annotated[str, Field(max_length=200)] = ""
    decision: Literal["accept", "mend", "reject", "undo"]
    text: Words | None = None
    targets: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=10_000)] = ()


class ReviewFolder:
    """A folder under review: its items, and what was decided. One thread at a time writes."""

    def __init__(self, folder: Path) -> None:
        queue = read_queue(folder)
        self.folder, self.problems = folder, queue.problems
        self.items: Mapping[str, ReviewItem] = queue.items
        self._order = list(queue.items.values())
        self._writing = threading.Lock()
        self._decided = read_decisions(folder, self.items)

    def summary(self) -> dict[str, Any]:
        """What is to decide, and what stands."""
        standing = self._decided.standing
        return {
            "folder": str(self.folder),
            "items": [
                {
                    "id": i.id,
                    "level": i.level,
                    "decision": standing[i.id].decision if i.id in standing else None,
                }
                for i in self._order
            ],
            "problems": [*self.problems, *self._decided.problems],
        }

    def counts(self) -> dict[str, int]:
        """Items by what was decided; "undecided" are the rest."""
        kinds = Counter(decision.decision for decision in self._decided.standing.values())
        found = {kind: kinds[kind] for kind in ("accept", "mend", "reject")}
        return {**found, "undecided": len(self._order) - sum(found.values())}

    def item(self, number: int) -> dict[str, Any]:
        """An item and its decision, for the page.

        Raises:
            Refused: there is none of that number.
        """
        item = self._numbered(number)
        decision = self._decided.standing.get(item.id)
        shown = item.model_dump(mode="json")
        shown["numbers"] = item.numbers or list(range(1, len(item.objects) + 1))
        shown["decision"] = None if decision is None else decision.model_dump(mode="json")
        return shown

    def picture(self, number: int) -> bytes:
        """The picture of an item as a JPEG file.

        Raises:
            Refused: it is missing, outside of the folder, no picture, or not as large as the item says.
        """
        item = self._numbered(number)
        path = (self.folder / item.file).resolve()
        # The folder of pictures may itself be a link to where they lie; nothing in it may lead out again.
        if not path.is_relative_to((self.folder / IMAGES).resolve()):
            raise Refused(HTTPStatus.FORBIDDEN, f"{item.file} leads out of the folder {IMAGES}")
        try:
            pixels = load_image(path)
        except ImageError as error:
            raise Refused(HTTPStatus.NOT_FOUND, str(error)) from error
        if pixels.shape[:2] != item.size:
            raise Refused(
                HTTPStatus.CONFLICT,
                f"{item.file} is {pixels.shape[0]} x {pixels.shape[1]} pixels (height x width), {QUEUE} says "
                f"{item.size[0]} x {item.size[1]}: it is another picture",
            )
        bgr = np.ascontiguousarray(pixels[..., ::-1])
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()

    def decide(self, click: Click) -> dict[str, Any]:
        """Writes a decision, or takes one back, and gives the item's id and what stands for it now.

        Raises:
            Refused: it names no item or object, or there is nothing to take back.
            OSError: it cannot be written; what stood before stands.
        """
        with self._writing:
            if click.decision == "undo":
                if not self._decided.order:
                    raise Refused(HTTPStatus.CONFLICT, "nothing is decided that could be undone")
                line = Decision(id=self._decided.order[-1].id, decision="undo", time=now())
            else:
                line = self._line(click)
            append_decision(self.folder, line)
            self._decided.add(line)
            stands = self._decided.standing.get(line.id)
            return {"id": line.id, "decision": None if stands is None else stands.decision}

    def _line(self, click: Click) -> Decision:
        item = self.items.get(click.id)
        if item is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"no item has the id {click.id!r}")
        if click.decision == "reject":
            return Decision(id=item.id, decision="reject", time=now())
        text, targets = item.text, item.targets
        if click.decision == "mend":
            chosen = sorted(set(click.targets))
            if click.text is None or (chosen and chosen[-1] >= len(item.objects)):
                raise Refused(
                    HTTPStatus.BAD_REQUEST, f"want a text, and objects 0 to {len(item.objects) - 1}"
                )
            text, targets = " ".join(click.text.split()), tuple(item.objects[number] for number in chosen)
        mended = (text, targets) != (item.text, item.targets)
        return Decision(
            id=item.id, decision="mend" if mended else "accept", text=text, targets=targets, time=now()
        )

    def _numbered(self, number: int) -> ReviewItem:
        if number >= len(self._order):
            raise Refused(HTTPStatus.NOT_FOUND, f"there is no item {number}")
        return self._order[number]
