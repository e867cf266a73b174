"""`Segmenter`, the one door to every runtime, and `Scene`, an image encoded once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam3i_edge.bundle import Bundle, find_bundle
from sam3i_edge.caching import Lru
from sam3i_edge.devices import choose, profile
from sam3i_edge.errors import InstructionError
from sam3i_edge.graphs import Graphs
from sam3i_edge.levels import LEVELS, Level, as_level, route
from sam3i_edge.postprocess import select
from sam3i_edge.preprocess import ImageSource, load_image, to_pixel_values
from sam3i_edge.prompt import VISUAL, BoxPrompt, join_prompt
from sam3i_edge.result import Result
from sam3i_edge.tokenizer import check_instruction

_log = logging.getLogger(__name__)

_FEATURES = ("fpn_4x", "fpn_2x", "fpn_1x", "cls_token")

# What a Result's timings_ms holds, in this order.
STEPS = ("preprocess", "encode_image", "encode_text", "encode_boxes", "detect", "postprocess", "total")


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What a `Segmenter` runs.

    Attributes:
        model: name of the bundle.
        bundle: its folder.
        variant: the variant of the bundle that was opened.
        device: profile that runs.
        runtime: runtime that runs.
        precision: precision that runs.
        reason: one sentence: what was asked for, and what "auto" chose.
        image_size: side of the square that images are resized to, pixels.
        threshold: least score of an instance when a call names none.
        boxes: most boxes of one call; 0 where the model takes no box prompts.
    """

    model: str
    bundle: Path
    variant: str
    device: str
    runtime: str
    precision: str
    reason: str
    image_size: int
    threshold: float
    boxes: int


@dataclass(frozen=True, slots=True)
class _Text:
    features: NDArray[np.float32]  # [1, 32, C]
    mask: NDArray[np.bool_]  # [1, 32]
    tokens_cut: int


@dataclass(frozen=True, slots=True)
class _Request:
    instruction: str | None
    cleaned: str
    boxes: BoxPrompt | None
    level: Level
    level_chosen_by: Literal["caller", "auto"]
    threshold: float


class _Clock:
    """Milliseconds by step; a step that did not run has 0."""

    def __init__(self) -> None:
        self._spent = dict.fromkeys(STEPS, 0.0)
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._spent[name] += 1e3 * (time.perf_counter() - start)

    def timings(self) -> dict[str, float]:
        return {**self._spent, "total": 1e3 * (time.perf_counter() - self._start)}


def _check_threshold(value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"threshold must be 0 to 1, got {value}")


