"""What a run trains and is validated on: its sources, opened once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sam3i_edge.data.annotations import ANNOTATIONS
from sam3i_edge.data.batch import BatchShape, Encode
from sam3i_edge.data.dataset import Batches, Part, SceneBatches, drawn_classes
from sam3i_edge.data.mixed_batches import MixedBatches
from sam3i_edge.data.picture_batches import PictureBatches, pictures_in
from sam3i_edge.data.record_batches import RecordBatches
from sam3i_edge.data.scene_file_batches import SceneFileBatches
from sam3i_edge.data.sources.scene_file import SCENES, SceneFileSource
from sam3i_edge.data.vocabulary import load_vocabulary
from sam3i_edge.errors import DataError, TrainingError
from sam3i_edge.levels import Level
from sam3i_edge.train.run_config import DataSource, TrainConfig


class RunData:
    """The sources of a run.

    Args:
        config: of the run.

    Attributes:
        classes: attribute -> classes of all sources, what the attribute heads tell apart.
        annotated: whether all sources are folders of annotations.

    Raises:
        DataError: a folder holds neither scenes nor annotations, or both; a file breaks its layout.
        TrainingError: stage "image" is asked for, and no source knows what its objects look like.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.seed, self.sources = config.seed, config.sources
        unlabelled = any(stage.name == "distill" for stage in config.stages)
        self._files: dict[tuple[str, str], SceneFileSource] = {}
        self._pictures: dict[str, list[Path]] = {}
        found: list[Mapping[str, tuple[str, ...]]] = []
        for source in self.sources:
            if unlabelled and source.path:
                load_vocabulary(source.vocabulary)
                self._pictures[source.path] = pictures_in(Path(source.path))
            elif not source.path:
                found.append(drawn_classes())
            elif _has_scenes(Path(source.path)):
                vocabulary = load_vocabulary(source.vocabulary)
                for path in filter(None, (source.path, source.validation)):
                    self._files[path, source.vocabulary] = SceneFileSource(Path(path), vocabulary, whole=True)
                found.append(vocabulary.attributes)
            elif source.validation:
                raise DataError(f"{source.path}: validation is for folders with {SCENES}; leave it out")
        self.annotated = not found
        if self.annotated and any(stage.name == "image" for stage in config.stages):
            raise TrainingError(
                "stage 'image' learns what objects look like, which drawn scenes and scene files tell; "
                f"{config.sources[0].path} holds annotations alone: add one of them to data"
            )
        merged: dict[str, dict[str, None]] = {}
        for classes in found or [drawn_classes()]:
            for name, values in classes.items():
                merged.setdefault(name, {}).update(dict.fromkeys(values))
        self.classes = {name: tuple(values) for name, values in merged.items()}

    def batches(
        self,
        shape: BatchShape,
        encode: Encode,
        *,
        stream: int,
        level_weights: Mapping[Level, float],
        none_share: float,
        part: Part,
    ) -> Batches:
        """The batches of a stage, or those of validation, which are never varied."""
        opened = [
            self._open(source, shape, encode, stream, level_weights, none_share, part)
            for source in self.sources
        ]
        if len(opened) == 1:
            return opened[0]
        return MixedBatches(opened, [source.weight for source in self.sources])

    def _open(
        self,
        source: DataSource,
        shape: BatchShape,
        encode: Encode,
        stream: int,
        level_weights: Mapping[Level, float],
        none_share: float,
        part: Part,
    ) -> Batches:
        common: dict[str, Any] = {
            "seed": self.seed,
            "stream": stream,
            "level_weights": level_weights,
            "classes": self.classes,
            "augment": part == "train",
        }
        if not source.path:
            return SceneBatches(shape, encode, none_share=none_share, **common)
        if source.path in self._pictures:
            pictures, vocabulary = self._pictures[source.path], load_vocabulary(source.vocabulary)
            return PictureBatches(pictures, vocabulary, shape, encode, part=part, **common)
        if (source.path, source.vocabulary) not in self._files:
            return RecordBatches(Path(source.path), shape, encode, part=part, **common)
        apart = bool(source.validation)  # nothing of the folder is kept from training then
        path = source.validation if apart and part == "validation" else source.path
        return SceneFileBatches(
            self._files[path, source.vocabulary],
            load_vocabulary(source.vocabulary),
            shape,
            encode,
            none_share=none_share,
            part=None if apart else part,
            **common,
        )


def _has_scenes(folder: Path) -> bool:
    """Whether the folder is one of scene files, and not of annotations."""
    scenes, annotations = ((folder / name).is_file() for name in (SCENES, ANNOTATIONS))
    if scenes == annotations:
        found = f"both {SCENES} and {ANNOTATIONS}" if scenes else f"neither {SCENES} nor {ANNOTATIONS}"
        raise DataError(f"{folder} holds {found}: name a folder with one of them, and images/")
    return scenes
