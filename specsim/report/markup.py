"""HTML from Python: text is escaped unless it is markup already, so that no name from a file can become a tag."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from io import StringIO
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.figure import Figure

from specsim.report.style import GRID, INK, LANE, PAPER, QUIET

_VOID: Final = frozenset({"meta", "link", "br", "img"})
#: neutral colours of pictures -> those of the page around them, which differ by day, by night and on paper
_THEME: Final = {INK: "--ink", QUIET: "--quiet", GRID: "--grid", LANE: "--lane", PAPER: "--paper"}
#: of an SVG file: who made it, when, and what it is
_UNSAID: Final = dict.fromkeys(("Creator", "Date", "Format", "Type"))


class Html(str):
    """Markup: put into a page as it stands."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | None) -> Html:
    """An element. `class_` is the attribute class, `data_index` is data-index; one that is None is left out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    opened = "".join(f' {key}="{escape(value)}"' for key, value in given.items())
    inner = "".join(child if isinstance(child, Html) else escape(child) for child in children)
    return Html(f"<{name}{opened}>" if name in _VOID else f"<{name}{opened}>{inner}</{name}>")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> Html:
    """A table that scrolls by itself where the page is narrow; the columns `numbers` are aligned to the right."""
    sides = ["number" if i in numbers else None for i in range(len(headers))]
    head = tag("tr", *(tag("th", name, scope="col", class_=side) for name, side in zip(headers, sides, strict=True)))
    body = [tag("tr", *(tag("td", cell, class_=side) for cell, side in zip(row, sides, strict=True))) for row in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="table")


def data(identifier: str, value: Any) -> Html:
    """A value for the page's script. Nothing in it can end the element that holds it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return tag("script", Html(text), type="application/json", id=identifier)


def picture(name: str, figure: Figure, label: str) -> Html:
    """A figure as an SVG element. Its text is text; its neutral colours are the page's. `name` sets its ids apart."""
    file = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata=_UNSAID)
    text = file.getvalue()
    svg = text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, f"var({variable})")
    return tag("figure", Html(svg))
