"""A plan as a page: all that it says, nothing from elsewhere, and no name that becomes a tag."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from specsim import api
from specsim.answer import Plan
from specsim.hardware import Fact
from specsim.planner.explain import Explanation, Sensitivity
from specsim.report import interactive
from specsim.report.interactive import timeline_data, timeline_element
from specsim.report.markup import Html, data, picture, table, tag
from specsim.report.page import page
from specsim.report.style import heading, new_figure
from specsim.timeline import Span, Timeline, critical_path
from tests.specsim import plans

EVIL = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 1'> $&amp;"
SLOT = Timeline(
    (
        Span("load 0", "h2d", "load", 1.0, 3.0, bytes=8.0),
        Span("ffn 0", "gpu", "ffn", 3.0, 4.0, flops=6.0, bytes=2.0),
        Span("barrier", "gpu", "sync", 4.0, 4.0),
        Span("draft", "gpu.draft", "draft", 1.0, 2.0),
    ),
    ((), (0,), (1,), ()),
)


@cache
def evil_plan() -> Plan:
    """A plan whose every text from a file or the command line tries to be markup."""
    plan = plans.plan()
    case = plan.case
    machine = replace(case.machine, name=EVIL, facts=(Fact(EVIL, EVIL, EVIL, EVIL),))
    assert case.draft is not None
    assert case.acceptance is not None
    case = replace(
        case,
        machine=machine,
        target=replace(case.target, name=EVIL),
        draft=replace(case.draft, name=EVIL),
        workload=replace(case.workload, name=EVIL, title=EVIL),
        acceptance=replace(case.acceptance, source=EVIL),
    )
    runners_up = [msgspec.structs.replace(r, plan=EVIL, reason=EVIL) for r in plan.search.runners_up]
    search = msgspec.structs.replace(plan.search, runners_up=runners_up, solver=EVIL)
    provenance = msgspec.structs.replace(plan.provenance, assumptions=[EVIL], version=EVIL)
    predicted = msgspec.structs.replace(plan.predicted, bottleneck=EVIL)
    return replace(plan, case=case, search=search, provenance=provenance, predicted=predicted)


@cache
def evil_page() -> str:
    explanation = Explanation(EVIL, 1.0, (Sensitivity(EVIL, 2.0, 1.0),), None, 1.0)
    return page(evil_plan(), api.simulate(evil_plan()), explanation)


class Outline(HTMLParser):
    """Counts elements, and keeps those that are open, and every attribute that runs a script or fetches something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.risky: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.risky += [(name, value) for name, value in attrs if name.startswith("on") or name in ("src", "srcset")]
        self.risky += [
            (name, value) for name, value in attrs if name.endswith("href") and not str(value).startswith("#")
        ]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "link", "img", "br"):
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1] == tag
        self.open.pop()


def outline(text: str) -> Outline:
    parser = Outline()
    parser.feed(text)
    parser.close()
    return parser


def test_no_text_from_a_file_becomes_markup() -> None:
    found = outline(evil_page())
    assert found.open == []
    assert found.count["script"] == 2  # the data and the script that draws it
    assert "img" not in found.count
    assert found.risky == [("href", "data:,")]


def test_a_page_asks_nobody_for_anything() -> None:
    text = page(plans.plan(), api.simulate(plans.plan()))
    assert "default-src &#x27;none&#x27;" in text
    assert outline(text).risky == [("href", "data:,")]
    assert all(text.startswith("#", found.end()) for found in re.finditer(r"url\(", text))
    assert "@import" not in text
    assert len(text) < 500_000


def test_a_page_says_what_the_terminal_says() -> None:
    plan = plans.plan()
    text = page(plan, api.simulate(plan))
    for words in (
        f"{plan.predicted.tokens_per_second:.1f}",
        plan.predicted.bottleneck.replace("'", "&#x27;"),
        "What runs where",
        "What fills the memories",
        *plan.search.runners_up[0].reason.split("; "),
        *(line.split(" ")[0] for line in plan.provenance.assumptions),
        *(fact.field for fact in plan.case.machine.facts),
        "schema: specsim.plan/1",
    ):
        assert words in text
    assert "What it depends on" not in text


