"""The imports that must never exist, read from the source; new modules are covered unasked."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "hotoven"


def imports_of(path: Path) -> set[str]:
    """Full names of all that a file imports; "a.b.c" for `from a.b import c`.

    Imports inside functions count.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            names |= {f"{dots}{node.module or ''}.{alias.name}" for alias in node.names}
    return names


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): imports_of(path) for path in sorted(SOURCE.rglob("*.py"))}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def reached_from(module: str) -> set[str]:
    """All that a module imports, itself or through our other modules."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        for name in MODULES[todo.pop()] - seen:
            seen.add(name)
            # `name` is a module or a thing in one. The root gathers names for users: not followed.
            owner = name if name in MODULES else name.rpartition(".")[0]
            if owner in MODULES and owner != "hotoven":
                todo.append(owner)
    return seen


RULES = [
    ("hotoven.types", ["hotoven"]),
    ("hotoven.palette", ["hotoven"]),
    ("hotoven.kernels", ["hotoven"]),
    ("hotoven.storage", ["jax"]),
    ("hotoven.trees", ["hotoven.envs", "hotoven.levels", "hotoven.learners", "hotoven.evaluation"]),
    (
        "hotoven.envs",
        [
            "hotoven.learners",
            "hotoven.agents",
            "hotoven.mechanisms",
            "hotoven.evaluation",
            "hotoven.report",
            "hotoven.studies",
        ],
    ),
    ("hotoven.learners", ["hotoven.envs", "hotoven.studies"]),
    ("hotoven.mechanisms", ["hotoven.learners", "hotoven.envs"]),
    ("hotoven.evaluation.prediction", ["jax"]),
    ("hotoven.evaluation.bootstrap", ["jax"]),
    ("hotoven.evaluation.promise", ["jax"]),
    ("hotoven.evaluation.alarms", ["jax"]),
    ("hotoven.evaluation.roc_bootstrap", ["jax"]),
    ("hotoven.evaluation.head", ["jax"]),
    ("hotoven.evaluation.scores", ["jax"]),
    ("hotoven.evaluation.coherence", ["jax"]),
    ("hotoven.evaluation.knowing", ["jax"]),
    (
        "hotoven.report",
        ["hotoven.learners", "hotoven.agents", "hotoven.mechanisms", "hotoven.studies"],
    ),
    ("hotoven.web", ["hotoven"]),
    (
        "hotoven.play",
        [
            "hotoven.web",
            "hotoven.learners",
            "hotoven.agents",
            "hotoven.mechanisms",
            "hotoven.evaluation",
            "hotoven.report",
            "hotoven.studies",
        ],
    ),
    (
        "hotoven.watch",
        [
            "hotoven.web",
            "hotoven.learners",
            "hotoven.agents",
            "hotoven.mechanisms",
            "hotoven.report",
            "hotoven.studies",
        ],
    ),
]


@pytest.mark.parametrize(("importer", "forbidden"), RULES, ids=[rule[0] for rule in RULES])
def test_a_layer_never_reaches_what_comes_after_it(importer: str, forbidden: list[str]):
    modules = [module for module in MODULES if within(module, importer)]
    assert modules, f"{importer} is gone: change the rule"
    for module in modules:
        wrong = {name for name in reached_from(module) for one in forbidden if within(name, one)}
        assert not wrong, f"{module} reaches {', '.join(sorted(wrong))}"


@pytest.mark.parametrize(
    "library",
    ["ray", "tyro", "http.server", "gymnasium", "starlette", "uvicorn", "websockets", "plotly"],
)
def test_a_heavy_library_is_imported_by_one_module_at_most(library: str):
    users = [m for m, names in MODULES.items() if any(within(name, library) for name in names)]
    assert len(users) <= 1, f"{library} is imported by {', '.join(users)}"


def test_nothing_is_pickled():
    for module, names in MODULES.items():
        for library in ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"):
            assert not any(within(name, library) for name in names), f"{module} imports {library}"


def test_imports_are_absolute():
    for module, names in MODULES.items():
        assert not [name for name in names if name.startswith(".")], module


def test_every_module_says_what_it_is_for():
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if tree.body:
            assert ast.get_docstring(tree), f"{path.name} opens with no docstring"


def test_the_reader_of_imports_reads_every_form(tmp_path: Path):
    file = tmp_path / "sample.py"
    file.write_text(
        "import jax.numpy as jnp, os\n"
        "from hotoven.envs import make as m\n"
        "from . import near\n"
        "def f():\n    from ray import tune\n"
    )
    assert imports_of(file) == {"jax.numpy", "os", "hotoven.envs.make", "..near", "ray.tune"}
