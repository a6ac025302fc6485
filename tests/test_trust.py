"""Nothing that is read can run code: no unpickling, no code of checkpoints, no text evaluated (docs/security.md)."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Fresh
from tests.executor.checkpoints import make
from tests.executor.prompt_stories import make_tokenizer

SOURCES = sorted(file for folder in ("specsim", "executor") for file in (ROOT / folder).rglob("*.py"))
#: modules that make objects, and so run code, of what they read
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
#: functions that do so, or that evaluate text; yaml.load among them, as it depends on its loader
LOADERS = {"torch.load", "np.load", "numpy.load", "joblib.load", "pd.read_pickle", "yaml.load", "yaml.unsafe_load"}
EVALUATES = {"eval", "exec", "compile", "__import__"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_source_has_a_way_to_run_what_it_reads(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} & UNPICKLERS == set()
    for name, call in calls(tree):
        assert name not in LOADERS | EVALUATES, f"line {call.lineno}"
        said = {word.arg: word.value for word in call.keywords}
        if trusted := said.get("trust_remote_code"):
            assert ast.unparse(trusted) == "False", f"line {call.lineno}"
        if shell := said.get("shell"):
            assert ast.unparse(shell) == "False", f"line {call.lineno}"


def test_a_checkpoint_that_brings_code_is_run_without_it(fresh: Fresh, tmp_path: Path) -> None:
    """In an interpreter of its own, so that nothing is loaded before."""
    directory, mark = make("llama", tmp_path / "evil"), tmp_path / "mark"
    make_tokenizer(directory)
    code = f"open({str(mark)!r}, 'w').close()\nclass Evil: pass\n"
    for name in ("evil.py", "modeling_evil.py", "tokenization_evil.py", "configuration_evil.py"):
        (directory / name).write_text(code)
    (directory / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
    for name, made in (("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")):
        said = json.loads((directory / name).read_text())
        said["auto_map"] = {made: "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
        (directory / name).write_text(json.dumps(said))
    story = f"""
from executor.checkpoint.checkpoint import open_checkpoint
from executor.tokenizer import load_tokenizer
print(len(open_checkpoint({str(directory)!r}).tensors), len(load_tokenizer({str(directory)!r}).encode("a b")))
"""
    done = fresh("-c", story)
    assert (done.returncode, done.stdout) == (0, "21 3\n"), done.stderr
    assert not mark.exists()
