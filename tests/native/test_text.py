"""Instructions in C++: cleaning, levels and token ids are those of Python, on strings of every kind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from unittest import mock

import ftfy
import pytest
import tokenizers

from sam3i_edge.checkpoints.tokenizer_file import _PATTERN
from sam3i_edge.levels import route
from sam3i_edge.pipeline.instruction import clean, plain

ROOT = Path(__file__).parents[2]
OWN = ROOT / "sam3i_edge/assets/sam3i-nano/tokenizer.json"
COUNT = 100_000
SYSROOT = "/usr/aarch64-linux-gnu"


@pytest.fixture(scope="session")
def program(built) -> Path:
    return built / "tests/text_lines"


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """A tokenizer as CLIP's: its words, a suffix at their ends, an added token, one for the unknown."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
    backend.normalizer = tokenizers.normalizers.Sequence(
        [
            tokenizers.normalizers.NFC(),
            tokenizers.normalizers.Replace(tokenizers.Regex(r"\s+"), " "),
            tokenizers.normalizers.Lowercase(),
        ]
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(_PATTERN), "removed", invert=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    words = [
        "the star left of the largest ring",
        "every striped square",
        "it's 3 of 10",
        "\u00e9t\u00e9 \u661f",
    ]
    backend.train_from_iterator(words * 20, trainer)
    backend.add_tokens([tokenizers.AddedToken("<start_of_text>", normalized=False)])
    path = tmp_path_factory.mktemp("clip") / "tokenizer.json"
    backend.save(str(path))
    return path


def compare(given: list[str], found: list, wanted: list) -> None:
    assert len(found) == len(wanted)
    different = [(text, a, b) for text, a, b in zip(given, found, wanted, strict=True) if a != b]
    assert not different, f"{len(different)} of {len(given)}: {different[:3]}"


def test_tokens_are_those_of_tokenizers(texts, program):
    given = texts.texts(COUNT, 3)
    backend = tokenizers.Tokenizer.from_file(str(OWN))
    backend.encode_special_tokens = True
    wanted = [one.ids for one in backend.encode_batch(given, add_special_tokens=False)]
    compare(given, texts.answers([program], "tokens", given, OWN), wanted)


def test_tokens_of_a_tokenizer_as_clips(texts, program, clip):
    odd = ["a <start_of_text> b", "<start_of_text>", "x<unk>y", "\u0391\u03a3"]
    # Cleaned, as it gets them: the NFC of `tokenizers` is of an older Unicode.
    given = [clean(text) for text in texts.texts(COUNT // 5, 4)] + odd
    backend = tokenizers.Tokenizer.from_file(str(clip))
    backend.encode_special_tokens = True
    wanted = [one.ids for one in backend.encode_batch(given, add_special_tokens=False)]
    compare(given, texts.answers([program], "tokens", given, clip), wanted)


def test_cleaning_is_pythons_but_for_wrong_encodings(texts, program):
    given = texts.texts(COUNT // 5, 5)
    with mock.patch.object(ftfy, "fix_encoding", lambda text: text):
        wanted = [clean(text) for text in given]
    compare(given, texts.answers([program], "clean", given), wanted)
    compare(wanted, texts.answers([program], "plain", wanted), [plain(text) for text in wanted])
    assert texts.answers([program], "clean", ["\u00c3\u00a9t\u00c3\u00a9"]) == ["\u00e3\u00a9t\u00e3\u00a9"]


def test_levels_are_pythons(texts, program):
    given = [clean(text) for text in texts.texts(COUNT // 5, 6)]
    compare(given, texts.answers([program], "level", given), [route(text) for text in given])


@pytest.mark.slow
def test_on_arm64(building, texts, clip, fixtures, tmp_path):
    """Tokenizers and masks, cross-compiled and run by qemu-user."""
    for tool in ("aarch64-linux-gnu-g++", "qemu-aarch64"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    if not Path("/usr/lib/aarch64-linux-gnu/libutf8proc.so").exists():
        pytest.skip("needs libutf8proc-dev:arm64 and libssl-dev:arm64")
    build = building.configured(
        tmp_path / "arm64", f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'native/cmake/aarch64-linux-gnu.cmake'}"
    )
    building.build(build, "text_lines", "check_masks")
    given = [clean(text) for text in texts.texts(600, 7)]
    with mock.patch.dict(os.environ, {"QEMU_LD_PREFIX": SYSROOT}):
        for path in (OWN, clip):
            wanted = [
                one.ids
                for one in tokenizers.Tokenizer.from_file(str(path)).encode_batch(
                    given, add_special_tokens=False
                )
            ]
            compare(
                given,
                texts.answers(["qemu-aarch64", build / "tests/text_lines"], "tokens", given, path),
                wanted,
            )
        environment = os.environ | {"SAM3I_FIXTURES": str(fixtures)}
        assert " 0 failed" in building.run("qemu-aarch64", build / "tests/check_masks", env=environment)
