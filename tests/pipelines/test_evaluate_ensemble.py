"""Tests of evaluations of external weights, and of a run's replicas on other images."""

import csv
import io
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image

from googlenet import Ensemble, GoogLeNet, load_weights
from googlenet.evaluation.crops import chosen_policy
from googlenet.evaluation.kept_budget import KeptBudget
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import to_safetensors
from pipelines import evaluate_ensemble
from pipelines.data.sources import images_to_evaluate
from pipelines.errors import UserError
from pipelines.evaluate_ensemble import Arguments, evaluate_elsewhere, evaluate_weights, judge_apart
from pipelines.evaluation import external_weights
from pipelines.evaluation.evaluate import evaluate_run
from pipelines.report.drawing import svg
from pipelines.report.figures import figures
from pipelines.run.budget import write_budget
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.weights import weights_digests
from tests.commands import run_script
from tests.hub_server import hub_of
from tests.others_files import unchanged

pytestmark = pytest.mark.timeout(200)
CLASSES = ["unseen_a", "class_2", "class_0", "unseen_b", "class_1", "unseen_c"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = GoogLeNet(len(CLASSES), "bn", False, 0.125)
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING))
    return path


def centre_crop(path: Path, crop: int) -> torch.Tensor:
    """Return (1, 3, crop, crop): shorter side to 8/7 of the crop, bilinear with antialiasing, then the middle."""
    image = Image.open(path).convert("RGB")
    scale = crop * 8 // 7
    width, height = (round(side * scale / min(image.size)) for side in image.size)
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    square_left, square_top = (width - scale) // 2, (height - scale) // 2
    left, top = square_left + (scale - crop) // 2, square_top + (scale - crop) // 2
    pixels = np.array(scaled.crop((left, top, left + crop, top + crop)))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def test_a_run_without_a_finished_replica_is_refused_before_images_are_prepared(
    finished_run: Path, tiny_recipe: Recipe, photo_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run / "dataset", tmp_path / "run/dataset")
    run = Storage.at(str(tmp_path / "run"))
    with pytest.raises(UserError, match=r"no replica of .*/run is finished; run train_ensemble"):
        evaluate_elsewhere(run, tiny_recipe, Arguments(run.root, str(photo_folder)))
    assert not run.exists("evaluations")
    with pytest.raises(UserError, match="must be in a folder, got embedded"):
        evaluate_elsewhere(Storage.at(str(finished_run)), tiny_recipe, Arguments(run.root, "embedded", unlabelled=True))