def test_an_explanation_adds_what_the_plan_depends_on() -> None:
    explanation = Explanation("All waits for the link.", 100.0, (Sensitivity("2x VRAM", 150.0, 0.5),), 0.25, 80.0)
    text = page(plans.plan(), api.simulate(plans.plan()), explanation)
    assert "All waits for the link." in text
    assert '<td>2x VRAM</td><td class="number">150.0</td><td class="number">+50.0%</td>' in text


def test_the_same_plan_gives_the_same_page() -> None:
    plan = plans.plan(gpu=False)
    assert page(plan, api.simulate(plan)) == page(plan, api.simulate(plan))


def test_a_section_without_content_is_left_out() -> None:
    plan = plans.plan()
    bare = replace(plan, search=msgspec.structs.replace(plan.search, runners_up=[], upgrades=[]))
    text = page(bare, api.simulate(bare))
    assert "What lost" not in text
    assert "What to buy" not in text


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "a < b", tag("b", "&"), class_='x"y', data_i=None) == '<p class="x&quot;y">a &lt; b<b>&amp;</b></p>'
    assert tag("meta", http_equiv="x") == '<meta http-equiv="x">'
    assert table(("n",), [("1",)], numbers=(0,)).count('class="number"') == 2


def test_data_for_the_script_cannot_end_its_element() -> None:
    element = data("some", {"name": EVIL})
    assert element.count("</script>") == 1
    assert json.loads(re.sub(r"^<script[^>]*>|</script>$", "", element)) == {"name": EVIL}


def test_a_picture_takes_its_neutral_colours_from_the_page() -> None:
    figure = new_figure(4.0, 1.0)
    heading(figure, EVIL, "below")
    svg = picture("some", figure, EVIL)
    assert isinstance(svg, Html)
    assert "var(--ink)" in svg
    assert "var(--paper)" in svg
    assert "#1a1a1a" not in svg
    assert "<script" not in svg
    assert set(re.findall(r'\bid="(\w+)', svg)) == {"some"}


def columns(found: dict[str, Any], *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(found[name] for name in names), strict=True))


def test_the_script_gets_every_task_that_takes_time_on_a_clock_from_zero() -> None:
    found = timeline_data(SLOT)
    assert found["rows"] == ["GPU", "GPU draft", "PCIe in"]
    assert found["kinds"] == ["ffn", "draft", "load"]
    assert found["end"] == 3.0
    assert columns(found, "name", "row", "kind", "start", "seconds", "bytes", "flops") == [
        ("load 0", 2, 2, 0.0, 2.0, 8.0, 0.0),
        ("draft", 1, 1, 0.0, 1.0, 0.0, 0.0),
        ("ffn 0", 0, 0, 2.0, 1.0, 2.0, 6.0),
    ]
    drawn = [name for i in critical_path(SLOT) if SLOT.spans[i].seconds and (name := SLOT.spans[i].name)]
    assert [found["name"][i] for i in found["critical"]] == drawn == ["load 0", "ffn 0"]


def test_a_long_timeline_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactive, "MOST", 2)
    assert timeline_data(SLOT)["name"] == ["load 0", "draft"]
    assert "The first 2 of 3 tasks." in timeline_element(0, "One slot", SLOT)


def test_a_page_of_the_longest_timelines_is_still_small() -> None:
    spans = tuple(
        Span(f"verify.1/A/L{i:05}/ffn.3", "gpu", "ffn", i / 3, (i + 1) / 3, 1e9 / 7, 1e9 / 3) for i in range(20_000)
    )
    long = Timeline(spans)
    found = replace(api.simulate(plans.plan()), round=long, prefill=long)
    assert 1_000_000 < len(page(plans.plan(), found)) < 2_000_000


def test_an_empty_timeline_is_an_empty_element() -> None:
    assert timeline_data(Timeline(()))["end"] == 0.0
    assert "0 tasks" in timeline_element(0, "Nothing", Timeline(()))
