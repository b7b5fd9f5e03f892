"""Soups of a run: chosen on other images than those that judge them, kept, and not computed again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from googlenet import Ensemble, load_weights
from googlenet.evaluation.temperature import FOLDS, folds_of
from googlenet.network.arithmetic import FP32
from pipelines.errors import UserError
from pipelines.evaluation.evaluate import Settings, evaluate, evaluate_run
from pipelines.evaluation.soups import SoupChoice, statistics_images
from pipelines.report.comparison import comparison, read_finished
from pipelines.report.soups import judge_soups
from pipelines.report.write import write_report
from pipelines.run.dataset import image_ids, read_manifest
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.recipe import Recipe
from pipelines.run.soups import Soups, folder_of_soups, read_soups, write_soups
from pipelines.run.storage import Storage
from pipelines.tracking.result import result_metrics
from pipelines.training.validation import centre_crop
from tests.prepared import predicting_here

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def evaluated(
    trained_run: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, EvaluatedEnsemble]:
    """A run that is evaluated with one crop, with its soups, their predictions and the report."""
    folder = Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("soups") / "run"))
    run, recipe = Storage.at(str(folder)), replace(tiny_recipe, policies=(1,))
    with predicting_here():
        ensemble = evaluate_run(run, recipe)
        soups = SoupChoice(run, recipe, ensemble).make()
        write_soups(run, replace(soups, are_predicted=True))
        settings = Settings(ensemble.policies, ensemble.crop_px, "fp32", keep_views=False, images=run)
        soup = folder_of_soups(run)
        evaluate(soup, soup, range(len(soups.networks)), read_manifest(run), settings)
    write_report(run, ensemble, with_pictures=False)
    return folder, ensemble


def soups_of(run: Path, ensemble: EvaluatedEnsemble) -> Soups:
    soups = read_soups(Storage.at(str(run)), ensemble)
    assert soups is not None
    return soups


def test_the_uniform_soup_has_the_mean_of_the_replicas_weights_and_statistics_of_its_own(
    evaluated: tuple[Path, EvaluatedEnsemble],
) -> None:
    run, ensemble = evaluated
    soups = soups_of(run, ensemble)
    replicas = [load_weights(run / f"replicas/{k}/weights.safetensors").model.state_dict() for k in range(3)]
    soup = load_weights(run / f"soup/replicas/{soups.networks.index((0, 1, 2))}/weights.safetensors").model.state_dict()
    for name in ("classifier.weight", "conv1.bn.weight"):
        torch.testing.assert_close(soup[name], torch.stack([weights[name] for weights in replicas]).mean(dim=0))
    means = [weights["conv1.bn.running_var"] for weights in replicas]
    assert not torch.allclose(soup["conv1.bn.running_var"], torch.stack(means).mean(dim=0))
    assert soups.statistics_images == 24
    assert [statistics_images(n) for n in (24, 100, 600, 10_000)] == [24, 64, 512, 512]


def test_the_report_judges_each_image_with_the_soup_that_other_folds_chose(
    evaluated: tuple[Path, EvaluatedEnsemble], photo_folder: Path
) -> None:
    run, ensemble = evaluated
    storage, soups = Storage.at(str(run)), soups_of(run, ensemble)
    report = json.loads((run / "report/report.json").read_text())
    rows = {row["soup"]: row for row in report["soups"]}
    assert set(rows) == {"uniform", "greedy"}
    uniform = Ensemble.load([run / f"soup/replicas/{soups.networks.index((0, 1, 2))}/weights.safetensors"])
    ids = image_ids(storage, read_manifest(storage).splits["val"])
    labels = np.array([int(name.split("class_")[1][0]) for name in ids])
    crops = torch.stack([centre_crop((photo_folder / name).read_bytes(), ensemble.crop_px) for name in ids])
    wrong = {}
    for members in {soups.uniform, *soups.greedy_by_fold}:
        is_single = len(members) == 1
        number = members[0] if is_single else soups.networks.index(members)
        network = load_weights(run / ("" if is_single else "soup") / f"replicas/{number}/weights.safetensors")
        with torch.no_grad():
            logits = network.model(network.preprocessing(crops.permute(0, 3, 1, 2))).logits
        wrong[members] = logits.argmax(dim=1).numpy() != labels
    assert uniform.classes == ("class_0", "class_1", "class_2")
    assert rows["uniform"]["top1_error"] == pytest.approx(100 * np.mean(wrong[soups.uniform]))
    assert len(soups.greedy_by_fold) == FOLDS
    judged = [wrong[soups.greedy_by_fold[fold]][place] for place, fold in enumerate(folds_of(ids))]
    assert rows["greedy"]["top1_error"] == pytest.approx(100 * np.mean(judged))
    assert (rows["greedy"]["judged_on"], "judged_on" in rows["uniform"]) == ("other_folds", False)
    assert rows["greedy"]["members"] == [f"replica_{place}" for place in soups.greedy]
    single = report["table"][0]["top1_error"]
    assert rows["uniform"]["top1_difference"] == pytest.approx(rows["uniform"]["top1_error"] - single)


def test_soups_cost_one_network_wherever_the_report_is_read(evaluated: tuple[Path, EvaluatedEnsemble]) -> None:
    run, ensemble = evaluated
    storage = Storage.at(str(run))
    report = json.loads((run / "report/report.json").read_text())
    spent = [row for row in report["spending"] if row["way"] == "soup"]
    assert [(row["soup"], row["passes"]) for row in spent] == [("uniform", 1.0), ("greedy", 1.0)]
    error = f"{report['soups'][0]['top1_error']:.2f}"
    markdown, page = (run / "report/report.md").read_text(), (run / "report/index.html").read_text()
    assert f"| uniform | 1 | {error} |" in markdown
    assert "A soup is one network" in page
    assert "an average of the replicas', a soup, errs with one crop on" in " ".join(
        write_report(storage, ensemble, with_pictures=False).split()
    )
    metrics = result_metrics(report, json.loads((run / "report/cost.json").read_text()))
    assert metrics["top1_error/uniform_soup_1x1"] == pytest.approx(report["soups"][0]["top1_error"], abs=1e-3)
    outcomes = pq.read_table(run / "report/outcomes.parquet")
    wrong = outcomes.column("top1_wrong/greedy_soup_1x1").to_numpy()
    assert 100 * wrong.mean() == pytest.approx(report["soups"][1]["top1_error"])
    finished = read_finished(storage, "run")
    assert "uniform_soup_1x1" in comparison(finished, finished)


def test_a_killed_choice_computes_no_candidate_again_and_ends_the_same(
    evaluated: tuple[Path, EvaluatedEnsemble], tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ensemble = evaluated
    killed = Path(shutil.copytree(run, tmp_path / "killed"))
    weights = (killed / "soup/replicas/0/weights.safetensors").read_bytes()
    shutil.rmtree(killed / "soup/replicas")
    candidates = sorted((killed / "soup/candidates").iterdir())
    lost = candidates[-1].read_bytes()
    candidates[-1].unlink()
    choice, computed = SoupChoice(Storage.at(str(killed)), tiny_recipe, ensemble), list[int]()
    predict = SoupChoice._predicted_wrong

    def counted(self: SoupChoice, networks: list[object], ids: set[str]) -> object:
        computed.append(len(networks))
        return predict(self, networks, ids)  # type: ignore[arg-type]

    monkeypatch.setattr(SoupChoice, "_predicted_wrong", counted)
    assert replace(choice.make(), are_predicted=True) == soups_of(run, ensemble)
    assert computed == [1]
    assert candidates[-1].read_bytes() == lost
    assert (killed / "soup/replicas/0/weights.safetensors").read_bytes() == weights


def test_members_are_numbers_of_replicas_also_in_files_that_hold_their_places(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path))
    # Replica 1 has failed.
    ensemble = EvaluatedEnsemble(("replica_0", "replica_2", "replica_3"), ("a", "b", "c"), (1,), 64, ("x",), "", FP32)
    places = {"networks": [[0, 1, 2], [0, 2]], "uniform": [0, 1, 2], "greedy": [1], "greedy_by_fold": [[0, 2], [2]]}
    rest = {"weights_digests": ["a", "b", "c"], "statistics_images": 1, "chosen_on_images": 1, "are_predicted": True}
    run.write_json("soup/soups.json", {**places, **rest})
    soups = read_soups(run, ensemble)
    assert soups is not None
    assert (soups.uniform, soups.greedy) == ((0, 2, 3), (2,))
    assert (soups.networks, soups.greedy_by_fold) == (((0, 2, 3), (0, 3)), ((0, 3), (3,)))
    write_soups(run, soups)
    assert run.read_json("soup/soups.json")["greedy"] == [2]
    assert read_soups(run, ensemble) == soups


def test_soups_of_other_weights_are_not_shown(evaluated: tuple[Path, EvaluatedEnsemble]) -> None:
    run, ensemble = evaluated
    storage = Storage.at(str(run))
    other = replace(ensemble, weights_digests=("x", *ensemble.weights_digests[1:]))
    assert judge_soups(storage, other, []) is None


def test_a_report_does_not_wait_for_soups_that_are_not_predicted(
    evaluated: tuple[Path, EvaluatedEnsemble], tmp_path: Path
) -> None:
    run, ensemble = evaluated
    killed = Storage.at(str(shutil.copytree(run, tmp_path / "killed")))
    write_soups(killed, replace(soups_of(run, ensemble), are_predicted=False))
    killed.delete("soup/predictions/000001.parquet")
    assert judge_soups(killed, ensemble, []) is None


@pytest.mark.parametrize(("shard", "content"), [(0, None), (1, None), (0, b""), (1, b"PAR1")])
def test_a_report_without_the_predictions_of_its_soups_says_which_option_makes_them(
    evaluated: tuple[Path, EvaluatedEnsemble],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shard: int,
    content: bytes | None,
) -> None:
    run, ensemble = evaluated
    cleaned = Storage.at(str(shutil.copytree(run, tmp_path / "cleaned")))
    cleaned.delete(f"soup/predictions/00000{shard}.parquet")
    if content is not None:
        cleaned.write(f"soup/predictions/00000{shard}.parquet", content)
    write_report(cleaned, ensemble, with_pictures=False)
    assert "soups" not in cleaned.read_json("report/report.json")
    assert "soup/predictions are missing or damaged; redo them with --soup" in capsys.readouterr().err


def test_replicas_of_two_widths_are_refused_in_one_line(
    evaluated: tuple[Path, EvaluatedEnsemble], tiny_recipe: Recipe
) -> None:
    run, ensemble = evaluated
    choice = SoupChoice(Storage.at(str(run)), tiny_recipe, ensemble)
    stored = choice._stored()
    with pytest.raises(UserError, match=r"no soup of .*: networks that differ in width have no average"):
        choice.soup_of((0, 1), [stored[0], replace(stored[1], width=0.25)])
