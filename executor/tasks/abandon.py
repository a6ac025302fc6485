"""A wave is broken off: what its tasks have left for each other goes, and what counts is brought to where it lasts."""

from __future__ import annotations

import torch

from executor.tasks.attention import send_home
from executor.tasks.context import Context
from executor.tasks.draft import DraftContext


def abandon(c: Context, drafts: DraftContext | None) -> None:
    """No task runs any more. Caches that visit go home, as a pass may have ended before they did; what a pass that has
    not ended wrote to them lies behind the committed positions, and is written again before it is read."""
    if c.devices.cuda:
        torch.cuda.synchronize(c.devices.gpu)
    for key in list(c.visitors):
        send_home(c, key)
    c.passes.clear()
    c.reads.clear()
    c.rings.forget()
    if drafts is not None:
        drafts.shares.clear()
        drafts.under_way.clear()
    if c.devices.cuda:
        torch.cuda.empty_cache()
