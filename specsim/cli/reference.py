"""The command reference, docs/reference.md, written from what the commands say of themselves.

    python -m specsim.cli.reference [ROOT]

ROOT is a checkout (default: this one). The example of a command is the first one in its README or its docs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click

from specsim.cli.main import main
from specsim.cli.question import question_options

PAGE: Final = Path("docs") / "reference.md"
#: commands by what they are for; those that are named nowhere here come last
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "Plan": ("plan", "simulate", "explain"),
    "Compare": ("compare", "ablation", "published"),
    "Ask what if": ("sweep", "upgrade", "breakeven", "memory"),
    "Run": ("run", "chat", "serve", "validate", "export"),
    "Know the machine": ("list", "profile", "profiles", "doctor"),
}
OTHERS: Final = "Others"
QUESTION: Final = "Options that ask a question"
INTRODUCTION: Final = f"""# Command reference

Written by `python -m specsim.cli.reference` from what `specsim COMMAND --help` says. stdout carries data, stderr
progress and errors. The exit status is 0 when done, 1 for no feasible plan or a failed validation, 2 for bad input (one
line that says what, where and what to do), 70 for a bug in specsim. With `SPECSIM_TRACEBACK=1` in the environment an
error comes with its traceback. Quantities have units: `24GiB`, `12GB/s`.

## {QUESTION}

Which models, on which machine, for which work. Every command that plans takes them.
"""

#: an option's flags with its value, and what it does
Row = tuple[str, str]


@click.command()
@question_options
def _question() -> None:
    """Only asked for its options."""


def reference(root: Path) -> str:
    """The whole page, for the checkout at `root`."""
    context = click.Context(main, info_name="specsim")
    left = dict.fromkeys(main.list_commands(context))
    shared, lines = _rows(_question, context), [INTRODUCTION, _table(_rows(_question, context))]
    known = examples(root)
    groups = {title: [name for name in names if name in left] for title, names in GROUPS.items()}
    groups[OTHERS] = [name for name in left if not any(name in names for names in groups.values())]
    for title, names in groups.items():
        if names:
            lines += ["", f"## {title}"]
        for name in names:
            command = main.get_command(context, name)
            assert command is not None
            lines += _command(command, click.Context(command, info_name=name, parent=context), shared, known)
    return "\n".join(lines) + "\n"


def examples(root: Path) -> dict[str, str]:
    """The first command line of each command, by "specsim plan" and the like: in a block of the README, in one of the
    docs, or else between backticks."""
    pages = [root / "README.md", *sorted(page for page in (root / "docs").glob("*.md") if page.name != PAGE.name)]
    texts = [page.read_text(encoding="utf-8").replace("\\\n", " ") for page in pages]
    blocks = [block for text in texts for block in re.findall(r"```\w+\n(.*?)```", text, flags=re.DOTALL)]
    lines = [line for block in blocks for line in re.findall(r"^(?:\$ )?(specsim .*)", block, flags=re.MULTILINE)]
    lines += [span for text in texts for span in re.findall(r"`(specsim [^`\n]+)`", text)]
    lines = [" ".join(line.partition("  #")[0].split()) for line in lines]
    found: dict[str, str] = {}
    for plain in lines:
        words = plain.split()
        for length in (2, 3):  # of a command, and of one in a group
            if len(words) > length:
                found.setdefault(" ".join(words[:length]), plain)
    return {line: line for line in lines} | found  # rather with arguments than without


def _command(
    command: click.Command, context: click.Context, shared: list[Row], known: Mapping[str, str]
) -> Iterator[str]:
    """The section of a command, and those of the commands in it."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, click.Context(inner, info_name=name, parent=context), shared, known)
        return
    path = context.command_path
    yield f"\n### {path}\n"
    yield f"{_help(command)}\n"
    yield f"```text\n{path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    if path in known:
        yield f"For example:\n\n```sh\n{known[path]}\n```\n"
    rows = _rows(command, context)
    own = [row for row in rows if row not in shared]
    if len(rows) - len(own) > 1:
        link = QUESTION.lower().replace(" ", "-")
        different = {flags(row) for row in own} & {flags(row) for row in shared}
        yield f"The [options that ask a question](#{link}){', but for those below' if different else ''}, and:\n"
    else:
        own = rows
    if own:
        yield _table(own)


def flags(row: Row) -> str:
    """The names of an option, without its value."""
    return " ".join(word for word in row[0].replace(",", "").split() if word.startswith("-"))


def _help(command: click.Command) -> str:
    """Its help, each paragraph on one line."""
    paragraphs = (command.help or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _rows(command: click.Command, context: click.Context) -> list[Row]:
    """Its options as --help lists them, but for --help itself."""
    records = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    return [record for record in records if record is not None]


def _table(rows: list[Row]) -> str:
    """As Markdown, in which a bar inside a cell is escaped, even in code."""
    cells = [[cell.replace("|", "\\|").replace("  ", " ") for cell in row] for row in rows]
    return "\n".join(
        ["| option | what it does |", "| --- | --- |", *(f"| `{name}` | {text} |" for name, text in cells)]
    )


if __name__ == "__main__":
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2]
    (checkout / PAGE).write_text(reference(checkout), encoding="utf-8")
