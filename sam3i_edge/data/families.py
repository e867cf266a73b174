"""Families of wordings: how people ask for the same thing.

A family makes a text of a `Phrase`, or None where it cannot say that phrase. Some put the parts in another
order ("which star is the largest?"), some put a usual wording into another sentence ("could you please mark
the star?"). `HELD_OUT` families are kept from training: they show what a model makes of wordings that it has
not seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType
from typing import Final

from sam3i_edge.data.phrase import NUMBERS, Phrase, plain
from sam3i_edge.data.text_noise import one_letter, words_that_say_nothing
from sam3i_edge.data.vocabulary import numbered

Family = Callable[[Phrase, Random], str | None]

_VERBS: Final = (
    "find {}", "find {}", "segment {}", "segment {}", "show me {}", "select {}", "highlight {}", "mark {}",
    "point out {}", "outline {}", "give me {}", "cut out {}", "pick out {}", "look for {}", "detect {}",
    "mask {}", "get {}", "show {}", "i want you to find {}", "choose {}",
)  # fmt: skip
_POLITE: Final = (
    "please find {}", "please segment {}", "please select {}", "please mark {}, thank you",
    "can you find {}?", "could you show me {}?", "could you please highlight {}?",
    "would you mark {} for me?",
    "can you please select {}?", "would you please give me {}?", "kindly select {}",
)  # fmt: skip
_DESIRE: Final = (
    "i want {}", "i need {}", "i would like {}", "i'd like to have {}", "i am looking for {}",
    "i'm looking for {}", "i want to see {}", "i need to find {}", "we need {}", "i would like to see {}",
)  # fmt: skip
_CONTEXT: Final = (
    "{} in the picture", "{} in the image", "{} in this picture", "in this image, {}", "{}, please",
    "{} here", "{} that you can see here", "{} for me", "in the picture, {}", "{} in this scene",
    "{}, nothing else", "just {}", "only {}",
)  # fmt: skip
_SPECIFIC: Final = ("locate {}", "identify {}", "spot {}", "trace {}", "isolate {}", "draw a mask over {}")
_STATEMENT: Final = (
    "{} is what i am after", "what i am after is {}", "my target is {}", "{}, that is what i mean",
    "the thing to segment: {}",
)  # fmt: skip
_INDIRECT: Final = ("tell me {}", "do you know {}?", "i was wondering {}", "can you tell me {}?")
_EVERY: Final = ("every single", "every single", "each and every", "absolutely every", "every last")
_ALL: Final = ("all of the", "absolutely all", "any and all")
_SUFFIXES: Final = ("", " in the picture", " in the image", " there is", " that is there", " you can see")
_ARTICLES: Final = re.compile(r"\b(the|a|an) ")


def _framed(frames: tuple[str, ...]) -> Family:
    def family(phrase: Phrase, random: Random) -> str:
        return random.choice(frames).format(plain(phrase, random))

    return family


def _several(phrase: Phrase, random: Random) -> bool:
    """Whether to speak of several; of nothing, either."""
    if phrase.superlative:
        return phrase.picked > 1 or phrase.plural_only
    return phrase.plural_only or (phrase.count > 1 if phrase.count else random.random() < 0.3)


def _named(phrase: Phrase, several: bool, adjectives: int | None = None) -> str:
    """Some of the adjectives, and the noun."""
    words = [adjective.text for adjective in phrase.adjectives[:adjectives]]
    return " ".join((*words, phrase.noun.many if several else phrase.noun.one))


def _narrowed(phrase: Phrase, several: bool) -> str | None:
    """Complement and tails; None where they cannot stand side by side."""
    parts = [phrase.complement, *(tail.text for tail in phrase.tails)]
    parts = [numbered(part, several) for part in parts if part]
    return None if len(parts) > 1 else f" {parts[0]}" if parts else ""


def _predicate(said: str, several: bool) -> str | None:
    """What is said of the noun by a tail or a complement: "is left of the ring", "has stripes"."""
    text = numbered(said, several)
    if text.startswith("that "):  # "that bounces" is said of it; "that you can kick" is said of you
        return text.removeprefix("that ") if text != said else None
    if text.startswith("with "):
        return f"{'have' if several else 'has'} {text.removeprefix('with ')}"
    if text.startswith("without "):
        return f"{'have' if several else 'has'} no {text.removeprefix('without ').removeprefix('any ')}"
    return f"{'are' if several else 'is'} {text}"


def _question(phrase: Phrase, several: bool, random: Random) -> tuple[str, str] | None:
    """The two halves of "which star | is the largest"."""
    if phrase.idiom or phrase.without or phrase.universal:
        return None
    be = "are" if several else "is"
    last = phrase.adjectives[-1] if phrase.adjectives else None
    if phrase.superlative:
        tail = _narrowed(phrase, several)
        if tail is None or phrase.complement:
            return None
        number = f"{NUMBERS[phrase.picked]} " if phrase.picked > 1 else ""
        one = " one" if phrase.superlative in ("left", "right", "upper", "lower") else ""
        return f"which {_named(phrase, several)}", f"{be} the {number}{phrase.superlative}{one}{tail}"
    if phrase.tails:
        said = _predicate(phrase.tails[-1].text, several)
        rest = numbered(phrase.complement, several)
        noun = _named(phrase, several) + (f" {rest}" if rest else "")
        return None if len(phrase.tails) > 1 or said is None else (f"which {noun}", said)
    if phrase.complement:
        function = phrase.complement.startswith("to ")
        said = f"can be used {phrase.complement}" if function else _predicate(phrase.complement, several)
        return None if said is None else (f"which {_named(phrase, several)}", said)
    if last is None:
        return None
    said = random.choice((last.text, f"colored {last.text}" if last.attribute == "color" else last.text))
    return f"which {_named(phrase, several, -1)}", f"{be} {said}"


def _which(phrase: Phrase, random: Random) -> str | None:
    found = _question(phrase, _several(phrase, random), random)
    if found is None:
        return f"which is {phrase.idiom}?" if phrase.idiom.startswith("the o") else None
    return random.choice(("{} {}?", "{} {}?", "{} {}")).format(*found)


def _what(phrase: Phrase, random: Random) -> str | None:
    found = _question(phrase, False, random) if phrase.picked == 1 else None
    rest = bool(phrase.superlative or phrase.tails) + bool(phrase.complement)
    if found is None or not phrase.generic or len(phrase.adjectives) + rest > 1:
        return None  # the noun goes, and what stands beside it would go along
    return f"what {found[1]}?"


def _where(phrase: Phrase, random: Random) -> str:
    text = plain(phrase, random)
    several = phrase.plural_only or f" {phrase.noun.many} " in f" {text} " or text.startswith("all ")
    return f"where {'are' if several else 'is'} {text}?"


def _relative(phrase: Phrase, random: Random) -> str | None:
    """With a relative clause: "the star which is colored red", "all mugs that are left of the bowl"."""
    if phrase.idiom or phrase.without:
        return None
    several = _several(phrase, random)
    that, be = random.choice(("that", "which")), "are" if several else "is"
    if phrase.superlative or phrase.tails:
        found = _question(phrase, several, random)
        if found is None:
            return None
        return f"{_start(phrase, several, random)} {found[0].removeprefix('which ')} {that} {found[1]}"
    if not phrase.adjectives or phrase.complement:
        return None
    last = phrase.adjectives[-1]
    said = f"{that} {be} {last.text}"
    if last.attribute == "color":
        said = random.choice(
            (said, f"{that} {be} colored {last.text}", f"{that} {be} coloured {last.text}",
             f"{that} {be} {last.text} in color", f"of {last.text} color",
             f"{that} {'have' if several else 'has'} a {last.text} color")
        )  # fmt: skip
    return f"{_start(phrase, several, random)} {_named(phrase, several, -1)} {said}"


def _start(phrase: Phrase, several: bool, random: Random) -> str:
    if not several:
        return random.choice(("every", "each")) if phrase.universal else "the"
    return "the" if phrase.superlative else random.choice(("the", "all", "all the"))


def _emphatic(phrase: Phrase, random: Random) -> str | None:
    """With weight on all of them: "every single blue object in the picture"."""
    single = phrase.count == 1 and not phrase.universal
    if single or not phrase.count or phrase.superlative or phrase.idiom or phrase.without:
        return None
    several = phrase.plural_only or random.random() < 0.4
    tail = _narrowed(phrase, several)
    if tail is None:
        return None
    suffix = "" if tail else random.choice(_SUFFIXES)
    if suffix in (" there is", " that is there") and several:
        suffix = " there are"
    start = random.choice(_ALL if several else _EVERY)
    return f"{start} {_named(phrase, several)}{tail}{suffix}"


def _pronoun(phrase: Phrase, random: Random) -> str | None:
    """Without a noun: "everything blue", "anything small and red", "the blue ones"."""
    if not phrase.generic or not phrase.adjectives or phrase.superlative or phrase.idiom or phrase.without:
        return None
    several = _several(phrase, random)
    tail = _narrowed(phrase, several)
    words = [adjective.text for adjective in phrase.adjectives]
    if tail is None:
        return None
    if phrase.count == 1 and not phrase.universal:
        return f"the {' '.join(words)} one{tail}"
    start = random.choice(("everything", "everything", "anything", "all that is", "whatever is", "the"))
    if start == "the":
        return f"the {' '.join(words)} ones{_narrowed(phrase, True)}"
    return f"{start} {' and '.join(words)}{_narrowed(phrase, False)}"


def _choice(phrase: Phrase) -> tuple[str, str, str] | None:
    """What is chosen, of which group, as one or as several: "largest", "stars", "one"."""
    if phrase.idiom or phrase.without or phrase.tails or phrase.complement or phrase.universal:
        return None
    if phrase.superlative:
        number = f"{NUMBERS[phrase.picked]} " if phrase.picked > 1 else ""
        ones = "ones" if phrase.picked > 1 else "one"
        return f"{number}{phrase.superlative}", _named(phrase, True), ones
    if not phrase.adjectives:
        return None
    return phrase.adjectives[-1].text, _named(phrase, True, -1), "ones" if phrase.count > 1 else "one"


def _partitive(phrase: Phrase, random: Random) -> str | None:
    """Out of a group: "the largest of the stars", "among the circles, the red one"."""
    found = _choice(phrase)
    if found is None:
        return None
    if phrase.superlative.endswith("st") and random.random() < 0.4:
        return f"the {found[0]} of {random.choice(('the', 'all the', 'all'))} {found[1]}"
    frames = ("of the {1}, the {0} {2}", "among the {1}, the {0} {2}", "the {0} {2} of the {1}")
    return random.choice(frames).format(*found)


def _fronted(phrase: Phrase, random: Random) -> str | None:
    """What narrows it first: "on the left, the star"."""
    if len(phrase.tails) != 1 or phrase.tails[0].kind not in ("region", "relation", "edge", "distance"):
        return None
    if phrase.idiom or phrase.without or phrase.superlative or phrase.complement or phrase.universal:
        return None
    several = _several(phrase, random)
    start = random.choice(("the", "the", "all")) if several and phrase.count else "the"
    return f"{numbered(phrase.tails[0].text, several)}, {start} {_named(phrase, several)}"


def _terse(phrase: Phrase, random: Random) -> str | None:
    """As one types into a search field: no articles, at times the noun first."""
    if phrase.adjectives and not (phrase.tails or phrase.superlative or phrase.complement or phrase.without):
        words = ", ".join(adjective.text for adjective in phrase.adjectives)
        if not phrase.universal and random.random() < 0.5:
            return f"{phrase.noun.many if _several(phrase, random) else phrase.noun.one}, {words}"
    text = plain(phrase, random)
    short = _ARTICLES.sub("", text)
    return short if short != text else None


def _topic(phrase: Phrase, random: Random) -> str | None:
    """With the group named first: "as for the circles: the largest one"."""
    found = _choice(phrase)
    frames = ("as for the {1}: the {0} {2}", "speaking of the {1}, the {0} {2}")
    return None if found is None else random.choice(frames).format(*found)


def _indirect(phrase: Phrase, random: Random) -> str | None:
    """A question inside a sentence: "tell me which star is the largest"."""
    found = _question(phrase, _several(phrase, random), random)
    return None if found is None else random.choice(_INDIRECT).format(" ".join(found))


def _typing_error(phrase: Phrase, random: Random) -> str | None:
    return one_letter(plain(phrase, random), random)


def _filler(phrase: Phrase, random: Random) -> str:
    """Between words that say nothing: "brelt so: the largest star", "our which star is red ka"."""
    said = plain(phrase, random)
    question, choice = _question(phrase, _several(phrase, random), random), _choice(phrase)
    if question and random.random() < 0.3:
        said = " ".join(question)
    elif choice and random.random() < 0.4:
        said = "the {1}{sign} the {0} {2}".format(*choice, sign=random.choice(",:"))
    where = random.random()
    before = words_that_say_nothing(random, 5) + random.choice((" ", " ", ", ", ": ")) if where < 0.8 else ""
    after = random.choice((" ", " ", ", ")) + words_that_say_nothing(random, 5) if where > 0.6 else ""
    return f"{before}{said}{after}"


FAMILIES: Final[Mapping[str, Family]] = MappingProxyType({
    "plain": plain,
    "command": _framed(_VERBS),
    "polite": _framed(_POLITE),
    "desire": _framed(_DESIRE),
    "context": _framed(_CONTEXT),
    "where": _where,
    "which": _which,
    "what": _what,
    "relative": _relative,
    "emphatic": _emphatic,
    "pronoun": _pronoun,
    "partitive": _partitive,
    "fronted": _fronted,
    "terse": _terse,
    "typing error": _typing_error,
    "filler": _filler,
    "specific": _framed(_SPECIFIC),
    "statement": _framed(_STATEMENT),
    "topic": _topic,
    "indirect": _indirect,
})  # fmt: skip
HELD_OUT: Final = ("specific", "statement", "topic", "indirect")
# Plain phrases, and a command or a question now and then.
USUAL: Final[Mapping[str, float]] = MappingProxyType(
    {"plain": 0.87, "command": 0.06, "polite": 0.03, "desire": 0.02, "where": 0.02}
)
# What is kept in files. Families that can say few phrases are tried more often.
SPELLED: Final[Mapping[str, float]] = MappingProxyType({
    "plain": 0.28, "command": 0.05, "polite": 0.05, "desire": 0.05, "context": 0.04, "where": 0.04,
    "which": 0.09, "what": 0.05, "relative": 0.07, "emphatic": 0.05, "pronoun": 0.05, "partitive": 0.07,
    "fronted": 0.07, "terse": 0.03,
})  # fmt: skip
# What tokenizers and the router learn from.
TYPED: Final[Mapping[str, float]] = MappingProxyType({**SPELLED, "typing error": 0.04})
# What a model of pictures is trained on: more of what was hard to learn, and words that say nothing.
TRAINED: Final[Mapping[str, float]] = MappingProxyType({**TYPED, "what": 0.6, "fronted": 0.5, "filler": 0.3})
_OF_CONCEPTS: Final = ("plain", "typing error")  # the others narrow, or ask for one
_FRAMED: Final = ("relative", "emphatic", "pronoun", "terse")  # at times inside a request


def worded(phrase: Phrase, random: Random, weights: Mapping[str, float]) -> tuple[str, str]:
    """The phrase as a person might ask, and the family of that wording.

    A family that cannot say the phrase gives way to another, and where none can, to "plain".

    Args:
        phrase: what is asked.
        random: decides.
        weights: relative frequency of the families, see `FAMILIES`.
    """
    left = {n: w for n, w in weights.items() if w and (phrase.form != "concept" or n in _OF_CONCEPTS)}
    while left:
        name = random.choices(list(left), list(left.values()))[0]
        text = FAMILIES[name](phrase, random)
        if text is None:
            del left[name]
            continue
        if name in _FRAMED and random.random() < 0.25:
            text = random.choice((*_VERBS, *_DESIRE)).format(text)
        return text, name
    return plain(phrase, random), "plain"
