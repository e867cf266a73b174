"""CLIP's tokenizer, which official checkpoints read, as a `tokenizer.json`.

Source: openai/CLIP `simple_tokenizer.py` for the order of the vocabulary, and SAM3's copy of it for the names
of its two special tokens, which are taken as such wherever they stand in a text.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, processors

from sam3i_edge.errors import ArtifactError
from sam3i_edge.pipeline.tokenizer import SPECIAL_TOKENS, parse_backend

_MERGES = 49_152 - 256 - 2  # of the 262,144 lines in the official file
_NAMES = (("<start_of_text>", "<end_of_text>"), ("<|startoftext|>", "<|endoftext|>"))
_OWN = (SPECIAL_TOKENS[1], SPECIAL_TOKENS[2])
_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def write_tokenizer(source: Path, out: Path, vocab_size: int) -> tuple[int, int]:
    """Writes a bundle's tokenizer.

    Args:
        source: a merges file (`bpe_simple_vocab_16e6.txt`, or its .gz), a `tokenizer.json`, or a folder that
            holds one.
        out: `tokenizer.json` to write.
        vocab_size: rows of the model's token table.

    Returns:
        The ids of the start and of the end token.

    Raises:
        ArtifactError: `source` is missing or none of these, or does not fit the model.
    """
    path = source / "tokenizer.json" if source.is_dir() else source
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"cannot read the tokenizer {path}: {error}; give CLIP's merges file, which SAM3 ships as "
            "assets/bpe_simple_vocab_16e6.txt.gz, or a tokenizer.json"
        ) from error
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ArtifactError(f"{path} is cut short or damaged: {error}") from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path} is neither a merges file nor a tokenizer.json: {error}") from error
    backend = parse_backend(path, text) if text.lstrip()[:1] == "{" else _from_merges(path, text)
    ids = _special_ids(backend, path, _NAMES)
    size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
    if size > vocab_size:
        raise ArtifactError(f"{path} has {size:,} tokens, the model's table {vocab_size:,} rows")
    # The bundle's reader cuts, pads and places start and end itself.
    backend.no_truncation()
    backend.no_padding()
    backend.post_processor = processors.Sequence([])
    out.write_text(backend.to_str() + "\n", encoding="utf-8")
    return ids


def _from_merges(path: Path, text: str) -> tokenizers.Tokenizer:
    lines = text.split("\n")[1 : _MERGES + 1]
    merges = [(pair[0], pair[1]) for pair in map(str.split, lines) if len(pair) == 2]
    if len(merges) != _MERGES:
        raise ArtifactError(f"{path} holds {len(merges):,} merges, CLIP's file has at least {_MERGES:,}")
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in merges)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_PATTERN), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # Not "special", which the bundle's reader would take for ordinary text.
    backend.add_tokens([tokenizers.AddedToken(name, normalized=False) for name in _NAMES[0]])
    return backend


def special_ids(path: Path) -> tuple[int, int]:
    """The ids of the start and the end token of a `tokenizer.json`, by CLIP's names or ours.

    Raises:
        ArtifactError: it has none of either, or is no tokenizer.
    """
    return _special_ids(parse_backend(path, path.read_text(encoding="utf-8")), path, (*_NAMES, _OWN))


def _special_ids(
    backend: tokenizers.Tokenizer, path: Path, known: tuple[tuple[str, str], ...]
) -> tuple[int, int]:
    for names in known:
        start, end = map(backend.token_to_id, names)
        if start is not None and end is not None:
            return start, end
    wanted = " or ".join(" and ".join(names) for names in known)
    raise ArtifactError(f"{path} has no start and end token: want {wanted}")


def _byte_letters() -> list[str]:
    """The letter of each byte, in CLIP's order: printable bytes first, as themselves."""
    spans = ((ord("!"), ord("~")), (0xA1, 0xAC), (0xAE, 0xFF))
    printable = [byte for low, high in spans for byte in range(low, high + 1)]
    rest = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(rest)]
