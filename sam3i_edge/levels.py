"""The three levels of an instruction, and the rules that pick one where neither caller nor router does.

concept   a noun phrase, every instance meant: "star", "yellow school bus"
simple    names its target and narrows it: "the red star left of the ring", "every large square"
complex   does not name its target: "what stands for love", "the one with a hole"

The model itself cannot tell them apart: it must be told. `route` reads grammar only. It knows no list of
nouns, so it looks at the *head*, the words before the first preposition, clause or verb of relation:

1. complex, when the head holds no noun ("the tallest on the left", "those with stripes"), a placeholder
   ("the odd one out", "everything below ...", "the biggest thing"), or a class word that a purpose
   explains ("the tool used for cutting"); and questions that name nothing ("what ...", "who ...").
   A placeholder described by sight alone is no riddle: "the blue thing left of the ring" is simple.
2. simple, when it narrows: relation, position, superlative, quantifier, exception, relative clause,
   a leading "the", a request ("find ..."), or more than four words.
3. concept otherwise.
"""

from __future__ import annotations

import re
from typing import Any, Literal

Level = Literal["concept", "simple", "complex"]
# Who chose a level: the caller, the rules below ("auto"), or the bundle's learned router.
LevelChooser = Literal["caller", "auto", "router"]

LEVELS: tuple[Level, ...] = ("concept", "simple", "complex")

MAX_CONCEPT_WORDS = 4


def as_level(value: str) -> Level:
    """Gives `value` as a level.

    Raises:
        ValueError: it is none.
    """
    if value not in LEVELS:
        raise ValueError(f"unknown level {value!r}; choose from {', '.join(LEVELS)}, or auto")
    return value


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ARTICLES = _words("a an the this that these those")
_QUANTIFIERS = _words(
    "all every each both any some several many few most only other another one two three four five six "
    "seven eight nine ten 1 2 3 4 5 6 7 8 9 10"
)
_ORDINALS = _words("first second third fourth fifth last next 1st 2nd 3rd 4th 5th")
_POSITIONS = _words(
    "left right top bottom upper lower middle center centre central front back side corner edge left- "
    "hand right-hand outer inner"
)
_PREPOSITIONS = _words(
    "of with without in on at by near to from under underneath beneath below above over behind beside "
    "besides between among amongst inside outside within across along around against atop opposite past "
    "toward towards beyond except excluding but like unlike not than closest nearest next adjacent out "
    "for as"
)
_CLAUSES = _words(
    "that which who whose whom where when while because so is are was were has have having does do you "
    "we i could would should"
)
_RELATION_VERBS = _words(
    "wearing holding carrying riding facing touching sitting standing lying looking playing eating "
    "drinking using talking overlapping covering covered surrounded surrounding containing pointing "
    "leaning hanging parked placed located positioned shaped colored coloured filled used meant made "
    "stands standing represents symbolizes symbolises drawn painted"
)
# "top hat" and "cup of coffee" are names; "left shoe" and "cup on table" are choices.
_NARROWING = (
    _QUANTIFIERS
    | _CLAUSES
    | (_PREPOSITIONS - _words("of with for as like to out"))
    | _words("left right left-hand right-hand")
)
# Placeholders only when nothing else names them: "the part that rolls", but "car parts", "piece of cake".
_WEAK_PLACEHOLDERS = _words(
    "part parts area areas region regions place places piece pieces pair pairs figure figures "
    "element elements symbol symbols"
)
_PLACEHOLDERS = _WEAK_PLACEHOLDERS | _words(
    "one ones thing things object objects shape shapes item items something anything everything nothing "
    "someone anyone everyone somebody anybody everybody whatever whichever whoever stuff"
)
_CLASS_WORDS = _words(
    "tool tools device devices utensil utensils container containers instrument instruments equipment "
    "appliance appliances gadget gadgets furniture vehicle vehicles animal animals creature creatures "
    "food clothing garment material product products machine machines"
)
# With one of these a placeholder is described by sight alone: "blue shapes", "the small thing on the left".
_VISIBLE = _words(
    "red green blue yellow purple violet orange white black pink brown grey gray gold silver "
    "striped stripy lined dotted spotted polka-dot plain solid unpatterned patterned "
    "small little tiny large big huge tall short long wide narrow"
)
_SEEN_CLAUSE = re.compile(
    r"$|(?!in (?:the colou?r|one))(?:(?:that|which) (?:is|are) )?(?:(?:to|on|in|at) the )?"
    r"(?:left|right|top|bottom|upper|lower|below|above|under|underneath|beneath|over|near|nearest|nearer"
    r"|closest|closer|farthest|furthest|next|between|beside|inside|outside|in|on|at|to|from|but not|except"
    r"|touching|behind|\w+er than)\b"
    r"|with(?:out)? (?:any |no |a )?(?:stripes|dots|spots|lines|pattern)\b|covered in (?:stripes|dots)\b"
)
_QUESTIONS = _words("what who whom whose how why if i we")
_NOT_SUPERLATIVE = _words(
    "forest chest guest nest vest west test request priest rest harvest crest pest quest contest arrest"
)
_REQUEST = re.compile(
    r"(?:(?:please|kindly|(?:can|could|would|will) you) )*"
    r"(?:(?:segment|find|show|locate|select|highlight|mark|detect|identify|outline|give"
    r"|(?:point|pick|cut) out|point (?:to|at)|(?:look|search) for) (?:me |us )?"
    r"|mask (?=the |a |all |each |every |both )|where (?:is|are) )"
    r"|(?:i|we) (?:want|need|am looking for|are looking for) |i'm looking for "
)
_PURPOSE = re.compile(
    r"\b(?:used|useful|suitable|needed|required|designed|made|good|ideal|meant|intended|built|able)\s+(?:for|to|as)\b"
    r"|\bstands?\s+for\b|\bfor\s+\w+ing\b|\bto\s+\w+\b|\b(?:can|could|would|should|lets?|helps?|you)\b"
)


