"""Weights in safetensors files."""

import json

import pytest
import safetensors.torch
import torch

from googlenet import GoogLeNet
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


def test_a_truncated_file_is_refused() -> None:
    data = saved(GoogLeNet(3, width=0.125))
    for kept in (4, 500, len(data) // 2):
        with pytest.raises(WeightsError, match="not a complete safetensors file"):
            read_safetensors(data[:kept])


def test_a_file_of_another_origin_and_one_without_its_description_are_told_apart() -> None:
    tensors = {"conv1.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match="a safetensors file of another program"):
        read_safetensors(safetensors.torch.save(tensors))
    with pytest.raises(WeightsError, match=r"metadata is incomplete.*variant"):
        read_safetensors(safetensors.torch.save(tensors, {METADATA_KEY: json.dumps({"format": FORMAT})}))


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


def test_equal_weights_are_equal_files() -> None:
    model = GoogLeNet(3, width=0.125)
    assert len({saved(model) for _ in range(5)}) == 1
