"""RefCOCO, RefCOCO+ and RefCOCOg: a list of references as JSON, beside COCO's instances JSON.

    [{"ref_id", "ann_id", "image_id", "category_id", "split", "sentences": [{"sent", "raw"}]}]

That is what the file `refs(unc).p` holds. It is a pickle, which can run code when it is read, so it is never
read here; where it comes from a place that is trusted, this writes the JSON:

    python -c 'import json, pickle; print(json.dumps(pickle.load(open("refs(unc).p", "rb"))))' > refs.json

A sentence names one object, which makes it an instruction of level simple. What else is in the picture is
what the instances say, as with COCO.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from sam3i_edge.bundle.manifest import first_problem
from sam3i_edge.data.annotation_schema import Identity, field_name, field_path
from sam3i_edge.data.records import Annotation, Record
from sam3i_edge.data.scene import Scene
from sam3i_edge.data.sources.coco import CocoSource
from sam3i_edge.data.sources.source import Note, noted
from sam3i_edge.data.vocabulary import Vocabulary
from sam3i_edge.errors import DataError

INSTANCES: Final = "instances.json"


def _sentence(value: object) -> object:
    """Either form of a sentence as its text."""
    return value.get("sent") or value.get("raw") if isinstance(value, dict) else value


Sentences = Annotated[list[Annotated[str, BeforeValidator(_sentence)]], Field(min_length=1)]


class Reference(BaseModel):
    """One object and the sentences that name it."""

    model_config = ConfigDict(frozen=True)

    ref_id: Identity
    ann_id: Identity
    image_id: Identity
    split: str = ""
    sentences: Sentences


def texts(sentences: list[str]) -> list[str]:
    """The sentences that say something, each once, in their order."""
    return list(dict.fromkeys(text for sentence in sentences if (text := " ".join(sentence.split()))))


class RefCocoSource:
    """Scenes of the instances that have references, and the references as records; see `source.Source`.

    Args:
        path: the references.
        vocabulary: names the categories.
        images: folder of the pictures; None looks for it, see `find_pictures`.
        instances: COCO's instances JSON; None: `instances.json` beside the references.
        split: take its references alone: "train", "val", "testA", …; None takes all.

    Raises:
        DataError: a file is missing or breaks its layout, a reference names no annotation, there is no such
            split, or none of its pictures is there.
    """

    def __init__(
        self,
        path: Path,
        vocabulary: Vocabulary,
        *,
        images: Path | None = None,
        instances: Path | None = None,
        split: str | None = None,
    ) -> None:
        self.path = path
        references = _read(path)
        splits = sorted({reference.split for reference in references})
        if split is not None and split not in splits:
            raise DataError(f"{path} has no split {split!r}; it has {', '.join(splits)}")
        self._coco = CocoSource(instances or path.parent / INSTANCES, vocabulary, images=images)
        of = self._coco.image_of()
        self._references: dict[int | str, list[Reference]] = defaultdict(list)
        for reference in references:
            if of.get(reference.ann_id) != reference.image_id:
                raise DataError(
                    f"{path}: ref {reference.ref_id}: {self._coco.path} has no annotation "
                    f"{reference.ann_id} in image {reference.image_id}; name the instances that belong to it"
                )
            if split in (None, reference.split):
                self._references[reference.image_id].append(reference)
        there = {self._coco.image_id(number): number for number in range(len(self._coco))}
        self._numbers = [number for image, number in there.items() if image in self._references]
        if not self._numbers:
            raise DataError(f"{path}: the pictures of all its references are missing in {self._coco.folder}")
        lost = [str(r.ref_id) for image, rs in self._references.items() if image not in there for r in rs]
        self.folder: Path | None = self._coco.folder
        self.notes: tuple[Note, ...] = self._coco.notes + noted("references without their picture", lost)

    def __len__(self) -> int:
        """Pictures with references."""
        return len(self._numbers)

    def file_name(self, number: int) -> str:
        """The picture's name in `folder`."""
        return self._coco.file_name(self._numbers[number])

    def scene(self, number: int) -> Scene:
        """The picture and all its objects, those without a reference too.

        Raises:
            DataError: as `CocoSource.scene`.
        """
        return self._coco.scene(self._numbers[number])

    def records(self, number: int) -> tuple[Record, ...]:
        """A record for each reference; image and annotation have its id.

        Raises:
            DataError: the instances have changed since they were opened.
        """
        place = self._numbers[number]
        (height, width), targets = self._coco.targets(place)
        found = []
        for reference in self._references[self._coco.image_id(place)]:
            target = next(target for target, _ in targets if target.id == reference.ann_id)
            category = self._coco.category(target)
            annotation = Annotation(
                id=reference.ref_id,
                category=category,
                bbox=target.bbox,
                segmentation=target.outline,
                iscrowd=target.iscrowd,
            )
            record = Record(
                image_id=reference.ref_id,
                file_name=self.file_name(number),
                width=width,
                height=height,
                concept=[category],
                simple=texts(reference.sentences),
                complex=[],
                granularity="one",
                annotations=(annotation,),
                source=str(self.path),
            )
            found += [record] if record.simple else []
        return tuple(found)


def _read(path: Path) -> list[Reference]:
    try:
        references = TypeAdapter(list[Reference]).validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; name a file of references") from error
    except ValidationError as error:
        raise DataError(
            f"{path}: {first_problem(error, 'reference' + field_name(field_path(error)))}"
        ) from error
    if not references:
        raise DataError(f"{path} has no references")
    if len({reference.ref_id for reference in references}) != len(references):
        raise DataError(f"{path}: a ref_id appears twice; give every reference its own")
    return references
