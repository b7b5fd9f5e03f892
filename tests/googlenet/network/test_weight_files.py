"""Published weights: torchvision's model and a second Caffe GoogLeNet written here give the same outputs."""

import io
import os
import zipfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import googlenet
from googlenet import GoogLeNet
from googlenet.network.initialisation import initialise
from googlenet.network.preprocessing import CAFFE_PREPROCESSING
from googlenet.network.weight_files import read_weights
from googlenet.network.weights import WeightsError, load_exactly, start_from, to_safetensors
from googlenet.randomness import torch_generator

# Caffe's own weights are too large for the repository; CONTRIBUTING.md names the variable.
BVLC = Path(os.environ.get("GOOGLENET_BVLC", "GOOGLENET_BVLC is not set"))
NO_BVLC = f"the BVLC weights are not here: {BVLC}"
MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")


def torchvision_model(classes: int = 7) -> Any:
    import torchvision  # not above: it imports the compiler, which most pytest processes do without

    torch.manual_seed(0)
    model = torchvision.models.GoogLeNet(num_classes=classes, aux_logits=True, init_weights=False)
    for module in model.modules():  # non-trivial statistics
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model


def pth(model: torch.nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.getvalue()


class RunsCode:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1",)


def test_weights_that_would_run_code_are_not_called_incomplete() -> None:
    buffer = io.BytesIO()
    torch.save({"model": RunsCode()}, buffer)
    with pytest.raises(WeightsError, match="they could run code, so they are not loaded"):
        read_weights(buffer.getvalue(), "evil.pth")


def test_bn_with_torchvisions_weights_is_torchvisions_model(tmp_path: Path) -> None:
    reference = torchvision_model().eval()
    (tmp_path / "googlenet.pth").write_bytes(pth(reference))
    ours = googlenet.load_weights(tmp_path / "googlenet.pth").model
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits, reference(images), rtol=1e-5, atol=1e-5)


def test_auxiliary_heads_of_torchvision_are_in_their_right_places() -> None:
    reference = torchvision_model().train()
    reference.dropout.p = reference.aux1.dropout.p = reference.aux2.dropout.p = 0.0
    ours = GoogLeNet(7, "bn", dropout=(0.0, 0.0)).train()
    assert start_from(ours, read_weights(pth(reference), "x.pth")) == []
    images = torch.randn(4, 3, 224, 224)
    expected, found = reference(images), ours(images)
    # torchvision names them by number: aux1 is on 4a, aux2 on 4d.
    for theirs, mine in ((expected.logits, found.logits), (expected.aux_logits1, found.aux_4a)):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.aux_4d, expected.aux_logits2, rtol=1e-4, atol=1e-4)


def caffe_forward(arrays: dict[str, np.ndarray], images: Tensor) -> Tensor:
    """Compute the BVLC GoogLeNet as in its prototxt, from plain functions; images are BGR minus the mean."""

    def conv(name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        weight, bias = (torch.from_numpy(arrays[f"{name}/{kind}"]) for kind in ("weight", "bias"))
        return functional.relu(functional.conv2d(x, weight, bias, stride, padding))

    def pool(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)

    def norm(x: Tensor) -> Tensor:
        return functional.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)

    x = norm(pool(conv("conv1/7x7_s2", images, stride=2, padding=3)))
    x = pool(norm(conv("conv2/3x3", conv("conv2/3x3_reduce", x), padding=1)))
    for name in MODULES:
        if name in ("4a", "5a"):
            x = pool(x)
        at = f"inception_{name}"
        x = torch.cat(
            [
                conv(f"{at}/1x1", x),
                conv(f"{at}/3x3", conv(f"{at}/3x3_reduce", x), padding=1),
                conv(f"{at}/5x5", conv(f"{at}/5x5_reduce", x), padding=2),
                conv(f"{at}/pool_proj", functional.max_pool2d(x, 3, 1, 1)),
            ],
            dim=1,
        )
    x = functional.avg_pool2d(x, 7).flatten(1)
    weight, bias = (torch.from_numpy(arrays[f"loss3/classifier/{kind}"]) for kind in ("weight", "bias"))
    return functional.linear(x, weight, bias).softmax(dim=1)


def caffe_arrays(classes: int = 11) -> dict[str, np.ndarray]:
    """Return random weights of the right scale under Caffe's names, from the table in test_model.py."""
    return dict(_caffe_arrays(classes))


