"""torchvision's downloadable data sets by name: ``torchvision:Imagenette``, ``torchvision:Imagenette?size=160px``.

Options after the question mark are passed to the data set; ``root`` is the download folder, which all nodes of a
cluster must see, by default a folder of the data set's own in ``~/.cache``. The validation split of the data set is
used for validation, or its test split if it has none.
"""

import hashlib
import inspect
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from pipelines.data.class_list import refuse_repeated
from pipelines.data.file_names import readable
from pipelines.data.listing import DataSet, Entry
from pipelines.data.torchvision_downloads import marked_until_complete
from pipelines.errors import UserError, did_you_mean
from pipelines.run.storage import PARTIAL, Storage

PREFIX = "torchvision:"
# Pictures of data sets that hold pixels are kept in a folder with a digest of the options.
DIGEST_DIGITS = 8
DIGEST_PATTERN = "[0-9a-f]" * DIGEST_DIGITS
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
SPLITS = {"train": ("train", "trainval", "train-standard"), "val": ("val", "valid", "test")}


def find_in_torchvision(data: str) -> tuple[Storage, DataSet]:
    """Download the data set if necessary; return the folder with its images, and their listing.

    Raises:
        UserError: there is no such data set, it cannot be downloaded, an earlier download to the folder that ``root``
            names was interrupted, it names a class twice, or the home folder that it would go to is not known.
    """
    name, _, query = data.removeprefix(PREFIX).partition("?")
    # A plus sign stays a plus sign, not a space: folders may have it in their names.
    options = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
    if empty := [option for option, value in options.items() if not value]:
        raise UserError(f"{data}: {empty[0]} is empty; is a shell variable unset?")
    given = options.pop("root", "")
    try:
        folder = Path(given or Path.home() / ".cache" / "googlenet-ensemble" / name).expanduser()
    except RuntimeError as error:  # as of a container's user without an entry in /etc/passwd, or of root=~nobody
        raise UserError(f"{data}: there is no such home folder; name a folder with ?root=/FOLDER") from error
    if not folder.is_absolute():
        raise UserError(f"{data}: root={folder} must be an absolute path")
    if parts := options.keys() & {"split", "train"}:
        raise UserError(f"{data}: {min(parts)} cannot be set; train and val (or test) are used")
    make = _set_named(name)
    typed = _typed(options, make, data)
    folder.mkdir(parents=True, exist_ok=True)
    opened: dict[str, Any] = {}
    with marked_until_complete(folder, f"{name}-{DIGEST_PATTERN}", is_own=not given):
        for split, chosen in _splits(make):
            images = None if split in opened else _open(data, make, folder, {**typed, **chosen})
            if images is not None:
                opened[split] = images
    entries: dict[str, list[Entry]] = {}
    classes: tuple[str, ...] = ()
    for split, images in opened.items():
        classes = _class_names(images)
        refuse_repeated(classes, data)
        digest = hashlib.sha256(json.dumps(typed).encode()).hexdigest()[:DIGEST_DIGITS]
        entries[split] = list(_entries(images, folder, f"{name}-{digest}/{split}", classes))
    if not entries:
        raise UserError(f"{data}: it has none of the splits {', '.join(sum(SPLITS.values(), ()))} in torchvision")
    return Storage.at(str(folder)), DataSet({**entries}, classes)


def names_of_sets() -> list[str]:
    """Return the names of the data sets that torchvision can download."""
    return list(_downloadable())


def _downloadable() -> dict[str, Callable[..., Any]]:
    from torchvision import datasets

    makers: dict[str, Callable[..., Any]] = {known: getattr(datasets, known) for known in datasets.__all__}
    return {known: make for known, make in makers.items() if "download" in inspect.signature(make).parameters}


def _set_named(name: str) -> Callable[..., Any]:
    downloadable = _downloadable()
    if name not in downloadable:
        meant = did_you_mean(name, downloadable) or " (try Imagenette)"
        raise UserError(f"{PREFIX}{name}: torchvision has no downloadable data set of this name{meant}")
    return downloadable[name]


def _typed(options: dict[str, str], make: Callable[..., Any], data: str) -> dict[str, Any]:
    """Return the options as the data set takes them, by its defaults: truth values and whole numbers are no text."""
    parameters = inspect.signature(make).parameters
    typed: dict[str, Any] = {**options}
    for option, text in options.items():
        kind: type = type(parameters[option].default) if option in parameters else str
        if kind is bool:
            if text.lower() not in TRUTH:
                raise UserError(f"{data}: {option} must be true or false, got {text!r}")
            typed[option] = TRUTH[text.lower()]
        elif kind is int:
            try:
                typed[option] = int(text)
            except ValueError as error:
                raise UserError(f"{data}: {option} must be a whole number, got {text!r}") from error
    return typed


def _splits(make: Callable[..., Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    parameters = inspect.signature(make).parameters
    if "split" in parameters:
        yield from ((split, {"split": theirs}) for split, names in SPLITS.items() for theirs in names)
    elif "train" in parameters:
        yield from (("train", {"train": True}), ("val", {"train": False}))
    else:
        yield "", {}


def _open(data: str, make: Callable[..., Any], folder: Path, options: dict[str, Any]) -> Any:
    """Return the data set, with paths instead of pixels if possible; None if it has no such split."""
    if "loader" in inspect.signature(make).parameters:
        options = {**options, "loader": str}
    try:
        return make(str(folder), download=True, **options)
    except (ValueError, TypeError) as error:
        if "split" in str(error):
            return None
        raise UserError(f"{data}: {error}") from error
    except (OSError, RuntimeError, ImportError) as error:
        raise UserError(f"{data} cannot be downloaded to {folder}: {error}") from error


def _class_names(images: Any) -> tuple[str, ...]:
    # Of cats and dogs, OxfordIIITPet keeps the names apart from those of the breeds.
    is_binary = getattr(images, "_target_types", None) == ["binary-category"]
    names = getattr(images, "bin_classes" if is_binary else "classes", None) or []
    return tuple(", ".join(name) if isinstance(name, tuple | list) else str(name) for name in names)


def _entries(images: Any, folder: Path, part: str, classes: tuple[str, ...]) -> Iterator[Entry]:
    for number in range(len(images)):
        image, label = images[number]
        if not isinstance(label, int):
            raise UserError(f"{part}: image {number} has no single class; its label is {label!r}")
        name = classes[label] if classes else str(label)
        path = Path(image) if isinstance(image, str) else _kept(image, folder / part / f"{number:06d}.png")
        yield Entry(readable(path.relative_to(folder).as_posix()), name)


def _kept(image: Any, path: Path) -> Path:
    """Return the path of an image that its data set holds as pixels, written losslessly."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}{PARTIAL}{uuid.uuid4().hex[:8]}")  # two commands may write it at once
        image.save(partial, "PNG")
        partial.replace(path)
    return path
