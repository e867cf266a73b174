"""Instructions in JavaScript: cleaning, levels and token ids are Python's, on strings of every kind."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from unittest import mock

import ftfy
import pytest

from sam3i_edge import levels
from sam3i_edge.bundle.folder import Bundle, find_bundle
from sam3i_edge.levels import route
from sam3i_edge.pipeline.instruction import clean, plain

COUNT = 2_000


@pytest.fixture(scope="module")
def texts():
    """The module that makes texts for the C++ library."""
    path = Path(__file__).parents[1] / "native/texts.py"
    spec = importlib.util.spec_from_file_location("web_texts", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(library, nano):
    """`run(expression, given)`: what JavaScript makes of each text; `text` is the module."""
    page = library(nano)
    page.evaluate("async () => { globalThis.text = await import('/text.js'); }")

    def answers(expression, given):
        return page.evaluate(f"(given) => given.map((one) => {expression})", given)

    answers.page = page
    return answers


def compare(given, found, wanted):
    different = [(text, a, b) for text, a, b in zip(given, found, wanted, strict=True) if a != b]
    assert not different, f"{len(different)} of {len(given)}: {different[:3]}"


def test_cleaning_is_pythons_but_for_wrong_encodings(run, texts):
    given = texts.texts(COUNT, 5)
    with mock.patch.object(ftfy, "fix_encoding", lambda text: text):
        wanted = [clean(text) for text in given]
    compare(given, run("text.clean(one)", given), wanted)
    compare(wanted, run("text.plain(one)", wanted), [plain(text) for text in wanted])


def test_levels_are_pythons(run, texts):
    given = [clean(text) for text in texts.texts(COUNT, 6)]
    known = {"almost"}.union(*(words for words in vars(levels).values() if isinstance(words, frozenset)))
    forms = (
        "{}",
        "the {}",
        "{} ring",
        "star {} ring",
        "star {} the ring",
        "small {} left of it",
        "one {} of all",
    )
    given += [form.format(word) for word in sorted(known) for form in forms]
    compare(given, run("text.route(one)", given), [route(text) for text in given])


def test_tokens_are_those_of_tokenizers(run, texts):
    given = [text for text in map(clean, texts.texts(COUNT, 3)) if text]
    given += ["<pad> a <start> b", "<end>"]  # ordinary text
    bundle = Bundle.open(find_bundle("sam3i-nano"))
    tokenizer, spec = bundle.tokenizer(), bundle.manifest.tokenizer.model_dump()
    run.page.evaluate(
        "([file, spec]) => { globalThis.tokenizer = new text.Tokenizer(file, spec); }",
        [bundle.file(bundle.manifest.tokenizer.file).read_text(), spec],
    )
    found = run("((t) => [[...t.ids].map(Number), t.cut])(tokenizer.encode(one))", given)
    wanted = [[encoded.ids.tolist(), encoded.tokens_cut] for encoded in map(tokenizer.encode_cleaned, given)]
    compare(given, found, wanted)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("' '", "the instruction is empty"),
        ("'x '.repeat(2001)", "2,001 words"),
        ("'x'.repeat(10001)", "10,001 characters"),
        ("'a \\ud800 b'", "lone surrogate"),
    ],
)
def test_what_is_no_instruction_is_refused(run, written, message):
    found = run.page.evaluate(
        f"""() => {{
            try {{ return text.checkInstruction({written}); }} catch (error) {{ return String(error); }}
        }}"""
    )
    assert found.startswith("InstructionError: ")
    assert message in found
