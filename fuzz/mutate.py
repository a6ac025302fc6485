"""Changes to the structure of JSON, which changes to its bytes rarely leave whole."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from random import Random
from typing import Any, Final

#: values that readers forget about
NASTY: Final[tuple[Any, ...]] = (
    *(None, True, False, -1, 0, 1, 7, 1024, 2**31, 2**63, 2**64, 10**30, 10**400),
    *(0.5, -0.0, 5e-324, 1e308, math.inf, math.nan),
    *("", " ", "0", "x", "a\nb", "\x1b[2J", "\x00", "\ud800", "../x", "/etc/passwd", "x" * 300, "9" * 500),
    *([], {}, [[]], [None], {"": 0}),
)
_NESTED: Final = 70


def mutated(content: bytes, words: Sequence[str], random: Random) -> bytes | None:
    """`content` with one to three values of one of its JSON lines changed; None where the line that was drawn is not
    JSON, or cannot be written again."""
    lines = content.split(b"\n")
    place = random.randrange(len(lines))
    try:
        holder = [json.loads(lines[place])]
        for _ in range(random.randint(1, 3)):
            _change(holder, words, random)
        text = json.dumps(holder[0], ensure_ascii=random.random() < 0.5)
    except (ValueError, RecursionError):
        return None
    if random.random() < 0.05:
        text = _key_twice(text)
    lines[place] = text.encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def _change(holder: Any, words: Sequence[str], random: Random) -> None:
    """Change, remove, add or exchange one of the values in `holder`, at any depth."""
    places = list(_places(holder))
    inside, key = random.choice(places)
    match random.randrange(8):
        case 0 if len(places) > 1:
            del inside[key]
            if inside is holder:
                holder.append(None)
        case 1:
            other, its = random.choice(places)
            inside[key] = copy.deepcopy(other[its])
        case 2 if isinstance(inside, dict):
            inside[random.choice(words)] = random.choice(NASTY)
        case 3 if isinstance(inside, list) and inside is not holder:
            inside.insert(random.randrange(len(inside) + 1), copy.deepcopy(inside[key]))
        case 4:
            inside[key] = random.choice(words)
        case 5 if isinstance(inside[key], int | float):
            inside[key] = random.choice((-inside[key], inside[key] + 1, inside[key] * 2, repr(inside[key])))
        case 6 if random.random() < 0.1:
            for _ in range(_NESTED):
                inside[key] = [inside[key]] if random.random() < 0.5 else {"x": inside[key]}
        case _:
            inside[key] = copy.deepcopy(random.choice(NASTY))


def _places(holder: Any) -> Any:
    keys = holder.keys() if isinstance(holder, dict) else range(len(holder))
    for key in keys:
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])


def _key_twice(text: str) -> str:
    """JSON with its first member written twice, if that is short."""
    first, comma, _ = text.partition(",")
    return text.replace(f"{first},", f"{first},{first.lstrip('{[')},", 1) if comma else text
