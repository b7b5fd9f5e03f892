"""The layers import one way only, and nothing happens when a module is imported."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCIENCE = sorted((ROOT / "googlenet").rglob("*.py"))
MODULES = SCIENCE + sorted((ROOT / "pipelines").rglob("*.py"))
WINGS = sorted(path.parent for path in ROOT.glob("pipelines/*/__init__.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py")) + sorted((ROOT / "experiments").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        yield from imported_by(node)


def imported_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute here"
        yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", SCIENCE, ids=lambda path: path.name)
def test_the_science_knows_neither_ray_nor_mlflow_nor_the_pipelines(path: Path) -> None:
    own = {
        "googlenet",
        "cv2",
        "jaxtyping",
        "numpy",
        "PIL",
        "pyarrow",
        "safetensors",
        "simplejpeg",
        "torch",
        "torchmetrics",
        "torchvision",
    }
    assert set(imported(path)) <= own | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name != "tracking"], ids=lambda path: path.name)
def test_mlflow_is_known_to_tracking_alone(path: Path) -> None:
    assert "mlflow" not in set(imported(path))


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "tracking"], ids=lambda path: path.name)
def test_tracking_knows_nothing_of_ray_and_imports_mlflow_only_where_it_speaks_to_it(path: Path) -> None:
    assert "ray" not in set(imported(path))
    at_import = {name for node in ast.parse(path.read_text()).body for name in imported_by(node)}
    # Importing it takes seconds, and every worker would; the model's own code is run by MLflow.
    assert "mlflow" not in at_import or path.name == "ensemble_model.py"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_only_defines(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in tree.body:
        if path.name == "ensemble_model.py" and ast.unparse(node) == "mlflow.models.set_model(EnsembleModel())":
            continue  # MLflow runs this file to get its model
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"{path}:{node.lineno} does something when imported"
        if isinstance(node, ast.If):
            known = ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING")
            assert known, f"{path}:{node.lineno} decides something when imported"


def test_the_readmes_layout_names_every_module() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = [path for path in MODULES + BENCHMARKS if path.name != "__init__.py" and path.parent not in WINGS]
    missing = [str(path.relative_to(ROOT)) for path in shown if path.name not in readme]
    assert not missing


@pytest.mark.parametrize("wing", WINGS, ids=lambda wing: wing.name)
def test_a_wings_docstring_names_each_of_its_modules_and_nothing_else(wing: Path) -> None:
    plan = ast.get_docstring(ast.parse((wing / "__init__.py").read_text())) or ""
    named = re.findall(r"^- ``(\w+)``: \w", plan, re.MULTILINE)
    assert sorted(named) == sorted(path.stem for path in wing.glob("*.py") if path.stem != "__init__")
    assert f"{wing.name}/" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "module", ["pipelines.evaluation.sharded_prediction", "pipelines.data.shards", "googlenet.scaled_image"]
)
def test_what_only_reads_and_scales_images_does_without_pytorch(module: str) -> None:
    """It is imported by the processes that feed the predictors: two seconds and 200 MB each."""
    code = f"import sys, {module}; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_the_kept_models_requirements_are_what_its_code_imports() -> None:
    from pipelines.tracking.models import PACKAGES

    code = "import sys, googlenet.ensemble, googlenet.weight_files; print(*sorted(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    own = {name.partition(".")[0] for path in SCIENCE for name in imported(path)}
    loaded = {name.partition(".")[0] for name in ended.stdout.split()} & own
    distributions = {"PIL": "pillow", "cv2": "opencv-python-headless"}
    needed = {distributions.get(name, name) for name in loaded - set(sys.stdlib_module_names) - {"googlenet"}}
    assert needed <= set(PACKAGES)
