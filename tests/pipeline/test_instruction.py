import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sam3i_edge.errors import InstructionError
from sam3i_edge.pipeline.instruction import check_instruction, clean, plain


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the red star", "the red star"),
        ("the red star.", "the red star."),
        ('"the red star."', "the red star."),
        ('the "red star".', "the red star."),
        ("where is the red star?!", "where is the red star?"),
        ("the red star \u2014 left of the ring", "the red star left of the ring"),
        ("the red star -- left of the ring", "the red star left of the ring"),
        ("- every star;", "every star"),
        ("\u2022 (the red star).", "the red star."),
        ("[every star]", "every star"),
        ("the star (red)", "the star (red)"),
        ("'valentine's day'", "valentine's day"),
        ("the ring\u2019s star", "the ring's star"),
        ("polka\u2011dot star", "polka-dot star"),
        ("polka-dot star", "polka-dot star"),
        ("circle, square", "circle, square"),
        ("2,000 stars", "2,000 stars"),
        ("<pad> star", "<pad> star"),
        ("the star...", "the star."),
        ('"', '"'),
        ("?!", "?!"),
        ("()", "()"),
    ],
)
def test_plain_words(text, words):
    assert plain(text) == words


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from("ab '\"()[]-\u2013,.?!:\u201c\u2019\u00bb*"), max_size=12))
def test_plain_words_stay_as_they_are_and_no_letter_is_lost(text):
    words = plain(clean(text))
    assert plain(words) == words
    assert [one for one in words if one.isalpha()] == [one for one in clean(text) if one.isalpha()]
    assert bool(words) == bool(clean(text))
