"""What docs/devices.md shows of SpecMemo's eight MI250 is what is predicted."""

from __future__ import annotations

import re

import pytest

from specsim import api
from tests.conftest import ROOT

DOC = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_table_of_the_document_is_what_is_predicted() -> None:
    shown = {}
    for draft, batch in (("TinyLlama 1.1B", 0.6), ("", 0.7)):
        (row,) = re.findall(rf"^\| {draft}\s?\| {batch} \| ([\d.]+) \| (1[58]\d) \|", DOC, flags=re.MULTILINE)
        shown[batch] = [float(cell) for cell in row]
    fix = {"strategy": "serial", "stages": 8, "tensor": 1, "refill": False, "gamma": 4}
    found = api.sweep(
        {"batch": [1, 10], "acceptance": [0.6, 0.7]},
        fix=fix,
        jobs=1,
        machine="8xmi250",
        target="llama-2-70b",
        draft="tinyllama-1.1b",
        workload="mt-bench",
    )
    rates = dict(zip(found.points(), (answer.tokens_per_second for answer in found.answers), strict=True))
    for acceptance, (alone, ten) in shown.items():
        assert rates[1, acceptance] == pytest.approx(alone, rel=0.01)
        assert rates[10, acceptance] == pytest.approx(ten, rel=0.01)