def test_images_that_the_run_was_trained_with_are_refused_before_anything_starts(
    prepared_run: Path, tiny_recipe: Recipe, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Storage.at(str(shutil.copytree(prepared_run, tmp_path / "run")))
    run.write("replicas/0/weights.safetensors", b"finished")
    arguments = Arguments(run.root, str(photo_folder / "train"))
    with pytest.raises(UserError, match=r"^24 of the 24 images in .*/train are training images of .*/run"):
        evaluate_elsewhere(run, tiny_recipe, arguments)
    with pytest.raises(UserError, match="must be in a folder"):
        evaluate_elsewhere(run, tiny_recipe, replace(arguments, data="embedded", unlabelled=True))
    assert "without a temperature: the run keeps none" in capsys.readouterr().out
    assert not run.exists("evaluations")


def test_views_are_not_judged_on_the_images_that_they_were_chosen_on(
    prepared_run: Path, tiny_recipe: Recipe, photo_folder: Path, tmp_path: Path
) -> None:
    run = Storage.at(str(shutil.copytree(prepared_run, tmp_path / "run")))
    run.write("replicas/0/weights.safetensors", b"finished")
    ones = (1.0,) * 144
    order = tuple(range(143, -1, -1))
    write_budget(run, KeptBudget(weights_digests(run, [0]), "", 42, order, ((1, 1),), (1.0,), ones, {}))
    for policy in ("best:3", chosen_policy([143, 142, 141])):
        arguments = Arguments(run.root, str(photo_folder / "val"), policies=(1, policy))
        with pytest.raises(UserError, match=r"^--policies best:3: these views were chosen on validation images"):
            evaluate_elsewhere(run, tiny_recipe, arguments)
    assert not run.exists("evaluations")


def test_weights_with_a_calibration_beside_them_answer_as_the_ensemble_of_these_files(
    ray_cluster: str, predictions_here: None, finished_run: Path, photo_folder: Path, tmp_path: Path
) -> None:
    files = sorted(finished_run.glob("replicas/*/weights.safetensors"))
    photos = photo_folder / "val/class_0"
    arguments = Arguments(
        str(tmp_path / "run"), str(photos), tuple(map(str, files)), policies=(1,), unlabelled=True, mlflow=False
    )
    assert "probabilities have the temperature" in evaluate_weights(arguments)
    rows = list(csv.DictReader((tmp_path / "run/answers/top5.csv").read_text().splitlines()))
    ensemble = Ensemble.load(files)
    found = [float(row["probability_1"]) for row in rows]
    for calibrated, differs in ((True, False), (False, True)):
        answers = [ensemble.answers(photos / row["image_id"], 1, calibrated=calibrated) for row in rows]
        expected = [answer["probability_1"] for answer in answers]
        assert (found != pytest.approx(expected, abs=1e-5)) == differs
    assert "probabilities have" not in evaluate_weights(replace(arguments, calibrated=False))


def test_a_model_of_more_classes_is_evaluated_on_a_folder_that_holds_some(
    ray_cluster: str, predictions_here: None, photo_folder: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    run = tmp_path / "run"
    arguments = Arguments(
        run_dir=str(run),
        data=str(photo_folder / "val"),
        weights=(str(weights),),
        classes=str(tmp_path / "classes.txt"),
        policies=(1, 10),
        crop_px=35,
        mlflow=False,
    )
    assert evaluate_weights(arguments).endswith(f"report: {run}/report/index.html\nMLflow: not sent (--no-mlflow)")
    network = load_weights(weights)
    wrong = []
    for path in sorted((photo_folder / "val").rglob("*.jpg")):
        with torch.no_grad():
            logits = network.model(network.preprocessing(centre_crop(path, 35))).logits[0]
        wrong.append(CLASSES[logits.argmax()] != path.parent.name)
    report = json.loads((run / "report/report.json").read_text())
    table = {(row["models"], row["crops"]): row for row in report["table"]}
    assert set(table) == {(1, 1), (1, 10)}
    assert table[1, 1]["top1_error"] == pytest.approx(100 * np.mean(wrong))
    assert (report["images"], report["classes"]) == (42, 6)
    with pytest.raises(UserError, match="a different evaluation"):
        evaluate_weights(replace(arguments, policies=(1,)))


def test_gpus_that_no_node_has_are_refused_before_the_images_are_prepared(
    ray_cluster: str, photo_folder: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    images, classes = str(photo_folder / "val"), str(tmp_path / "classes.txt")
    arguments = Arguments(str(tmp_path / "run"), images, (str(weights),), classes, crop_px=35, gpus_per_predictor=1.0)
    with pytest.raises(UserError, match="--gpus-per-predictor 1: no node has a GPU"):
        evaluate_weights(arguments)
    assert not (tmp_path / "run/dataset").exists()


def test_weights_without_class_names_ask_for_them(
    ray_cluster: str, photo_folder: Path, weights: Path, tmp_path: Path
) -> None:
    arguments = Arguments(str(tmp_path / "run"), str(photo_folder / "val"), (str(weights),), crop_px=35)
    with pytest.raises(UserError, match=r"6 outputs.*3 classes.*--classes"):
        evaluate_weights(arguments)


@pytest.mark.parametrize("listed", [0, 5])
@pytest.mark.parametrize("name", ["bvlc", "torchvision:googlenet"])
def test_published_weights_for_other_classes_are_refused_before_their_download(
    photo_folder: Path, tmp_path: Path, name: str, listed: int
) -> None:
    (tmp_path / "five.txt").write_text("".join(f"class_{number}\n" for number in range(5)))
    classes = str(tmp_path / "five.txt") if listed else ""
    arguments = Arguments(str(tmp_path / "run"), str(photo_folder / "val"), (name,), classes)
    expected = f"--classes {classes} names 5" if listed else f"{photo_folder}/val has 3 classes"
    with pytest.raises(UserError, match=f"^{name} has 1,000 outputs, {expected}: "):
        evaluate_weights(arguments)
    assert not (tmp_path / "run").exists()


def test_images_are_listed_once_also_for_published_weights(
    photo_folder: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    monkeypatch.setattr(external_weights, "outputs_of_weights", lambda _: 3)  # folders of 1,000 classes take long
    monkeypatch.setattr(evaluate_ensemble, "each_file", lambda _: [str(weights)])
    monkeypatch.setattr(
        evaluate_ensemble, "images_to_evaluate", lambda *given: listed.append(given) or images_to_evaluate(*given)
    )
    with pytest.raises(UserError, match=r"foreign.safetensors has 6 outputs.*3 classes"):
        evaluate_weights(Arguments(str(tmp_path / "run"), str(photo_folder / "val"), ("bvlc",), crop_px=35))
    assert len(listed) == 1


def test_broken_photographs_of_something_else_are_told_before_anything_is_evaluated(
    ray_cluster: str, prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Storage.at(str(shutil.copytree(prepared_run, tmp_path / "run")))
    (tmp_path / "others").mkdir()
    (tmp_path / "others/torn.jpg").write_bytes(b"torn")
    monkeypatch.setattr(evaluate_ensemble, "evaluate_run", lambda *_: pytest.fail("it is evaluated"))
    with pytest.raises(UserError, match=r"in .*/others cannot be decoded or read"):
        judge_apart(run, tiny_recipe, Arguments(run.root, ood=str(tmp_path / "others")))


def test_images_without_labels_need_names_for_the_models_outputs(
    photo_folder: Path, weights: Path, tmp_path: Path
) -> None:
    arguments = Arguments(str(tmp_path / "run"), str(photo_folder), (str(weights),), crop_px=35, unlabelled=True)
    with pytest.raises(UserError, match="--classes FILE"):
        evaluate_weights(arguments)


def test_weights_of_this_project_bring_their_crop_size_and_disagreement_is_refused(
    ray_cluster: str, predictions_here: None, photo_folder: Path, finished_run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    files = tuple(str(finished_run / f"replicas/{k}/weights.safetensors") for k in range(2))
    arguments = Arguments(str(tmp_path / "run"), str(photo_folder), files, policies=(1,), mlflow=False)
    with pytest.raises(UserError, match=r"crop_px.*84.*35"):
        evaluate_weights(replace(arguments, crop_px=84))
    monkeypatch.setattr("sys.argv", ["first"])
    evaluate_weights(arguments)
    page = (tmp_path / "run/report/index.html").read_text()
    assert f"<dt>weights</dt><dd>{', '.join(files)}</dd>" in page
    assert all(f"<dt>{name}</dt>" in page for name in ("date", "command", "processor"))
    ours, theirs = (json.loads((run / "report/report.json").read_text()) for run in (tmp_path / "run", finished_run))
    assert ours["ensemble"]["crop_px"] == 35
    singles = [[r["rows"][0]["top1_error"] for r in report["replicas"][:2]] for report in (ours, theirs)]
    assert singles[0] == singles[1]
    # Who finds the predictions has measured nothing; who makes them again has.
    for predicting in ("first", "second"):
        monkeypatch.setattr("sys.argv", ["second"])
        evaluate_weights(replace(arguments, set_penalty=0.01))
        report = json.loads((tmp_path / "run/report/report.json").read_text())
        assert report["evaluated_by"]["command"] == predicting
        shutil.rmtree(tmp_path / "run/predictions")


def test_a_class_folder_that_the_model_lacks_is_named(photo_folder: Path) -> None:
    with pytest.raises(UserError, match="class_1"):
        images_to_evaluate(str(photo_folder), ("class_0", "class_2"))


def test_a_folder_with_a_validation_part_is_evaluated_on_that(photo_folder: Path) -> None:
    _, listing = images_to_evaluate(str(photo_folder), ())
    assert len(listing.splits["val"]) == 42
    assert all(file.image_id.startswith("val/") for file in listing.splits["val"])


def test_a_repository_on_the_hub_stands_for_each_of_its_replicas(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, classes in (("a", 3), ("b", 4)):
        model = GoogLeNet(classes, "bn", False, 0.125)
        (tmp_path / "hub/models/me/two").mkdir(parents=True, exist_ok=True)
        data = to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING)
        (tmp_path / f"hub/models/me/two/{name}.safetensors").write_bytes(data)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    arguments = Arguments(str(tmp_path / "run"), str(photo_folder), ("hf://me/two",), policies=(1,), crop_px=35)
    with hub_of(tmp_path / "hub") as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(UserError, match=r"^hf://me/two/b.safetensors has 4 outputs, .* has 3 classes"):
            evaluate_weights(arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no weights at .*; the name bvlc downloads .*license: .*unrestricted use"),
        (b"junk", "not a complete safetensors file"),
    ],
)
def test_weights_that_cannot_be_read_are_named(
    tmp_path: Path, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        evaluate_weights(Arguments(str(tmp_path / "run"), str(tmp_path), (str(path),)))
    assert str(path) in str(error.value)
    # A download of 54 MB, and the import of PyTorch, are told before they begin.
    assert (f"reading the weights {path} ...\n" in capsys.readouterr().out) == (content is not None)


def test_a_run_is_evaluated_on_images_that_it_never_saw_and_with_the_users_own_scales(
    ray_cluster: str, predictions_here: None, finished_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    folder = tmp_path / "other" / "class_2"
    folder.mkdir(parents=True)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (40, 40, 200)).save(buffer, "JPEG")
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(buffer.getvalue())
    store = f"sqlite:///{tmp_path}/mlflow.db"
    arguments = Arguments(str(run), str(tmp_path / "other"), policies=(1, "best:3", "40+50"), tracking_uri=store)
    table = evaluate_elsewhere(Storage.at(str(run)), tiny_recipe, arguments)
    (folder_of_report,) = (run / "evaluations").glob("other-*")
    report = json.loads((folder_of_report / "report/report.json").read_text())
    assert (report["images"], report["classes"]) == (3, 3)
    best = chosen_policy(json.loads((run / "budget.json").read_text())["view_order"][:3])
    assert [(row["models"], row["crops"], row["policy"]) for row in report["table"]] == [
        (models, crops, policy) for models in (1, 2, 3) for crops, policy in ((1, "1"), (3, best), (72, "40+50"))
    ]
    picture = svg(figures(report)["error_by_models"], "error_by_models")
    assert all(f">{label}</text>" in picture for label in ("3 crops (best)", "72 crops (40+50 px)"))
    assert "| 3 | 3 (best) | 9 |" in (folder_of_report / "report/report.md").read_text()
    assert "| 3 | 72 (40+50 px) | 216 |" in (folder_of_report / "report/report.md").read_text()
    assert str(folder_of_report) in table
    assert f"the evaluation is in MLflow at {store}" in table
    # The folder has more images now: they are evaluated, too.
    (folder / "3.jpg").write_bytes(buffer.getvalue())
    evaluate_elsewhere(Storage.at(str(run)), tiny_recipe, arguments)
    reports = [json.loads(path.read_text()) for path in run.glob("evaluations/other-*/report/report.json")]
    assert sorted(report["images"] for report in reports) == [3, 4]


def test_a_run_of_somebody_else_is_evaluated_into_a_directory_of_ones_own(
    ray_cluster: str, predictions_here: None, finished_run: Path, tiny_recipe: Recipe, photo_folder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    theirs, own = tmp_path / "theirs", tmp_path / "own/evaluation"
    shutil.copytree(finished_run, theirs / "run")
    run = Storage.at(str(theirs / "run"))
    arguments = Arguments(run.root, str(photo_folder / "val"), policies=(1,), output_dir=str(own), predictors=1)
    with unchanged(theirs):
        text = evaluate_elsewhere(run, tiny_recipe, arguments)
    ours, original = (json.loads((path / "report/report.json").read_text()) for path in (own, finished_run))
    assert [row["top1_error"] for row in ours["table"] if row["crops"] == 1] == [
        row["top1_error"] for row in original["table"] if row["crops"] == 1
    ]
    assert f"the evaluation is in MLflow at sqlite:///{tmp_path}/own/mlflow.db" in text
    with pytest.raises(
        UserError, match=r"policies: was \[1\], is now \[10\]\nUse .*, or choose another --output-dir\.$"
    ):
        evaluate_elsewhere(run, tiny_recipe, replace(arguments, policies=(10,)))


def test_damaged_weights_of_a_replica_are_named_with_what_to_do(
    ray_cluster: str, finished_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "replicas/1/weights.safetensors").write_bytes(b"rotten")
    with pytest.raises(
        UserError, match=r"replicas/1/weights\.safetensors: not a complete .*; delete it, and train_ensemble"
    ):
        evaluate_run(Storage.at(str(run)), tiny_recipe)


def test_the_command_adds_photographs_of_something_else_to_the_runs_report(
    ray_cluster: str, predictions_here: None, finished_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    generator = np.random.default_rng(0)
    (tmp_path / "noise").mkdir()
    for number in range(4):
        Image.fromarray(generator.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(tmp_path / f"noise/{number}.png")
    words = ("pipelines/evaluate_ensemble.py", "--run-dir", str(tmp_path / "run"), "--ood", str(tmp_path / "noise"))
    ended = run_script(*words)
    assert ended.code == 0, ended.stderr
    assert f"report: {tmp_path}/run/report/index.html\n" in ended.stdout
    assert "to send it: python pipelines/replay_to_mlflow.py" in ended.stdout
    report = json.loads((tmp_path / "run/report/report.json").read_text())
    assert [(row["data"], row["images"]) for row in report["out_of_distribution"]] == [("noise", 4)] * 3
    assert report["table"] == json.loads((finished_run / "report/report.json").read_text())["table"]
    page = (tmp_path / "run/report/index.html").read_text()
    assert "Photographs of something else" in page
    # The training job has predicted the run's images; this command has predicted the others alone.
    assert "evaluated_by" not in report
    assert "training command" not in page
    [others] = (tmp_path / "run/evaluations").glob("*/preflight.json")
    assert json.loads(others.read_text())["evaluated_by"]["command"] == shlex.join(words)
