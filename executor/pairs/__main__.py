"""python -m executor.pairs: make, train and measure pairs of a target and a draft."""

from __future__ import annotations

import sys

import click

from executor.pairs.commands import pairs
from specsim.errors import SpecsimError


def entry() -> int:
    """Exit status 0 done, 2 bad input (told in one line), 130 after an interrupt."""
    try:
        pairs(prog_name="python -m executor.pairs", standalone_mode=False)
    except SpecsimError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_status
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        click.echo(f"error: {' '.join(error.format_message().split())}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(entry())
