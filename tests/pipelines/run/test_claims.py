"""Run directories bound to a recipe: when another one may take its place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import UserError
from pipelines.run.claims import check_claim, check_own, claim, claim_images
from pipelines.run.directory import Kind, run_id
from pipelines.run.storage import Storage
from tests.others_files import unchanged

LEFT_BY_SYSTEMS = (".DS_Store", "@eaDir/x", "Thumbs.db", ".nfs0000000000000001")
# What a job leaves that was refused because of its images.
LEFT_BY_AN_ATTEMPT = ("jobs/1.json", "logs/native_stderr.log", "run.lock", "dataset/train/00000.parquet")


def attempt(folder: Path) -> Storage:
    run = Storage.at(str(folder))
    claim(run, "recipe", {"data": "/photos", "epochs": 3})
    for name in (*LEFT_BY_AN_ATTEMPT, *LEFT_BY_SYSTEMS):
        run.write(name, b"{}")
    return run


def test_an_attempt_that_was_refused_does_not_bind_the_run(tmp_path: Path) -> None:
    run = attempt(tmp_path)
    first = run_id(run)
    claim(run, "recipe", {"data": "/photos", "epochs": 3})
    assert run_id(run) == first
    claim(run, "recipe", {"data": "/other", "epochs": 3})
    assert run.read_json("run.json")["recipe"] == {"data": "/other", "epochs": 3}
    assert run_id(run) != first


@pytest.mark.parametrize("result", ["dataset/manifest.json", "replicas/0/metrics.jsonl", "report/report.json"])
def test_a_run_with_results_keeps_its_recipe(tmp_path: Path, result: str) -> None:
    run = attempt(tmp_path)
    run.write(result, b"{}")
    with pytest.raises(UserError, match=r"holds a different recipe:\n  epochs: was 3, is now 4"):
        claim(run, "recipe", {"data": "/photos", "epochs": 4})


def test_a_recipe_that_was_refused_on_images_prepared_otherwise_does_not_bind_the_run(tmp_path: Path) -> None:
    run, prepared = attempt(tmp_path), {"data": "/photos", "stored_short_side_px": 480}
    settings = {"data": "/photos", "stored_short_side_px": None, "epochs": 3}
    claim(run, "recipe", settings)
    run.write_json("dataset/manifest.json", {"prepared_from": prepared})
    claim(run, "recipe", {**settings, **prepared})
    assert run.read_json("run.json")["recipe"] == {**settings, **prepared}
    with pytest.raises(UserError, match="epochs: was 3, is now 4"):
        claim(run, "recipe", {**settings, **prepared, "epochs": 4})


def test_initial_weights_that_were_scaled_on_other_images_are_not_kept(tmp_path: Path) -> None:
    run, scaled = attempt(tmp_path), "initial_weights/seed_0_width_1.safetensors"
    claim_images(run, "3f0c")
    run.write(scaled, b"{}")
    claim_images(run, "3f0c")
    assert run.exists(scaled)
    claim_images(run, "91ab")  # before any replica was trained, the images were replaced and prepared again
    assert not run.exists(scaled)


def test_images_that_changed_are_told_in_words_and_the_way_out_is_the_callers(tmp_path: Path) -> None:
    run, settings = Storage.at(str(tmp_path)), {"data": "/photos", "listing": "3f0c", "policies": [1]}
    claim(run, "evaluation", settings)
    run.write("report/report.json", b"{}")
    told = (
        r"different evaluation:\n  images of /photos were added, removed or renamed\n"
        r"Use the same options, or choose another --output-dir\.$"
    )
    with pytest.raises(UserError, match=told):
        claim(run, "evaluation", {**settings, "listing": "91ab"}, "choose another --output-dir")
    with pytest.raises(UserError, match=r"evaluation:\n  data: was '/photos', is now '/others'\nUse"):
        claim(run, "evaluation", {**settings, "data": "/others", "listing": "91ab"})


@pytest.mark.parametrize("own", ["dataset/manifest.json", "lost+found/x"])
def test_what_operating_systems_leave_does_not_make_a_folder_that_of_something_else(tmp_path: Path, own: str) -> None:
    run = Storage.at(str(tmp_path))
    for name in (own, *LEFT_BY_SYSTEMS):
        run.write(name, b"{}")
    claim(run, "recipe", {})
    assert run.read_json("run.json")["recipe"] == {}


@pytest.mark.parametrize(
    "own", ["dataset/train/0000.tar", "dataset/val/ILSVRC2012_val_00000001.JPEG", "dataset/cats/1.jpg", "dataset/a.csv"]
)
def test_a_users_folder_that_is_called_dataset_is_never_taken_for_prepared_images(tmp_path: Path, own: str) -> None:
    run = Storage.at(str(tmp_path))
    run.write(own, b"mine")
    run.write("dataset/train/00000.parquet", b"prepared")
    with unchanged(tmp_path), pytest.raises(UserError, match=rf"not a run directory \({own[:12]}"):
        check_own(run)


def test_images_are_not_prepared_into_the_folder_that_they_are_in(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path / "mine"))
    run.write("dataset/train/00000.parquet", b"a user's")
    for data in ("mine", "mine/dataset", "mine/dataset/train/00000.parquet"):
        for bind in (claim, check_claim):
            with unchanged(tmp_path), pytest.raises(UserError, match=r"would be mixed with the images in .*/mine"):
                bind(run, "recipe", {"data": str(tmp_path / data)})
    claim(run, "recipe", {"data": str(tmp_path)})
    claim(Storage.at(str(tmp_path / "other")), "recipe", {"data": str(tmp_path / "mine/dataset2")})


def test_a_mistaken_evaluation_on_prepared_images_does_not_lock_a_training_out(tmp_path: Path) -> None:
    run, recipe = Storage.at(str(tmp_path)), {"data": "/photos", "val_percent": 10.0, "epochs": 3}
    run.write_json("dataset/manifest.json", {"prepared_from": {"data": "/photos", "val_percent": 10.0}})
    claim(run, "evaluation", {"data": "/photos", "classes": ["a"]})
    claim(run, "recipe", recipe)
    assert run.read_json("run.json")["recipe"] == recipe
    with pytest.raises(UserError, match="holds a training run, not an evaluation; choose another --run-dir"):
        claim(run, "evaluation", {"data": "/photos", "classes": ["a"]})


def test_an_evaluation_is_not_called_a_different_training_run(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path))
    claim(run, "evaluation", {"data": "/photos", "classes": ["a"]})
    run.write_json("dataset/manifest.json", {"prepared_from": {"data": "/photos", "listing": "3f0c"}})
    with pytest.raises(UserError, match=r"holds an evaluation, not a training run; choose another --run-dir$"):
        check_claim(run, "recipe", {"data": "/photos", "epochs": 3})


@pytest.mark.parametrize("content", [{"scripts": {"a": 1}}, {}])
@pytest.mark.parametrize("bind", [claim, check_claim])
def test_run_json_of_something_else_makes_no_run_directory(
    tmp_path: Path, bind: Callable[[Storage, Kind, dict[str, Any]], None], content: dict[str, Any]
) -> None:
    run = Storage.at(str(tmp_path))
    run.write_json("run.json", content)
    with (
        unchanged(tmp_path),
        pytest.raises(UserError, match=r"not a run directory: its run\.json belongs to something else"),
    ):
        bind(run, "recipe", {"data": "/photos"})


@pytest.mark.parametrize("bind", [claim, check_claim])
def test_a_folder_of_something_else_is_never_bound_or_touched(
    tmp_path: Path, bind: Callable[[Storage, Kind, dict[str, Any]], None]
) -> None:
    for name in ("thesis.tex", "film.mkv.partial-1"):
        (tmp_path / name).touch()
    with unchanged(tmp_path), pytest.raises(UserError, match=r"not a run directory \(thesis\.tex"):
        bind(Storage.at(str(tmp_path)), "recipe", {})


def test_unfinished_files_of_others_stay_in_a_folder_that_becomes_a_run(tmp_path: Path) -> None:
    (tmp_path / "film.mkv.partial-1").touch()
    (tmp_path / "backup.partial-old").mkdir()
    claim(Storage.at(str(tmp_path)), "recipe", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.partial-old", "film.mkv.partial-1", "run.json"]


def test_unfinished_files_of_a_killed_job_are_removed(tmp_path: Path) -> None:
    run = attempt(tmp_path)
    for name in ("calibration.json.partial-1", "training.json.partial-1", "film.mkv.partial-1"):
        (tmp_path / name).touch()
    claim(run, "recipe", {"data": "/photos", "epochs": 3})
    assert [path.name for path in tmp_path.glob("*.partial-*")] == ["film.mkv.partial-1"]


@pytest.mark.parametrize(
    "of", ["initial_weights.npz", "initial_weights/seed_0.safetensors", "report/index.html", "jobs/1.json",
           "soup/candidates/1.json", "soup/replicas/3/weights.safetensors"],
)  # fmt: skip
def test_unfinished_files_of_a_killed_job_are_removed_wherever_they_are(tmp_path: Path, of: str) -> None:
    run = attempt(tmp_path)
    left = tmp_path / f"{of}.partial-01234567"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"half")
    claim(run, "recipe", {"data": "/photos", "epochs": 3})
    assert not left.exists()


def test_a_job_that_was_killed_while_it_bound_the_run_does_not_block_it(tmp_path: Path) -> None:
    (tmp_path / "run.json.partial-01234567").write_bytes(b"half")
    run = Storage.at(str(tmp_path))
    check_claim(run, "recipe", {"epochs": 3})
    claim(run, "recipe", {"epochs": 3})
    assert run.read_json("run.json")["recipe"] == {"epochs": 3}
    (tmp_path / "run.json.partial-89abcdef").write_bytes(b"half")  # of a corrected recipe, for the same attempt
    check_claim(run, "recipe", {"epochs": 4})
    claim(run, "recipe", {"epochs": 5})
    assert run.read_json("run.json")["recipe"] == {"epochs": 5}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
