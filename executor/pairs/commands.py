"""The commands of `python -m executor.pairs`. stdout carries one JSON object, stderr how far it is."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from executor.architecture import TORCH_DTYPE
from executor.pairs.agreement import acceptance, agreement, load, matches
from executor.pairs.calibrate import Calibration, calibrate
from executor.pairs.make import check_new, check_room, make, plan_pair
from executor.pairs.train import train
from executor.prompts import read_prompts
from executor.tokenizer import load_tokenizer
from specsim.errors import InputError
from specsim.model import DTYPE_BYTES, read_config
from specsim.units import parse, show

DIRECTORY = click.Path(path_type=Path)
SHARE = click.FloatRange(0, 1)
COUNT = click.IntRange(min=1)


@click.group()
def pairs() -> None:
    """Pairs of a target and a draft that predicts it."""


@pairs.command("make")
@click.option("-o", "--output", "directory", type=DIRECTORY, required=True, help="A new directory.")
@click.option("--agreement", "wanted", type=SHARE, help="Share of greedy tokens on which the pair is to agree.")
@click.option("--noise", type=SHARE, help="The dial itself: 0 agrees on every token, 1 by chance. No calibration.")
@click.option("--hidden", type=COUNT, default=1024, show_default=True)
@click.option("--layers", type=COUNT, default=16, show_default=True)
@click.option("--ffn", type=COUNT, default=3584, show_default=True, help="Width of an expert.")
@click.option("--experts", type=COUNT, default=8, show_default=True, help="1 makes a dense target.")
@click.option("--top-k", type=COUNT, default=2, show_default=True, help="Experts of a token.")
@click.option("--vocab", type=click.IntRange(min=2), default=32000, show_default=True)
@click.option("--heads", type=COUNT, default=16, show_default=True)
@click.option("--kv-heads", type=COUNT, default=4, show_default=True)
@click.option("--draft-layers", type=COUNT, help="Default: a quarter of the target's.")
@click.option("--draft-ratio", type=click.FloatRange(min=1), help="How many times smaller the draft is to be.")
@click.option("--dtype", type=click.Choice(list(DTYPE_BYTES)), default="bfloat16", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--shard-size", default="512MiB", show_default=True)
def make_command(
    directory: Path,
    wanted: float | None,
    noise: float | None,
    hidden: int,
    layers: int,
    ffn: int,
    experts: int,
    top_k: int,
    vocab: int,
    heads: int,
    kv_heads: int,
    draft_layers: int | None,
    draft_ratio: float | None,
    dtype: str,
    seed: int,
    shard_size: str,
) -> None:
    """Write random checkpoints of any size, whose draft predicts its target as often as asked."""
    if draft_layers is not None and draft_ratio is not None:
        raise InputError("give either --draft-layers or --draft-ratio, not both")
    sizes = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": ffn,
        "num_local_experts": experts,
        "num_experts_per_tok": top_k if experts > 1 else 1,
        "vocab_size": vocab,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "torch_dtype": dtype,
    }
    shard_bytes = int(parse(shard_size, "bytes", where="--shard-size"))
    pair = plan_pair(sizes, draft_layers=draft_layers, draft_ratio=draft_ratio)
    check_room(directory, pair)  # before minutes of calibration
    found: Calibration | None = None
    if wanted is not None and noise is None:
        found = calibrate(pair, wanted, seed=seed, say=lambda what: _say(f"calibrating: {what}"))
        noise = found.noise
    elif wanted is not None or noise is None:
        raise InputError("give either --agreement or --noise", hint="such as --agreement 0.7")
    make(directory, pair, noise=noise, seed=seed, shard_bytes=shard_bytes, say=lambda what: _say(f"writing: {what}"))
    _clear()
    result = {
        "target_bytes": pair.target.weight_bytes,
        "draft_bytes": pair.draft.weight_bytes,
        "ratio": round(pair.ratio, 2),
        "draft_layers": pair.draft.layers,
        "noise": noise,
        "agreement": found and round(found.agreement, 3),
        "measured_on": found and ("a narrow likeness" if found.likeness else "the pair"),
    }
    click.echo(json.dumps(result))


@pairs.command("train")
@click.option("-o", "--output", "directory", type=DIRECTORY, required=True)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=24.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def train_command(directory: Path, minutes: float, seed: int) -> None:
    """Train the demo pair on the standard library's source, in a box of so many minutes."""
    check_new(directory)
    train(directory, minutes=minutes, seed=seed)


@pairs.command("agreement")
@click.argument("directory", type=DIRECTORY)
@click.option("--prompts", "limit", type=COUNT, default=32, show_default=True, help="The first ones of prompts.jsonl.")
@click.option("--new-tokens", type=COUNT, default=64, show_default=True, help="Of each prompt.")
@click.option("--gamma", type=COUNT, default=4, show_default=True, help="Draft length of `acceptance`.")
def agreement_command(directory: Path, limit: int, new_tokens: int, gamma: int) -> None:
    """Measure how often DIRECTORY/draft predicts DIRECTORY/target on the text that the target writes.

    `agreement` is the share of all new tokens; `acceptance` lists, for each position of a draft, the share of the
    rounds reaching it in which it is accepted. Both models are loaded whole.
    """
    models = [read_config(directory / name) for name in ("target", "draft")]
    needed = sum(model.weight_bytes for model in models)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        what = f"the pair takes {show(needed, 'bytes')} of memory, and there are {show(memory, 'bytes')}"
        raise InputError(what, where=str(directory), hint="measure a smaller pair, or a run's own acceptance")
    requests = read_prompts(
        directory / "prompts.jsonl",
        tokenizer=load_tokenizer(directory / "target"),
        vocab=models[0].vocab,
        positions=models[0].max_positions,
        max_new_tokens=new_tokens,
        limit=limit,
    )
    target, draft = (load(directory / model.name, TORCH_DTYPE[model.dtype]) for model in models)
    found = matches(target, draft, [list(request.prompt) for request in requests], new_tokens)
    result = {
        "agreement": round(agreement(found), 4),
        "acceptance": [share and round(share, 4) for share in acceptance(found, gamma)],
        "prompts": len(found),
        "tokens": sum(map(len, found)),
    }
    click.echo(json.dumps(result))


def _say(what: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{what}")
        sys.stderr.flush()


def _clear() -> None:
    _say("")
