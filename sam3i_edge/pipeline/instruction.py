"""An instruction as a user writes it -> the text that a tokenizer reads.

Cleaning is the official code's: ftfy, HTML unescaping (twice), whitespace collapse and lower-casing; where
doing all of it again would change the text once more, it is done again. Models of this project's own
tokenizer read `plain` text, which that code does not know.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from sam3i_edge.errors import InstructionError

MAX_WORDS = 2_000
MAX_CHARACTERS = 10_000

_QUOTES = '"\u201c\u201d\u201e\u201f\u00ab\u00bb'
_DASHES = "\u2012\u2013\u2014\u2015\u2212"
_HYPHENS = re.compile("[\u2010\u2011\u00ad]")
_APOSTROPHES = re.compile("[\u2018\u2019\u201b\u2032`]")
# Quotes anywhere, single ones that are no apostrophe, and dashes that stand for a pause.
_AROUND_WORDS = re.compile(rf"[{_QUOTES}]|(?<!\w)'|'(?!\w)|[{_DASHES}]|(?<!\S)-+(?!\S)")
_BRACKETED = re.compile(r"[(\[{]([^()\[\]{}]*)[)\]}]([.?!]?)")
_EDGE = ",;:\u2026*_~-'\u2022 "
_ENDS = ".?!"


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


def read_instructions(path: Path) -> list[str]:
    """The instructions of a text file, one a line, in order; empty lines and repetitions are left out.

    Raises:
        InstructionError: the file cannot be read as UTF-8, holds none, or a line is no instruction, with its
            number.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InstructionError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InstructionError(f"{path} is no text in UTF-8: save it as UTF-8") from error
    found: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                check_instruction(line)
            except InstructionError as error:
                raise InstructionError(f"{path}, line {number}: {error}") from error
            found[line.strip()] = None
    if not found:
        raise InstructionError(f"{path} holds no instruction: write one a line")
    return list(found)


def plain(text: str) -> str:
    """Gives a cleaned text without the punctuation around its words, which says nothing about an image.

    Quotation marks go, typographic apostrophes and hyphens become plain, and so do commas, colons, dashes and
    brackets at both ends. A full stop, question or exclamation mark at the end stays, once. A text of
    punctuation alone stays as it is.
    """
    while (once := _plain_once(text)) != text:
        text = once
    return text


def _plain_once(text: str) -> str:
    words = _APOSTROPHES.sub("'", _HYPHENS.sub("-", text))
    words = " ".join(_AROUND_WORDS.sub(" ", words).split())
    bare = words.strip(_EDGE + _ENDS)
    if not bare:
        return text
    tail = words[len(words.rstrip(_EDGE + _ENDS)) :]
    end = next((character for character in tail if character in _ENDS), "")
    bracketed = _BRACKETED.fullmatch(bare + end)
    if bracketed is not None and bracketed[1].strip():
        return bracketed[1] + bracketed[2]
    return re.sub(r"\s+([,;:.?!])", r"\1", bare) + end
