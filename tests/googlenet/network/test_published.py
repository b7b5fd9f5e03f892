"""Published weights by name, from servers on loopback: the file that each name leads to, and what is refused."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch

import googlenet
from googlenet import GoogLeNet
from googlenet.network.download import DownloadError
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.published import BVLC, FILES, fetch_weights, names_of_files, suffix_of_name
from googlenet.network.weights import to_safetensors
from tests.file_server import FileServer, file_server
from tests.googlenet.network.published_files import caffemodel_v1, with_heads, zoo_onnx
from tests.googlenet.network.test_weight_files import caffe_arrays, pth, torchvision_model
from tests.hub_server import hub_of

NOBODY = "http://127.0.0.1:9"


def small_replica() -> bytes:
    torch.manual_seed(0)
    model = GoogLeNet(3, "bn", False, 0.125)
    return to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING)


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch.hub; returns the folder of its checkpoints."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def bvlc(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serve a .caffemodel of random weights in place of the published one."""
    data = caffemodel_v1(with_heads(caffe_arrays(classes=5)))
    with file_server(data) as server:
        addresses = (f"{server.address}/none", f"{server.address}/whole")
        digest = hashlib.sha256(data).hexdigest()
        monkeypatch.setitem(FILES, BVLC, replace(FILES[BVLC], addresses=addresses, sha256=digest, size_bytes=len(data)))
        yield server


def test_bvlc_is_the_file_that_caffe_published() -> None:
    file = FILES[BVLC]
    assert (file.name, file.size_bytes) == ("bvlc_googlenet.caffemodel", 53_533_754)
    assert file.sha256 == "6f7101e3a2183738a7125a0c5021ba82a1feb4228c5ca0924d991b6daf6f6fad"
    assert file.addresses[0] == "http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel"


def test_bvlc_is_downloaded_into_torch_hubs_cache_and_loaded(bvlc: FileServer, torch_home: Path) -> None:
    replica = googlenet.load_weights("bvlc")
    expected = torch.from_numpy(caffe_arrays(classes=5)["loss3/classifier/weight"])
    assert torch.equal(replica.model.classifier.weight, expected)
    assert [path.name for path in torch_home.iterdir()] == ["bvlc_googlenet.caffemodel"]
    assert len(bvlc.asked) == 2  # the first address has no such file
    googlenet.load_weights("bvlc")
    assert len(bvlc.asked) == 2


def test_without_a_network_one_line_says_where_a_file_fetched_by_hand_goes(
    torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FILES, BVLC, replace(FILES[BVLC], addresses=(NOBODY, f"{NOBODY}/mirror")))
    reasons = rf"\({NOBODY}, {NOBODY}/mirror: Connection refused\)"
    expected = f"{reasons}.*53,533,754 bytes, SHA-256 6f71.*put it at {torch_home}/bvlc_googlenet.caffemodel"
    with pytest.raises(DownloadError, match=expected) as error:
        googlenet.load_weights("bvlc")
    assert "\n" not in str(error.value)


def test_torchvisions_weights_come_from_its_enum(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    data = pth(torchvision_model(classes=5))
    with file_server(data) as server:
        name = f"googlenet-{hashlib.sha256(data).hexdigest()[:8]}.pth"
        enum = SimpleNamespace(DEFAULT=SimpleNamespace(url=f"{server.address}/whole/{name}"))
        monkeypatch.setattr(torchvision.models, "GoogLeNet_Weights", enum)
        assert fetch_weights("torchvision:googlenet") == torch_home / name
        assert googlenet.load_weights("torchvision:googlenet").model.variant == "bn"


def test_what_torchvision_publishes_is_checked_by_the_digits_in_its_name(torch_home: Path) -> None:
    import torchvision

    name = Path(torchvision.models.GoogLeNet_Weights.DEFAULT.url).name
    torch_home.mkdir(parents=True)
    (torch_home / name).write_bytes(pth(torchvision_model(classes=5)))
    digits = name.removesuffix(".pth").rpartition("-")[2]
    with pytest.raises(DownloadError, match=f"{name} is another file .*expected {digits}"):
        fetch_weights("torchvision:googlenet")


@pytest.fixture(scope="module")
def hub_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models ``me/one``, ``me/seven`` and ``zoo/googlenet-12``."""
    root = tmp_path_factory.mktemp("hub")
    files = {
        "me/one/weights.safetensors": small_replica(),
        "me/one/README.md": b"",
        "me/seven/replicas/0/weights.safetensors": small_replica(),
        "me/seven/replicas/1/weights.safetensors": small_replica(),
        "zoo/googlenet-12/googlenet-12.onnx": zoo_onnx(caffe_arrays(classes=5)),
    }
    for name, data in files.items():
        (root / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "models" / name).write_bytes(data)
    return root


@pytest.fixture
def hub(hub_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve the models, to an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub_of(hub_files) as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("hf://me/one", "bn"),
        ("hf://me/one/weights.safetensors", "bn"),
        ("hf://me/seven@v1/replicas/1/weights.safetensors", "bn"),
        ("hf://zoo/googlenet-12/googlenet-12.onnx", "paper"),
    ],
)
def test_weights_on_the_hub_are_loaded_by_name(hub: None, name: str, variant: str) -> None:
    assert googlenet.load_weights(name).model.variant == variant


def test_a_repository_of_several_replicas_names_each(hub: None) -> None:
    files = [f"hf://me/seven/replicas/{replica}/weights.safetensors" for replica in (0, 1)]
    assert names_of_files("hf://me/seven") == files
    with pytest.raises(DownloadError, match=f"has 2 files of weights; name one of them, such as {re.escape(files[0])}"):
        fetch_weights("hf://me/seven")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torchvision:resnet50", "torchvision:googlenet is the only one of torchvision's networks that can be used"),
        (
            "hf://me/one/README.md",
            r"unknown kind of weights file '.md': expected one of .safetensors, .npz, .caff",
        ),
        (
            "hf://zoo/googlenet-12",
            r"no .safetensors file in it; name a file of another kind: hf://zoo/googlenet-12/FILE",
        ),
        ("hf://me/none", "no repository me/none"),
        ("hf://me", "Expected hf://OWNER/REPO"),
    ],
)
def test_a_name_that_leads_to_no_weights_is_refused(hub: None, name: str, reason: str) -> None:
    with pytest.raises(DownloadError, match=rf"^{name}: .*{reason}"):
        fetch_weights(name)


def test_the_suffix_is_known_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    names = {
        "bvlc": ".caffemodel",
        "torchvision:googlenet": ".pth",
        "hf://a/b": ".safetensors",
        "hf://a/b/c.npz": ".npz",
    }
    assert {name: suffix_of_name(name) for name in names} == names


def test_a_missing_file_names_bvlc_and_its_license(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*gone.npz; the name bvlc .*license: .*unrestricted"):
        googlenet.load_weights(tmp_path / "gone.npz")
