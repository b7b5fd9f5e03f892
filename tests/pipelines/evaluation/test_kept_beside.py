"""The calibration beside given weights is that of these very files, wherever they lie."""

import json
from hashlib import sha256
from pathlib import Path

import huggingface_hub.constants
import pytest

from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.errors import UserError
from pipelines.evaluation.kept_beside import calibration_beside, training_runs_of
from pipelines.run.storage import Storage
from tests.hub_server import hub_of

CONTENTS = (b"first", b"second")
DIGESTS = tuple(sha256(content).hexdigest() for content in CONTENTS)
KEPT = KeptCalibration(DIGESTS, "images", 50, {"1": 0.9}, {"1": 0.8})


def a_run(folder: Path) -> list[str]:
    """Write two files of weights as in a run directory, and their calibration; return their paths in it."""
    names = [f"replicas/{replica}/weights.safetensors" for replica in (0, 1)]
    for name, content in zip(names, CONTENTS, strict=True):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(content)
    (folder / "calibration.json").write_text(json.dumps(KEPT.to_dict()))
    return names


def test_it_is_found_in_the_run_directory_for_all_files_and_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (str(tmp_path / name) for name in a_run(tmp_path))
    assert calibration_beside(first, DIGESTS, (1,)) == KEPT
    of_one = calibration_beside(second, DIGESTS[1:], (1,))
    assert of_one is not None
    assert of_one.temperature(1, 1) == 0.9
    assert capsys.readouterr().out == ""
    assert calibration_beside(first, DIGESTS, (1, 144)) == KEPT
    none = "calibration.json has no temperature for the crop policy 144"
    assert f"will not be calibrated: {none}" in capsys.readouterr().out


def test_the_training_run_of_weights_is_known_and_that_of_an_evaluation_is_none(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in a_run(tmp_path)]
    run = Storage.at(str(tmp_path))
    assert training_runs_of([*files, "bvlc"]) == []
    run.write_json("dataset/manifest.json", {})
    for kind, expected in (("evaluation", []), ("recipe", [run])):
        run.write_json("run.json", {kind: {}})
        assert training_runs_of([*files, "bvlc", "hf://owner/repo", "https://host/w.safetensors"]) == expected


def test_a_store_that_lists_nothing_is_not_asked_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise OSError("When getting information for key 'x': AWS Error ACCESS_DENIED during HeadObject operation")

    monkeypatch.setattr(Storage, "exists", refuse)
    assert training_runs_of([str(tmp_path / "w.safetensors")]) == []


def test_none_of_other_weights_or_of_another_program_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = (str(tmp_path / name) for name in a_run(tmp_path))
    assert calibration_beside(first, ("other", DIGESTS[1]), (1,)) is None
    assert "will not be calibrated: calibration.json for these weights" in capsys.readouterr().out
    for of_a_camera in ('{"camera": 1}', "[[1, 0], [0, 1]]"):
        (tmp_path / "calibration.json").write_text(of_a_camera)
        assert calibration_beside(first, DIGESTS, (1,)) is None
    assert calibration_beside("bvlc", DIGESTS, (1,)) is None
    (tmp_path / "calibration.json").write_text(json.dumps({"weights_digests": list(DIGESTS)}))
    with pytest.raises(UserError, match=r"/calibration\.json is damaged: delete it"):
        calibration_beside(first, DIGESTS, (1,))


def test_that_of_a_repository_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = a_run(tmp_path / "hub/models/me/seven")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub_of(tmp_path / "hub") as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert calibration_beside(f"hf://me/seven/{names[0]}", DIGESTS, (1,)) == KEPT
