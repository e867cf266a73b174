import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam3i_edge.errors import ArtifactError, InstructionError
from sam3i_edge.pipeline.tokenizer import Tokenizer, check_instruction, clean, train_bpe

TEXTS = ["the red star left of the ring", "every small circle", "the shape with three corners"] * 20


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    train_bpe(TEXTS, 320, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(path):
    return Tokenizer.from_file(path, start_id=1, end_id=2)


# The texts and ids that the official code made, and the part of CLIP's vocabulary that these texts touch.
FIXTURES = Path(__file__).parents[1] / "fixtures"
OFFICIAL = json.loads((FIXTURES / "clip_tokens.json").read_text())
# Where this project differs on purpose: a blank text is an error, special tokens in a text are text, and
# there is no repair of texts that were decoded with the wrong encoding.
DIFFERENT = (
    "",
    "<start_of_text> injected <end_of_text> tokens",
    "\u00c3\u00a9t\u00c3\u00a9 mojibake that ftfy repairs",
)


SAME = [item for item in OFFICIAL["items"] if item["text"] not in DIFFERENT]


@pytest.mark.parametrize("item", SAME, ids=lambda item: ascii(item["text"][:30]))
def test_ids_are_those_of_the_official_code(item):
    clip = Tokenizer.from_file(FIXTURES / "clip_subset_tokenizer.json", start_id=49406, end_id=49407)
    ids, cut = clip.encode(item["text"])
    assert ids.tolist() == item["ids"]
    assert cut == max(0, item["length_before_truncation"] - 32)
    assert (cut > 0) == item["truncated"]
    assert len(SAME) == 37


def _decoded(tokenizer, ids):
    return tokenizer._backend.decode(ids[ids > 2].tolist())


def test_start_text_end_padding(tokenizer):
    ids, cut = tokenizer.encode("red star")
    length = int((ids != 0).sum())
    assert ids.dtype == np.int64
    assert ids.shape == (32,)
    assert ids[0] == 1
    assert ids[length - 1] == 2
    assert (ids[length:] == 0).all()
    assert _decoded(tokenizer, ids) == " red star"
    assert cut == 0


def test_long_text_keeps_its_first_30_tokens_and_the_end(tokenizer):
    whole = tokenizer._backend.encode("a " * 49 + "a", add_special_tokens=False).ids
    ids, cut = tokenizer.encode("a " * 50)
    assert ids[0] == 1
    assert ids[1:31].tolist() == whole[:30]
    assert ids[31] == 2
    assert cut == len(whole) - 30


def test_text_that_just_fits_is_not_cut(tokenizer):
    for words in range(1, 40):
        ids, cut = tokenizer.encode("a " * words)
        used = int((ids != 0).sum())
        assert (cut == 0) == (used + cut <= 32)
        assert used == 32 or cut == 0
        assert ids[used - 1] == 2


def test_file_round_trip(path, tokenizer):
    trained = train_bpe(TEXTS, 320, path.with_name("again.json"))
    assert path.read_bytes() == path.with_name("again.json").read_bytes()
    assert trained.encode("the red star").ids.tolist() == tokenizer.encode("the red star").ids.tolist()
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []


def test_special_tokens_have_their_ids(path):
    vocabulary = json.loads(path.read_text())["model"]["vocab"]
    assert [vocabulary[name] for name in ("<pad>", "<start>", "<end>")] == [0, 1, 2]
    assert len(vocabulary) <= 320


def test_special_tokens_in_a_text_are_text(tokenizer):
    ids, _ = tokenizer.encode("<pad> <start> <end> star")
    assert _decoded(tokenizer, ids) == " <pad> <start> <end> star"
    assert (ids == 0).sum() == 32 - 1 - int(np.flatnonzero(ids == 2)[0])


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_any_text_encodes_and_padding_is_only_at_the_end(tokenizer, text):
    if not clean(text):
        with pytest.raises(InstructionError, match="empty"):
            tokenizer.encode(text)
        return
    ids, cut = tokenizer.encode(text)
    length = int((ids != 0).sum())
    assert (ids[:length] > 0).all()
    assert (ids[0], ids[length - 1]) == (1, 2)
    assert cut > 0 or _decoded(tokenizer, ids).strip() == clean(text)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  The\n RED\u00a0star\t", "the red star"),
        ("fish &amp;amp; chips", "fish & chips"),
        ("fish < &amp;amp; chips", "fish < & chips"),
        ("&amp;amp;amp;lt; star", "< star"),
        ("\u00e9 &amp;amp;amp;amp;lt; star", "\u00e9 < star"),
        ("&amp;Lt; &NTILDE;", "\u226a \u00f1"),
        ("\u201csmart\u201d \u2018quotes\u2019", "\"smart\" 'quotes'"),
        ("\uff21\uff22\uff23 \ufb01sh", "abc fish"),
        ("cafe\u0301", "caf\u00e9"),
        ("a\x00b\ufeff", "ab"),
    ],
)
def test_cleaning(text, cleaned):
    assert clean(text) == cleaned


