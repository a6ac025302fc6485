"""A run that was cut off goes on: what it was asked for, which outputs it had, and where each request stood."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from executor.detokenizer import Decode
from executor.identity import differences
from executor.journal import Asked, Journal, read_begun
from executor.metrics import Earlier, Metrics, read_metrics
from executor.options import RunOptions
from executor.outputs import Output, OutputWriter
from executor.requests import Generation, Request
from specsim.answer import Plan
from specsim.errors import InputError
from specsim.planfile import from_dict
from specsim.simulator.lengths import UNSEEN
from specsim.validation.record import METRICS, TRACE

#: differences that are told
_TOLD: Final = 4


def begun(directory: Path) -> tuple[Plan, RunOptions]:
    """The plan and the options of the run in `directory`, with which it can be continued. Raises InputError where
    none was begun, or a process is writing it."""
    asked = read_begun(directory)
    if asked is None:
        hint = "give its plan, --target and --prompts too: then it begins"
        raise InputError("no run has begun here", where=str(directory), hint=hint)
    try:
        options = msgspec.convert(asked.options, RunOptions, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError as error:
        raise InputError(f"has a run with options of another version: {error}", where=str(directory)) from None
    return from_dict(asked.identity.get("plan"), str(directory)), replace(options, out=directory, resume=True)


def has_begun(directory: Path) -> bool:
    """Whether there is a run in `directory` to go on with."""
    try:
        return read_begun(directory) is not None
    except InputError:
        return False


def open_outputs(
    journal: Journal, asked: Asked, requests: Sequence[Request], options: RunOptions, decode: Decode | None
) -> tuple[OutputWriter, list[Request], Earlier | None]:
    """Begin the run in the journal, or go on with the one that it tells of: the outputs with all that have ended, the
    requests that are left, with what was committed of them, and what there was before, None where nothing was.

    Raises InputError where a run was begun and this is not to go on with it, or is not the same.
    """
    if journal.begun is None or not (options.resume or journal.committed):
        writer = OutputWriter(options.out)
        try:
            journal.begin(asked)
        except BaseException:
            writer.close()
            raise
        return writer, list(requests), None
    if not options.resume:
        hint = f"go on with it: --resume {options.out}; or choose another -o"
        raise InputError("has a run that was begun", where=str(options.out), hint=hint)
    if found := list(differences(journal.begun.identity, asked.identity)):
        told = "; ".join(found[:_TOLD] + ([f"and {len(found) - _TOLD} more"] if len(found) > _TOLD else []))
        hint = "go on with what it was begun with, or choose another -o"
        raise InputError(f"is not the run that was begun here: {told}", where=str(options.out), hint=hint)
    _remove_drafts(options.out)
    return _restore(journal, requests, options.out, decode)


def ended(journal: Journal, writer: OutputWriter, left: Sequence[Request], earlier: Earlier | None) -> Metrics | None:
    """The metrics of a run of which all was done before; the journal says so then. None of one that has to go on."""
    out = journal.path.parent
    if journal.over:
        return read_metrics(out)
    if left or earlier is None:
        return None
    try:
        found = read_metrics(out)
    except InputError:
        return None  # it ended before it could write them
    before = found.earlier or Earlier(0, 0)
    if (found.requests + before.requests, found.useful_tokens + before.tokens) != (earlier.requests, earlier.tokens):
        return None  # of another run
    writer.sync()
    journal.end()
    return found


def _restore(
    journal: Journal, requests: Sequence[Request], out: Path, decode: Decode | None
) -> tuple[OutputWriter, list[Request], Earlier]:
    by_id = {request.id: request for request in requests}
    put_out: set[int] = set()

    def known(line: bytes) -> bool:
        """Whether a line of outputs.jsonl is what the journal says, the first of its request."""
        request = by_id.get(_id(line))
        if request is None or request.index in put_out:
            return False
        generation = _generation(journal, request, decode)
        if generation.finish_reason is None or Output.of(generation).line() != line:
            return False
        put_out.add(request.index)
        return True

    writer = OutputWriter(out, known)
    left: list[Request] = []
    try:
        for request in requests:
            if request.index in put_out:
                continue
            generation = _generation(journal, request, decode) if request.index in journal.committed else None
            if generation is None:
                left.append(request)
            elif generation.finish_reason is None:
                left.append(generation.request)
            else:
                writer.write(Output.of(generation))
    except BaseException:
        writer.close()
        raise
    earlier = Earlier(writer.written, sum(map(len, journal.committed.values())))
    journal.committed.clear()  # what is still needed is in the requests
    journal.seen.clear()
    return writer, left, earlier


def _remove_drafts(out: Path) -> None:
    """Of the files that are written as a whole, those that the end cut off."""
    for name in (METRICS, TRACE):
        for draft in out.glob(f".{name}.*"):
            draft.unlink(missing_ok=True)


def _generation(journal: Journal, request: Request, decode: Decode | None) -> Generation:
    """The request as it stood."""
    committed = tuple(journal.committed.get(request.index, ()))
    return Generation(replace(request, committed=committed, seen=journal.seen.get(request.index, UNSEEN)), decode)


def _id(line: bytes) -> str:
    """Of an output; "" of a line that is none."""
    try:
        return str(json.loads(line)["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
