"""Import rules, the docstring of each wing, and the absence of side effects when a module is imported."""

import ast
import graphlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.project import ROOT

SCIENCE = sorted((ROOT / "googlenet").rglob("*.py"))
MODULES = SCIENCE + sorted((ROOT / "pipelines").rglob("*.py"))
WINGS = sorted(path.parent for top in ("googlenet", "pipelines") for path in ROOT.glob(f"{top}/*/__init__.py"))
README = (ROOT / "README.md").read_text()

# Import rules: each room and the other rooms that it may import. All of pipelines may also import pipelines.errors and
# googlenet.
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
    if own.startswith("pipelines"):
        allowed |= {"pipelines.errors"} | {name for name in LAW if name.startswith("googlenet")}
    if own == "pipelines":
        allowed -= {own}  # a command imports no other command
    broken = []
    for name in imports(parsed(source)):
        package = name.partition(".")[0]
        known = package in ("googlenet", "pipelines", "cluster", "tests")
        if (known and room(name) not in allowed) or (package in PACKAGES and own not in PACKAGES[package]):
            broken.append(f"{module} imports {name}")
    return broken


@cache
def parsed(source: str) -> ast.Module:
    """The syntax tree, made once: most modules are looked at by four tests."""
    return ast.parse(source)


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full names of all imported modules, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            module = node.module or ""
            yield from (
                f"{module}.{alias.name}" if is_module(f"{module}.{alias.name}") else module for alias in node.names
            )


@cache
def is_module(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).with_suffix(".py").exists()


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


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
        ("pipelines.job.log", "from cluster.submit import main"),
    ],
)
def test_an_import_against_the_law_is_found(module: str, statement: str) -> None:
    assert len(breaches(module, statement)) == 1


def test_no_module_imports_itself_through_others() -> None:
    graph = {module_of(path): set(imports(parsed(path.read_text()))) for path in MODULES}
    graphlib.TopologicalSorter({name: imported & graph.keys() for name, imported in graph.items()}).prepare()


def test_the_science_needs_few_packages() -> None:
    own = {
        "googlenet",
        "cv2",
        "huggingface_hub",
        "jaxtyping",
        "numpy",
        "PIL",
        "pillow_heif",
        "pyarrow",
        "safetensors",
        "simplejpeg",
        "torch",
        "torchvision",
    }
    known = own | set(sys.stdlib_module_names)
    found = [
        f"{module_of(path)} imports {name}"
        for path in SCIENCE
        for name in imports(parsed(path.read_text()))
        if name.partition(".")[0] not in known
    ]
    assert not found, "\n".join(found)


# What PyTorch, NumPy, OpenCV, Pillow and pytest do not bring.
ABSENT = [
    *("beartype", "huggingface_hub", "hypothesis", "jaxtyping", "matplotlib", "mlflow", "pandas", "pillow_heif"),
    *("psutil", "pyarrow", "pyvips", "ray", "safetensors", "scipy", "simplejpeg", "sklearn", "torchvision", "tyro"),
]
# Weights from a file answer a JPEG.
FILES = """
import io, torch
from PIL import Image
from googlenet import GoogLeNet, load_weights, save_weights
from googlenet.images.decoding import decode_rgb
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
save_weights(sys.argv[1], GoogLeNet(5, width=0.125), SCRATCH_PREPROCESSING)
replica, stream = load_weights(sys.argv[1]), io.BytesIO()
Image.new("RGB", (64, 64)).save(stream, "JPEG")
pixels = torch.tensor(decode_rgb(stream.getvalue())).permute(2, 0, 1)
assert replica.model(replica.preprocessing(pixels[None])).logits.shape == (1, 5)
"""


@pytest.mark.processes
def test_training_and_prediction_need_pytorch_numpy_opencv_and_pillow_alone(tmp_path: Path) -> None:
    """Whoever has a GPU runs the checks for it without installing the rest; files need one or two packages more."""
    checks = "import pytest, benchmarks.gpu\nassert not pytest.main('tests/gpu -m gpu --collect-only -q'.split())"
    code = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n{checks}"
    code += f"\nfor name in ('safetensors', 'simplejpeg'): del sys.modules[name]\n{FILES}"
    command = [sys.executable, "-c", code, str(tmp_path / "x.safetensors")]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    ended = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=False)
    assert not ended.returncode, ended.stdout + ended.stderr
    assert "test_steps_are_those_of_a_cpu[cuda-paper]" in ended.stdout


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


def layout() -> dict[str, str]:
    """The names in the README's layout by their full path, each with the words beside it."""
    [block] = re.findall(r"^```\n(googlenet/.*?)^```", README, re.DOTALL | re.MULTILINE)
    named, top = {}, ""
    for line in block.splitlines():
        name, _, words = line.strip().partition(" ")
        top = top if line.startswith(" ") else name
        named[f"{top}{name}" if line.startswith(" ") else name] = words.strip()
    return named


def test_the_readmes_layout_names_every_wing_and_every_module_outside_of_wings() -> None:
    wings = {f"{wing.relative_to(ROOT)}/" for wing in WINGS}
    modules = {str(path.relative_to(ROOT)) for path in MODULES if path.name != "__init__.py"}
    others = {name for name in modules if not any(name.startswith(wing) for wing in wings)}
    folders = {"googlenet/", "pipelines/", "cluster/", "benchmarks/", "experiments/", "tests/", "docs/"}
    assert layout().keys() == wings | others | folders
    assert all(layout().values()), "a name in the layout without a description"


@pytest.mark.parametrize("folder", ["benchmarks", "experiments"])
def test_a_folders_readme_names_each_of_its_modules_and_nothing_else(folder: str) -> None:
    named = re.findall(r"^\| `(\w+\.py)` \| \w", (ROOT / folder / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in (ROOT / folder).glob("*.py") if path.stem != "__init__")


def test_the_readme_stays_short() -> None:
    assert len(README.splitlines()) < 200


@pytest.mark.parametrize("wing", WINGS, ids=lambda wing: wing.name)
def test_a_wings_docstring_names_each_of_its_modules_and_nothing_else(wing: Path) -> None:
    plan = ast.get_docstring(parsed((wing / "__init__.py").read_text())) or ""
    named = re.findall(r"^- ``(\w+)``: \w", plan, re.MULTILINE)
    assert sorted(named) == sorted(path.stem for path in wing.glob("*.py") if path.stem != "__init__")


@pytest.mark.processes
def test_processes_that_run_no_network_do_without_pytorch() -> None:
    """What feeds the predictors, and four of the five processes of a fit: PyTorch costs each two seconds and 200 MB."""
    modules = [
        "googlenet.images.scaled_image",
        "pipelines.data.shards",
        "pipelines.evaluation.sharded_prediction",
        "pipelines.training.trainer",
        "ray.train.v2.api.data_parallel_trainer",
    ]
    code = f"import sys, importlib\nfor m in {modules}: importlib.import_module(m); print(m, 'torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [f"{module} False" for module in modules]


@pytest.mark.processes
def test_the_kept_models_requirements_are_what_its_code_imports() -> None:
    from pipelines.tracking.models import PACKAGES

    code = "import sys, googlenet.evaluation.ensemble, googlenet.network.weight_files; print(*sorted(sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    own = {name.partition(".")[0] for path in SCIENCE for name in imports(parsed(path.read_text()))}
    loaded = {name.partition(".")[0] for name in ended.stdout.split()} & own
    distributions = {"PIL": "pillow", "cv2": "opencv-python-headless"}
    needed = {distributions.get(name, name) for name in loaded - set(sys.stdlib_module_names) - {"googlenet"}}
    assert needed <= set(PACKAGES)
