"""Packages that parts of the project need: few for the science, no PyTorch where no network runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.modules import SCIENCE, imports, module_of, parsed
from tests.project import ROOT


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


@pytest.mark.processes
def test_processes_that_run_no_network_do_without_pytorch() -> None:
    """What feeds the predictors, and three of the four processes of a fit: PyTorch costs each two seconds, 200 MB."""
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