@lru_cache(maxsize=4)
def _caffe_arrays(classes: int) -> dict[str, np.ndarray]:
    from tests.googlenet.network.test_model import TABLE_1

    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int) -> None:
        fan_in = int(np.prod(shape[1:]))
        arrays[f"{name}/weight"] = generator.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        arrays[f"{name}/bias"] = generator.normal(0, 0.1, shape[0]).astype(np.float32)

    add("conv1/7x7_s2", 64, 3, 7, 7)
    add("conv2/3x3_reduce", 64, 64, 1, 1)
    add("conv2/3x3", 192, 64, 3, 3)
    for name, ((inputs, n1, r3, n3, r5, n5, pool), _) in TABLE_1.items():
        at = f"inception_{name}"
        add(f"{at}/1x1", n1, inputs, 1, 1)
        add(f"{at}/3x3_reduce", r3, inputs, 1, 1)
        add(f"{at}/3x3", n3, r3, 3, 3)
        add(f"{at}/5x5_reduce", r5, inputs, 1, 1)
        add(f"{at}/5x5", n5, r5, 5, 5)
        add(f"{at}/pool_proj", pool, inputs, 1, 1)
    add("loss3/classifier", classes, 1024)
    return arrays


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("source", ["random", "bvlc"])
def test_caffes_weights_give_the_outputs_of_a_second_implementation(source: str) -> None:
    if source == "bvlc" and not BVLC.exists():
        pytest.skip(NO_BVLC)
    data = npz(caffe_arrays()) if source == "random" else BVLC.read_bytes()
    arrays = dict(np.load(io.BytesIO(data)))
    network = read_weights(data, "bvlc.npz").build()
    rgb = torch.randint(0, 256, (3, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    bgr = rgb.flip(1).float() - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    with torch.no_grad():
        found = network.model(network.preprocessing(rgb)).logits.softmax(dim=1)
        torch.testing.assert_close(found, caffe_forward(arrays, bgr), rtol=0, atol=1e-4)
    assert found.max() > 0.1  # the outputs compared are not uniform


def test_the_preprocessing_travels_with_the_weights() -> None:
    assert read_weights(npz(caffe_arrays()), "x.npz").preprocessing == CAFFE_PREPROCESSING
    network = read_weights(npz(caffe_arrays()), "x.npz").build()
    again = read_weights(
        to_safetensors(network.model, network.model.state_dict(), network.preprocessing), "x.safetensors"
    )
    assert again.preprocessing == CAFFE_PREPROCESSING


def test_another_number_of_classes_replaces_the_classifier_and_says_so() -> None:
    stored = read_weights(npz(caffe_arrays(classes=11)), "x.npz")
    model = GoogLeNet(5, "paper")
    initialise(model, "xavier", torch_generator(0, "initial_weights"))
    before = model.classifier.weight.clone()
    remarks = start_from(model, stored)
    assert torch.equal(model.classifier.weight, before)
    assert torch.equal(model.conv1.conv.weight, stored.tensors["conv1.conv.weight"])
    assert remarks == [
        "classifier re-initialised: 11 classes in the file, 5 here",
        "auxiliary classifiers re-initialised, missing from the file: 4a, 4d",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("inception_4c/5x5/weight"), r"inception\.4c\.conv_5x5\.conv\.weight is missing"),
        (
            lambda a: a.update({"inception_3b/3x3/bias": np.zeros(5, np.float32)}),
            r"inception\.3b\.conv_3x3\.conv\.bias has shape \(5,\), expected \(192,\)",
        ),
        (lambda a: a.update({"fc8/weight": np.zeros(1, np.float32)}), "fc8/weight"),
        (lambda a: a["conv2/3x3/bias"].fill(np.nan), "conv2.conv.bias holds values that are not finite"),
    ],
)
def test_a_wrong_file_is_refused_with_the_first_layer_that_does_not_fit(change, message: str) -> None:  # type: ignore[no-untyped-def]
    arrays = {name: array.copy() for name, array in caffe_arrays().items()}
    change(arrays)
    with pytest.raises(WeightsError, match=message):
        read_weights(npz(arrays), "x.npz").build()


def test_a_negative_variance_is_named_instead_of_answers_that_are_not_numbers() -> None:
    model = GoogLeNet(5, "bn")
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors["conv2.bn.running_var"][3] = -0.1
    with pytest.raises(WeightsError, match=r"^layer conv2\.bn\.running_var holds negative variances$"):
        load_exactly(model, tensors)


@pytest.mark.parametrize(
    "array", [np.array(["a"]), np.zeros(3, [("a", "f4")]), np.zeros((64, 3, 7, 7), complex), np.zeros(3, bool)]
)
def test_an_array_without_numbers_is_named(array: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(WeightsError, match=r"^layer conv1/7x7_s2/weight holds no numbers$"):
        read_weights(npz(caffe_arrays() | {"conv1/7x7_s2/weight": array}), "x.npz")


def test_what_is_no_npz_is_not_said_to_hold_objects_that_could_be_loaded() -> None:
    with pytest.raises(WeightsError, match=r"^not a complete \.npz file; ") as refused:
        read_weights(b"x", "x.npz")
    assert "pickle" not in str(refused.value)


def test_a_zip_archive_of_another_file_is_no_npz() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("bvlc_googlenet.caffemodel", b"data")
    with pytest.raises(WeightsError, match=r"bvlc_googlenet\.caffemodel holds no numbers"):
        read_weights(buffer.getvalue(), "x.npz")


@pytest.mark.parametrize("name", ["x.npz", "x.pth", "x.safetensors", "x.caffemodel"])
def test_a_damaged_or_unknown_file_is_refused(name: str, tmp_path: Path) -> None:
    whole = {"x.npz": npz(caffe_arrays()), "x.pth": pth(torchvision_model())}.get(name, b"\0" * 1000)
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=name):
        googlenet.load_weights(tmp_path / name)


@pytest.mark.parametrize("gone", ["classifier.weight", "aux.4a.conv.conv.weight"])
def test_a_file_that_lacks_one_layer_is_not_a_start(gone: str) -> None:
    model = GoogLeNet(11, "paper")
    stored = read_weights(npz(caffe_arrays(classes=11)), "x.npz")
    tensors = {**model.state_dict(), **stored.tensors}
    del tensors[gone]
    with pytest.raises(WeightsError, match=f"{gone} is missing"):
        start_from(model, replace(stored, tensors=tensors))


def test_weights_of_another_variant_are_refused() -> None:
    with pytest.raises(WeightsError, match="variant paper, this network has bn"):
        start_from(GoogLeNet(5, "bn"), read_weights(npz(caffe_arrays()), "x.npz"))
