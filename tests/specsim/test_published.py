"""The published figures beside predictions: policies as published, a fit that stands still, and goals that are met."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specsim import machines
from specsim.errors import InputError
from specsim.published import fit, store, summary
from specsim.published.cells import FLEXGEN_BLOCKS, case, cells, policy
from specsim.published.parameters import parameters, predict
from specsim.systems.layers import layer_bytes

VALUES = store.stored().values
TABLE = summary.rows(VALUES, (32,))


def test_policies_are_the_published_ones() -> None:
    cell = next(c for c in cells() if c.key == "specoffload/mixtral-8x22b/samsum")
    chosen = policy(cell)
    assert (chosen.batch, chosen.prefill_batch, chosen.gamma, chosen.draft_batch) == (64, 16, 6, 8)


def test_one_flexgen_batch_per_block_would_take_more_than_the_link_has() -> None:
    cell = next(c for c in cells() if c.key == "flexgen/mixtral-8x7b/humaneval")
    link = machines.assemble(machine="env1").link
    assert link is not None
    seconds = policy(cell).batch * 32 / cell.tokens_per_s
    outside = 32 * layer_bytes(case(cell, 32).target) - 24 * 2**30  # at best, all of VRAM holds weights
    assert 32 * outside / seconds > link.bytes_per_s
    assert 32 * outside / (FLEXGEN_BLOCKS * seconds) < link.bytes_per_s


def test_fitted_parameters_are_within_their_bounds() -> None:
    known = {p.name: p for p in parameters(cells())}
    assert VALUES.keys() == known.keys()
    assert all(known[name].low <= value <= known[name].high for name, value in VALUES.items())


def test_the_stored_fit_is_where_a_fit_stands_still() -> None:
    """A step of 2 % in any one parameter, either way, makes the fit hardly better, and most steps make it worse."""
    free = parameters(cells())
    x = np.log([VALUES[p.name] for p in free])
    low, high = np.log([p.low for p in free]), np.log([p.high for p in free])

    def cost(at: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        return float(np.sum(fit.residuals(np.clip(at, low, high), cells(), free) ** 2)) / 2

    best = cost(x)
    gains = [best - cost(x + sign * 0.02 * np.eye(len(x))[i]) for i in range(len(x)) for sign in (1, -1)]
    assert max(gains) < 0.02 * best
    assert np.mean(np.array(gains) <= 0) > 0.8


def test_the_goals_at_32_tokens_are_met() -> None:
    known, unknown, whole = summary.summaries(TABLE)
    assert known.median_error <= 0.08
    assert unknown.median_error <= 0.08
    assert (whole.right_winners, whole.spearman >= 0.97) == (whole.contests, True)


def test_speed_ups_come_out_near_the_published_ones() -> None:
    for model, published, predicted in summary.speedups(TABLE):
        assert predicted == pytest.approx(published, rel=0.1), model


def test_longer_outputs_share_a_prefill_among_more_tokens() -> None:
    cell = next(c for c in cells() if c.key == "specoffload/mixtral-8x7b/humaneval")
    speeds = [predict(cell, VALUES, tokens).useful_per_s for tokens in (16, 32, 64, 128)]
    assert speeds == sorted(speeds)


def test_a_fit_reads_back_as_it_was_written(tmp_path: Path) -> None:
    found = store.stored()
    store.write(found, tmp_path / "fitted.yaml")
    assert (tmp_path / "fitted.yaml").read_text() == store.path().read_text()


def test_a_broken_file_says_how_to_make_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fitted.yaml").write_text("schema: specsim.fitted/1\n")
    monkeypatch.setattr(store, "path", lambda: tmp_path / "fitted.yaml")
    store.stored.cache_clear()
    with pytest.raises(InputError, match="published --fit"):
        store.stored()
    monkeypatch.undo()
    store.stored.cache_clear()
