"""Ensembles exported to a Hub: answers like those of the run, and repositories that are left as they are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from huggingface_hub import ModelCard

from googlenet import Ensemble
from pipelines.errors import UserError
from pipelines.export.ensemble_folder import export_ensemble
from tests.hub_server import TOKEN, hub_of
from tests.pipelines.export.exports import NAMES, RUN, of_the_run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve an empty Hub; its folder of models."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_of(tmp_path / "hub") as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield tmp_path / "hub/models"


def test_a_repository_on_the_hub_answers_like_the_run(hub: Path, photo: Path) -> None:
    said = export_ensemble(RUN, "hf://me/net")
    assert re.fullmatch(r"http://127.0.0.1:\d+/me/net: 2 replicas, .* new and private, .*", said)
    assert json.loads((hub.parent / "created.json").read_text())["visibility"] == "private"
    assert sorted(path.name for path in (hub / "me/net").iterdir()) == NAMES
    assert 'from_pretrained("hf://me/net")' in (hub / "me/net/README.md").read_text()
    ensemble = Ensemble.from_pretrained("hf://me/net")
    np.testing.assert_array_equal(ensemble.probabilities(photo, 1), of_the_run().probabilities(photo, 1))


def test_an_existing_repository_keeps_its_license_and_no_earlier_weights(hub: Path) -> None:
    (hub / "me/net").mkdir(parents=True)
    (hub / "me/net/README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    for name in ("replica_6.safetensors", "notes.txt"):
        (hub / "me/net" / name).write_text("of an earlier export")
    (hub / "me/net/config.json").write_text('{"format": "googlenet-ensemble-1"}')
    assert "private" not in export_ensemble(RUN, "hf://me/net")
    assert sorted(path.name for path in (hub / "me/net").iterdir()) == sorted([*NAMES, "notes.txt"])
    card = ModelCard.load(hub / "me/net/README.md")
    assert card.data.license == "mit"
    assert "# license:" not in (hub / "me/net/README.md").read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter.safetensors", "x"),
        ("onnx/replica_0.safetensors", "x"),
        ("config.json", '{"model_type": "llama"}'),
        ("model.pth", "x"),
    ],
)
def test_a_repository_of_another_model_is_left_as_it_is(hub: Path, name: str, content: str) -> None:
    file = hub / "me/llm" / name
    file.parent.mkdir(parents=True)
    file.write_text(content)
    card = hub / "me/llm/README.md"
    card.write_text("# Mine")
    with pytest.raises(UserError, match=rf"^hf://me/llm holds something else \({name}\): choose another repository$"):
        export_ensemble(RUN, "hf://me/llm")
    assert {path for path in (hub / "me/llm").rglob("*") if path.is_file()} == {file, card}
    assert (file.read_text(), card.read_text()) == (content, "# Mine")


def test_a_new_repository_with_a_license_is_exported_to(hub: Path) -> None:
    (hub / "me/net").mkdir(parents=True)
    (hub / "me/net/README.md").write_text("---\nlicense: mit\n---\n")
    for name in (".gitattributes", "LICENSE"):
        (hub / "me/net" / name).write_text("mine")
    export_ensemble(RUN, "hf://me/net")
    assert {path.name for path in (hub / "me/net").iterdir()} == {*NAMES, ".gitattributes", "LICENSE"}


def test_without_a_token_nothing_is_uploaded(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match=r"^hf://me/net: .*log in with `hf auth login`, or set HF_TOKEN$"):
        export_ensemble(RUN, "hf://me/net")
    assert not (hub / "me/net").exists()


def test_a_token_that_may_not_write_is_not_told_to_try_later(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(
        UserError, match=r"does not permit it \(status 401\); use a token that has the permission: log in with"
    ) as error:
        export_ensemble(RUN, "hf://me/net")
    assert "try later" not in str(error.value)
