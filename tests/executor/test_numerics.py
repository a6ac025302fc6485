"""EXACT: what is computed of a row depends on that row only, however many others there are and wherever it lies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from executor.architecture import Rope
from executor.decoder.numerics import EXACT, FAST, argmax, rms_norm
from executor.decoder.rope import frequencies, rotation
from tests.executor.checkpoints import LLAMA3_ROPE

DTYPES = (torch.float32, torch.bfloat16)


def moved(x: Tensor, elements: int) -> Tensor:
    """A copy of x that lies `elements` elements further from the start of its memory."""
    memory = torch.empty(x.numel() + elements, dtype=x.dtype)
    memory[elements:] = x.flatten()
    return memory[elements:].view(x.shape)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("inputs", "outputs"), [(32, 4), (33, 8), (64, 10), (24, 96), (200, 130), (3584, 200)])
def test_exact_products_of_a_row_depend_on_that_row_only(dtype: torch.dtype, inputs: int, outputs: int) -> None:
    x, w, b = noise(70, inputs).to(dtype), noise(outputs, inputs, seed=1).to(dtype), noise(outputs, seed=2).to(dtype)
    together = EXACT.linear(x, w, b)
    for count in (1, 2, 3, 5, 31, 32, 33, 69):
        assert torch.equal(EXACT.linear(x[-count:], w, b), together[-count:])
    assert torch.equal(EXACT.linear(moved(x[3:9], 5), moved(w, 3), moved(b, 1)), together[3:9])
    neighbours = x.clone()
    neighbours[1:] = torch.nan
    assert torch.equal(EXACT.linear(neighbours, w, b)[0], together[0])
    torch.testing.assert_close(together, functional.linear(x, w, b), rtol=2e-2, atol=2e-4 * inputs)


@pytest.mark.parametrize(("inputs", "outputs"), [(2048, 17), (5000, 100)])
def test_exact_products_are_the_same_where_threads_share_a_sum(inputs: int, outputs: int) -> None:
    x, w, threads = noise(70, inputs), noise(outputs, inputs, seed=1), torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        together = EXACT.linear(x, w)
        assert all(torch.equal(EXACT.linear(x[-count:], w), together[-count:]) for count in (1, 32, 33, 64))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [37, 64 * 11])
def test_exact_silu_does_not_depend_on_where_a_row_lies(dtype: torch.dtype, width: int) -> None:
    x = (8 * noise(70, width)).to(dtype)
    together = EXACT.silu_(x.clone())
    for first in (0, 1, 7, 40, 69):
        assert torch.equal(EXACT.silu_(x[first:].clone()), together[first:])
        by_column = x.T.clone(memory_format=torch.contiguous_format).T
        assert torch.equal(EXACT.silu_(by_column[first:]), together[first:])
    torch.testing.assert_close(together, functional.silu(x))
    assert torch.equal(FAST.silu_(x.clone()), functional.silu(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_do_not_depend_on_the_number_of_rows(dtype: torch.dtype) -> None:
    for shape in ((1500, 24), (1500, 4, 16), (70, 4096)):
        x, w = noise(*shape).to(dtype), noise(shape[-1], seed=1).to(dtype)
        together = rms_norm(x, w, 1e-6)
        for rows in (slice(0, 1), slice(5, 8), slice(37, 70)):
            assert torch.equal(rms_norm(x[rows], w, 1e-6), together[rows])
        wide = x.double()
        expected = wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w
        torch.testing.assert_close(
            together.double(), expected, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=1e-6
        )


def test_rotations_do_not_depend_on_the_number_of_rows() -> None:
    positions = torch.arange(0, 130_000, 1009)
    together = rotation(Rope(10_000.0), 80, positions, torch.float32)
    for first in (1, 50, len(positions) - 1):
        alone = rotation(Rope(10_000.0), 80, positions[first:], torch.float32)
        assert all(torch.equal(a, b[first:]) for a, b in zip(alone, together, strict=True))


def test_the_lowest_of_equal_logits_is_taken() -> None:
    logits = torch.zeros(3, 5000)
    logits[1, [17, 4000]] = 1.0
    logits[2, [4999, 31, 32]] = 2.0
    assert argmax(logits).tolist() == [0, 17, 31]


@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_rope_scaling_is_that_of_transformers(kind: str) -> None:
    config = AutoConfig.for_model("llama", head_dim=64, rope_parameters=LLAMA3_ROPE | {"rope_type": kind})
    expected, attention_scaling = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    rope = Rope(10_000.0, 8.0) if kind == "linear" else Rope(10_000.0, 8.0, low=1.0, high=4.0, original=64)
    assert attention_scaling == 1
    torch.testing.assert_close(frequencies(rope, 64, torch.device("cpu")), expected, rtol=1e-6, atol=0)
