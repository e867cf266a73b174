import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam3i_edge.errors import ArtifactError, InstructionError
from sam3i_edge.pipeline.instruction import clean, plain
from sam3i_edge.pipeline.tokenizer import Tokenizer, train_bpe

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
    assert cut > 0 or _decoded(tokenizer, ids).strip() == plain(clean(text))


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


@pytest.fixture
def changed(path, tmp_path):
    """Writes the tokenizer with something changed."""

    def changed(change):
        content = json.loads(path.read_text())
        change(content)
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        return tmp_path / "tokenizer.json"

    return changed


WORD_LEVEL = {"type": "WordLevel", "vocab": {"<pad>": 0, "<start>": 1, "<end>": 2}, "unk_token": "<unk>"}
CHARSMAP = {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAA"}


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(normalizer=CHARSMAP),
        lambda content: content["model"].update(continuing_subword_prefix="##"),
        lambda content: content.update(pre_tokenizer={"type": "FixedLength", "length": 0}),
        lambda content: content.update(model=WORD_LEVEL),
    ],
    ids=["precompiled", "subword prefix", "fixed length 0", "word level"],
)
def test_a_tokenizer_that_fails_when_used_is_refused_when_opened(changed, change):
    """The library's panics are no Exception: they would pass every handler of a program."""
    with pytest.raises(ValueError, match=r"cannot encode 'the red star|is no tokenizer\.json: slice"):
        Tokenizer.from_file(changed(change), start_id=1, end_id=2)


def test_a_tokenizer_that_encodes_by_chance_is_refused(changed):
    with pytest.raises(ValueError, match=r"has dropout 0\.5, so it encodes a text by chance"):
        Tokenizer.from_file(
            changed(lambda content: content["model"].update(dropout=0.5)), start_id=1, end_id=2
        )


def test_a_tokenizer_that_fails_at_one_text_is_a_damaged_artifact(tokenizer, monkeypatch):
    class PanicException(BaseException):
        pass

    class Panicking:
        def encode(self, *_, **__):
            raise PanicException("index out of bounds")

    monkeypatch.setattr(tokenizer, "_backend", Panicking())
    with pytest.raises(ArtifactError, match=r"tokenizer\.json cannot encode 'star' \(index out"):
        tokenizer.encode("star")


def test_interrupting_an_encoding_is_no_defect_of_the_file(tokenizer, monkeypatch):
    class Interrupted:
        def encode(self, *_, **__):
            raise KeyboardInterrupt

    monkeypatch.setattr(tokenizer, "_backend", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode("star")


def test_our_own_tokenizer_reads_past_the_punctuation_around_words(tokenizer):
    plain = tokenizer.encode("the red star").ids.tolist()
    for form in (
        '"{}"',
        "\u201c{}\u201d",
        "\u00ab{}\u00bb",
        "'{}'",
        "{},",
        "{} \u2013",
        "- {}",
        "({})",
        "  {}:  ",
    ):
        assert tokenizer.encode(form.format("the red star")).ids.tolist() == plain, form
    assert tokenizer.encode("the red star?").ids.tolist() != plain


def test_released_models_read_punctuation_as_their_code_does():
    clip = Tokenizer.from_file(FIXTURES / "clip_subset_tokenizer.json", start_id=49406, end_id=49407)
    assert clip.encode('"a"').ids.tolist() != clip.encode("a").ids.tolist()
