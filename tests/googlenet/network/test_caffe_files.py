"""Caffe's GoogLeNet as .caffemodel and .onnx gives the outputs of the .npz; other networks and files are refused."""

import gzip
import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from googlenet import GoogLeNet
from googlenet.network.weight_files import read_weights
from googlenet.network.weights import WeightsError, start_from
from tests.googlenet.network.published_files import (
    Arrays,
    arrays_of,
    caffemodel_v1,
    caffemodel_v2,
    chunk,
    with_heads,
    zoo_onnx,
)
from tests.googlenet.network.test_weight_files import caffe_arrays, npz

KINDS: dict[str, tuple[str, Callable[[Arrays], bytes]]] = {
    "caffemodel of 2014": (".caffemodel", lambda arrays: caffemodel_v1(with_heads(arrays))),
    "caffemodel of today": (".caffemodel", caffemodel_v2),
    "onnx": (".onnx", zoo_onnx),
    "onnx with lists of floats": (".onnx", lambda arrays: zoo_onnx(arrays, raw=False)),
    "onnx, Gemm of inputs x outputs": (".onnx", lambda arrays: zoo_onnx(arrays, "Gemm")),
    "onnx, MatMul": (".onnx", lambda arrays: zoo_onnx(arrays, "MatMul")),
}


def outputs(data: bytes, suffix: str) -> Tensor:
    network = read_weights(data, f"x{suffix}").build()
    images = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits: Tensor = network.model(network.preprocessing(images)).logits
    return logits.softmax(dim=1)


@pytest.mark.parametrize("source", ["random", "bvlc"])
@pytest.mark.parametrize("kind", ["caffemodel of 2014", "onnx"])
def test_every_kind_of_file_gives_the_outputs_of_the_npz(kind: str, source: str) -> None:
    arrays = arrays_of(source)
    suffix, written = KINDS[kind]
    expected = outputs(npz(arrays), ".npz")
    torch.testing.assert_close(outputs(written(arrays), suffix), expected, rtol=0, atol=1e-5)
    assert expected.max() > 0.1  # the outputs compared are not uniform


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_has_the_weights_of_the_npz(kind: str) -> None:
    arrays = caffe_arrays(classes=1024)  # a square classifier: its shape does not tell inputs from outputs
    suffix, written = KINDS[kind]
    expected, found = read_weights(npz(arrays), "x.npz"), read_weights(written(arrays), f"x{suffix}")
    assert found.preprocessing == expected.preprocessing
    for name, tensor in expected.tensors.items():
        assert torch.equal(found.tensors[name], tensor), name


def test_the_auxiliary_heads_of_caffes_own_file_are_used() -> None:
    arrays = with_heads(caffe_arrays(classes=5))
    model = GoogLeNet(5, "paper")
    assert start_from(model, read_weights(caffemodel_v1(arrays), "x.caffemodel")) == []
    # loss1 of Caffe is on 4a, loss2 on 4d.
    for head, loss in (("4a", "loss1"), ("4d", "loss2")):
        weights = model.get_parameter(f"aux.{head}.hidden.weight")
        assert torch.equal(weights, torch.from_numpy(arrays[f"{loss}/fc/weight"]))


@pytest.mark.parametrize(("aux_heads", "remarks"), [(True, 1), (False, 0)])
def test_where_heads_are_missing_they_are_initialised_and_that_is_said(aux_heads: bool, remarks: int) -> None:
    stored = read_weights(zoo_onnx(caffe_arrays(classes=5)), "x.onnx")
    told = start_from(GoogLeNet(5, "paper", aux_heads), stored)
    assert told == ["auxiliary classifiers re-initialised, missing from the file: 4a, 4d"][:remarks]


