"""Commands of the documentation, run as written where that takes seconds, else on few images with a short recipe."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

import pytest
from mlflow import MlflowClient

from googlenet.evaluation.cascade import Stop, stages_of
from googlenet.evaluation.kept_budget import KeptBudget
from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.data.class_list import read_class_list
from pipelines.run.named_recipes import load_recipe
from tests.commands import run_script
from tests.googlenet.network.test_weight_files import caffe_arrays, npz
from tests.hub_server import TOKEN, hub_of
from tests.options_of_commands import is_submitted, is_submitted_by_ray, prepares
from tests.pipelines.data.archives import write_imagenet
from tests.prepared import predicting_here, training_here, trying_here
from tests.project import ROOT
from tests.servers import BIN, with_tools

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

SHORT = "--replicas 1 --epochs 1 --policies 1 --crop-px 42"
NARROW = f"{SHORT} --width 0.125"

# The README first: the commands of the other pages use its runs.
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "cluster/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def readme_commands() -> list[str]:
    """The commands of all pages in order, each once."""
    text = "".join(page.read_text() for page in PAGES)
    # An indented line continues the one before it.
    found = re.findall(r"^( *)```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    unindented = [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]
    blocks = [re.sub(r"( \\)?\n  ", " ", block) for block in unindented]
    return list(dict.fromkeys(line.strip() for block in blocks for line in block.splitlines() if line.strip()))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path, empty_store: Path) -> dict[str, str]:
    """Values of the pages' placeholders and relative paths."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(empty_store, folder / "mlflow.db")
    (folder / "bvlc_googlenet.npz").write_bytes(npz(caffe_arrays(classes=3)))
    write_imagenet(folder / "archives")
    (folder / "classes").write_text("class_0\nclass_1\nclass_2\n")
    photos = Path(shutil.copytree(photo_folder, folder / "photos"))
    for path in photos.glob("val/*/*"):
        if int(path.stem) >= 5:  # one predictor suffices for the rest
            new = folder / "new_photos" / path.relative_to(photos)
            new.parent.mkdir(parents=True, exist_ok=True)
            path.rename(new)
    return {
        "NEW_PHOTOS": str(folder / "new_photos"),
        "PHOTOS": str(photos),
        "IMAGENET": str(folder / "archives"),
        "CLASSES": str(folder / "classes"),
        " bvlc ": f" {folder}/bvlc_googlenet.npz ",  # the tests have no network
        "runs/": f"{folder}/",
    }


def run(command: str, places: dict[str, str], options: str = "") -> str:
    """The output of a command, which has to succeed."""
    for placeholder, value in places.items():
        command = command.replace(placeholder, value)
    words = shlex.split(f"{command} {options}", comments=True)
    if words[0] == "python" and words[1].startswith("pipelines/"):
        # An evaluation of external weights predicts on the cluster, the others in this process, where all trials and
        # trainings are, too: to start workers and predictors takes several times as long. test_jobs.py trains and
        # evaluates by the README's command on a cluster.
        is_on_cluster = "--weights" in words
        stages = (trying_here, training_here) if is_on_cluster else (trying_here, training_here, predicting_here)
        with ExitStack() as here:
            for stage in stages:
                here.enter_context(stage())
            ended = run_script(*words[1:])
        assert ended.code == 0, ended.stdout + ended.stderr
        return ended.stdout
    return in_bash(f"{command} {options}")


def in_bash(command: str) -> str:
    ended = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=with_tools({}), capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def _evaluates(places: dict[str, str]) -> Callable[[str], None]:
    """Return the check of evaluations: of errors, or of answers for images without labels."""

    def check(command: str) -> None:
        if "--coverage" in command:
            _keep_calibration(Path(places["runs/"]) / "mine")
        if "--budget" in command or "best:" in command:
            _keep_budget(Path(places["runs/"]) / "mine")
        decided = "--policies" in command or "--budget" in command
        short = "--policies 1" if "--data" in command and not decided else ""
        short += " --crop-px 42" if "--weights" in command else ""
        # The pages say NAME-xxxxxxxx.
        answers = r"/evaluations/(new_)?photos-[0-9a-f]{8}/answers/top5\.csv"
        expected = answers if "--unlabelled" in command else "top-1 error %"
        assert re.search(expected, run(command, places, short))

    return check


