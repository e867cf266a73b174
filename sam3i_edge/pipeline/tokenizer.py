"""An instruction as the 32 ids that the text encoder reads.

The rules are those of the official code: start id, at most 30 text tokens, end id, then padding with
id 0. A longer instruction keeps its first 30 tokens, so that the end id lies in the last slot. Cleaning
is that code's: ftfy, HTML unescaping (twice), whitespace collapse and lower-casing; where doing all of it
again would change the text once more, it is done again.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sam3i_edge.errors import ArtifactError, InstructionError
from sam3i_edge.files import write_whole

if TYPE_CHECKING:
    import tokenizers

CONTEXT_LENGTH = 32
MAX_WORDS = 2_000
MAX_CHARACTERS = 10_000
MAX_VOCABULARY = 4_096

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


def clean(text: str) -> str:
    """Gives the text as the official code cleans it: one line, single blanks, lower case.

    Wrong encodings are repaired, HTML entities unescaped, however often they were escaped, curly quotes made
    straight, full-width letters plain and ligatures split; control characters go. A cleaned text is clean:
    cleaning it again changes nothing.
    """
    while (cleaned := _clean_once(text)) != text:
        text = cleaned
    return text


def _clean_once(text: str) -> str:
    # Importing ftfy takes longer than a cold start may; printable ASCII is as ftfy leaves it.
    if not (text.isascii() and text.isprintable()):
        import ftfy

        text = ftfy.fix_text(text)
    plain = text if "<" in text else html.unescape(text)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(plain))).strip().lower()


def check_instruction(text: str) -> str:
    """Gives the cleaned instruction.

    Raises:
        TypeError: `text` is not a string.
        InstructionError: `text` is blank, has over 10,000 characters or 2,000 words, or holds half of a
            surrogate pair, which no tokenizer can encode.
    """
    if not isinstance(text, str):
        raise TypeError(f"the instruction must be a string, got {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise InstructionError(
            f"the instruction has {len(text):,} characters, at most {MAX_CHARACTERS:,} are allowed: "
            "describe the target in one sentence"
        )
    cleaned = clean(text)
    if not cleaned:
        raise InstructionError("the instruction is empty: describe what to segment, as in 'the red star'")
    words = cleaned.count(" ") + 1
    if words > MAX_WORDS:
        raise InstructionError(
            f"the instruction has {words:,} words, at most {MAX_WORDS:,} are allowed: "
            "describe the target in one sentence"
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InstructionError(
            "the instruction holds a lone surrogate, which is no character: decode it from valid UTF-8"
        )
    return cleaned


def parse_backend(path: str | Path, text: str) -> tokenizers.Tokenizer:
    """Parses the text of a `tokenizer.json`; `path` is for the message.

    Raises:
        ArtifactError: it is none.
    """
    import tokenizers

    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:
        # The library raises the bare class for every defect of the file, and nothing narrower.
        if type(error) is not Exception:
            raise
        raise ArtifactError(f"{path} is no tokenizer.json: {error}") from error


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
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.context_length = context_length
        self.start_id, self.end_id, self.pad_id = start_id, end_id, pad_id

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
            ArtifactError: the file is missing, unreadable or no tokenizer.
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
        """Encodes a text that was cleaned and checked; a blank one gives start and end alone."""
        tokens = self._backend.encode(text, add_special_tokens=False).ids
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
        texts: instructions; they are cleaned first, exactly as `Tokenizer.encode` cleans.
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
    backend.train_from_iterator((clean(text) for text in texts), trainer)
    write_whole(Path(path), backend.to_str(pretty=True) + "\n")
    return Tokenizer(backend, start_id=1, end_id=2, pad_id=0)
