"""Products of many rows: as fast as the library can, and for EXACT only where they give the bits of small tiles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from executor.decoder import products
from executor.decoder.packed import Packed, packable
from executor.decoder.products import MOST_ROWS, TILE, height, invariant, pack_agreeing, product, tiled


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_heights_hold_their_rows_and_waste_few() -> None:
    heights = [height(rows) for rows in range(MOST_ROWS + 1)]
    assert all(rows <= tall == height(tall) for rows, tall in enumerate(heights))
    assert heights[:10] == [*range(9), 16]
    assert max(heights) == MOST_ROWS
    assert all(tall <= 1.25 * rows for rows, tall in enumerate(heights) if rows >= 2 * TILE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("inputs", "outputs"), [(96, 200), (200, 96), (2048, 64), (33, 40)])
def test_a_product_gives_the_bits_of_its_tiles_however_many_rows_it_has(
    dtype: torch.dtype, inputs: int, outputs: int
) -> None:
    x, w = noise(MOST_ROWS + 40, inputs).to(dtype), noise(outputs, inputs, seed=1).to(dtype)
    expected = tiled(x, w)
    torch.testing.assert_close(expected, product(x, w), rtol=2e-2, atol=2e-4 * inputs)
    for rows in (0, 1, 2, 8, 9, 16, 33, 140, 256, len(x)):
        assert torch.equal(invariant(x[:rows], w), expected[:rows])
        assert torch.equal(invariant(x[:rows].T.contiguous().T, w), expected[:rows])


def test_a_product_that_adds_up_in_another_order_is_noticed_and_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def halves(x: Tensor, weight: Tensor) -> Tensor:
        """As a library that deals a sum to two threads."""
        half = x.shape[1] // 2
        return (x[:, :half].float() @ weight[:, :half].float().T + x[:, half:].float() @ weight[:, half:].float().T).to(
            x.dtype
        )

    x, w = noise(16, 400).bfloat16(), noise(20, 400, seed=1).bfloat16()
    expected = invariant(x, w)
    monkeypatch.setattr(products, "product", halves)
    monkeypatch.setenv("SPECSIM_CACHE", str(tmp_path))
    products._agreeing.cache_clear()
    try:
        assert products._agreeing(x.dtype, 20, 400, 16, "rows", torch.get_num_threads()) is None
        assert torch.equal(invariant(x, w), expected)
    finally:
        products._agreeing.cache_clear()


# Packed


@pytest.mark.parametrize(("inputs", "outputs"), [(96, 192), (200, 64), (2048, 128)])
def test_a_packed_product_gives_the_bits_of_tiles_too(
    inputs: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "MOST_WEIGHTS", inputs * 70)  # blocks of 64 rows
    x, w = noise(MOST_ROWS + 40, inputs).bfloat16(), noise(outputs, inputs, seed=1).bfloat16()
    packed, expected = pack_agreeing(w), tiled(x, w)
    assert isinstance(packed, Packed) == packable(w)
    assert tuple(packed.shape) == (outputs, inputs)
    if isinstance(packed, Packed):
        assert len(packed.blocks) == outputs // 64
    for rows in (0, 1, 2, 8, 9, 16, 33, 140, 256, len(x)):
        assert torch.equal(invariant(x[:rows], packed), expected[:rows])
        assert torch.equal(invariant(x[:rows].T.contiguous().T, packed), expected[:rows])
        torch.testing.assert_close(product(x[:rows], packed), expected[:rows], rtol=2e-2, atol=2e-4 * inputs)


def test_what_the_library_cannot_pack_or_only_with_filling_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for weight in (noise(64, 96), noise(40, 96).bfloat16()):
        assert pack_agreeing(weight) is weight
    monkeypatch.setattr(torch.ops, "mkldnn", object())  # as in a build without the library
    weight = noise(64, 96).bfloat16()
    assert pack_agreeing(weight) is weight


def test_weights_whose_packed_bits_would_be_others_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPECSIM_CACHE", str(tmp_path))
    weight = noise(64, 96).bfloat16()
    monkeypatch.setattr(products, "packed_product", lambda x, w: x.float() @ weight.float().T)
    monkeypatch.setattr(products, "packable", lambda w: True)
    monkeypatch.setattr(products, "pack", lambda w, rows=64: Packed((w,), 64, tuple(w.shape), w.dtype))
    products._agreeing.cache_clear()
    try:
        assert pack_agreeing(weight) is weight
    finally:
        products._agreeing.cache_clear()


def test_packed_rows_do_not_depend_on_their_batch_even_where_no_height_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = noise(100, 96).bfloat16(), noise(64, 96, seed=1).bfloat16()
    packed = pack_agreeing(w)
    monkeypatch.setattr(products, "_agreeing", lambda *_: None)  # as with another number of threads
    whole = invariant(x, packed)
    assert all(torch.equal(invariant(x[first : first + 7], packed), whole[first : first + 7]) for first in (0, 30, 93))
