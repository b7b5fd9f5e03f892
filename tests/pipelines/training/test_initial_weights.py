"""Initial weights by name: downloaded once, kept in the run, and from then on independent of the network."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest

from googlenet.network.published import BVLC, FILES
from pipelines.errors import UserError
from pipelines.evaluation.external_weights import own_format
from pipelines.run.named_recipes import finetune
from pipelines.run.storage import Storage
from pipelines.run.weights import absolute_weights, read_file
from pipelines.training.network import apply_initial_weights, check_initial_weights, keep_initial_weights, network_of
from tests.googlenet.network.published_files import caffemodel_v1, with_heads
from tests.googlenet.network.test_weight_files import caffe_arrays, npz, pth, torchvision_model
from tests.hub_server import hub_of


def test_a_run_keeps_the_weights_that_a_name_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, run = tmp_path / "torch/hub/checkpoints", Storage.at(str(tmp_path / "run"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    data = caffemodel_v1(with_heads(caffe_arrays(classes=5)))
    digest = hashlib.sha256(data).hexdigest()
    monkeypatch.setitem(
        FILES, BVLC, replace(FILES[BVLC], addresses=("http://127.0.0.1:9",), sha256=digest, size_bytes=len(data))
    )
    cache.mkdir(parents=True)
    (cache / "bvlc_googlenet.caffemodel").write_bytes(data)
    recipe = replace(finetune(), init_weights="bvlc")
    assert check_initial_weights(run, recipe, 5) == []
    keep_initial_weights(run, recipe, 5)
    assert (tmp_path / "run/initial_weights.caffemodel").read_bytes() == data
    shutil.rmtree(cache)
    assert check_initial_weights(run, recipe, 3) == ["classifier re-initialised: 5 classes in the file, 3 here"]
    model = network_of(recipe, 5)
    assert apply_initial_weights(run, recipe, model).channels == "BGR"
    assert float(model.classifier.bias[0].detach()) == float(caffe_arrays(classes=5)["loss3/classifier/bias"][0])
    with pytest.raises(UserError, match=r"bvlc_googlenet.caffemodel cannot be downloaded"):
        check_initial_weights(Storage.at(str(tmp_path / "another")), recipe, 5)


def test_the_pixels_that_a_state_dict_of_pytorch_is_taken_to_need_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.pth").write_bytes(pth(torchvision_model(5)))
    weights, said = str(tmp_path / "mine.pth"), "published weights need them, (x - 127.5) / 127.5; "
    recipe = replace(finetune(), init_weights=weights, variant="bn", aux_heads=False)
    [remark] = check_initial_weights(Storage.at(str(tmp_path / "run")), recipe, 5)
    assert said in remark
    own_format(weights, read_file(weights)[1])
    assert said in " ".join(capsys.readouterr().out.split())


def test_names_stay_as_they_are_and_paths_become_absolute() -> None:
    names = ["", "bvlc", "torchvision:googlenet", "hf://me/net", "hf://me/net@v1/a.onnx"]
    assert [absolute_weights(name) for name in names] == names
    assert absolute_weights("a.npz") == str(Path("a.npz").absolute())


@pytest.mark.parametrize("target", ["0123", "googlenet-v1.2", "net.npz.1"])
def test_a_link_to_a_file_without_an_ending_of_weights_is_read_by_its_own_name(tmp_path: Path, target: str) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / target).write_bytes(npz(caffe_arrays(classes=5)))
    (tmp_path / "net.npz").symlink_to(f"blobs/{target}")
    (tmp_path / "linked").symlink_to(".")
    weights = absolute_weights(f"{tmp_path}/linked/net.npz")
    assert weights == str(tmp_path / "net.npz")
    assert read_file(weights)[1].num_classes == 5


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("{}/folder", "folder is a folder, not a file of weights; give a file in it"),
        ("{}/folder.npz", r"folder\.npz is a folder, not a file of weights; give a file in it"),
        ("https://huggingface.co/me/net/blob/v1/a.onnx", "give the name of the weights instead: hf://me/net@v1/a.onnx"),
    ],
)
def test_a_folder_and_a_page_are_no_files(tmp_path: Path, weights: str, reason: str) -> None:
    for name in ("folder", "folder.npz"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=reason):
        read_file(weights.format(tmp_path))


def test_a_wrong_file_of_the_hub_is_named_as_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models/me/net").mkdir(parents=True)
    (tmp_path / "models/me/net/a.onnx").write_text("<html>")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with (
        hub_of(tmp_path) as (address, _),
        pytest.raises(UserError, match=r"a web page.*; this is the cached copy of hf://me/net/a\.onnx"),
    ):
        monkeypatch.setenv("HF_ENDPOINT", address)
        read_file("hf://me/net/a.onnx")
