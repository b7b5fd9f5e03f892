"""Fixtures of the tests of several packages."""

from importlib.metadata import PackageNotFoundError, version

import pytest

from pipelines.job import circumstances


@pytest.fixture
def opencv_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed packages of which none is called opencv-python-headless."""

    def without_opencv(package: str) -> str:
        if package == "opencv-python-headless":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(circumstances, "version", without_opencv)
