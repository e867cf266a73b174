"""One call of an OpenAI-compatible chat endpoint: vLLM, llama.cpp, Ollama, and OpenAI itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from openai import APIConnectionError, APIStatusError, OpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, ValidationError

_NO_KEY: Final = "none"  # servers of one's own take any; the client wants one
# Another try, or another request, would be answered likewise.
_FINAL: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
_SHOWN: Final = 200  # characters of what a server says


class EndpointError(Exception):
    """The endpoint gave no answer, after all retries.

    Attributes:
        final: whether any other request would fare the same: a wrong key, address or model.
    """

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        text: what the model wrote, or the whole body where that is no chat completion.
        tokens: (prompt, answer) as the server counts them; None where it does not say.
    """

    text: str
    tokens: tuple[int, int] | None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Completion(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


class Endpoint:
    """A chat endpoint. Thread-safe."""

    def __init__(self, url: str, key: str | None, timeout: float, retries: int) -> None:
        """Opens nothing yet.

        Args:
            url: up to "/v1"; "/chat/completions" is added.
            key: sent as a bearer token; None sends a word that says that there is none.
            timeout: seconds that the server may be silent.
            retries: after 408, 409, 429, 5xx, a lost connection or the timeout; the pauses double from half a
                second to eight, or are what the server asks for by Retry-After, up to two minutes.
        """
        self.url = url
        # Empty names: what the environment says of organizations is meant for OpenAI, not for this address.
        self._client = OpenAI(
            base_url=url,
            api_key=key or _NO_KEY,
            organization="",
            project="",
            timeout=timeout,
            max_retries=retries,
        )

    def ask(self, messages: Sequence[ChatCompletionMessageParam], fields: Mapping[str, Any]) -> Answer:
        """Asks once, with retries.

        Args:
            messages: as the protocol has them.
            fields: of the request's body, beside the messages.

        Raises:
            EndpointError: no answer came, or the server refused.
        """
        try:
            raw = self._client.chat.completions.with_raw_response.create(
                model=str(fields["model"]),
                messages=list(messages),
                extra_body={name: value for name, value in fields.items() if name != "model"},
            )
        except APIStatusError as error:
            final = error.status_code in _FINAL
            raise EndpointError(f"{self.url}: {_said(error)}", final=final) from error
        except APIConnectionError as error:
            reason = error.__cause__ or error
            raise EndpointError(f"{self.url}: {error.message} {reason}", final=False) from error
        body = raw.http_response.text
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            return Answer(body, None)
        text = completion.choices[0].message.content if completion.choices else None
        usage = completion.usage
        counted = usage is not None and min(usage.prompt_tokens, usage.completion_tokens) >= 0
        tokens = (usage.prompt_tokens, usage.completion_tokens) if usage is not None and counted else None
        return Answer(text or "", tokens)


def _said(error: APIStatusError) -> str:
    words = " ".join(str(error.message).split())[:_SHOWN]
    if error.status_code == HTTPStatus.NOT_FOUND:
        return f"{words} (is the model's name right, and does the address end in /v1?)"
    return words
