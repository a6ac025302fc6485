"""One sequence's keys and values."""

from __future__ import annotations

import pytest
import torch

from executor.decoder.cache import Segment, SequenceCache, write
from tests.executor.decoder_stories import load


def test_rows_are_written_at_their_positions_and_nowhere_else() -> None:
    model = load("llama")  # 2 layers, 2 KV heads of size 8
    cache = SequenceCache(model.arch, capacity=6)
    assert [tuple(tensor.shape) for tensor in cache.tensors()] == [(2, 6, 8)] * 4
    for tensor in cache.tensors():
        tensor.fill_(-1)
    k, v = torch.rand(3, 2, 8), torch.rand(3, 2, 8)
    for _ in range(2):  # the second time changes nothing
        write(cache.layer(1), k, v, Segment(first=10, count=3, start=2))
        keys, values = cache.layer(1)
        assert torch.equal(keys[:, 2:5], k.transpose(0, 1))
        assert torch.equal(values[:, 2:5], v.transpose(0, 1))
        assert (keys[:, [0, 1, 5]] == -1).all()
        assert (cache.layer(0)[0] == -1).all()
    assert cache.length == 0  # what is valid is the caller's to say


@pytest.mark.parametrize("segment", [Segment(0, 1, 6), Segment(0, 3, 4)])
def test_a_cache_that_is_too_small_is_an_error(segment: Segment) -> None:
    cache = SequenceCache(load("llama").arch, capacity=6)
    rows = torch.rand(segment.count, 2, 8)
    with pytest.raises(ValueError, match=r"^position 6 in a cache of 6 positions$"):
        write(cache.layer(0), rows, rows, segment)


def test_each_layer_may_lie_on_its_own_device() -> None:
    cache = SequenceCache(load("llama").arch, 6, [torch.device("cpu"), torch.device("meta")])
    assert [tensor.device.type for tensor in cache.tensors()] == ["cpu", "cpu", "meta", "meta"]
