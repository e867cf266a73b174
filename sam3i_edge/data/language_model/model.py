"""A language model as the data engine asks it: with a cache, a budget, and an end when it does not answer."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from sam3i_edge.data.language_model.answers import KIND, BadAnswer, read_answer
from sam3i_edge.data.language_model.cache import AnswerCache, Kept
from sam3i_edge.errors import RuntimeUnavailable
from sam3i_edge.install_hint import install_hint

KEY: Final = "SAM3I_LLM_API_KEY"  # the variable that holds the endpoint's key
CACHE: Final = "language-model.sqlite"

_ATTEMPTS: Final = 3  # at an answer that can be read
_FAILURES: Final = 3  # in a row, each after all its retries
# Where a server does not count, and before it has: not fewer than there are, for text in Latin letters.
_CHARACTERS_A_TOKEN: Final = 3
_PICTURE_TOKENS: Final = 1200

IN = TypeVar("IN")
OUT = TypeVar("OUT")


class Unanswered(Exception):  # noqa: N818  (it waits, nothing is wrong)
    """There is no answer yet: the endpoint failed, or the run has stopped asking. Another run may get it."""


@dataclass(slots=True)
class Bill:
    """What some questions cost, as it was when they were first asked, also where the cache answered.

    Attributes:
        calls: answers of the endpoint, unreadable ones included.
        tokens: of prompts and answers.
        seconds: that the endpoint took, retries included.
    """

    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, kept: Kept) -> None:
        """Takes in one answer."""
        self.calls += 1
        self.tokens += kept.tokens
        self.seconds += kept.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model, and how it is asked.

    Attributes:
        url: of an OpenAI-compatible endpoint, up to "/v1".
        model: its name there.
        vision: whether the model is shown pictures.
        concurrency: requests at a time.
        timeout: seconds that the server may be silent.
        retries: of a request that failed, see `endpoint.Endpoint`.
        budget: tokens, of prompts and answers, that the cache's file may have cost in all its runs; None sets
            no bound.
        answer_tokens: bound of an answer's length.
        options: more fields of the request's body, such as {"temperature": 0.7}; None takes one out, as in
            {"max_tokens": None, "max_completion_tokens": 2000}.
    """

    url: str
    model: str
    vision: bool = False
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 4
    budget: int | None = None
    answer_tokens: int = 2000
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"the endpoint's address must begin with http:// or https://, got {self.url!r}")
        if not self.model.strip():
            raise ValueError("the endpoint's model must be named, got an empty name")
        for name, least in (("concurrency", 1), ("retries", 0), ("answer_tokens", 1), ("budget", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, got {self.timeout}")


class LanguageModel:
    """A model behind an endpoint. Thread-safe; close it, or use it in a `with` block.

    Attributes:
        settings: as given.
        stopped: why nothing more is asked, a sentence; None while it goes on. Kept answers are given still.
    """

    def __init__(self, settings: ModelSettings, cache: Path) -> None:
        """Opens the cache; the endpoint is asked with the first question.

        Args:
            settings: the endpoint; its key is taken from the environment, `KEY`.
            cache: a file, made where there is none.

        Raises:
            RuntimeUnavailable: the package `openai` is missing.
            DataError, OSError: the cache cannot be used.
        """
        try:
            from sam3i_edge.data.language_model.endpoint import Endpoint
        except ModuleNotFoundError as missing:
            raise RuntimeUnavailable(
                f"a language model needs {missing.name}: {install_hint('llm')}"
            ) from missing
        self.settings = settings
        self.stopped: str | None = None
        self._endpoint = Endpoint(settings.url, os.environ.get(KEY), settings.timeout, settings.retries)
        self._cache = AnswerCache(cache)
        self._turn = threading.Condition()
        self._asking: dict[tuple[str, int], int] = {}  # requests under way, and the tokens that each may cost
        self._failures = 0
        self._bad: Counter[str] = Counter()

    def __enter__(self) -> LanguageModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the cache."""
        self._cache.close()

    def paid(self) -> tuple[int, int]:
        """Calls and tokens that the cache's file has cost, this run's and others'."""
        return self._cache.paid()

    @property
    def bad_answers(self) -> dict[str, int]:
        """Answers of this run that could not be read, by why."""
        with self._turn:
            return dict(self._bad)

    def ask(self, messages: list[Any], kind: type[KIND], number: int = 0, bill: Bill | None = None) -> KIND:
        """Asks for an object of a kind, or takes the answer from the cache.

        Args:
            messages: as the protocol has them.
            kind: what the answer must be; its schema goes along.
            number: tells apart questions of the same words.
            bill: takes in what the answers cost, those too that could not be read.

        Raises:
            Unanswered: no answer came, or the run has stopped asking.
            BadAnswer: three answers could not be read.
            DataError, OSError: the cache cannot be used.
        """
        content = json.dumps([messages, self._fields(kind, number * _ATTEMPTS)], sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()
        problem = BadAnswer("")
        for attempt in range(_ATTEMPTS):
            fields = self._fields(kind, number * _ATTEMPTS + attempt)
            kept = self._answer(messages, fields, (key, attempt))
            if bill is not None:
                bill.add(kept)
            try:
                return read_answer(kept.text, kind)
            except BadAnswer as bad:
                problem = bad
                with self._turn:
                    self._bad[str(bad)] += 1
        raise problem

    def map(self, work: Callable[[IN], OUT], items: Iterable[IN]) -> Iterator[OUT]:
        """Does work that asks for many items at a time, as many as `concurrency`; gives results in order."""
        waiting: list[Future[OUT]] = []
        with ThreadPoolExecutor(self.settings.concurrency, "language-model") as pool:
            try:
                for item in items:
                    waiting.append(pool.submit(work, item))
                    if len(waiting) >= 2 * self.settings.concurrency:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()

    def _fields(self, kind: type[KIND], seed: int) -> dict[str, object]:
        schema = {"name": kind.__name__.strip("_"), "schema": kind.model_json_schema()}
        fields: dict[str, object] = {
            "model": self.settings.model,
            "max_tokens": self.settings.answer_tokens,
            "seed": seed,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        fields.update(self.settings.options)
        return {name: value for name, value in fields.items() if value is not None}

    def _answer(self, messages: list[Any], fields: dict[str, object], key: tuple[str, int]) -> Kept:
        """From the cache, or from the endpoint, once: who asks the same at the same time waits."""
        from sam3i_edge.data.language_model.endpoint import EndpointError

        kept = self._begin(key, _estimate(messages) + self.settings.answer_tokens)
        if kept is not None:
            return kept
        started = time.perf_counter()
        try:
            answer = self._endpoint.ask(messages, fields)
            seconds = time.perf_counter() - started
            tokens = answer.tokens or (_estimate(messages), -(-len(answer.text) // _CHARACTERS_A_TOKEN))
            kept = Kept(answer.text, sum(tokens), seconds)
            self._cache.put(*key, kept)
        except EndpointError as error:
            self._failed(error)
            raise Unanswered(str(error)) from error
        except OSError as error:
            with self._turn:
                self.stopped = self.stopped or str(error)
            raise
        finally:
            with self._turn:
                del self._asking[key]
                self._turn.notify_all()
        with self._turn:
            self._failures = 0
        return kept

    def _begin(self, key: tuple[str, int], most: int) -> Kept | None:
        """Gives the kept answer, or None when it is this request's turn and the budget has room for it."""
        with self._turn:
            while True:
                kept = self._cache.get(*key)
                if kept is not None:
                    return kept
                if self.stopped is not None:
                    raise Unanswered(self.stopped)
                left = None if self.settings.budget is None else self.settings.budget - self.paid()[1]
                short = left is not None and most + sum(self._asking.values()) > left
                if short and not self._asking:
                    self.stopped = (
                        f"of the budget of {self.settings.budget:,} tokens {max(0, left or 0):,} are left, "
                        f"and the next request may take {most:,}"
                    )
                # What is under way may cost less than it may.
                elif short or key in self._asking or len(self._asking) >= self.settings.concurrency:
                    self._turn.wait()
                else:
                    self._asking[key] = most
                    return None

    def _failed(self, error: Any) -> None:
        with self._turn:
            self._failures += 1
            if self.stopped is None and (error.final or self._failures >= _FAILURES):
                again = "" if error.final else f", the last of {self._failures} failures in a row"
                self.stopped = f"{error}{again}"


def _estimate(messages: list[Any]) -> int:
    """Tokens of a prompt, rather too many."""
    characters = pictures = 0
    for message in messages:
        parts = message["content"]
        for part in [{"type": "text", "text": parts}] if isinstance(parts, str) else parts:
            if part["type"] == "text":
                characters += len(part["text"])
            else:
                pictures += 1
    return -(-characters // _CHARACTERS_A_TOKEN) + pictures * _PICTURE_TOKENS