def _is_superlative(word: str) -> bool:
    return word.endswith(("est", "most")) and len(word) > 4 and word not in _NOT_SUPERLATIVE | {"almost"}


def _ends_head(words: list[str], index: int) -> bool:
    """True when the word at `index` is no longer part of the phrase that names the target."""
    word, after = words[index], words[index + 1 : index + 2]
    if after == ["than"] or (index > 0 and words[index - 1] in _PLACEHOLDERS and word.endswith("ed")):
        return True  # "a shape | taller than ...", "the one | patterned like ..."
    if word in ("left", "right"):
        return after == ["of"]
    if word in ("that", "next"):  # "that dog", "the next dog"; but "a dog that ...", "a dog next to ..."
        return index > 0 and (word == "that" or after == ["to"])
    if word == "the":  # "a shape the color of ..."; but "all the shapes"
        return index > 0 and words[index - 1] not in _QUANTIFIERS - {"one"}
    if word in ("nearest", "closest"):  # "the nearest dog"; but "the dog nearest to ..."
        return after in (["to"], ["the"], [])
    return word in _PREPOSITIONS or word in _CLAUSES or word in _RELATION_VERBS


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    end = next((i for i in range(len(words)) if _ends_head(words, i)), len(words))
    return words[:end], words[end:]


def _of_noun(rest: list[str]) -> bool:
    """True for "(a piece) of cake", not for "(the piece) of the cake"."""
    return rest[:1] == ["of"] and len(rest) > 1 and rest[1] not in _ARTICLES


def _names_nothing(words: list[str]) -> bool:
    head, rest = _split(words)
    content = [
        word
        for word in head
        if word not in _ARTICLES | _ORDINALS | _POSITIONS
        and word not in _QUANTIFIERS - {"one"}
        and not _is_superlative(word)
    ]
    if not content or content == ["one"]:
        # "all of the circles", "one of the stars": the noun follows. "The biggest of all" has none.
        return not (rest[:1] == ["of"] and len(rest) > 1) or _names_nothing(rest[1:])
    last = content[-1]
    if last in _WEAK_PLACEHOLDERS and (
        len(set(content) - _VISIBLE) > 1 or (last[:4] in ("piec", "pair") and _of_noun(rest))
    ):
        return False
    if any(word.endswith("-shaped") for word in content):
        return False
    if last not in ("one", "ones") and _VISIBLE & set(content) and _SEEN_CLAUSE.match(" ".join(rest)):
        return False
    if last in _PLACEHOLDERS or content[0] in _PLACEHOLDERS - _WEAK_PLACEHOLDERS - {"one"}:
        return True
    return last in _CLASS_WORDS and _PURPOSE.search(" ".join(rest)) is not None


def _narrows(words: list[str]) -> bool:
    if len(words) > MAX_CONCEPT_WORDS or words[0] in _ARTICLES:
        return True
    if "the" in words[1:]:
        return True
    return any(word in _NARROWING or _is_superlative(word) for word in words) or any(
        word in _RELATION_VERBS for word in words[1:-1]
    )


def rules() -> dict[str, Any]:
    """The words and expressions of `route`, for what does the same in another language."""
    return {
        "articles": sorted(_ARTICLES),
        "quantifiers": sorted(_QUANTIFIERS),
        "ordinals": sorted(_ORDINALS),
        "positions": sorted(_POSITIONS),
        "prepositions": sorted(_PREPOSITIONS),
        "clauses": sorted(_CLAUSES),
        "relation_verbs": sorted(_RELATION_VERBS),
        "narrowing": sorted(_NARROWING),
        "weak_placeholders": sorted(_WEAK_PLACEHOLDERS),
        "placeholders": sorted(_PLACEHOLDERS),
        "class_words": sorted(_CLASS_WORDS),
        "visible": sorted(_VISIBLE),
        "questions": sorted(_QUESTIONS),
        "not_superlative": sorted(_NOT_SUPERLATIVE),
        "seen_clause": _SEEN_CLAUSE.pattern,
        "request": _REQUEST.pattern,
        "purpose": _PURPOSE.pattern,
        "max_concept_words": MAX_CONCEPT_WORDS,
    }


def route(instruction: str) -> Level:
    """Picks the level of an instruction by the rules of this module.

    Args:
        instruction: a sentence or a noun phrase, English. In a language written without Latin letters
            only the number of words counts.

    Returns:
        The level; "concept" for a blank text.
    """
    # The head stands at the beginning; a text of 2,000 words costs no more than one of 64.
    words = re.findall(r"\w+(?:[-']\w+)*", instruction.lower().replace("\u2019", "'"))[:64]
    request = _REQUEST.match(" ".join(words))
    if request:
        words = words[len(request[0].split()) :]
    if words and words[0] in ("a", "an"):
        words.pop(0)
    if not words:
        return "concept"
    if words[0] in _QUESTIONS or "what" in words or words[0] == "where":
        return "complex"
    if words[0] == "which":
        return "complex" if _names_nothing(words[1:]) else "simple"
    if _names_nothing(words):
        return "complex"
    return "simple" if request or _narrows(words) else "concept"
