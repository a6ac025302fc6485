"""Training the demo pair: what it reads, what it holds out, and that a box of seconds gives a whole pair."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from executor.checkpoint.checkpoint import open_checkpoint
from executor.pairs.commands import pairs
from executor.pairs.corpus import END, Corpus, cut_prompts, encode, standard_library, train_tokenizer
from executor.pairs.train import PROMPTS


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return standard_library()


def test_one_file_in_twenty_is_held_out(corpus: Corpus) -> None:
    assert corpus.train.keys().isdisjoint(corpus.held_out)
    assert 0.03 < len(corpus.held_out) / (len(corpus.train) + len(corpus.held_out)) < 0.07
    assert {"ast.py", "json/decoder.py"} < corpus.train.keys() | corpus.held_out.keys()
    assert not any("test" in name.split("/") or "_sysconfigdata" in name for name in corpus.train)
    assert corpus == standard_library()


def test_the_tokenizer_ends_files_and_the_prompts_come_from_whole_lines(corpus: Corpus) -> None:
    some = Corpus(dict(list(corpus.train.items())[:20]), corpus.held_out)
    tokenizer = train_tokenizer(some, 512)
    assert (tokenizer.eos_token_id, len(tokenizer)) == (0, 512)
    assert encode(tokenizer, {"a": "x", "b": "y"}).count(0) == 2
    assert tokenizer.decode(encode(tokenizer, {"a": "été\n"})) == f"été\n{END}"
    prompts = cut_prompts(tokenizer, some.held_out, 32, seed=0)
    assert prompts == cut_prompts(tokenizer, some.held_out, 32, seed=0)
    assert len({prompt["id"] for prompt in prompts}) == 32
    for prompt in prompts:
        name, line = prompt["id"].rsplit(":", 1)
        rest = "".join(some.held_out[name].splitlines(keepends=True)[int(line) - 1 :])
        assert rest.startswith(prompt["prompt"])
        assert 48 <= len(tokenizer.encode(prompt["prompt"])) <= 100


@pytest.mark.slow
def test_seconds_of_training_give_a_pair_that_can_be_measured(tmp_path: Path) -> None:
    done = CliRunner().invoke(pairs, ["train", "-o", str(tmp_path / "demo"), "--minutes", "0.2"])
    assert done.exit_code == 0, done.output
    for name in ("target", "draft"):
        assert open_checkpoint(tmp_path / "demo" / name).architecture.eos == (0,)
    done = CliRunner().invoke(pairs, ["agreement", str(tmp_path / "demo"), "--prompts", "2", "--new-tokens", "8"])
    assert json.loads(done.stdout)["tokens"] <= 16
    assert len((tmp_path / "demo" / "prompts.jsonl").read_text().splitlines()) == PROMPTS
