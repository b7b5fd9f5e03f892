"""The cluster that all tests on several hosts share; a test that takes a host away brings it back."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.multihost.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator["Cluster"]:
    from tests.multihost.cluster import cluster_of_three

    with cluster_of_three() as started:
        yield started
