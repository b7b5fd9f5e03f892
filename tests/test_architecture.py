"""Import rules, and the absence of side effects when a module is imported."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

from tests.modules import MODULES, SCIENCE, WINGS, imports, module_of, parsed
from tests.project import ROOT

# Import rules: each room and the other rooms that it may import. All of pipelines but pipelines.errors may also import
# that and googlenet.
SCIENCE_BASE = {"googlenet.shapes", "googlenet.randomness", "googlenet.network", "googlenet.images"}
STAGE = {"pipelines.run", "pipelines.job"}
LAW: dict[str, set[str]] = {
    "googlenet.shapes": set(),
    "googlenet.randomness": set(),
    "googlenet.network": {"googlenet.shapes", "googlenet.randomness"},
    "googlenet.images": {"googlenet.shapes", "googlenet.randomness"},
    "googlenet.training": SCIENCE_BASE,
    "googlenet.evaluation": SCIENCE_BASE,
    "googlenet": SCIENCE_BASE | {"googlenet.evaluation"},
    "pipelines.errors": set(),
    "pipelines.run": set(),
    "pipelines.job": {"pipelines.run"},
    "pipelines.data": STAGE,
    "pipelines.training": STAGE,
    "pipelines.evaluation": STAGE,
    "pipelines.report": STAGE,
    "pipelines.export": STAGE | {"pipelines.report"},
    "pipelines.tracking": STAGE | {"pipelines.report"},
    # The commands, which nothing may import.
    "pipelines": {f"pipelines.{wing.name}" for wing in WINGS if wing.parent.name == "pipelines"},
}
# Packages that only some rooms may import.
PACKAGES = {
    "ray": {"pipelines.job", "pipelines.data", "pipelines.training", "pipelines.evaluation"},
    "mlflow": {"pipelines.tracking"},
}


def room(module: str) -> str:
    """Return the longest name in ``LAW`` that is ``module`` or contains it."""
    parts = module.split(".")
    return next((name for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in LAW), parts[0])


def breaches(module: str, source: str) -> list[str]:
    """Return the imports of ``module`` that break the rules."""
    own = room(module)
    allowed = LAW[own] | {own}
    if own.startswith("pipelines") and own != "pipelines.errors":
        allowed |= {"pipelines.errors"} | {name for name in LAW if name.startswith("googlenet")}
    if own == "pipelines":
        allowed -= {own}  # a command imports no other command
    broken = []
    for name in imports(parsed(source)):
        package = name.partition(".")[0]
        known = package in ("googlenet", "pipelines", "cluster", "tests", "benchmarks", "experiments")
        if (known and room(name) not in allowed) or (package in PACKAGES and own not in PACKAGES[package]):
            broken.append(f"{module} imports {name}")
    return broken


def test_every_module_keeps_the_law_of_imports() -> None:
    found = [breach for path in MODULES for breach in breaches(module_of(path), path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("googlenet.evaluation.crops", "import ray"),
        ("googlenet.evaluation.crops", "from pipelines.run.storage import Storage"),
        ("googlenet.training.loop", "from googlenet.evaluation import crops"),
        ("googlenet.network.model", "from googlenet.images.jpeg import decode"),
        ("googlenet.randomness", "from googlenet import GoogLeNet"),
        ("pipelines.run.storage", "from pipelines.job.console import say"),
        ("pipelines.data.prepare", "from pipelines.training import plan"),
        ("pipelines.report.write", "def f():\n    from pipelines.evaluation.evaluate import evaluate"),
        ("pipelines.report.write", "import ray.data"),
        ("pipelines.evaluation.evaluate", "from pipelines.tracking.publish import publish"),
        ("pipelines.evaluation.evaluate", "import mlflow"),
        ("pipelines.tracking.follower", "import ray"),
        ("pipelines.train_ensemble", "from pipelines.prepare_dataset import Arguments"),
        ("pipelines.training.plan", "import pipelines.review"),
        ("pipelines.errors", "from pipelines.run.storage import Storage"),
        ("pipelines.errors", "import googlenet.shapes"),
        ("pipelines.job.log", "from cluster.submit import main"),
        ("pipelines.job.log", "from benchmarks.measure import print_circumstances"),
        ("googlenet.network.model", "import experiments.views"),
    ],
)
def test_an_import_against_the_law_is_found(module: str, statement: str) -> None:
    assert len(breaches(module, statement)) == 1


@pytest.mark.parametrize("folder", ["benchmarks", "cluster", "experiments"])
def test_what_is_outside_of_both_packages_imports_no_command_either(folder: str) -> None:
    paths = sorted((ROOT / folder).glob("*.py"))
    imported = {name for path in paths for name in imports(parsed(path.read_text()))}
    assert [name for name in sorted(imported) if room(name) == "pipelines"] == []


def test_a_wings_init_holds_its_docstring_alone() -> None:
    assert [wing for wing in WINGS if len(parsed((wing / "__init__.py").read_text()).body) != 1] == []


def test_no_module_imports_itself_through_others() -> None:
    graph = {module_of(path): set(imports(parsed(path.read_text()))) for path in MODULES}
    graphlib.TopologicalSorter({name: imported & graph.keys() for name, imported in graph.items()}).prepare()


def test_annotations_are_of_jaxtyping_in_one_module_alone() -> None:
    assert [module_of(path) for path in SCIENCE if "jaxtyping" in imports(parsed(path.read_text()))] == [
        "googlenet.shapes"
    ]


def test_tracking_imports_mlflow_only_in_functions() -> None:
    # Importing MLflow takes seconds, in every worker; the model's own code is run by MLflow.
    tracking = [path for path in MODULES if path.parent.name == "tracking" and path.name != "ensemble_model.py"]
    found = [
        f"{module_of(path)} imports {name}"
        for path in tracking
        for node in parsed(path.read_text()).body
        for name in ([] if hasattr(node, "body") else imports(node))
        if name.startswith("mlflow")
    ]
    assert tracking
    assert not found, "\n".join(found)


def test_the_name_of_a_tag_in_mlflow_has_one_meaning() -> None:
    sources = [path.read_text() for path in sorted((ROOT / "pipelines/tracking").glob("*.py"))]
    defined = [line for source in sources for line in re.findall(r"^[A-Z_, ]*_TAG\b[A-Z_, ]* = ", source, re.MULTILINE)]
    names = [name for line in defined for name in re.findall(r"\w+_TAG\b", line)]
    assert len(names) > 10
    assert len(names) == len(set(names))


def more_than_definitions(path: Path, source: str) -> list[str]:
    """What a module lacks, or does when it is imported."""
    tree = parsed(source)
    found = [] if ast.get_docstring(tree) else [f"{path} has no docstring"]
    for node in tree.body:
        if path.name == "ensemble_model.py" and ast.unparse(node) == "mlflow.models.set_model(EnsembleModel())":
            continue  # MLflow runs this file to get its model
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
            found.append(f"{path}:{node.lineno} has a side effect when imported")
        if isinstance(node, ast.If) and ast.unparse(node.test) not in ("__name__ == '__main__'", "TYPE_CHECKING"):
            found.append(f"{path}:{node.lineno} branches when imported")
    return found


def test_every_module_only_defines() -> None:
    found = [line for path in MODULES for line in more_than_definitions(path, path.read_text())]
    assert not found, "\n".join(found)
    assert more_than_definitions(Path("a.py"), "print()\nif x: y = 1") == [
        "a.py has no docstring",
        "a.py:1 has a side effect when imported",
        "a.py:2 branches when imported",
    ]