class Scene:
    """An image that was encoded once, to be asked often. Made by `Segmenter.encode`.

    It holds the image and its features, so it lives as long as the caller keeps it, independent of the
    image cache; it can be asked until its segmenter is closed. Thread-safe.

    Attributes:
        image: [H, W, 3] uint8 RGB, read-only.
    """

    def __init__(
        self, segmenter: Segmenter, image: NDArray[np.uint8], features: Mapping[str, NDArray[Any]]
    ) -> None:
        self._segmenter = segmenter
        self._features = features
        self.image = image

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image, pixels."""
        return self.image.shape[0], self.image.shape[1]

    def segment(
        self,
        instruction: str | None = None,
        *,
        boxes: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        level: Level | Literal["auto"] = "auto",
        threshold: float | None = None,
    ) -> Result:
        """Segments what `instruction` describes or `boxes` show; see `Segmenter.segment`."""
        clock = _Clock()
        request = self._segmenter._request(instruction, level, threshold, boxes, labels)
        if request.boxes is not None:
            request.boxes.check_inside(self.image_size)
        return self._segmenter._ask(self, request, clock)


class Segmenter:
    """Segments what a sentence describes.

    Thread-safe: there is one lock for each opened graph, so threads share one segmenter and overlap in
    everything but the same graph. Results do not depend on what is cached.
    """

    def __init__(
        self,
        model: str | Path = "sam3i-nano",
        device: str = "auto",
        precision: str = "auto",
        runtime: str = "auto",
        *,
        revision: str | None = None,
        threshold: float | None = None,
        threads: int | None = None,
        image_cache: int = 4,
        instruction_cache: int = 256,
    ) -> None:
        """Finds, verifies and opens a model.

        Args:
            model: a bundled name, a bundle's folder, or a Hub id "org/name".
            device: "auto" or a device profile, such as "cpu".
            precision: "auto" or a precision the bundle has, such as "fp32".
            runtime: "auto" or a runtime that serves the device, such as "onnxruntime".
            revision: branch, tag or commit, for a Hub id only.
            threshold: least score of an instance, 0 to 1; None takes the bundle's (0.5).
            threads: threads for one operator; None takes one for each core this process may use.
            image_cache: images whose features are kept, least recently used first out; 0 keeps none.
                One image of sam3i at 1008 pixels takes 111 MB.
            instruction_cache: encoded instructions that are kept; 0 keeps none.

        Raises:
            ArtifactError: the model is unknown, damaged, newer than this version, or lacks the variant.
            RuntimeUnavailable: device or runtime is unknown, or does not work here.
            ValueError: another argument is out of range.
        """
        if threshold is not None:
            _check_threshold(threshold)
        profile(device)
        self._images: Lru[Mapping[str, NDArray[Any]]] = Lru(image_cache)
        self._texts: Lru[_Text] = Lru(instruction_cache)
        self._bundle = Bundle.open(find_bundle(model, revision))
        manifest = self._bundle.manifest
        self._choice = choose(self._bundle, device, precision, runtime)
        _log.debug("%s %s: %s", manifest.name, self._choice.variant, self._choice.reason)
        self._threshold = manifest.thresholds.score if threshold is None else threshold
        self._variant = manifest.variants[self._choice.variant]
        self._tokenizer = self._bundle.tokenizer()
        self._graphs = Graphs(self._bundle, self._choice, threads)
        self._graphs.open("image_encoder")
        self._graphs.open("detector")

    @property
    def info(self) -> Info:
        """What runs, and why."""
        manifest, choice = self._bundle.manifest, self._choice
        return Info(
            model=manifest.name,
            bundle=self._bundle.root,
            variant=choice.variant,
            device=choice.device,
            runtime=choice.runtime,
            precision=choice.precision,
            reason=choice.reason,
            image_size=manifest.preprocessing.image_size,
            threshold=self._threshold,
            boxes=self._variant.boxes,
        )

    def segment(
        self,
        image: ImageSource,
        instruction: str | None = None,
        *,
        boxes: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        level: Level | Literal["auto"] = "auto",
        threshold: float | None = None,
    ) -> Result:
        """Segments what `instruction` describes in `image`, what `boxes` show, or both at once.

        Args:
            image: path, bytes, numpy RGB array or PIL image; see `sam3i_edge.preprocess.load_image`.
            instruction: a noun phrase or a sentence, up to 2,000 words. What exceeds 32 tokens is cut, and
                `Result.tokens_cut` counts it. None with boxes only, which are then asked at level concept.
            boxes: [N, 4], (x0, y0, x1, y1) in pixels of the image, N up to `Info.boxes`: examples of what is
                meant. A model without a box encoder takes none.
            labels: [N], 1 for a box around what is meant, 0 around what is not; None for 1 throughout.
            level: "concept", "simple" or "complex"; "auto" applies `sam3i_edge.levels.route`, or takes
                concept where the model has no adapters.
            threshold: least score of an instance, 0 to 1; None takes the segmenter's.

        Returns:
            The instances, best first; none is a normal answer. `timings_ms` has the keys of `STEPS`; a step
            that was not run, because its result was cached or came with the scene, has 0.0.

        Raises:
            ImageError: the image cannot be read or has no usable pixels.
            InstructionError: the instruction is blank or absurdly long, or there is neither one nor a box.
            ValueError: `level` or `threshold` is not one; the model takes no or fewer boxes; a box leaves the
                image, is empty or not finite; labels are not 1 or 0, or not one for each box.
            RuntimeUnavailable: the segmenter was closed, or its runtime failed.
        """
        clock = _Clock()
        request = self._request(instruction, level, threshold, boxes, labels)
        pixels = self._load(image, clock)
        if request.boxes is not None:  # refused before the image is encoded
            request.boxes.check_inside((pixels.shape[0], pixels.shape[1]))
        return self._ask(self._encode(pixels, clock, cache=True), request, clock)

    def encode(self, image: ImageSource) -> Scene:
        """Encodes an image once, to be asked often.

        Raises:
            ImageError: the image cannot be read or has no usable pixels.
            RuntimeUnavailable: the segmenter was closed, or its runtime failed.
        """
        clock = _Clock()
        return self._encode(self._load(image, clock), clock, cache=True)

    def stream(
        self,
        frames: Iterable[ImageSource],
        instruction: str,
        *,
        level: Level | Literal["auto"] = "auto",
        threshold: float | None = None,
    ) -> Iterator[Result]:
        """Segments the same thing in frame after frame, one at a time as the caller asks for results.

        Frames are independent: nothing is tracked. They do not enter the image cache.

        Args:
            frames: images, as `segment` takes them; a frame is read when its result is asked for.
            instruction: as in `segment`; it is checked at once, and encoded once.
            level: as in `segment`.
            threshold: as in `segment`.

        Returns:
            An iterator with one result a frame, in order.

        Raises:
            InstructionError, ValueError: at the call, as in `segment`.
            ImageError, RuntimeUnavailable: while iterating, as in `segment`.
        """
        request = self._request(instruction, level, threshold)

        def results() -> Iterator[Result]:
            for frame in frames:
                clock = _Clock()
                yield self._ask(self._encode(self._load(frame, clock), clock, cache=False), request, clock)

        return results()

    def close(self) -> None:
        """Frees the graphs and the caches. Asking afterwards raises; closing twice does nothing."""
        self._graphs.close()
        self._images.clear()
        self._texts.clear()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(
        self,
        instruction: str | None,
        level: str,
        threshold: float | None,
        boxes: ArrayLike | None = None,
        labels: ArrayLike | None = None,
    ) -> _Request:
        self._graphs.check_open()
        cleaned = VISUAL if instruction is None else check_instruction(instruction)
        chosen = self._level(cleaned, level)
        prompt = self._box_prompt(boxes, labels)
        if instruction is None:
            if prompt is None:
                raise InstructionError(
                    "there is neither an instruction nor a box: describe what to segment, as in "
                    "'the red star', or pass boxes"
                )
            if chosen != "concept":
                raise ValueError(
                    f"boxes without an instruction are asked at level concept, got level {chosen!r}: "
                    "leave the level out, or add an instruction"
                )
        if threshold is not None:
            _check_threshold(threshold)
        return _Request(
            instruction,
            cleaned,
            prompt,
            chosen,
            "auto" if level == "auto" else "caller",
            self._threshold if threshold is None else threshold,
        )

    def _level(self, cleaned: str, level: str) -> Level:
        levels = self._variant.levels
        if level == "auto":
            routed = route(cleaned)
            return routed if routed in levels else levels[0]
        chosen = as_level(level)
        if chosen not in levels:
            raise ValueError(
                f"model {self._bundle.manifest.name!r} has no adapters for level {chosen!r}, only for "
                f"{', '.join(levels)}: ask at that, or convert a SAM3-I checkpoint with its adapters"
            )
        return chosen

    def _box_prompt(self, boxes: ArrayLike | None, labels: ArrayLike | None) -> BoxPrompt | None:
        if boxes is None:
            if labels is not None:
                raise ValueError("labels say what boxes mean, and there are none: pass boxes too")
            return None
        if not self._variant.boxes:
            raise ValueError(
                f"model {self._bundle.manifest.name!r} takes no boxes (variant {self._choice.variant} has no "
                "box_encoder): ask by an instruction alone, or open a bundle exported with boxes"
            )
        prompt = BoxPrompt.of(boxes, labels)
        if len(prompt) > self._variant.boxes:
            raise ValueError(
                f"got {len(prompt)} boxes, model {self._bundle.manifest.name!r} takes at most "
                f"{self._variant.boxes}: pass fewer, or open a bundle exported with more"
            )
        return prompt

    def _load(self, image: ImageSource, clock: _Clock) -> NDArray[np.uint8]:
        self._graphs.check_open()
        with clock.step("preprocess"):
            return load_image(image)

    def _encode(self, pixels: NDArray[np.uint8], clock: _Clock, *, cache: bool) -> Scene:
        cache = cache and self._images.size > 0
        key = (
            hashlib.blake2b(pixels.data, digest_size=16).digest() + repr(pixels.shape).encode()
            if cache
            else None
        )
        features = None if key is None else self._images.get(key)
        if features is None:
            with clock.step("preprocess"):
                spec = self._bundle.manifest.preprocessing
                values = to_pixel_values(pixels, spec.image_size, spec.mean, spec.std)
            with self._graphs.lock("image_encoder"):
                # Another thread may have encoded the same image while this one waited.
                features = None if key is None else self._images.get(key)
                if features is None:
                    with clock.step("encode_image"):
                        features = self._graphs.run("image_encoder", {"pixel_values": values}, _FEATURES)
                    if key is not None:
                        self._images.put(key, features)
        return Scene(self, pixels, features)

    def _encode_text(self, request: _Request, clock: _Clock) -> _Text:
        key = (request.cleaned, request.level)
        text = self._texts.get(key)
        if text is None:
            graph = f"text_encoder.{request.level}"
            with self._graphs.lock(graph):
                text = self._texts.get(key)
                if text is None:
                    # Opened at the level's first use, which is not part of what encoding takes.
                    self._graphs.open(graph)
                    with clock.step("encode_text"):
                        ids, cut = self._tokenizer.encode(request.cleaned)
                        outputs = self._graphs.run(graph, {"input_ids": ids[None]}, ("text_features",))
                    text = _Text(outputs["text_features"], (ids != self._tokenizer.pad_id)[None], cut)
                    self._texts.put(key, text)
        return text

    def _encode_boxes(self, scene: Scene, boxes: BoxPrompt, clock: _Clock) -> dict[str, NDArray[Any]]:
        inputs = {**boxes.inputs(scene.image_size, self._variant.boxes), "fpn_1x": scene._features["fpn_1x"]}
        with self._graphs.lock("box_encoder"):
            self._graphs.open("box_encoder")
            with clock.step("encode_boxes"):
                return self._graphs.run("box_encoder", inputs, ("geometry_tokens", "geometry_mask"))

    def _ask(self, scene: Scene, request: _Request, clock: _Clock) -> Result:
        text = self._encode_text(request, clock)
        features = scene._features
        geometry, geometry_mask = features["cls_token"], None
        if request.boxes is not None:
            # Its CLS token attended to the boxes, and takes the place of the image's.
            encoded = self._encode_boxes(scene, request.boxes, clock)
            geometry, geometry_mask = encoded["geometry_tokens"], encoded["geometry_mask"]
        inputs = {
            **{name: features[name] for name in ("fpn_4x", "fpn_2x", "fpn_1x")},
            **join_prompt(text.features, text.mask, geometry, geometry_mask, boxes=self._variant.boxes),
            "level": np.array([LEVELS.index(request.level)], np.int64),
        }
        wanted = ("scores", "boxes", "mask_logits", "presence")
        with self._graphs.lock("detector"), clock.step("detect"):
            outputs = self._graphs.run("detector", inputs, wanted)
        with clock.step("postprocess"):
            found = select(
                outputs["scores"][0],
                outputs["boxes"][0],
                outputs["mask_logits"][0],
                float(outputs["presence"][0, 0]),
                scene.image_size,
                threshold=request.threshold,
                mask_threshold=self._bundle.manifest.thresholds.mask_logit,
            )
        return Result(
            image_size=scene.image_size,
            instruction=request.instruction,
            level=request.level,
            level_chosen_by=request.level_chosen_by,
            presence=found.presence,
            scores=found.scores,
            boxes=found.boxes,
            mask_logits=found.mask_logits,
            threshold=request.threshold,
            truncated=found.truncated,
            tokens_cut=text.tokens_cut,
            timings_ms=clock.timings(),
            model=self._bundle.manifest.name,
            device=self._choice.device,
            runtime=self._choice.runtime,
            precision=self._choice.precision,
            image=scene.image,
        )
