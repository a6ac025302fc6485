"""A plan as one self-contained page: answer, reason, timelines to zoom, pictures, what lost, what to buy, sources.

The page asks nobody for anything: style, script, pictures and data are in it, and its policy forbids all else.
matplotlib takes long to load, so nothing imports this module at start-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Final

from specsim.answer import Plan
from specsim.api import Simulation
from specsim.model import Model
from specsim.planfile import dump_yaml, to_dict
from specsim.planner.explain import Explanation
from specsim.report import sections
from specsim.report.interactive import HINT, timeline_data, timeline_element
from specsim.report.markup import Html, data, picture, table, tag
from specsim.report.memory import memory_picture
from specsim.report.roofline import roofline
from specsim.report.sections import duration, rate
from specsim.units import show

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(plan: Plan, found: Simulation, explanation: Explanation | None = None) -> str:
    """The page as text. With an `explanation` it also says what each resource and the acceptance are worth."""
    first = min(plan.decision.policy.in_flight, plan.case.workload.requests)
    timelines = {"One round in mid-job": found.round, f"Prefill of the first {first} requests": found.prefill}
    elements = [timeline_element(i, *item) for i, item in enumerate(timelines.items())]
    parts = [
        *_answer(plan),
        *_section("What happens when", tag("p", HINT, class_="hint manual"), *elements),
        *_section("What runs where", table(("what", "where"), sections.decisions(plan))),
        *_section(
            "What fills the memories",
            picture("memory", memory_picture(plan), "Bytes by memory, phase and use, beside the budgets"),
            table(sections.MEMORY_HEADERS, sections.memory_rows(plan), numbers=(1, 2, 3, 4)),
            tag("p", _sentence(sections.memory_limit(plan)), class_="hint"),
        ),
        *_section(
            "What bounds it",
            picture("roofline", roofline(plan, found), "Roofs of the machine, and where prefill and decoding lie"),
        ),
        *_section("What lost, and why", _lost(plan)),
        *_section("What to buy next", *_upgrades(plan)),
        *(_section("What it depends on", *_explained(explanation)) if explanation is not None else ()),
        *_section("Taken on trust", *_trust(plan)),
        *_section("The question and its facts", *_facts(plan)),
        _footer(plan),
    ]
    body = tag("body", *parts, data("timelines", [timeline_data(line) for line in timelines.values()]), _script())
    return f"<!doctype html>\n{tag('html', _head(plan), body, lang='en')}\n"


def _head(plan: Plan) -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("link", rel="icon", href="data:,"),  # else a browser asks for one
        tag("title", f"{rate(plan.predicted.tokens_per_second)} tokens/s: {sections.question(plan)}"),
        tag("style", Html(_asset("page.css"))),
    )


def _script() -> Html:
    return tag("script", Html(_asset("timeline.js")))


def _asset(name: str) -> str:
    return (files("specsim.report") / "assets" / name).read_text(encoding="utf-8")


def _section(title: str, *content: Html) -> Iterator[Html]:
    """Nothing where there is no content."""
    if any(content):
        yield tag("section", tag("h2", title), *content)


def _answer(plan: Plan) -> Iterator[Html]:
    predicted = plan.predicted
    yield tag("p", "specsim plan, predicted", class_="kicker")
    yield tag("h1", sections.question(plan))
    yield tag("p", tag("b", rate(predicted.tokens_per_second)), "useful tokens/s", class_="answer")
    yield tag("p", _sentence(f"{sections.choice(plan)}: {predicted.bottleneck}"))
    if (band := sections.band(plan)) is not None:
        yield tag("p", _sentence(band))
    share = predicted.tokens_per_second / predicted.bound_tokens_per_second
    facts = {
        "the job takes": duration(predicted.makespan_s),
        "of which prefill": duration(predicted.prefill_s),
        f"of a roofline of {rate(predicted.bound_tokens_per_second)} tokens/s": f"{share:.0%}",
        "tokens per verify pass": f"{predicted.tokens_per_slot:.4g} in {duration(predicted.slot_s)}",
    }
    yield tag("dl", *(tag("div", tag("dt", what), tag("dd", value)) for what, value in facts.items()), class_="facts")


def _lost(plan: Plan) -> Html:
    """The runners-up below the winner, with bars."""
    best = plan.predicted.tokens_per_second
    rates = [best, *(r.tokens_per_second for r in plan.search.runners_up)]
    told = [(sections.choice(plan), rate(best), "the plan"), *sections.lost(plan)]
    most = max(rates) or 1.0
    rows = [(name, speed, _meter(own / most), why) for (name, speed, why), own in zip(told, rates, strict=True)]
    return table(("plan", "tokens/s", "", "why"), rows, numbers=(1,)) if len(rows) > 1 else Html("")


def _upgrades(plan: Plan) -> Iterator[Html]:
    gains = sections.upgrades(plan)
    if gains:
        most = max(upgrade.gain for upgrade in gains)
        rows = [(f"{u.factor:g}x {u.resource}", f"{u.gain:+.0%}", _meter(u.gain / most)) for u in gains]
        yield table(("change", "at least", ""), rows, numbers=(1,))
        yield tag("p", "With the policy kept and the weights placed anew; a new search may find more.", class_="hint")


def _explained(explanation: Explanation) -> Iterator[Html]:
    yield tag("p", explanation.sentence)
    rows = [(s.change, rate(s.tokens_per_second), f"{s.gain:+.1%}") for s in explanation.sensitivities]
    yield table(("change (re-planned)", "tokens/s", "gain"), rows, numbers=(1, 2))
    yield tag("p", f"Without speculation: {rate(explanation.plain_tokens_per_second)} tokens/s.")


def _trust(plan: Plan) -> Iterator[Html]:
    lines = plan.provenance.assumptions
    if lines:
        yield tag("p", "Neither measured nor from a document: the answer is as good as these are.")
        yield tag("ul", *(tag("li", line) for line in lines), class_="trust")


def _facts(plan: Plan) -> Iterator[Html]:
    case, work = plan.case, plan.case.workload
    rows = [_model("target", case.target)]
    if case.draft is not None:
        rows.append(_model("draft", case.draft))
    if case.acceptance is not None:
        positions = ", ".join(f"{share:g}" for share in case.acceptance.hazards)
        rows.append(("acceptance", positions, f"{case.acceptance.kind}: {case.acceptance.source}"))
    span = f"{work.prompt_tokens_mean:g} prompt tokens ({work.prompt_tokens_min} to {work.prompt_tokens_max})"
    rows.append(("workload", f"{work.requests} x {work.name}", f"{span}, {work.output_tokens} output tokens"))
    yield table(("what", "which", "told"), rows)
    facts = [(fact.field, fact.value, fact.kind, fact.source) for fact in case.machine.facts]
    if facts:
        listed = table(("fact", "value", "kind", "source"), facts)
        yield _folded(f"{len(facts)} facts of the machine, and where they come from", listed)
    yield _folded("The plan file", tag("pre", dump_yaml(to_dict(plan))))


def _model(role: str, model: Model) -> tuple[str, ...]:
    size = f"{model.parameters / 1e9:.3g}e9 parameters, {show(model.weight_bytes, 'bytes')} of {model.dtype}"
    return role, model.name, f"{size}, {model.layers} layers"


def _folded(title: str, content: Html) -> Html:
    return tag("details", tag("summary", title), content)


def _footer(plan: Plan) -> Html:
    search = plan.search
    told = f"{search.candidates} policies, {search.feasible} of them simulated, in {duration(search.seconds)}"
    return tag("footer", f"specsim {plan.provenance.version} looked at {told}; placements by {search.solver}.")


def _meter(share: float) -> Html:
    return tag("span", tag("span", style=f"width:{100 * min(max(share, 0.0), 1.0):.1f}%"), class_="meter")


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."
