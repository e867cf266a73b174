"""An instruction as the 32 ids that the text encoder reads.

The rules are those of the official code: start id, at most 30 text tokens, end id, then padding with
id 0. A longer instruction keeps its first 30 tokens, so that the end id lies in the last slot.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import ArtifactError
from sam3i_edge.files import write_whole
from sam3i_edge.pipeline.instruction import check_instruction, clean, plain

if TYPE_CHECKING:
    import tokenizers

CONTEXT_LENGTH = 32
MAX_VOCABULARY = 4_096

# What every tokenizer is tried with, so that one which fails is refused when it is opened.
_TRIALS = (
    "the red star left of the ring, 3 of 10?",
    "x",
    "".join(map(chr, range(32, 127))),
    "\u00e9t\u00e9 \u661f \U0001f534 \u0627\u0644\u0646\u062c\u0645\u0629 \u0939\u093f",
)

# In this order: their ids are 0, 1, 2. Padding must be 0, because the model takes "id != 0" for "a token".
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>")


class TokenIds(NamedTuple):
    """One encoded instruction.

    Attributes:
        ids: [context_length] int64: start, text tokens, end, padding.
        tokens_cut: text tokens that did not fit and were dropped from the end; 0 when all fitted.
    """

    ids: NDArray[np.int64]
    tokens_cut: int


class TokenizerError(ArtifactError, ValueError):
    """A `tokenizer.json` that is none, or that cannot be used."""


def _is_defect(error: BaseException) -> bool:
    """Whether the library says that a file or a text is at fault: by the bare class, or by a panic.

    A panic is no Exception, so that it would pass every handler, and its class cannot be imported.
    """
    return type(error) is Exception or type(error).__name__ == "PanicException"


def parse_backend(path: str | Path, text: str) -> tokenizers.Tokenizer:
    """Parses the text of a `tokenizer.json`; `path` is for the message.

    Raises:
        TokenizerError: it is none.
    """
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_str(text)
    except BaseException as error:
        if not _is_defect(error):
            raise
        raise TokenizerError(f"{path} is no tokenizer.json: {error}") from error


def _encode(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    """The ids of a text.

    Raises:
        TokenizerError: the library cannot encode it with this tokenizer.
    """
    try:
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        return ids
    except BaseException as error:
        if not _is_defect(error):
            raise
        raise TokenizerError(
            f"tokenizer.json cannot encode {text[:20]!r} ({error}): copy it from where the model came from"
        ) from error


class Tokenizer:
    """Encodes instructions with a `tokenizer.json` of the `tokenizers` library. Thread-safe.

    Special tokens that the file's post-processor would add are ignored: start, end and padding are placed
    here. An instruction that spells a special token, such as "<pad>", is encoded as ordinary text.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        context_length: int = CONTEXT_LENGTH,
        *,
        start_id: int,
        end_id: int,
        pad_id: int = 0,
    ) -> None:
        if context_length < 3:
            raise ValueError(f"context_length must be at least 3 (start, a token, end), got {context_length}")
        for name, value in (("start_id", start_id), ("end_id", end_id), ("pad_id", pad_id)):
            if value < 0 or backend.id_to_token(value) is None:
                size = backend.get_vocab_size(with_added_tokens=True)
                raise ValueError(f"{name} {value} is outside the vocabulary of {size:,} entries")
        if getattr(backend.model, "dropout", None):
            raise TokenizerError(
                f"tokenizer.json has dropout {backend.model.dropout:g}, so it encodes a text by chance: "
                "set it to null"
            )
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.context_length = context_length
        self.start_id, self.end_id, self.pad_id = start_id, end_id, pad_id
        # The special tokens tell this project's own from those of released models, which keep their rules.
        self._is_own = backend.id_to_token(start_id) == SPECIAL_TOKENS[1]
        for text in _TRIALS:
            _encode(backend, text)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        context_length: int = CONTEXT_LENGTH,
        *,
        start_id: int,
        end_id: int,
        pad_id: int = 0,
    ) -> Tokenizer:
        """Opens a `tokenizer.json`.

        Args:
            path: the file.
            context_length: ids an instruction has after padding, start and end included.
            start_id: id placed before the text.
            end_id: id placed after it.
            pad_id: id that fills the rest.

        Raises:
            ArtifactError: the file is missing or unreadable.
            TokenizerError: it is no tokenizer, or encodes by chance or not at all.
            ValueError: an id lies outside the vocabulary, or `context_length` is under 3.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ArtifactError(f"cannot read the tokenizer {path}: {error}") from error
        backend = parse_backend(path, text)
        return cls(backend, context_length, start_id=start_id, end_id=end_id, pad_id=pad_id)

    @property
    def vocab_size(self) -> int:
        """Rows that a token table must have: the largest id and one."""
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values())

    def encode(self, text: str) -> TokenIds:
        """Encodes one instruction; a long one is cut, and the cut is counted.

        Raises:
            TypeError: `text` is not a string.
            InstructionError: `text` is blank or absurdly long, see `check_instruction`.
        """
        return self.encode_cleaned(check_instruction(text))

    def encode_cleaned(self, text: str) -> TokenIds:
        """Encodes a text that was cleaned and checked; a blank one gives start and end alone.

        Raises:
            TokenizerError: the tokenizer fails at this text.
        """
        tokens = _encode(self._backend, plain(text) if self._is_own else text)
        room = self.context_length - 2
        ids = np.full(self.context_length, self.pad_id, dtype=np.int64)
        kept = tokens[:room]
        ids[: len(kept) + 2] = [self.start_id, *kept, self.end_id]
        return TokenIds(ids, max(0, len(tokens) - room))


def train_bpe(texts: Iterable[str], vocab_size: int, path: str | Path) -> Tokenizer:
    """Trains a byte-level BPE and writes it as `tokenizer.json`.

    Every byte is an entry, so any text encodes and there is no unknown token. The special tokens are
    `<pad>` (id 0), `<start>` (1) and `<end>` (2). The same texts in the same order give the same file.

    Args:
        texts: instructions; they are cleaned and made plain first, exactly as `Tokenizer.encode` does.
        vocab_size: most entries, 259 (the bytes and the special tokens) to 4,096. Fewer result when the
            texts hold fewer pairs that occur twice.
        path: file to write, whole or not at all.

    Returns:
        The trained tokenizer, 32 ids long.

    Raises:
        ValueError: `vocab_size` is out of range.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    smallest = len(alphabet) + len(SPECIAL_TOKENS)
    if not smallest <= vocab_size <= MAX_VOCABULARY:
        raise ValueError(f"vocab_size must be {smallest} to {MAX_VOCABULARY}, got {vocab_size}")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator((plain(clean(text)) for text in texts), trainer)
    write_whole(Path(path), backend.to_str(pretty=True) + "\n")
    return Tokenizer(backend, start_id=1, end_id=2, pad_id=0)
