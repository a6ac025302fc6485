"""The layers of the code, proved from its source and in fresh interpreters.

A module may import from its own layer and from those below; no two modules import each other in a circle.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import specsim
from tests.conftest import ROOT, Fresh

#: lowest first; a package stands for all that is in it
LAYERS = (
    {"errors", "units", "here", "records", "wholefile", "bounded"},
    {"hardware", "model", "workload", "acceptance"},
    {"facts", "schema", "check", "yamlfile", "profiles", "machinefile", "machines", "devices"},
    {"case", "decision", "pairing", "partition", "answer", "placementfile", "planfile", "stages"},
    {"attending"},
    {"cost", "positions", "memory", "added"},
    {"schedule", "strategies"},
    {"simulator", "timeline", "energy"},
    {"systems"},
    {"planner"},
    {"whatif"},
    {"validation", "exports"},
    {"question"},
    {"runtime", "report", "api", "doctor"},
    {"published"},
    {"cli"},
    {"__main__"},
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
RUNTIME = {"torch", "transformers", "safetensors", "executor"}
#: what only an extra brings: to run plans, to serve, to spread sweeps over a cluster, to look at a report in a browser
EXTRAS = {"torch", "transformers", "safetensors", "tokenizers", "accelerate"}
EXTRAS |= {"starlette", "uvicorn", "prometheus_client"} | {"dask", "distributed", "ray", "selenium"}
HEAVY = {"numpy", "scipy", "pandas", "matplotlib", "joblib", "pyarrow", "executor"} | EXTRAS


def sources(package: str) -> dict[str, Path]:
    """Dotted name -> file of every module of `package`."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


SPECSIM, EXECUTOR = sources("specsim"), sources("executor")


def nodes(tree: ast.AST, inside_functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if inside_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from nodes(child, inside_functions)


def imports(path: Path, *, inside_functions: bool = True) -> set[str]:
    """The dotted names that a file imports, "package.module.name" for `from package.module import name`."""
    found: set[str] = set()
    for node in nodes(ast.parse(path.read_text(encoding="utf-8")), inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import with its full name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(path: Path) -> set[str]:
    """The modules of specsim that a file imports. One of the lazy names of `specsim` itself is its api."""
    found = set()
    for name in imports(path):
        if name in SPECSIM:
            found.add(name)
        elif name.startswith("specsim.") and name != "specsim.__version__":
            owner = name.rpartition(".")[0]
            found.add("specsim.api" if owner == "specsim" else owner)
    return found


def layer(module: str) -> int:
    """The rank of "specsim.cost.work" is that of cost."""
    name = module.split(".")[1]
    assert name in RANK, f"specsim/{name} has no layer: add it to LAYERS in tests/test_layers.py"
    return RANK[name]


@pytest.mark.parametrize("module", sorted(SPECSIM.keys() - {"specsim"}))
def test_a_module_imports_only_from_its_own_layer_and_below(module: str) -> None:
    above = {other for other in modules(SPECSIM[module]) if layer(other) > layer(module)}
    assert above == set(), f"{module} imports from above: move the code down or the module up"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: modules(path) - {module} for module, path in SPECSIM.items() if module != "specsim"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", sorted(SPECSIM))
def test_specsim_imports_neither_torch_nor_the_executor_when_it_loads(module: str) -> None:
    roots = {name.split(".")[0] for name in imports(SPECSIM[module], inside_functions=False)}
    assert roots & RUNTIME == set()


@pytest.mark.parametrize("module", sorted(EXECUTOR))
def test_the_executor_knows_nothing_of_the_command_line(module: str) -> None:
    assert {name for name in modules(EXECUTOR[module]) if layer(name) >= RANK["cli"]} == set()


def test_no_function_of_the_package_is_hidden_by_a_module() -> None:
    """`import specsim.plan` would replace the function `specsim.plan`, were there such a module."""
    lazy = set(specsim.__all__) - {"__version__"}
    assert {f"specsim.{name}" for name in lazy} & SPECSIM.keys() == set()


@pytest.mark.parametrize(
    "loading",
    [
        pytest.param("import specsim", id="import specsim"),
        pytest.param("import specsim.cli.main as m; m.entry(['--help'])", id="specsim --help"),
        pytest.param("import specsim.cli.main as m; m.entry(['--version'])", id="specsim --version"),
    ],
)
def test_the_door_opens_without_the_heavy_libraries(fresh: Fresh, loading: str) -> None:
    done = fresh("-c", f"{loading}\nimport sys; print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)")
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_all_of_the_planner_is_there_without_the_extras(fresh: Fresh) -> None:
    """Every module of specsim but the script `specsim`, in an interpreter where none of the extras can be imported."""
    story = f"""
import sys, importlib
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
for name in {sorted(SPECSIM.keys() - {"specsim.__main__"})!r}:
    importlib.import_module(name)
"""
    done = fresh("-c", story)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_the_package_loads_no_other_module_of_it(fresh: Fresh) -> None:
    done = fresh("-c", "import sys, specsim; print([m for m in sys.modules if m.startswith('specsim')])")
    assert (done.stdout, done.stderr) == ("['specsim']\n", "")


def test_the_functions_of_the_api_are_fetched_at_first_use(fresh: Fresh) -> None:
    story = """
import sys, types
import specsim, specsim.simulator, specsim.planner
sys.modules["specsim.api"] = types.SimpleNamespace(plan=1, simulate=2, explain=3, read_plan=4)
print(specsim.plan, specsim.simulate, specsim.explain, specsim.read_plan)
"""
    done = fresh("-c", story)
    assert (done.stdout, done.stderr) == ("1 2 3 4\n", "")


def test_a_name_that_the_package_lacks_is_an_attribute_error() -> None:
    assert set(specsim.__all__) <= set(dir(specsim))
    with pytest.raises(AttributeError, match="module 'specsim' has no attribute 'plam'"):
        specsim.plam  # noqa: B018


def test_every_way_of_writing_an_import_is_seen(tmp_path: Path) -> None:
    source = tmp_path / "some.py"
    source.write_text(
        "import specsim.units\nfrom specsim import errors, plan, __version__\n"
        "from specsim.hardware import Gpu\ndef f():\n    import torch.nn\n"
    )
    assert modules(source) == {"specsim.units", "specsim.errors", "specsim.api", "specsim.hardware"}
    assert "torch.nn" in imports(source)
    assert "torch.nn" not in imports(source, inside_functions=False)