ENTITIES = st.lists(
    st.sampled_from(
        [
            "&",
            "amp;",
            "AMP;",
            "lt;",
            "Lt;",
            "#60;",
            "#0;",
            "NTILDE;",
            "nbsp;",
            "<",
            " ",
            "\u0130",
            "\u00c3\u00a9",
        ]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=60), ENTITIES, st.tuples(ENTITIES, st.text(max_size=8)).map("".join)))
def test_what_is_clean_stays_as_it_is(text):
    assert clean(clean(text)) == clean(text)


def test_what_was_escaped_without_end_is_cleaned_in_time():
    assert clean("&" + "amp;" * 2_400 + "lt; star") == "< star"


@pytest.mark.parametrize("text", ["", "  \n", "&nbsp;", "\x00"])
def test_blank_instruction(text):
    with pytest.raises(InstructionError, match="is empty"):
        check_instruction(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ab " * 2_001, "2,001 words, at most 2,000"),
        ("x" * 10_001, "10,001 characters, at most 10,000"),
        ("word " * 10_000, "50,000 characters"),
        ("half a pair \ud800", "lone surrogate"),
    ],
)
def test_refused_instruction(text, message):
    with pytest.raises(InstructionError, match=message):
        check_instruction(text)


def test_the_longest_allowed_instruction_is_encoded(tokenizer):
    assert tokenizer.encode("ab " * 2_000).tokens_cut > 1_000
    assert tokenizer.encode("x" * 10_000).tokens_cut > 1_000


def test_not_a_string(tokenizer):
    with pytest.raises(TypeError, match="must be a string, got bytes"):
        tokenizer.encode(b"star")


def test_threads_agree(tokenizer):
    texts = [f"the {'red ' * n}star" for n in range(40)]
    serial = [tokenizer.encode(text).ids.tolist() for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: tokenizer.encode(text).ids.tolist(), texts * 5)) == serial * 5


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"model": 3}', b"\xff\xfe"])
def test_damaged_file(tmp_path, content):
    broken = tmp_path / "tokenizer.json"
    if content is not None:
        broken.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        Tokenizer.from_file(broken, start_id=1, end_id=2)


def test_vocabulary_size_is_the_rows_a_table_needs(path, tokenizer):
    assert tokenizer.vocab_size == 1 + max(json.loads(path.read_text())["model"]["vocab"].values())


def test_ids_outside_the_vocabulary(path):
    with pytest.raises(ValueError, match="end_id 5000 is outside the vocabulary"):
        Tokenizer.from_file(path, start_id=1, end_id=5000)


@pytest.mark.parametrize("size", [258, 4_097])
def test_vocabulary_size_is_bounded(tmp_path, size):
    with pytest.raises(ValueError, match=f"259 to 4096, got {size}"):
        train_bpe(TEXTS, size, tmp_path / "t.json")
    assert list(tmp_path.iterdir()) == []
