"""Check of the address of a Ray cluster before Ray connects: it would retry an address that is dead for minutes."""

import os
import socket

from pipelines.errors import UserError

CONNECT_SECONDS = 10.0
# A cluster under load may take a while to answer.
ANSWER_SECONDS = 30.0
GCS_PORT = 6379
FOUND_BY_RAY = ("auto", "local")


def check_address(address: str) -> None:
    """Refuse an address at which no Ray cluster answers; takes at most ``CONNECT_SECONDS`` plus ``ANSWER_SECONDS``.

    ``auto`` and ``local``, which Ray resolves by itself, are not checked.

    Raises:
        UserError: the address is of another kind, nothing answers there, or what answers is not a Ray cluster.
    """
    if address in FOUND_BY_RAY:
        return
    host, port = _host_and_port(address)
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"no Ray cluster answers at {address} ({reason}): {_cures()}") from error
    if not _uses_tls() and not _speaks_grpc(f"{host}:{port}"):
        raise UserError(
            f"what answers at {address} is not a Ray cluster (its port is {GCS_PORT} by default): {_cures()}"
        )


def _host_and_port(address: str) -> tuple[str, int]:
    if address.startswith(("http://", "https://")):
        raise UserError(
            f"RAY_ADDRESS is {address}, which is for ray job submit: give that command --address {address}, "
            f"or set RAY_ADDRESS to HOST:{GCS_PORT} of the cluster's head"
        )
    if address.startswith("ray://"):
        raise UserError(
            f"RAY_ADDRESS is {address}, which is for Ray Client, and cannot be used here: submit the command with "
            f"ray job submit, or set RAY_ADDRESS to HOST:{GCS_PORT} of the cluster's head"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"RAY_ADDRESS must be HOST:PORT, such as 10.0.0.1:{GCS_PORT}, or auto; got {address!r}")
    return host.strip("[]"), int(port)


def _uses_tls() -> bool:
    """Return whether Ray is told to encrypt its connections, with certificates that only Ray reads."""
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _speaks_grpc(address: str) -> bool:
    import grpc

    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            return False
    return True


def _cures() -> str:
    return "start it, correct RAY_ADDRESS, or unset RAY_ADDRESS to run on this machine alone"
