"""A loaded or a throttled machine is told from a quiet one, by its own counters and by how samples go."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from executor.profile.noise import throttled, watched


def readings(*values: float | None) -> Callable[[], float | None]:
    """A counter that is looked at so many times."""
    return iter(values).__next__


@pytest.mark.parametrize(
    ("busy", "own", "noise"),
    [
        ((100.0, 118.0), (5.0, 22.5), {}),  # 18 s of cores busy in 10 s, of them 17.5 by this process
        ((100.0, 120.0), (5.0, 15.0), {"host": "noisy: other programs kept 1.0 cores busy"}),
        ((None, None), (5.0, 6.0), {}),
    ],
)
def test_what_cores_do_beside_this_process_is_noise(
    busy: tuple[float | None, ...], own: tuple[float, ...], noise: dict[str, str]
) -> None:
    found: dict[str, str] = {}
    with watched("host", found, busy=readings(*busy), own=readings(*own), clock=readings(0.0, 10.0)):  # type: ignore[arg-type]
        pass
    assert found == noise


def test_probes_that_end_slower_than_they_began_tell_of_a_throttled_machine() -> None:
    steady, slowing = (1.0,) * 6, (1.0, 1.0, 1.1, 1.1, 1.25, 1.25)
    found: dict[str, str] = {}
    throttled("host", found, {"a": steady, "b": steady, "c": slowing})
    assert found == {}
    throttled("host", found, {"a": slowing, "b": slowing, "c": steady})
    assert found == {"host": "noisy: 25% slower at the end than at the beginning: throttled, or disturbed"}


def test_too_few_rounds_have_no_beginning_and_end() -> None:
    found: dict[str, str] = {}
    throttled("host", found, {"a": (1.0, 2.0, 3.0)})
    assert found == {}


def test_two_kinds_of_noise_stand_side_by_side() -> None:
    found = {"host": "noisy: other programs kept 0.5 cores busy"}
    throttled("host", found, {"a": (1.0, 1.0, 1.0, 2.0, 2.0, 2.0)})
    assert found["host"].startswith("noisy: other programs kept 0.5 cores busy; 100% slower")
