"""`specsim chat`: several turns over one conversation, on a terminal or from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import click

from specsim.cli.process import hear_again
from specsim.cli.running import (
    check_sampling,
    draft_length_option,
    machine_options,
    models_options,
    numerics_option,
    open_to_talk,
    sampling_options,
)
from specsim.cli.tables import render
from specsim.errors import InputError, Terminated
from specsim.planfile import read_plan
from specsim.runtime import executor
from specsim.units import show

PROMPT: Final = "> "
HELP: Final = """A line is a turn. And:
  /stats  what each turn read, what it found cached, and how fast it was
  /reset  forget what was said
  /help   this
  /quit   leave, as the end of the input does"""


@click.command("chat")
@models_options
@click.option("--system", metavar="TEXT", help="What the model is told before the first turn.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Of an answer at most; default: the plan's.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End an answer where this appears. May be repeated.")
@click.option("--ignore-eos", is_flag=True, help="Go on after an end token.")
@sampling_options
@numerics_option
@draft_length_option
@machine_options
def chat(plan_file: str, **options: Any) -> None:
    """Talk with a plan's target, turn by turn.

    Each line of stdin is a turn; its answer goes to stdout as it is made. What was said stays cached, so a turn reads
    only what is new. Lines that begin with / are commands: /help names them.
    """
    plan = read_plan(plan_file)
    check_sampling(options)
    for option, texts in (("--system", [options["system"] or ""]), ("--stop", options["stop"])):
        for text in texts:
            _decoded(text.encode(errors="surrogateescape"), option)  # bytes that are no text come as surrogates
    if "" in options["stop"]:
        raise InputError("a stop string is empty", where="--stop", hint="it would stop everywhere; leave it out")
    opened = open_to_talk(plan, options)
    formatting = executor("executor.chatformat").ChatFormat(opened.tokenizer)
    sampling = executor("executor.speculation.sampling").Sampling(
        options["temperature"] or 0.0, options["top_k"], options["top_p"], options["seed"] or 0
    )
    talking = executor("executor.service.conversation")
    manner = talking.Manner(
        sampling,
        options["max_new_tokens"] or plan.case.workload.output_tokens,
        options["stop"],
        frozenset() if options["ignore_eos"] else opened.target.architecture.eos,
    )
    if formatting.plain:
        told = "the checkpoint has no chat template: turns are lines of plain text, after user: and assistant:"
        click.echo(f"specsim: {told}", err=True)
    with executor("executor.service.opening").open_service(opened, queue=1) as service:
        _talk(talking.Conversation(service, formatting, manner, options["system"]))


def _talk(conversation: Any) -> None:
    """Turns and commands to the end of the input. What a person mistypes is told; in a script it is an error."""
    terminal = sys.stdin.isatty()
    for data in _lines(terminal):
        try:
            line = _decoded(data, "stdin").rstrip("\r\n")
            match line.split():
                case []:
                    pass
                case ["/quit"]:
                    return
                case ["/help"]:
                    click.echo(HELP)
                case ["/reset"]:
                    conversation.reset()
                case ["/stats"]:
                    click.echo(_stats(conversation))
                case [word, *_] if word.startswith("/"):
                    raise InputError(f"there is no command {word}", where="chat", hint="/help names them")
                case _:
                    _answer(conversation, line)
        except InputError as error:
            if not terminal:
                raise
            click.echo(f"specsim: error: {error}", err=True)


def _lines(terminal: bool) -> Iterator[bytes]:
    """Of stdin; a person is asked for each."""
    while True:
        if terminal:
            click.echo(PROMPT, nl=False, err=True)
        line = sys.stdin.buffer.readline()
        if not line:
            return
        yield line


def _decoded(data: bytes, where: str) -> str:
    """A tokenizer takes nothing but text."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{data[error.start : error.end]!r} is not UTF-8", where=where, hint="send UTF-8") from None


def _answer(conversation: Any, line: str) -> None:
    """Print the answer as it comes. An interrupt ends the answer on a terminal, and all in a script."""
    answer = conversation.say(line)
    try:
        for piece in answer:
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt as end:
        answer.close()
        if isinstance(end, Terminated) or not sys.stdin.isatty():
            raise
        hear_again()
    click.echo()


def _stats(conversation: Any) -> str:
    header = ("turn", "prompt", "cached", "read", "output", "first token", "tokens/s", "end")
    rows = [
        (
            str(number),
            str(turn.prompt),
            str(turn.reused),
            str(turn.prompt - turn.reused),
            str(turn.output),
            show(turn.first_s, "seconds"),
            f"{turn.output / turn.seconds:.3g}",
            turn.finish_reason,
        )
        for number, turn in enumerate(conversation.turns, start=1)
    ]
    return render(header, rows, align="rrrrrrrl")