def _keep_calibration(run: Path) -> None:
    """Write what a run with more validation images than these few would keep."""
    report = json.loads((run / "report/report.json").read_text())
    digests, policies = report["ensemble"]["weights_digests"], map(str, report["ensemble"]["policies"])
    ones = dict.fromkeys(policies, 1.0)
    scores, ranks = {name: [0.0] * 50 for name in ones}, {name: [0] * 50 for name in ones}
    kept = KeptCalibration(tuple(digests), "", 50, ones, ones, scores, ranks)
    (run / "calibration.json").write_text(json.dumps(kept.to_dict()))


def _keep_budget(run: Path) -> None:
    digests = json.loads((run / "report/report.json").read_text())["ensemble"]["weights_digests"]
    stages, ones = stages_of(len(digests), 144), (1.0,) * 144
    order, stop = tuple(range(144)), Stop(0.5, len(stages) - 1)
    kept = KeptBudget(tuple(digests), "", 50, order, stages, ones[: len(stages)], ones, {"balanced": stop})
    (run / "budget.json").write_text(json.dumps(kept.to_dict()))


@pytest.fixture
def checks(places: dict[str, str], ray_cluster: str) -> dict[str, Callable[[str], None]]:
    """The check of each command by its beginning. They run in the order of the pages: some use the runs of others."""

    def prints(text: str, options: str = "") -> Callable[[str], None]:
        def check(command: str) -> None:
            assert text in run(command, places, options)

        return check

    def dry_run(command: str) -> None:
        command = command.replace("runs/mine", "runs/planned")  # that one holds another, shorter recipe
        prints(" GB memory each, 2 at once, 5 waiting", "--crop-px 42 --width 0.125")(command)

    def finetune(command: str) -> None:
        out = run(command, places, f"{SHORT} --models none")
        assert "classifier re-initialised" not in out
        assert "models  crops" in out

    def demo(_command: str) -> None:
        words = f"--data {places['PHOTOS']} {NARROW} --models none"
        # What make would run, without another start of Python.
        # The README's own command for a folder finds its run trained by this one.
        made = in_bash(f"make -n -o .venv/stamp demo BIN={BIN} RUN_DIR=runs/mine ARGS='{words}'")
        assert "report:" in run(made.strip().removeprefix(f"{BIN}/"), places)

    def replay(command: str) -> None:
        command = command.replace("http://SERVER:5000", f"sqlite:///{places['runs/']}other.db")
        prints("is in MLflow at")(command)

    def again(command: str) -> None:
        mine = Path(places["runs/"]) / "mine"
        store = f"sqlite:///{mine.parent}/mlflow.db"
        client = MlflowClient(store)
        experiment = client.get_experiment_by_name("googlenet-ensemble").experiment_id
        [found] = [
            run.info.run_id
            for run in client.search_runs([experiment], "tags.googlenet_role = 'ensemble'")
            if run.data.tags["run_directory"] == str(mine)
        ]
        # Exactly as it was: without a word about differences, and with the same weights in the end.
        out = run(command.replace("ID", found), places, f"--tracking-uri {store} --models none")
        assert "differs from runs:/" not in out
        assert json.loads((mine.parent / "again/run.json").read_text())["given_recipe"] == f"runs:/{found}"
        weights = "replicas/0/weights.safetensors"
        assert (mine.parent / "again" / weights).read_bytes() == (mine / weights).read_bytes()

    def make_class_list(command: str) -> None:
        file = Path(places["runs/"]) / "made_classes"
        python, option, code, into, name = shlex.split(command)
        assert (python, option, into, name) == ("python", "-c", ">", "CLASSES")
        with file.open("w") as stream, redirect_stdout(stream):
            exec(code, {})  # noqa: S102  # in this process, which has imported torchvision
        assert len(read_class_list(str(file))) == 1000

    def only_planned(command: str) -> None:
        run(command.replace("make", "make -n"), {})

    return {
        "make demo": demo,
        "make setup": only_planned,
        "make quick": only_planned,
        "make test": only_planned,  # this very process
        "make mutants": only_planned,  # test_mutants.py
        "make lint": only_planned,
        ".venv/bin/pre-commit install": lambda _command: None,  # test_working_here.py
        "make multihost": only_planned,  # tests/multihost
        "make gpu-check": only_planned,  # tests/gpu, test_benchmarks.py
        "make ui": only_planned,  # tests/browser/test_pages.py
        ". .venv/bin/activate": lambda _command: None,
        "python -c": make_class_list,
        "python -m googlenet": lambda _command: None,  # tests/googlenet/network/test_complexity.py
        "python pipelines/train_ensemble.py --recipe demo --help": prints("--sampling-seed"),
        "python pipelines/train_ensemble.py --recipe demo --data PHOTOS --run-dir runs/mine --dry-run": dry_run,
        # Another command of the pages sends its models to MLflow.
        "python pipelines/train_ensemble.py --recipe demo": prints("models  crops", f"{NARROW} --models none"),
        # tests/pipelines/test_students.py trains one
        "python pipelines/train_ensemble.py --recipe distil": prints("forward passes of the teacher", "--dry-run"),
        "python pipelines/train_ensemble.py --recipe paper": prints(
            " GB memory each, 2 at once, 5 waiting", "--crop-px 42 --batch-size 2"
        ),
        "python pipelines/train_ensemble.py --recipe finetune": finetune,
        "python pipelines/train_ensemble.py --recipe runs:/ID": again,
        "python pipelines/replay_to_mlflow.py": replay,
        "python pipelines/compare_runs.py": prints("paired"),
        "python pipelines/export_ensemble.py": _exports(places),
        "pip install -c constraints.txt 'ray[default]'": lambda _command: None,  # so does `make setup`
        # tests/pipelines/tracking/test_served_model.py, with the page's own server and request
        "export MLFLOW_TRACKING_URI": lambda _command: None,
        "mlflow models serve": lambda _command: None,
        "base64 < PHOTO": lambda _command: None,
        # Its options are read; another command of the pages prepares archives of ImageNet.
        "python pipelines/prepare_dataset.py --data /imagenet": prepares,
        "python pipelines/prepare_dataset.py": prints("images of 3 classes"),
        "python pipelines/evaluate_ensemble.py": _evaluates(places),
        **_cluster_checks(places),
    }


