"""The options that settle a part of the policy in advance, shared by every command that plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click
import msgspec

from specsim.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])

#: fields that are whole numbers
WHOLE: Final = (
    *("gamma", "batch", "ring_slots", "prefill_batch", "chunk_tokens", "draft_batch"),
    *("stages", "tensor", "batches"),
)


def fix_options(command: F) -> F:
    """Add --strategy and --fix to a command; it hands `strategy` and `fixes` to `fixed`."""
    text = "Settle a policy field, e.g. gamma=6, batch=256."
    command = click.option("--fix", "fixes", multiple=True, metavar="NAME=VALUE", help=text)(command)
    text = "auto, serial, merged or interleaved."
    return click.option("--strategy", default="auto", show_default=True, help=text)(command)


def fixed(strategy: str, words: Sequence[str]) -> dict[str, Any]:
    """What --strategy and --fix settle. Raises InputError where they contradict each other."""
    fix = _fixes(words)
    if strategy != "auto" and fix.setdefault("strategy", strategy) != strategy:
        raise InputError(f"strategy is {strategy!r} and {fix['strategy']!r}", where="--strategy", hint="give one")
    return fix


def _fixes(words: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; numbers and true/false are read as such."""
    fix: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not text:
            raise InputError(f"{word!r} is not NAME=VALUE", where="--fix", hint="for example --fix gamma=6")
        if name in fix:
            raise InputError(f"{name} is fixed twice", where="--fix")
        fix[name] = _value(name, text)
    return fix


def _value(name: str, text: str) -> Any:
    kinds: dict[str, type] = dict.fromkeys(WHOLE, int) | {"refill": bool}
    if name not in kinds:
        return text
    try:
        return msgspec.convert(text, kinds[name], strict=False)
    except msgspec.ValidationError:
        wanted = "true or false" if kinds[name] is bool else "a whole number"
        raise InputError(f"{name} is {text!r}", where="--fix", hint=f"give {wanted}") from None
