"""Several hosts on one machine: network, process, mount and host-name namespaces, each with an SSH server.

A host has its own address on a bridge, sees only its own processes, and has its own ``/root``, ``/tmp`` and
``/dev/shm``; the rest of the filesystem, including Python and the project, is the machine's. Needs root, and a folder
for the hosts outside those three.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

BRIDGE = "gnet"
NETWORK = "10.77.0"
# The machine itself, as seen by the hosts; commands are run from here.
OUTSIDE = f"{NETWORK}.254"
NEEDED = ("ip", "unshare", "sshd", "ssh", "rsync", "nsenter")
SSHD_OPTIONS = ("PermitRootLogin=yes", "StrictModes=no", "UsePAM=no", "PasswordAuthentication=no", "PidFile=none")


def missing() -> str:
    """Return why hosts cannot be created here; empty if they can."""
    if os.geteuid() != 0:
        return "creating network namespaces needs root"
    absent = [name for name in NEEDED if not shutil.which(name)]
    return f"{', '.join(absent)} not installed (Debian: iproute2 openssh-server openssh-client rsync)" if absent else ""


class CommandError(Exception):
    """A command failed; the message has its errors."""


def command(*words: str) -> str:
    """Run a command and return its output."""
    ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    if ended.returncode:
        raise CommandError(f"{shlex.join(words)}: {ended.stderr.strip()}")
    return ended.stdout


@dataclass
class Host:
    """A host: its name, the last number of its address, and the folder of its private files."""

    name: str
    number: int
    folder: Path
    key: Path
    _init: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def _link(self) -> str:
        return f"{BRIDGE}{self.number}"

    def start(self) -> None:
        """Connect the host to the bridge and start its SSH server."""
        self._plug_in()
        for folder in ("root/.ssh", "tmp", "run/sshd"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(f"{self.key}.pub", self.folder / "root/.ssh/authorized_keys")
        options = " ".join(f"-o {option}" for option in SSHD_OPTIONS)
        script = f"""
            set -e
            hostname {self.name}
            mount --make-rprivate /
            {self._keep_python()}
            mount --rbind {self.folder}/root /root
            mount --bind {self.folder}/run /run
            mount --rbind {self.folder}/tmp /tmp
            mount -t tmpfs tmpfs /dev/shm
            exec {shutil.which("sshd")} -D -e -h {self.key} {options}
        """  # noqa: S108
        words = ["ip", "netns", "exec", self.name, "unshare", "--mount", "--pid", "--uts", "--fork", "--mount-proc"]
        log = (self.folder / "sshd.log").open("ab")
        self._init = subprocess.Popen([*words, "--kill-child", "bash", "-c", script], stdout=log, stderr=log)
        for _ in range(60):
            if self.run("true", check=False).returncode == 0:
                return
            time.sleep(0.5)
        raise RuntimeError(f"{self.name} does not answer: {(self.folder / 'sshd.log').read_text()}")

    def run(self, line: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command line through SSH."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=5"]
        words = ["ssh", "-q", "-i", str(self.key), *options, f"root@{self.address}", line]
        return subprocess.run(words, check=check, capture_output=True, text=True, timeout=120)

    def cut_off(self) -> None:
        """Take the host's network down; its processes keep running."""
        command("ip", "link", "set", self._link, "down")

    def reconnect(self) -> None:
        command("ip", "link", "set", self._link, "up")

    def kill(self) -> None:
        """Kill the host with all its processes, also one that a process before this one left; its files remain."""
        if self._init is not None:
            self._init.send_signal(signal.SIGKILL)
            self._init.wait()
            self._init = None
        with suppress(CommandError):
            for process in command("ip", "netns", "pids", self.name).split():
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
        for words in (["ip", "netns", "del", self.name], ["ip", "link", "del", self._link]):
            with suppress(CommandError):
                command(*words)

    def _plug_in(self) -> None:
        inside = ["ip", "-n", self.name]
        command("ip", "netns", "add", self.name)
        command("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        command("ip", "link", "set", self._link, "master", BRIDGE, "up")
        command(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        command(*inside, "link", "set", "eth0", "up")
        command(*inside, "link", "set", "lo", "up")
        # Without a default route, Ray uses 127.0.0.1 as the host's address.
        command(*inside, "route", "add", "default", "via", OUTSIDE)

    def _keep_python(self) -> str:
        """Return mounts that keep the machine's Python visible if it is below one of the host's private folders."""
        lines = []
        for path in {Path(sys.base_prefix), Path(sys.prefix)}:
            if path.parts[1] in ("root", "tmp"):
                inside = self.folder / path.relative_to("/")
                inside.mkdir(parents=True, exist_ok=True)
                lines.append(f"mount --bind {path} {inside}")
        return "\n".join(lines)


@contextmanager
def hosts(names: Sequence[str], folder: Path) -> Iterator[list[Host]]:
    """Start hosts that reach each other and this machine; remove them at the end, even after an error.

    Those of a process that was killed before its end are removed first.
    """
    key = folder / "key"
    command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    made = [Host(name, number, folder / name, key) for number, name in enumerate(names, start=1)]
    with socket.socket(socket.AF_UNIX) as claim:
        claim.bind(f"\0{BRIDGE}")  # "Address already in use" while another process has such hosts
        if Path(f"/sys/class/net/{BRIDGE}").exists():
            _remove(made)
        try:
            command("ip", "link", "add", BRIDGE, "type", "bridge")
            command("ip", "addr", "add", f"{OUTSIDE}/24", "dev", BRIDGE)
            command("ip", "link", "set", BRIDGE, "up")
            for host in made:
                host.start()
            yield made
        finally:
            _remove(made)


def _remove(made: Sequence[Host]) -> None:
    for host in made:
        host.kill()
    with suppress(CommandError):
        command("ip", "link", "del", BRIDGE)
