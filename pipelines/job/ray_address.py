"""Check of the address of a Ray cluster before Ray connects: it would retry an address that is dead for minutes."""

import os
import re
import socket
from importlib.metadata import version
from pathlib import Path

from pipelines.errors import TryAgainError, UserError
from pipelines.job.interpreter import SUBMITTED_JOB
from pipelines.job.local_ray import SHORT_FOLDER, variable_of_folder

CONNECT_SECONDS = 10.0
# A head answers at once even under load; after 20 seconds gRPC would give up a silent port by itself, without a reason.
ANSWER_SECONDS = 15.0
GCS_PORT = 6379
FOUND_BY_RAY = "auto"
CURES = "start it, correct RAY_ADDRESS, or unset RAY_ADDRESS to run on this machine alone"
# The question for a cluster's versions, which has been the same since Ray 2.0, as a call of gRPC: Ray's own client
# neither gives up in time nor can be interrupted. The request is the protobuf message of the two words.
VERSION_CALL = "/ray.rpc.InternalKVGcsService/InternalKVGet"
VERSION_REQUEST = b"\n\x10CLUSTER_METADATA\x12\x07cluster"
RAY_VERSION = re.compile(rb'"ray_version": "([^"]+)"')
# A proxy of the environment is for the web; Ray does not use it either.
WITHOUT_PROXY = [("grpc.enable_http_proxy", 0)]


class ClusterAwayError(TryAgainError):
    """The cluster to which this job was submitted does not answer; the same command works once it does."""


def no_answer_error() -> type[UserError]:
    """Return the error for a cluster that does not answer.

    That of a submitted job has just started it, so its head is busy or has restarted: another try may help. Elsewhere
    the address is wrong more often.
    """
    return ClusterAwayError if SUBMITTED_JOB in os.environ else UserError


def check_address(address: str) -> None:
    """Refuse an address at which no usable cluster answers, within ``CONNECT_SECONDS`` plus ``ANSWER_SECONDS``.

    ``auto`` is checked only if the last cluster that ``ray start`` made here answers.

    Raises:
        UserError: the address is of another kind, nothing answers there, what answers is not the head of a Ray
            cluster, or the cluster has another version of Ray.
        ClusterAwayError: nothing answers in a submitted job.
    """
    is_found_by_ray = address == FOUND_BY_RAY
    if is_found_by_ray and not (address := _last_started()):
        return
    host, port = _host_and_port(address)
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        if is_found_by_ray:  # Ray looks for others
            return
        reason = error.strerror or str(error)
        raise no_answer_error()(f"no Ray cluster answers at {address} ({reason}): {CURES}") from error
    if not _uses_tls():
        _check_version(address, _ray_version(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", address))


def _last_started() -> str:
    """Return the address that ``ray start`` left on this machine, where Ray looks for it; empty if there is none."""
    named = os.environ.get(variable_of_folder())
    folder = Path(named) / "ray" if named else SHORT_FOLDER
    try:
        return (folder / "ray_current_cluster").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


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


def _ray_version(target: str, address: str) -> str:
    """Return the version of Ray of the cluster at ``target``; empty if it tells that only with a token."""
    import grpc

    with grpc.insecure_channel(target, WITHOUT_PROXY) as channel:
        try:
            answer: bytes = channel.unary_unary(VERSION_CALL)(VERSION_REQUEST, timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return ""
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise no_answer_error()(
                    f"what listens at {address} did not answer within {ANSWER_SECONDS:.0f} seconds: a Ray cluster "
                    f"that hangs, or something else; {CURES}"
                ) from error
            raise no_answer_error()(
                f"what answers at {address} is not the head of a Ray cluster (its port is {GCS_PORT} by default): "
                f"{CURES}"
            ) from error
    match = RAY_VERSION.search(answer)
    return match[1].decode() if match else ""


def _check_version(address: str, theirs: str) -> None:
    ours = version("ray")
    if theirs and theirs != ours:
        raise UserError(
            f"the cluster at {address} has Ray {theirs}, this environment has Ray {ours}: install the same version "
            "on both (constraints.txt has ours), or unset RAY_ADDRESS to run on this machine alone"
        )
