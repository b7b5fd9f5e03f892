"""Claims: an address at which no Ray cluster answers is refused in one line that says what to do."""

import socket
import threading
from collections.abc import Iterator

import pytest

from pipelines.errors import UserError
from pipelines.job import ray_address
from pipelines.job.ray_address import check_address


@pytest.fixture
def listener() -> Iterator[str]:
    """The address of a server that accepts connections and says nothing a Ray cluster would say."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=[server], daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def _accept(server: socket.socket) -> None:
    kept = []
    while True:
        try:
            kept.append(server.accept())
        except OSError:
            return


def refusal(address: str) -> str:
    with pytest.raises(UserError) as refused:
        check_address(address)
    text = str(refused.value)
    assert "\n" not in text
    assert address in text
    return text


def test_a_port_where_nothing_listens_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    text = refusal(address)
    assert "no Ray cluster answers" in text
    assert "unset RAY_ADDRESS" in text


def test_a_host_that_does_not_exist_is_told() -> None:
    assert "no Ray cluster answers" in refusal("no-such-host.invalid:6379")


def test_a_port_of_something_else_is_told(listener: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "ANSWER_SECONDS", 1.0)
    assert "is not a Ray cluster" in refusal(listener)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://10.0.0.1:8265", "for ray job submit"),
        ("https://ray.example.org", "for ray job submit"),
        ("ray://10.0.0.1:10001", "Ray Client"),
        ("10.0.0.1", "must be HOST:PORT"),
        ("10.0.0.1:port", "must be HOST:PORT"),
        ("10.0.0.1:99999", "must be HOST:PORT"),
    ],
)
def test_an_address_of_another_kind_is_told_with_the_right_one(address: str, expected: str) -> None:
    assert expected in refusal(address)


@pytest.mark.parametrize("address", ["auto", "local"])
def test_what_ray_finds_by_itself_is_not_checked(address: str) -> None:
    check_address(address)
