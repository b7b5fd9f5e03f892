"""Folders that hold no exported ensemble, or a wrong one, are refused by name."""

import json
from pathlib import Path

import pytest

from googlenet import Ensemble
from googlenet.evaluation.pretrained import FORMAT
from googlenet.network.weights import WeightsError


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "does not describe an exported ensemble"),
        ("[]", "does not describe an exported ensemble"),
        (json.dumps({"format": "googlenet-ensemble-9", "replicas": []}), "unknown format 'googlenet-ensemble-9'"),
        (json.dumps({"model_type": "resnet"}), "does not describe an exported ensemble: KeyError"),
        (json.dumps({"format": FORMAT, "replicas": ["../secret.safetensors"]}), "'../secret.safetensors' is not"),
        (json.dumps({"format": FORMAT, "replicas": []}), "names no replicas"),
        (json.dumps({"format": FORMAT, "replicas": "replica_0.safetensors"}), "names no replicas"),
        (json.dumps({"format": FORMAT, "replicas": [0]}), "0 is not a file beside it"),
    ],
)
def test_a_description_that_cannot_be_used_is_named(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(WeightsError, match=f"config.json.*{problem}"):
        Ensemble.from_pretrained(tmp_path)


def test_a_folder_without_an_export_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no exported ensemble in {tmp_path}: config.json is missing"):
        Ensemble.from_pretrained(tmp_path)
    for place in (tmp_path / "nothing", "me/net"):
        with pytest.raises(FileNotFoundError, match=f"no folder {place}; a repository .* is named hf://OWNER/REPO"):
            Ensemble.from_pretrained(place)


def test_a_page_of_hugging_face_is_named_as_the_repository() -> None:
    with pytest.raises(WeightsError, match=r"by its name: hf://me/net$"):
        Ensemble.from_pretrained("https://huggingface.co/me/net")


def test_a_file_of_a_repository_is_no_ensemble() -> None:
    with pytest.raises(WeightsError, match=r"hf://me/net/x.safetensors: .* leave the file out"):
        Ensemble.from_pretrained("hf://me/net/x.safetensors")
