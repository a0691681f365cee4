"""Damage to the content of files, and hostile values, each from a random generator."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, TypeVar
from xml.etree import ElementTree

T = TypeVar("T")
INTEGERS = (0, 1, -1, 2, 7, 127, 255, 256, 32767, 65536, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**64)
TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "\n",
    "x" * 300,
    "x" * 70_000,
    "é\u202eπ🛰",
    "\udcff",
    "../../outside",
    "/",
    "/dev/null",
    "%s%n{0}",
    "[bold]",
    "`nodata=1`",
    "-1",
    "nan",
    "1e999",
    "0x10",
    "١٢",
    "null",
)
NUMBERS = (
    *INTEGERS,
    -(2**63),
    10**30,
    0.0,
    -0.0,
    0.5,
    1e-320,
    1e308,
    math.inf,
    -math.inf,
    math.nan,
)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with one to four places changed, cut off, repeated or taken out."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        # Headers are at the beginning or the end; most of the rest is pixels and weights.
        size = len(changed)
        near = min(size, chance.choice((16, 64, 512, 4096, size or 1)))
        place = chance.randrange(near + 1)
        place = size - place if chance.random() < 0.3 else place
        way = chance.randrange(8)
        if way == 0:
            del changed[place:]
        elif way == 1:
            del changed[place : place + chance.choice((1, 2, 4, 100, 5000))]
        elif way == 2:
            changed[place:place] = changed[place : place + chance.choice((1, 4, 100))]
        elif way == 3:
            changed[place : place + chance.choice((1, 4, 64, 4096))] = b""
        elif way == 4 and size:
            changed[min(place, size - 1)] ^= 1 << chance.randrange(8)
        elif way == 5:
            number = chance.choice(INTEGERS) % 2**64
            width = chance.choice((1, 2, 4, 8))
            order: Any = chance.choice(("little", "big"))
            changed[place : place + width] = (number % 2 ** (8 * width)).to_bytes(width, order)
        elif way == 6:
            changed[place : place + 8] = chance.randbytes(8)
        else:
            changed[place : place + 16] = bytes([chance.choice((0, 255, 32))]) * 16
    return bytes(changed)


def hostile(chance: random.Random, depth: int = 0) -> Any:
    """Some value that a field of a document may not expect."""
    way = chance.randrange(8 if depth < 3 else 5)
    if way < 2:
        return chance.choice(NUMBERS)
    if way < 4:
        return chance.choice(TEXTS)
    if way == 4:
        return chance.choice((True, False, None))
    if way < 7:
        return [hostile(chance, depth + 1) for _ in range(chance.choice((0, 1, 2, 9)))]
    return {chance.choice(TEXTS[:8]): hostile(chance, depth + 1) for _ in range(2)}


def replaced(document: Any, chance: random.Random) -> Any:
    """A document of dictionaries and lists with one part of it replaced, taken out or repeated."""
    if not isinstance(document, (dict, list)) or not document or chance.random() < 0.08:
        return hostile(chance)
    places: Sequence[Any] = list(document) if isinstance(document, dict) else range(len(document))
    place = chance.choice(places)
    copy: Any = document.copy()
    way = chance.random()
    if way < 0.1:
        del copy[place]
    elif way < 0.15 and isinstance(copy, list):
        copy.append(copy[place])
    elif way < 0.15:
        copy[chance.choice(TEXTS)] = copy[place]
    else:
        copy[place] = replaced(copy[place], chance)
    return copy


def changed_element(
    element: ElementTree.Element, chance: random.Random, values: Sequence[int | str]
) -> None:
    """Change an attribute or the text of an element of XML, or take out or repeat one in it."""
    texts = [text for text in TEXTS if text.isprintable() and "\udcff" not in text]
    value = chance.choice([*map(str, (*NUMBERS, *values))] * 2 + texts)
    way = chance.random()
    if element.attrib and way < 0.5:
        element.set(chance.choice(sorted(element.attrib)), value)
    elif way < 0.85:
        parts = (element.text or "").split(",")
        parts[chance.randrange(len(parts))] = value
        element.text = ",".join(parts)
    elif way < 0.95 and len(element):
        element.remove(element[chance.randrange(len(element))])
    elif len(element):
        element.extend([element[0]] * chance.choice((1, 100, 2000)))
