"""Writes the tables that native/ takes from Python: HTML's entities, and the words and patterns of `levels`.

python scripts/native_tables.py        tests/native/test_tables.py finds a table that is old
"""

from __future__ import annotations

import html
import html.entities
import json
from pathlib import Path

from sam3i_edge import levels

FOLDER = Path(__file__).parents[1] / "native/src"
_HEAD = "// Written by scripts/native_tables.py: do not edit.\n"
_SETS = (
    "ARTICLES", "QUANTIFIERS", "ORDINALS", "POSITIONS", "PREPOSITIONS", "CLAUSES", "RELATION_VERBS",
    "NARROWING", "WEAK_PLACEHOLDERS", "PLACEHOLDERS", "CLASS_WORDS", "VISIBLE", "QUESTIONS",
    "NOT_SUPERLATIVE",
)  # fmt: skip
_PATTERNS = ("SEEN_CLAUSE", "REQUEST", "PURPOSE")


def entities() -> str:
    """The entities of HTML 5, and the names in capitals that ftfy adds, in the order of their bytes."""
    plain = dict(html.entities.html5)
    shouted = {}
    for name, text in plain.items():
        upper = f"&{name.upper()}"
        if name.endswith(";") and name == name.lower() and html.unescape(upper) == upper:
            shouted[upper[1:]] = text.upper()
    return (
        f"{_HEAD}constexpr Entity kEntities[] = {{\n{_rows(plain)}}};\n"
        f"constexpr Entity kShouted[] = {{\n{_rows(shouted)}}};\n"
    )


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


def _rows(table: dict[str, str]) -> str:
    text, line = "", "   "
    for name in sorted(table):
        value = "".join(f"\\{byte:03o}" for byte in table[name].encode())
        row = f' {{"{name}", "{value}"}},'
        if len(line) + len(row) > 118:
            text, line = text + line + "\n", "   "
        line += row
    return text + line + "\n"


FILES = {"html_entities.inc": entities, "level_words.inc": level_words}

if __name__ == "__main__":
    for name, make in FILES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
