"""
The control port: one line to the hypervisor, lines of `kind key=value ...` back, then `ok` or `error TEXT`.

QEMU's socket takes one client at a time and carries no message borders, so callers take turns by a lock file.
"""

import contextlib
import fcntl
import pathlib
import re
import select
import socket
import struct
import time

from . import paths
from .ui import Failure

PAIR = re.compile(r'([A-Za-z0-9_.\-/]+)=(?:"([^"]*)"|(\S*))')
REPLY_SECONDS = 30.0
QUIET_SECONDS = 0.03


class ControlError(Failure):
    """The hypervisor answered `error TEXT`."""


def parse_line(line):
    """("kind", {key: value}); numbers become int. A bare word without '=' is dropped: the protocol has none."""
    kind, _, rest = line.strip().partition(" ")
    fields = {}
    for key, quoted, bare in PAIR.findall(rest):
        value = bare if bare else quoted
        fields[key] = int(value) if re.fullmatch(r"-?\d+", bare) else value
    return kind, fields


class Control:
    """Commands for one running instance. Each exchange connects anew, so that many processes can take turns."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def raw(self, command, timeout=REPLY_SECONDS):
        """The reply's lines without the final `ok`."""
        with self._connected(time.monotonic() + timeout) as exchange:
            return exchange(command)

    @contextlib.contextmanager
    def talk(self, timeout=REPLY_SECONDS):
        """Many commands in one connection, quicker than one by one: yields ask(command). Others wait meanwhile: keep it short."""
        with self._connected(time.monotonic() + timeout) as exchange:
            yield lambda command: [parse_line(line) for line in exchange(command)]

    @contextlib.contextmanager
    def _connected(self, deadline):
        def exchange(command):
            if "\n" in command or not 0 < len(command) < 255:
                raise Failure(f"not a control command: {command!r}")
            connection.sendall(command.encode() + b"\n")
            return self._reply(connection, command, deadline)

        with open(self.folder / "control.lock", "w", encoding="ascii") as lock:
            self._take(lock, deadline)
            with contextlib.closing(self._connect()) as connection:
                self._drain(connection)
                yield exchange

    def send_all(self, commands, timeout=4 * REPLY_SECONDS):
        """Commands that answer nothing but `ok`, one behind the other without waiting for each."""
        deadline = time.monotonic() + timeout
        with open(self.folder / "control.lock", "w", encoding="ascii") as lock:
            self._take(lock, deadline)
            with contextlib.closing(self._connect()) as connection:
                self._drain(connection)
                connection.settimeout(timeout)
                connection.sendall("".join(f"{command}\n" for command in commands).encode())
                buffer = b""
                while buffer.count(b"\n") < len(commands):
                    data = connection.recv(65536) if time.monotonic() < deadline else b""
                    if not data:
                        raise Failure("the hypervisor did not answer in time, or the machine ended")
                    buffer += data
        for line in buffer.decode("ascii", "replace").splitlines():
            if line.strip() != "ok":
                raise ControlError(line.removeprefix("error").strip())

    def ask(self, command, timeout=REPLY_SECONDS):
        """The reply as a list of (kind, fields)."""
        return [parse_line(line) for line in self.raw(command, timeout)]

    def rows(self, command, kind, timeout=REPLY_SECONDS):
        """The fields of the reply's lines of one kind."""
        return [fields for name, fields in self.ask(command, timeout) if name == kind]

    @staticmethod
    def _take(lock, deadline):
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failure("the control port is busy with another command") from None
                time.sleep(0.01)

    def _connect(self):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # An emulator that hangs accepts nobody, and soon not even a place in the queue is left to wait in.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(REPLY_SECONDS), 0))
        try:
            connection.connect(str(paths.socket_path(self.folder, "control.sock")))
        except OSError as error:
            connection.close()
            raise Failure(f"no machine answers in {self.folder} (is `scripts/bulkhead run` still running?)") from error
        return connection

    @staticmethod
    def _drain(connection):
        """Throw away what was meant for an earlier client (or came from the firmware, which also writes to this port)."""
        while select.select([connection], [], [], QUIET_SECONDS)[0]:
            if not connection.recv(65536):
                raise Failure("the machine has ended")

    @staticmethod
    def _reply(connection, command, deadline):
        buffer, lines = b"", []
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([connection], [], [], left)[0]:
                raise Failure(f"the hypervisor did not answer `{command}` in time")
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Failure(f"the machine ended during `{command}`")
            *complete, buffer = (buffer + data).split(b"\n")
            for line in (item.decode("ascii", "replace").strip("\r") for item in complete):
                if line == "ok":
                    return lines
                if line.startswith("error"):
                    raise ControlError(line[5:].strip() or f"the hypervisor refused `{command}`")
                if line:
                    lines.append(line)
