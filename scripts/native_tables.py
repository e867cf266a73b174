"""Writes the tables that native/ and web/ take from Python: HTML's entities, words and patterns of `levels`.

python scripts/native_tables.py        tests/native/test_tables.py finds a table that is old
"""

from __future__ import annotations

import html
import html.entities
import json
from collections.abc import Mapping
from pathlib import Path

from sam3i_edge import levels

ROOT = Path(__file__).parents[1]
_HEAD = "// Written by scripts/native_tables.py: do not edit.\n"
_SETS = (
    "ARTICLES", "QUANTIFIERS", "ORDINALS", "POSITIONS", "PREPOSITIONS", "CLAUSES", "RELATION_VERBS",
    "NARROWING", "WEAK_PLACEHOLDERS", "PLACEHOLDERS", "CLASS_WORDS", "VISIBLE", "QUESTIONS",
    "NOT_SUPERLATIVE",
)  # fmt: skip
_PATTERNS = ("SEEN_CLAUSE", "REQUEST", "PURPOSE")


def entities() -> str:
    """The entities of HTML 5, and the names in capitals that ftfy adds, in the order of their bytes."""
    return (
        f"{_HEAD}constexpr Entity kEntities[] = {{\n{_rows(html.entities.html5)}}};\n"
        f"constexpr Entity kShouted[] = {{\n{_rows(_shouted())}}};\n"
    )


def _shouted() -> dict[str, str]:
    found = {}
    for name, text in html.entities.html5.items():
        upper = f"&{name.upper()}"
        if name.endswith(";") and name == name.lower() and html.unescape(upper) == upper:
            found[upper[1:]] = text.upper()
    return found


def level_words() -> str:
    """The word lists and the regular expressions of `sam3i_edge.levels`."""
    text = f"{_HEAD}constexpr size_t kMaxConceptWords = {levels.MAX_CONCEPT_WORDS};\n"
    for name in _SETS:
        words = " ".join(sorted(getattr(levels, f"_{name}")))
        text += f"const Words {_constant(name)}{{\n{_literals(words, ' ')}}};\n"
    for name in _PATTERNS:
        pattern = _literals(getattr(levels, f"_{name}").pattern, "|")
        text += f"constexpr const char* {_constant(name)} =\n{pattern};\n"
    return text


def web_tables() -> str:
    """The same for JavaScript."""
    tables = {
        "entities": dict(sorted(html.entities.html5.items())),
        "shouted": dict(sorted(_shouted().items())),
        "maxConceptWords": levels.MAX_CONCEPT_WORDS,
        "words": {name: " ".join(sorted(getattr(levels, f"_{name}"))) for name in _SETS},
        "patterns": {name: getattr(levels, f"_{name}").pattern for name in _PATTERNS},
    }
    return json.dumps(tables, indent=0, sort_keys=True) + "\n"


def _constant(name: str) -> str:
    return "k" + name.title().replace("_", "")


def _literals(text: str, end: str) -> str:
    """C++ string literals of at most a line each, cut after `end`."""
    lines, line = [], ""
    for part in text.split(end):
        if line and len(line) + len(part) > 90:
            lines.append(line)
            line = ""
        line += part + end
    lines.append(line[: -len(end)])
    return "\n".join(f"    {json.dumps(line)}" for line in lines)


def _rows(table: Mapping[str, str]) -> str:
    text, line = "", "   "
    for name in sorted(table):
        value = "".join(f"\\{byte:03o}" for byte in table[name].encode())
        row = f' {{"{name}", "{value}"}},'
        if len(line) + len(row) > 118:
            text, line = text + line + "\n", "   "
        line += row
    return text + line + "\n"


FILES = {
    "native/src/html_entities.inc": entities,
    "native/src/level_words.inc": level_words,
    "web/src/text_tables.json": web_tables,
}

if __name__ == "__main__":
    for name, make in FILES.items():
        (ROOT / name).write_text(make(), encoding="utf-8")