@cache
def damaged_archives() -> dict[str, bytes]:
    """A compressed .npz with damage in its data, and with a method or a flag that is not its own."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **caffe_arrays(classes=5))
    whole = buffer.getvalue()
    data, directory = whole.index(b"\x2e\x6e\x70\x79") + 40, whole.index(b"PK\1\2")

    def changed(at: int, value: bytes) -> bytes:
        return whole[:at] + value + whole[at + len(value) :]

    return {
        "data": changed(data, bytes(range(200, 232))),
        "compression": changed(directory + 10, b"\x63\0"),
        "encrypted": changed(directory + 8, b"\1\0"),
    }


@pytest.mark.parametrize("kind", ["data", "compression", "encrypted"])
def test_a_damaged_compressed_archive_is_refused(kind: str) -> None:
    with pytest.raises(WeightsError, match=r"^not a complete \.npz file: .*; copy or download it again$"):
        read_weights(damaged_archives()[kind], "x.npz")


def alexnet() -> Arrays:
    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    return {
        f"{name}/{kind}": np.ones((2, 2)[:n], np.float32) for name in names for kind, n in (("weight", 2), ("bias", 1))
    }


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.npz", npz(alexnet())),
        ("x.caffemodel", caffemodel_v1(alexnet())),
        ("x.caffemodel", caffemodel_v2(alexnet())),
        ("x.onnx", zoo_onnx(alexnet() | {"loss3/classifier/weight": np.ones((2, 2), np.float32)})),
    ],
)
def test_another_network_is_refused_by_what_it_lacks(name: str, data: bytes) -> None:
    expected = (
        r"it lacks 5[78] of 58 layers \(conv1/7x7_s2, conv2/3x3_reduce, .* more\), and has conv1, conv2, .* instead"
    )
    with pytest.raises(WeightsError, match=expected):
        read_weights(data, name)


def test_a_classifier_of_another_name_is_named() -> None:
    arrays = {name.replace("loss3/classifier", "loss3/classifier_cars"): a for name, a in caffe_arrays().items()}
    with pytest.raises(WeightsError, match=r"lacks 1 of 58 layers \(loss3/classifier\), and has loss3/classifier_cars"):
        read_weights(caffemodel_v2(arrays), "x.caffemodel")


def test_a_file_that_was_cut_between_two_layers_may_have_been_cut() -> None:
    arrays = caffe_arrays()
    first = dict(list(arrays.items())[:40])
    with pytest.raises(WeightsError, match=r"lacks \d+ of 58 layers .*: perhaps its end is missing, compare it"):
        read_weights(caffemodel_v2(first), "x.caffemodel")


def test_a_quantised_model_is_refused() -> None:
    arrays: Arrays = caffe_arrays() | {"conv1/7x7_s2/weight": np.zeros((64, 3, 7, 7), np.int8)}  # type: ignore[dict-item]
    with pytest.raises(WeightsError, match="conv1/7x7_s2_w_0 is quantised: take the model's file without -int8"):
        read_weights(zoo_onnx(arrays), "x.onnx")


@pytest.mark.parametrize("kind", ["caffemodel of 2014", "caffemodel of today", "onnx"])
def test_a_file_that_was_cut_is_refused(kind: str) -> None:
    suffix, written = KINDS[kind]
    whole = written(caffe_arrays())
    for end in (0, 1, 2, 30, 1000, len(whole) // 3, len(whole) // 2, len(whole) - 100_000, len(whole) - 1):
        with pytest.raises(WeightsError):
            read_weights(whole[:end], f"x{suffix}").build()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:57\nsize 28020232\n", "run `git lfs pull`"),
        (b"\n<!DOCTYPE html><html>not here</html>", "a web page"),
        (b"\xef\xbb\xbf<!-- saved from a browser --><html>", "a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", r"the answer of a server \(XML\)"),
        (b'{"error": "Repository not found"}', r"the answer of a server \(JSON\)"),
        (b'name: "GoogleNet"\nlayers {', r"description of a network \(.prototxt\), not its weights"),
        (b"/annex/objects/MD5E-s53533754--ab.caffemodel\n", "run `git annex get`"),
        (gzip.compress(b"weights", mtime=0), "compressed by gzip: unpack it"),
        (b"PK\3\4 and so on", "a ZIP archive: unpack it"),
        (chunk(1, b"no layers"), r"lacks 58 of 58 layers \(.* and 53 more\)$"),
        (
            b"\xff" * 100,
            "not a complete .caffemodel file: an integer goes on beyond the end; copy or download it again",
        ),
        (b"\0" * 100, "100 zeros in place of the file"),
    ],
)
def test_what_is_no_file_of_weights_is_refused_by_what_it_is(data: bytes, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason):
        read_weights(data, "x.caffemodel")
