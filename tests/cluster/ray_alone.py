"""The environment of a machine that only submits jobs: Ray's default extra with what it requires, and nothing else."""

import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

# As `ray` starts wherever pip has installed it.
RAY = "from ray.scripts.scripts import main; main()"


@dataclass(frozen=True)
class Submitter:
    """A Python with Ray alone, and the home folder of its user."""

    python: Path
    home: Path


def submitter(folder: Path) -> Submitter:
    """Make the environment in ``folder``, from the packages of this one.

    It has what `pip install 'ray[default]'` would install here, by the packages' own metadata.
    """
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv/bin" / Path(sys.executable).name
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    for package in installed_with("ray[default]"):
        for name in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (own / name).is_symlink():
                (own / name).symlink_to(package.locate_file(name))
    ray = folder / "venv/bin/ray"
    ray.write_text(f"#!{python}\n{RAY}\n")
    ray.chmod(0o755)
    (folder / "home").mkdir()
    return Submitter(python, folder / "home")


def installed_with(requirement: str) -> Iterator[Distribution]:
    """Yield the package and all that it requires here, directly or not, each once or with its extras."""
    waiting, seen = [Requirement(requirement)], set()
    while waiting:
        wanted = waiting.pop()
        key = wanted.name, *sorted(wanted.extras)
        if key in seen:
            continue
        seen.add(key)
        package = distribution(wanted.name)
        yield package
        needs = map(Requirement, package.requires or ())
        waiting += [
            need
            for need in needs
            if not need.marker or any(need.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras))
        ]
