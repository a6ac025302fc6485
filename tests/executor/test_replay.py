"""What was done is simulated once more, as it turned out; a long run in pieces, so that it takes no more memory."""

from __future__ import annotations

import pytest

from executor.checkpoint.checkpoint import open_checkpoint
from executor.job import Wave
from executor.replay import replay
from specsim.answer import Plan
from tests.executor import checkpoints, runs


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, list[Wave]]:
    """Two waves."""
    target = open_checkpoint(checkpoints.make("mixtral", tmp_path_factory.mktemp("pair") / "target", seed=1))
    made = runs.plan(target.architecture.model, gamma=2, batch=3)
    _, job = runs.execute(made, target, runs.prompts(4, 6, 96, shortest=20, longest=40, new=12))
    assert len(job.waves) == 2
    return made, list(job.waves)


def test_pieces_take_as_long_as_the_whole_but_for_what_overlapped_where_they_were_cut(
    done: tuple[Plan, list[Wave]],
) -> None:
    plan, waves = done
    whole, cut = replay(plan, waves, in_turn=True), replay(plan, waves, in_turn=True, tasks=60)
    assert whole.seconds == whole.timeline.makespan
    assert 60 <= len(cut.timeline.spans) < len(whole.timeline.spans) / 3
    assert whole.seconds <= cut.seconds <= 1.1 * whole.seconds


def test_the_first_piece_is_as_in_the_whole(done: tuple[Plan, list[Wave]]) -> None:
    plan, waves = done
    whole, cut = replay(plan, waves, in_turn=True).timeline, replay(plan, waves, in_turn=True, tasks=60).timeline
    ends = {span.name: span.end for span in whole.spans}
    assert [span.name for span in cut.spans] == [span.name for span in whole.spans][: len(cut.spans)]
    assert [span.end for span in cut.spans] == pytest.approx([ends[span.name] for span in cut.spans])


def test_where_nothing_was_done_it_took_no_time(done: tuple[Plan, list[Wave]]) -> None:
    nothing = replay(done[0], [], in_turn=True)
    assert (nothing.seconds, nothing.timeline.spans) == (0.0, ())