def _exports(places: dict[str, str]) -> Callable[[str], None]:
    def export(command: str) -> None:
        with hub_of(Path(places["runs/"]) / "hub") as (address, _), pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_ENDPOINT", address)
            patch.setenv("HF_TOKEN", TOKEN)
            for kind in ("onnx", "pt2"):  # test_graphs.py computes with real ones, which take seconds
                patch.setattr(f"pipelines.export.graphs._{kind}", lambda *_: b"graph")
            out = run(command.replace(" ensemble.", f" {places['runs/']}ensemble."), places)
        assert "1 replica, 3 classes" in out

    return export


def _cluster_checks(places: dict[str, str]) -> dict[str, Callable[[str], None]]:
    token = Path(places["runs/"]) / ".ray/auth_token"

    def make_token(command: str) -> None:
        run(f"HOME={places['runs/']} {command}", {})
        assert len(token.read_text()) >= 32

    def hide_token(command: str) -> None:
        run(f"export HOME={places['runs/']}; {command}", {})
        assert token.stat().st_mode & 0o077 == 0

    return {
        "ray get-auth-token --generate": make_token,
        "chmod 600 ~/.ray/auth_token": hide_token,
        "export RAY_AUTH_MODE=token": lambda _command: None,
        # Their options are read; test_jobs.py and test_runtime_env.py run such commands, from a clean clone.
        "ray job submit --address": is_submitted_by_ray,
        "python cluster/submit.py": is_submitted,
    }


@pytest.mark.parametrize("command", readme_commands())
def test_the_readmes_command_runs(command: str, checks: dict[str, Callable[[str], None]]) -> None:
    matching = [check for beginning, check in checks.items() if command.startswith(beginning)]
    assert matching, f"the documentation shows a command that no test runs: {command}"
    matching[0](command)


def test_the_recipes_that_the_pages_name_exist() -> None:
    for name in re.findall(r"--recipe (\w+)", "".join(page.read_text() for page in PAGES)):
        if name not in ("FILE", "runs"):
            load_recipe(name)
