"""The GPU and the way to it: its own probes are the processor's; here are the copies between RAM and VRAM.

Written for one NVIDIA or ROCm card as torch sees it; the tests, which run without one, do not reach this file.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final

import torch

from executor.profile.analysis import Measured, rate_fact, reached, time_fact
from executor.profile.sampling import Probe, Samples, estimate
from specsim.units import MiB, show

_LARGE: Final = int(256 * MiB)
_SMALL: Final = 4096

#: keys of the probes: direction, and whether the RAM side is page-locked
_H2D, _D2H, _PAGEABLE, _LATENCY = "h2d pinned", "d2h pinned", "h2d pageable", "h2d small"


def copy_probes(device: torch.device) -> dict[Hashable, Probe]:
    """Copies of 256 MiB each way from pinned memory, one from pageable memory, and a small one."""
    pinned = torch.zeros(_LARGE, dtype=torch.uint8).pin_memory()
    pageable = torch.zeros(_LARGE, dtype=torch.uint8)
    above = torch.zeros(_LARGE, dtype=torch.uint8, device=device)
    runs = {
        _H2D: lambda: above.copy_(pinned, non_blocking=True),
        _D2H: lambda: pinned.copy_(above, non_blocking=True),
        _PAGEABLE: lambda: above.copy_(pageable),
        _LATENCY: lambda: above[:_SMALL].copy_(pinned[:_SMALL], non_blocking=True),
    }
    return {key: Probe(run, finish=lambda: torch.cuda.synchronize(device)) for key, run in runs.items()}


def link_facts(samples: Mapping[Hashable, Samples]) -> dict[str, Measured]:
    """The facts of the link. It has one bandwidth for both directions: that to the GPU, the way of the weights."""
    up, down, pageable = (estimate(samples[key]) for key in (_H2D, _D2H, _PAGEABLE))
    back = show(_LARGE / down.value, "bytes/s")
    size = show(_LARGE, "bytes")
    how = f"pinned copies of {size} to the GPU; back they reach {back}"
    share = min(up.value / pageable.value, 1.0)
    return {
        "bandwidth": rate_fact(_LARGE, up, how),
        "efficiency": reached("the bandwidth", up.n),
        "pageable_efficiency": rate_fact(share * pageable.value, pageable, f"pageable copies of {size} to the GPU"),
        "latency": time_fact(estimate(samples[_LATENCY]), "a pinned copy of 4 KiB, its start and its end"),
    }
