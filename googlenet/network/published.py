"""Published weights by name: ``bvlc``, ``torchvision:googlenet``, ``hf://OWNER/REPO[/FILE]``.

Each name leads to a file on this machine, which is downloaded once: into the cache of torch.hub (TORCH_HOME), or for
``hf://`` into that of huggingface_hub. PyTorch is imported for a download only.
"""

import re
from pathlib import Path, PurePosixPath

from googlenet.network.choices import PYTORCH_SUFFIXES, WEIGHT_SUFFIXES, Variant
from googlenet.network.download import DownloadError, PublishedFile, fetch
from googlenet.network.hub import HubError, fetch_file, fetch_snapshot, is_hub_name, parse_hub_name

BVLC = "bvlc"
TORCHVISION_PREFIX, TORCHVISION = "torchvision:", "torchvision:googlenet"
IMAGENET_CLASSES = 1000
# The addresses after the first are mirrors of DeepDetect and of NVIDIA's jetson-inference; the digest decides.
FILES = {
    BVLC: PublishedFile(
        name="bvlc_googlenet.caffemodel",
        addresses=(
            "http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
            "https://www.deepdetect.com/downloads/platform/pretrained/caffe/googlenet/bvlc_googlenet.caffemodel",
            "https://www.deepdetect.com/models/ggnet/bvlc_googlenet.caffemodel",
            "https://nvidia.box.com/shared/static/at8b1105ww1c5h7p30j5ko8qfnxrs0eg.caffemodel",
        ),
        sha256="6f7101e3a2183738a7125a0c5021ba82a1feb4228c5ca0924d991b6daf6f6fad",
        size_bytes=53_533_754,
    ),
}
MEANING_OF_BVLC = "downloads Caffe's GoogLeNet, 54 MB; license: released for unrestricted use"
# What every error about a missing file of weights offers.
HINT = f"the name {BVLC} {MEANING_OF_BVLC}"
NAMES = f"{BVLC}, {TORCHVISION}, hf://OWNER/REPO/FILE"
OWN_SUFFIX = ".safetensors"


def is_weights_name(weights: str) -> bool:
    """Tell whether ``weights`` is the name of published weights, not a path."""
    return weights in FILES or weights.startswith(TORCHVISION_PREFIX) or is_hub_name(weights)


def check_weights_name(name: str) -> None:
    """Refuse a name that leads to no weights, without a download.

    Raises:
        DownloadError: there are no such published weights.
    """
    if name.startswith(TORCHVISION_PREFIX) and name != TORCHVISION:
        raise DownloadError(f"{name}: {TORCHVISION} is the only one of torchvision's networks that can be used")
    if is_hub_name(name) and (suffix := suffix_of_name(name)) not in WEIGHT_SUFFIXES:
        expected = ", ".join(WEIGHT_SUFFIXES)
        raise DownloadError(f"{name}: unknown kind of weights file {suffix!r}: expected one of {expected}")


def suffix_of_name(name: str) -> str:
    """Return the suffix of the file that ``name`` leads to."""
    if name in FILES:
        return PurePosixPath(FILES[name].name).suffix
    if is_hub_name(name):
        path = _hub_path(name)
        return PurePosixPath(path).suffix if path else OWN_SUFFIX
    return ".pth"


def variant_of_weights(weights: str) -> Variant | None:
    """Return the variant that ``weights`` belong to, a name or a path; None if only the file itself can tell."""
    return "bn" if weights.startswith(TORCHVISION_PREFIX) or weights.endswith(PYTORCH_SUFFIXES) else None


def outputs_of_weights(weights: str) -> int | None:
    """Return the number of outputs of ``weights``, a name or a path; None if only the file itself can tell."""
    return IMAGENET_CLASSES if weights in (BVLC, TORCHVISION) else None


def names_of_files(name: str) -> list[str]:
    """Return a name for each file of weights behind ``name``: of a repository, all of this project's format.

    Raises:
        DownloadError: the repository cannot be had, or has no such file.
    """
    check_weights_name(name)
    if not is_hub_name(name) or _hub_path(name):
        return [name]
    try:
        root = fetch_snapshot(name, [f"*{OWN_SUFFIX}"])
    except HubError as error:
        raise DownloadError(str(error)) from error
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob(f"*{OWN_SUFFIX}"))
    if not files:
        raise DownloadError(f"{name}: no {OWN_SUFFIX} file in it; name a file of another kind: {name}/FILE")
    return [f"{name.rstrip('/')}/{file}" for file in files]


def fetch_weights(name: str) -> Path:
    """Return the file that ``name`` leads to, after a download if it is not in the cache.

    Raises:
        DownloadError: there are no such published weights, several files fit the name, or the file cannot be had.
    """
    names = names_of_files(name)
    if len(names) > 1:
        raise DownloadError(f"{name}: has {len(names)} files of weights; name one of them, such as {names[0]}")
    if not is_hub_name(name):
        return fetch(FILES[name] if name in FILES else _torchvision_file(), _torch_hub_folder())
    try:
        return fetch_file(names[0])
    except HubError as error:
        raise DownloadError(str(error)) from error


def _hub_path(name: str) -> str:
    """Return the path of the file that a name on the Hub names; empty for a whole repository."""
    try:
        return str(parse_hub_name(name).path_in_repo)
    except HubError as error:
        raise DownloadError(str(error)) from error


def _torch_hub_folder() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _torchvision_file() -> PublishedFile:
    """Return what torchvision publishes; the first digits of the digest are in the file's name, as torch.hub has it."""
    import torchvision

    address = str(torchvision.models.GoogLeNet_Weights.DEFAULT.url)
    name = PurePosixPath(address).name
    [digits] = re.findall(r"-([0-9a-f]{8,})\.", name)
    return PublishedFile(name, (address,), digits)
