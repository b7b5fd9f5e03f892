"""Weights in safetensors files."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from googlenet import GoogLeNet, load_weights, save_weights
from googlenet.network.preprocessing import CAFFE_PREPROCESSING
from googlenet.network.weights import FORMAT, METADATA_KEY, WeightsError, load_exactly, read_safetensors, to_safetensors


def saved(model: GoogLeNet) -> bytes:
    return to_safetensors(model, model.state_dict(), CAFFE_PREPROCESSING, classes=["a", "b", "c"])


def test_a_network_comes_back_with_its_preprocessing_and_without_its_heads() -> None:
    model = GoogLeNet(3, "paper", True, 0.25, lrn="google").eval()
    data = saved(model)
    loaded = read_safetensors(data).build()
    images = torch.randn(2, 3, 84, 84)
    assert torch.equal(loaded.model(images).logits, model(images).logits)
    assert loaded.preprocessing == CAFFE_PREPROCESSING
    assert not loaded.model.aux
    assert read_safetensors(data).extra["classes"] == ["a", "b", "c"]


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    model, path = GoogLeNet(3, "bn", width=0.125).eval(), tmp_path / "mine.safetensors"
    save_weights(path, model, CAFFE_PREPROCESSING, classes=["a", "b", "c"], crop_px=None)
    loaded, images = load_weights(path), torch.randn(2, 3, 64, 64)
    assert loaded.preprocessing == CAFFE_PREPROCESSING
    assert torch.equal(loaded.model(images).logits, model(images).logits)
    assert read_safetensors(path.read_bytes()).extra == {"classes": ["a", "b", "c"], "num_classes": 3}


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path) -> None:
    model = GoogLeNet(3, width=0.125)
    with pytest.raises(ValueError, match=r"mine\.pth: weights are saved as \.safetensors"):
        save_weights(tmp_path / "mine.pth", model, CAFFE_PREPROCESSING)
    with pytest.raises(ValueError, match=r"mine\.safetensors: 3 outputs, but 2 names of classes"):
        save_weights(tmp_path / "mine.safetensors", model, CAFFE_PREPROCESSING, classes=["a", "b"])
    for crop_px in (42.0, 0, "42", 50, np.int64(56)):
        with pytest.raises(ValueError, match=re.escape(f"must be a whole number, a multiple of 7, got {crop_px!r}")):
            save_weights(tmp_path / "mine.safetensors", model, CAFFE_PREPROCESSING, crop_px=crop_px)
    for classes in ("abc", [0, 1, 2], {"c": 2, "a": 0, "b": 1}, np.array(["a", "b", "c"]), 3):
        with pytest.raises(ValueError, match=re.escape("classes must be a list of names in the order of the outputs")):
            save_weights(tmp_path / "mine.safetensors", model, CAFFE_PREPROCESSING, classes=classes)
    with pytest.raises(ValueError, match="the class 'a' is there more than once"):
        save_weights(tmp_path / "mine.safetensors", model, CAFFE_PREPROCESSING, classes=["a", "b", "a"])
    for key, value in (("lrn", "google"), ("width", 0.25)):  # with the first, it would be loaded as another network
        with pytest.raises(ValueError, match=f"{key}: the network says this itself"):
            save_weights(tmp_path / "mine.safetensors", model, CAFFE_PREPROCESSING, **{key: value})
    model.classifier = torch.nn.Sequential(torch.nn.Dropout(), model.classifier)
    with pytest.raises(WeightsError, match=r"layer classifier\.bias is missing"):
        save_weights(tmp_path / "mine.safetensors", model, CAFFE_PREPROCESSING)
    assert not list(tmp_path.iterdir())


def test_a_folder_and_a_path_below_a_file_are_told_from_weights(tmp_path: Path) -> None:
    for folder in (tmp_path, "."):
        with pytest.raises(WeightsError, match=r" is a folder: name one file .*Ensemble\.from_pretrained"):
            load_weights(folder)
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"^no weights at .*file/x\.safetensors; the name bvlc"):
        load_weights(tmp_path / "file/x.safetensors")


def test_a_truncated_file_is_refused() -> None:
    data = saved(GoogLeNet(3, width=0.125))
    for kept in (4, 500, len(data) // 2):
        with pytest.raises(WeightsError, match="not a complete safetensors file"):
            read_safetensors(data[:kept])


def test_a_file_of_another_origin_and_one_without_its_description_are_told_apart() -> None:
    tensors = {"conv1.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match="a safetensors file of another program"):
        read_safetensors(safetensors.torch.save(tensors))
    with pytest.raises(WeightsError, match=r"metadata cannot be used.*variant"):
        read_safetensors(safetensors.torch.save(tensors, {METADATA_KEY: json.dumps({"format": FORMAT})}))


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"variant": "v3"}, "variant must be 'paper' or 'bn', got 'v3'"),
        ({"width": 1e9}, "width must be in"),
        ({"width": "wide"}, "not supported between"),
        ({"lrn": "none at all"}, "lrn must be one of"),
    ],
)
def test_a_description_of_no_network_is_refused_with_the_name_of_the_file(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    model = GoogLeNet(3, width=0.125)
    described = json.loads(json.loads(saved(model)[8:].split(b"}}", 1)[0] + b"}}")["__metadata__"][METADATA_KEY])
    content = safetensors.torch.save(model.state_dict(), {METADATA_KEY: json.dumps({**described, **change})})
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=f"x.safetensors: .*{reason}"):
        load_weights(tmp_path / "x.safetensors")


def test_a_network_of_one_output_and_metadata_that_are_no_description_are_refused() -> None:
    stored = read_safetensors(saved(GoogLeNet(3, width=0.125)))
    one = {name: tensor[:1] if name.startswith("classifier.") else tensor for name, tensor in stored.tensors.items()}
    with pytest.raises(WeightsError, match="num_classes must be at least 2, got 1"):
        replace(stored, tensors=one).build()
    for metadata in ("{", "[1]", "7"):
        with pytest.raises(WeightsError, match="its metadata cannot be read"):
            read_safetensors(safetensors.torch.save(stored.tensors, {METADATA_KEY: metadata}))


def test_the_first_layer_that_does_not_fit_is_named() -> None:
    model = GoogLeNet(3, width=0.125)
    weights = dict(model.state_dict())
    weights["conv2.conv.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"conv2\.conv\.weight has shape"):
        load_exactly(model, weights)
    del weights["conv2.conv.weight"]
    with pytest.raises(ValueError, match=r"conv2\.conv\.weight is missing"):
        load_exactly(model, weights)
    with pytest.raises(ValueError, match="stranger"):
        load_exactly(model, {**model.state_dict(), "stranger": torch.zeros(1)})


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_a_layer_of_other_than_real_numbers_is_named(dtype: torch.dtype) -> None:
    model = GoogLeNet(3, width=0.125)
    weights = {**model.state_dict(), "classifier.weight": model.classifier.weight.detach().to(dtype)}
    with pytest.raises(WeightsError, match=r"^layer classifier\.weight holds \w+ numbers: save the network before"):
        load_exactly(model, weights)


def test_real_numbers_of_other_sizes_are_loaded_unless_they_are_too_large() -> None:
    model = GoogLeNet(3, width=0.125)
    weights, wanted = dict(model.state_dict()), model.classifier.weight.detach().clone()
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        load_exactly(model, {**weights, "classifier.weight": wanted.to(dtype)})
        torch.testing.assert_close(model.classifier.weight.detach(), wanted.to(dtype).float(), rtol=0, atol=0)
    with pytest.raises(WeightsError, match=r"classifier\.weight holds values that are not finite"):
        load_exactly(model, {**weights, "classifier.weight": torch.full_like(wanted, 1e300, dtype=torch.float64)})


def test_equal_weights_are_equal_files() -> None:
    model = GoogLeNet(3, width=0.125)
    assert len({saved(model) for _ in range(5)}) == 1
