"""Checkpoints of PyTorch, as different programs save them; what only looks like one is refused."""

import argparse
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from googlenet import GoogLeNet
from googlenet.network.published import variant_of_weights
from googlenet.network.weight_files import read_weights
from googlenet.network.weights import WeightsError
from tests.googlenet.network.test_weight_files import torchvision_model


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("x.pt", lambda state: state),
        ("x.bin", lambda state: {"state_dict": state, "epoch": 3}),
        ("x.pth", lambda state: {"model_state_dict": {f"module.{name}": value for name, value in state.items()}}),
        ("x.pth", lambda state: {f"_orig_mod.{name}": value for name, value in state.items()}),
        ("x.pth", lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()}),
        ("x.pth", lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}}),
        ("x.pth", lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)}),
        ("epoch=3-step=400.ckpt", lambda state: {"state_dict": {f"model.{n}": value for n, value in state.items()}}),
        ("x.pth.tar", lambda state: {"arch": "googlenet", "state_dict": {f"module.{n}": v for n, v in state.items()}}),
    ],
)
def test_a_checkpoint_of_pytorch_is_read_however_it_was_saved(name: str, wrap) -> None:  # type: ignore[no-untyped-def]
    reference, buffer = torchvision_model(), io.BytesIO()
    torch.save(wrap(reference.state_dict()), buffer)
    stored = read_weights(buffer.getvalue(), name)
    assert torch.equal(stored.tensors["classifier.weight"], reference.fc.weight)
    assert variant_of_weights(name) == "bn"


@pytest.mark.parametrize(
    ("content", "reason"),
    [({0: torch.zeros(3)}, "no state dict"), ([torch.zeros(3)], "no state dict"), ({}, "lacks 115 of 115 layers")],
)
def test_other_content_of_a_checkpoint_is_named(content: object, reason: str) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with pytest.raises(WeightsError, match=reason):
        read_weights(buffer.getvalue(), "x.pth")


@pytest.mark.parametrize("variant", ["paper", "bn"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_of_this_project_is_told_from_another_network(variant: Any, prefix: str) -> None:
    model, buffer = GoogLeNet(5, variant, width=0.125), io.BytesIO()
    torch.save({f"{prefix}{name}": value for name, value in model.state_dict().items()}, buffer)
    with pytest.raises(WeightsError, match=r"this project's own GoogLeNet.*googlenet\.save_weights"):
        read_weights(buffer.getvalue(), "x.pth")


def test_an_archive_of_files_is_no_checkpoint() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    with pytest.raises(WeightsError, match="a TAR archive: unpack it"):
        read_weights(buffer.getvalue(), "x.tar")


def test_torchscript_is_not_taken_for_a_damaged_file() -> None:
    """Made of the parts by which PyTorch tells it; compiling one takes seconds."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("net/constants.pkl", "net/data.pkl", "net/version"):
            archive.writestr(name, b"")
    with pytest.raises(
        WeightsError, match=r"a TorchScript program.*save torch.jit.load\(FILE\).state_dict\(\) instead"
    ):
        read_weights(buffer.getvalue(), "x.pt")


@pytest.mark.parametrize("data", [b"", b"rubbish" * 100, b"404: Not Found", b"\x89HDF\r\n\x1a\n"])
def test_what_is_no_file_of_pytorch_is_not_taken_for_unsafe_objects(data: bytes) -> None:
    with pytest.raises(WeightsError, match=r"the file is empty|not a complete file of PyTorch weights"):
        read_weights(data, "x.pth")


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    buffer = io.BytesIO()
    torch.save({"conv1.conv.weight": Bomb()}, buffer)
    with pytest.raises(WeightsError, match="could run code, so they are not loaded"):
        read_weights(buffer.getvalue(), "x.pth")
    assert not (tmp_path / "ran").exists()
