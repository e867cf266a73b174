"""`Segmenter`, the one door to every runtime."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NoReturn, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.devices.profiles import Info, check_device, choose
from sam3i_edge.levels import Level
from sam3i_edge.pipeline import ask
from sam3i_edge.pipeline.caching import Lru
from sam3i_edge.pipeline.graphs import Graphs
from sam3i_edge.pipeline.preprocess import ImageSource, load_image, to_pixel_values
from sam3i_edge.pipeline.request import Request, Rules, check_threshold, refuse
from sam3i_edge.pipeline.router import Router
from sam3i_edge.pipeline.timing import Clock
from sam3i_edge.result import Result
from sam3i_edge.runtimes import Progress, check_threads
from sam3i_edge.scene import Options, Scene
from sam3i_edge.stream import Stream
from sam3i_edge.tracking import TrackerName

_log = logging.getLogger(__name__)


class _ImageOptions(Options, total=False):
    bgr: bool


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
        token: str | None = None,
        offline: bool = False,
        threshold: float | None = None,
        threads: int | None = None,
        compile: bool = False,
        image_cache: int = 4,
        instruction_cache: int = 256,
        keep_text_encoders: bool = True,
    ) -> None:
        """Finds, verifies and opens a model.

        Args:
            model: a bundled name, a bundle's folder, or a Hub id "org/name".
            device: "auto" or a device profile, such as "cpu".
            precision: "auto" or a precision the bundle has, such as "fp32".
            runtime: "auto" or a runtime that serves the device, such as "onnxruntime".
            revision: branch, tag or commit, for a Hub id only.
            token: of the Hub; None uses the one that 'hf auth login' stored.
            offline: of the Hub's bundles, use only what was fetched before.
            threshold: least score of an instance, 0 to 1; None takes the bundle's (0.5).
            threads: threads for one operator, 1 to 1,024; None takes one for each core this process may use.
            compile: have torch compile each graph once, when it is opened: minutes, for faster questions. Of
                runtime "eager" alone; on device "cuda" the graphs are then replayed as CUDA graphs.
            image_cache: images whose features are kept, least recently used first out; 0 keeps none.
                One image of sam3i at 1008 pixels takes 111 MB.
            instruction_cache: encoded instructions that are kept; 0 keeps none.
            keep_text_encoders: False closes a text encoder after each use, and opens it for the next new
                instruction that is not kept: one of sam3i in int8 holds 0.4 GB, and takes seconds to open.

        Raises:
            ArtifactError: the model is unknown, damaged, newer than this version, or lacks the variant.
            RuntimeUnavailable: device or runtime is unknown, or does not work here.
            ValueError: another argument is out of range.
        """
        if threshold is not None:
            check_threshold(threshold)
        check_threads(threads)
        check_device(device)
        self._images: Lru[ask.Arrays] = Lru(image_cache)
        self._texts: Lru[tuple[ask.Text, int]] = Lru(instruction_cache)
        self._bundle = Bundle.open(find_bundle(model, revision, token=token, offline=offline))
        manifest = self._bundle.manifest
        self._choice = choose(self._bundle, device, precision, runtime)
        _log.debug("%s %s: %s", manifest.name, self._choice.variant, self._choice.reason)
        self._variant = manifest.variants[self._choice.variant]
        self._tokenizer = self._bundle.tokenizer()
        routing = self._bundle.router()
        self._router = None if routing is None else Router(routing, self._tokenizer)
        self._rules = Rules(
            manifest.name,
            self._choice.variant,
            self._variant,
            manifest.thresholds.score if threshold is None else threshold,
            self._router,
        )
        self._graphs = Graphs(
            self._bundle, self._choice, threads, compile=compile, keep_text_encoders=keep_text_encoders
        )
        if not self._choice.builds:  # an engine is built by `prepare`, or by its first use
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
            threshold=self._rules.threshold,
            max_boxes=self._variant.boxes,
        )

    @overload
    def segment(
        self, image: ImageSource, instruction: str | None = None, **options: Unpack[_ImageOptions]
    ) -> Result: ...
    @overload
    def segment(
        self, image: ImageSource, instruction: list[str] | tuple[str, ...], **options: Unpack[_ImageOptions]
    ) -> list[Result]: ...
    def segment(
        self,
        image: ImageSource,
        instruction: str | list[str] | tuple[str, ...] | None = None,
        *,
        boxes: ArrayLike | None = None,
        box_labels: ArrayLike | None = None,
        level: Level | Literal["auto"] = "auto",
        threshold: float | None = None,
        suppress: float | None = None,
        bgr: bool = False,
        **unknown: object,
    ) -> Result | list[Result]:
        """Segments what `instruction` describes in `image`, what `boxes` show, or both at once.

        Args:
            image: path, bytes, numpy array or PIL image; see `sam3i_edge.pipeline.preprocess.load_image`.
            instruction: a noun phrase or a sentence, up to 2,000 words. What exceeds the model's tokens (32,
                of some students 16) is cut, and `Result.tokens_cut` counts it. None with boxes only, which
                are then asked at level concept.
                Or a list of them, each with the same boxes: the image is encoded once.
            boxes: [N, 4], (x0, y0, x1, y1) in pixels of the image, N up to `Info.max_boxes`: examples of what
                is meant. A model without a box encoder takes none.
            box_labels: [N], 1 for a box around what is meant, 0 around what is not; None for 1 throughout.
            level: "concept", "simple" or "complex"; "auto" asks the bundle's learned router where it has one,
                else `sam3i_edge.levels.route`, and takes concept where the model has no adapters.
            threshold: least score of an instance, 0 to 1; None takes the segmenter's.
            suppress: of instances whose masks overlap by more than this IoU, 0 to 1, only the best is kept.
                None keeps all, as the official code: the model seldom gives a thing twice.
            bgr: the image is an array in OpenCV's order, blue first. `Result.image` is RGB all the same.
            **unknown: refused.

        Returns:
            The instances, best first; none is a normal answer. For a list of instructions, a list of results
            in its order. `timings_ms` has the keys of `timing.STEPS`; a step that was not run, because its
            result was cached, came with the scene or counts for the first of the list, has 0.0.

        Raises:
            ImageError: the image cannot be read or has no usable pixels.
            InstructionError: the instruction is blank or absurdly long, or there is neither one nor a box.
            ValueError: `level`, `threshold` or `suppress` is not one; the model takes no or fewer boxes; a
                box leaves the image, is empty or not finite; labels are not 1 or 0, or not one for each box.
            TypeError: an argument is of another kind than described.
            RuntimeUnavailable: the segmenter was closed, or its runtime failed.
        """
        clock = Clock()
        refuse(unknown)
        requests = self._requests(instruction, level, threshold, boxes, box_labels, suppress)
        pixels = self._load(image, bgr, clock)
        for request in requests[:1]:  # refused before the image is encoded
            request.check_inside((pixels.shape[0], pixels.shape[1]))
        results = self._encode(pixels, clock, cache=True).answer(requests, clock)
        return results if isinstance(instruction, (list, tuple)) else results[0]

    def encode(self, image: ImageSource, *, bgr: bool = False) -> Scene:
        """Encodes an image once, to be asked often; arguments as in `segment`.

        Raises:
            ImageError: the image cannot be read or has no usable pixels.
            RuntimeUnavailable: the segmenter was closed, or its runtime failed.
        """
        clock = Clock()
        return self._encode(self._load(image, bgr, clock), clock, cache=True)

    def prepare(self, progress: Progress | None = None) -> None:
        """Opens every graph now instead of at first use, and builds what the device needs for it.

        The engines of a Jetson can take 10 minutes; they are kept in the user's cache. Others take seconds.

        Args:
            progress: called with a sentence for people and the share that is done, 0 to 1.

        Raises:
            ArtifactError: a graph cannot be read.
            RuntimeUnavailable: an engine cannot be built, or the segmenter was closed.
        """
        self._graphs.prepare(progress)

    def stream(
        self,
        frames: Iterable[ImageSource] | int | str | Path,
        instruction: str,
        *,
        level: Level | Literal["auto"] = "auto",
        threshold: float | None = None,
        suppress: float | None = None,
        bgr: bool = False,
        newest: bool | None = None,
        timeout: float = 10.0,
        reconnect: float = 0.0,
        tracker: TrackerName = "iou",
        smoothing: float = 0.0,
    ) -> Stream:
        """Segments the same thing in frame after frame and follows its instances from frame to frame.

        Frames are segmented independently; `Result.track_ids` says which instance is the same as before, see
        `sam3i_edge.tracking`. They do not enter the image cache.

        Args:
            frames: images, as `segment` takes them; the number of a camera; or a video's file or URL, which
                OpenCV opens. Images are read as results are asked for.
            instruction: as in `segment`; it is checked at once, and encoded once. `Stream.instruction`
                changes it.
            level: as in `segment`.
            threshold: as in `segment`.
            suppress: as in `segment`.
            bgr: the images are arrays in OpenCV's order. Cameras and videos opened here are turned to RGB.
            newest: whether a thread reads ahead and only the newest frame is segmented, so that results keep
                up with what is live. None: for a camera and a URL; files and images give every frame.
            timeout: seconds that such a thread may take for a frame, and `reconnect` beside them.
            reconnect: seconds for which a camera or an address that stops is opened again and again, before
                the stream fails; 0 never. `Stream.reconnected` counts. OpenCV may take 30 seconds to find
                that an address is silent.
            tracker: "iou" compares masks and predicts nothing; "bytetrack" and "ocsort" predict motion from
                boxes, so that things that cross keep their ids, and need the extra `track`. Theirs is 0 in
                the first frame of a track. Figures are in docs/tracking.md.
            smoothing: 0 to below 1, how much of a track's score before stays in the next; 0 leaves scores as
                each frame has them. The rule is in `sam3i_edge.following`.

        Returns:
            An iterator with one result a frame, in order. Close it, or use it in a `with` statement.

        Raises:
            ImportError: at the call, the library of the tracker is not installed.
            InstructionError, ValueError: at the call, as in `segment`; the timeout is not above 0; the
                tracker is unknown; `smoothing` is out of range; `reconnect` is below 0, not finite, or asked
                of a file or of images.
            TypeError: at the call, `frames` is none of these, or `bgr` is said of a camera or a video.
            StreamError: while iterating, when the source cannot be opened, stalls, fails, or is live and
                stops. A file that ends, also one at an address, ends the iteration.
            ImageError, RuntimeUnavailable: while iterating, as in `segment`.
        """
        if bgr and isinstance(frames, (int, str, Path)):
            raise TypeError("bgr=True is for arrays; a camera or a video is turned to RGB here: leave it out")
        return Stream(
            frames,
            instruction,
            check=lambda text: self._requests(text, level, threshold, None, None, suppress)[0],
            segment=lambda frame, request: self._frame(frame, bgr, request),
            newest=newest,
            timeout=timeout,
            reconnect=reconnect,
            tracker=tracker,
            smoothing=smoothing,
        )

    def close(self) -> None:
        """Frees the graphs and the caches. Asking afterwards raises; closing twice does nothing."""
        self._graphs.close()
        if self._router is not None:
            self._router.close()
        self._images.clear()
        self._texts.clear()

    def __repr__(self) -> str:
        info = self.info
        return f"<Segmenter {info.model}: {info.device}, {info.runtime}, {info.precision}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Segmenter cannot be pickled, its graphs belong to this process: make one in each process, as "
            f"Segmenter({str(self.info.bundle)!r}), and send images or results"
        )

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _requests(self, *question: Any) -> list[Request]:
        self._graphs.check_open()
        return self._rules.check_all(*question)

    def _frame(self, frame: ImageSource, bgr: bool, request: Request) -> Result:
        clock = Clock()
        return self._answer(self._encode(self._load(frame, bgr, clock), clock, cache=False), request, clock)

    def _load(self, image: ImageSource, bgr: bool, clock: Clock) -> NDArray[np.uint8]:
        self._graphs.check_open()
        with clock.step("preprocess"):
            return load_image(image, bgr=bgr)

    def _encode(self, pixels: NDArray[np.uint8], clock: Clock, *, cache: bool) -> Scene:
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
                    features = ask.encode_image(self._graphs.runner(clock), values)
                    if key is not None:
                        self._images.put(key, features)
        return Scene(pixels, features, check=self._requests, answer=self._answer)

    def _encode_text(self, request: Request, clock: Clock) -> tuple[ask.Text, int]:
        """The text, and how many of its tokens were cut."""
        key = (request.cleaned, request.level)
        text = self._texts.get(key)
        if text is None:
            with self._graphs.lock(f"text_encoder.{request.level}"):
                text = self._texts.get(key)
                if text is None:
                    with clock.step("encode_text"):
                        ids, cut = self._tokenizer.encode_cleaned(request.cleaned)
                    text = ask.encode_text(self._graphs.runner(clock), ids, request.level), cut
                    self._texts.put(key, text)
        return text

    def _answer(self, scene: Scene, request: Request, clock: Clock) -> Result:
        text, tokens_cut = self._encode_text(request, clock)
        run, image, slots, boxes = self._graphs.runner(clock), scene.features, self._variant.boxes, None
        if request.boxes is not None:
            with self._graphs.lock("box_encoder"):
                boxes = ask.encode_boxes(run, image, request.boxes, scene.image_size, slots)
        with self._graphs.lock("detector"):
            outputs = ask.detect(run, image, text, boxes, slots=slots)
        with clock.step("postprocess"):
            found = ask.find(
                outputs,
                scene.image_size,
                threshold=request.threshold,
                mask_threshold=self._bundle.manifest.thresholds.mask_logit,
                suppress=request.suppress,
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
            tokens_cut=tokens_cut,
            timings_ms=clock.timings(),
            model=self._bundle.manifest.name,
            device=self._choice.device,
            runtime=self._choice.runtime,
            precision=self._choice.precision,
            notes=self._bundle.manifest.notes,
            image=scene.image,
        )
