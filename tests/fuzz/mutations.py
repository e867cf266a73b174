"""Damage done to good bytes and good JSON, the same for the same generator."""

from __future__ import annotations

import copy
import json
import random
import struct
from typing import Any

DEEP = "@deep@"  # stands for a list in a list, 200,000 times, which `json` does not write
NUMBERS = (
    0, -1, 1, 2, 3, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32, -(2**31), 2**62, 2**63 - 1, 2**63, 2**64, 10**6,
    10**20, 10**400, 0.5, -0.0, 1e-300, 1e30, 2e8, 1e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
_VALUES = (
    *NUMBERS, None, True, False, "", " ", "../../etc/passwd", "/", "a\0b", "\ud800", "é" * 300, "x" * 70_000,
    [], {}, [[]], [None], {"": 0}, [1e308] * 9, DEEP,
)  # fmt: skip


def mutated_bytes(rng: random.Random, content: bytes) -> bytes:
    """The content with one to four places damaged."""
    result = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place, length = rng.randrange(len(result) + 1), rng.choice((1, 1, 2, 4, 8, 64, 4096))
        match rng.randrange(7):
            case 0 if result:
                result[place % len(result)] ^= 1 << rng.randrange(8)
            case 1:
                result[place : place + length] = rng.randbytes(length)
            case 2:
                del result[place : place + length]
            case 3:
                result[place:place] = result[place : place + length] * rng.choice((1, 2, 50))
            case 4:
                del result[place:]
            case 5:
                number = rng.choice([n for n in NUMBERS if isinstance(n, int) and 0 <= n < 2**64])
                form = rng.choice("<>") + ("Q" if number >= 2**32 else rng.choice("IQ"))
                written = struct.pack(form, number)
                result[place : place + len(written)] = written
            case _:
                other = rng.randrange(len(result) + 1)
                result[place : place + length] = result[other : other + length]
    return bytes(result)


def mutated_json(rng: random.Random, value: Any) -> bytes:
    """The value as JSON, with one to three of its places changed."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            break
        parent, key = rng.choice(places)
        match rng.randrange(6):
            case 0 | 1 | 2:
                parent[key] = copy.deepcopy(rng.choice(_VALUES))  # one of its own may be put into it
            case 3:
                other, place = rng.choice(places)
                parent[key] = json.loads(json.dumps(other[place]))
            case 4:
                del parent[key]
            case _:
                if isinstance(parent, dict):
                    parent[rng.choice(("extra", key.upper(), key + " ", ""))] = parent.pop(key)
                else:
                    parent.extend(parent[:] * rng.choice((1, 30)))
    deep = "[" * 200_000 + "]" * 200_000
    return json.dumps(value).replace(json.dumps(DEEP), deep).encode()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below; of a long list, ends and middle."""
    found: list[tuple[Any, Any]] = []
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = sorted({0, len(value) // 2, len(value) - 1}) if value else []
    for key in keys:
        found += [(value, key), *_places(value[key])]
    return found
