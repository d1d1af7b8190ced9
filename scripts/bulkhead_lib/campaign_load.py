"""
The loads that run while a fault is injected, each of them verifying: on a disk the guest's own `blk load`, on a network card a
transfer from the guest, which the host compares byte by byte. And what is sampled beside them.
"""

import hashlib
import json
import re
import socket
import threading
import time

from . import paths
from .background import Background
from .guest_output import find_json
from .pattern import SECTOR, SERVED_BYTES, served
from .ui import Failure

REGION = 512  # sectors; small, so that filling and the last check take little time
REGIONS = 8  # faults between two comparisons with the image
LOAD_SECONDS = 90  # longer than the guest waits before it calls a request lost
SAMPLE_SECONDS = 0.01
INTERRUPTED = 130


class DiskLoad:
    """`blk load` on one region of one disk. Whatever it says at its end is the verdict."""

    def __init__(self, machine, disk, slot, seed):
        self.machine = machine
        self.lba = slot * REGION
        # Without a number of requests it goes on for 10 s: a bound for every wait of the campaign's.
        self.command = (f"blk load --disk {disk} --seed {seed} --lba {self.lba} --sectors {REGION} --size 32768 --final --quiet")
        machine.send(self.command)
        machine.expect(rf"load: {disk}: seed|\[status", LOAD_SECONDS)
        if machine.text[:machine.position].endswith("[status"):
            raise Failure(f"the load does not start: {machine.before.strip().splitlines()[-1:]}")

    def finish(self):
        """Ctrl-C ends the random part; then all of the region is read once more and compared. The verdict."""
        self.machine.type("\x03")
        output, status = self.machine.finish(self.command, LOAD_SECONDS)
        verdict = find_json(output)
        bad = re.findall(r"^load: .*instead.*|^load: .*overwritten.*|^load: .*not completed.*", output, re.MULTILINE)
        return {**{key: value for key, value in verdict.items() if key != "disks"}, "status": status, "said": bad[:8]}


def image_hash(path, slot, count=1):
    with open(path, "rb") as file:
        file.seek(slot * REGION * SECTOR)
        return hashlib.sha256(file.read(count * REGION * SECTOR)).hexdigest()


def guest_hash(machine, disk, slot, count=1):
    """SHA-256 as the guest reads it; empty when it cannot."""
    output, status = machine.command(f"blk read --disk {disk} {slot * REGION} {count * REGION} --sha256", LOAD_SECONDS)
    found = re.search(r"sha256: ([0-9a-f]{64})", output)
    return found[1] if status == 0 and found else ""


class BlockSamples(Background):
    """Bytes that QEMU has moved for a disk, every few ms, while it is a context: over QMP, past the guest and the hypervisor."""

    def __init__(self, folder, backend):
        super().__init__()
        self.folder, self.backend = folder, backend
        self.samples = []  # (time, bytes)

    def _run(self):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(5)
                connection.connect(str(paths.socket_path(self.folder, "qmp.sock")))
                stream = connection.makefile("rw", encoding="utf-8")
                stream.readline()
                self._ask(stream, "qmp_capabilities")
                while not self.stop.wait(SAMPLE_SECONDS):
                    for entry in self._ask(stream, "query-blockstats"):
                        if entry.get("device") == self.backend:
                            stats = entry["stats"]
                            self.samples.append((time.monotonic(), stats["rd_bytes"] + stats["wr_bytes"]))
        except (OSError, ValueError):
            pass  # the machine has ended, and others will say why

    @staticmethod
    def _ask(stream, command):
        stream.write(json.dumps({"execute": command}) + "\n")
        stream.flush()
        reply = {}
        while "return" not in reply:
            line = stream.readline()
            if not line:
                raise OSError("no more answers")
            reply = json.loads(line)
        return reply["return"]


# ---- network ----

QUIET_SECONDS = 15  # a transfer that stands for so long has ended
FLOWING_BYTES = 65536
FILE = "1024M"
FILE_BYTES = 1 << 30


class NetLoad:
    """
    One transfer from the guest's HTTP server to this process, compared byte by byte. There is no second try: a connection
    that ends before we end it is lost.
    """

    _pattern = b""

    def __init__(self, port, quiet_seconds=QUIET_SECONDS):
        if not NetLoad._pattern:
            NetLoad._pattern = served() * 2
        self.bytes = self.wrong = 0
        self.broken = ""  # why the transfer is over
        self.samples = []  # (time, bytes)
        self.changed = threading.Condition()
        self.closing = False
        try:
            self.connection = socket.create_connection(("127.0.0.1", port), quiet_seconds)
            self.connection.settimeout(quiet_seconds)
            self.connection.sendall(f"GET /{FILE} HTTP/1.0\r\n\r\n".encode())
        except OSError as error:
            raise Failure(f"the guest's HTTP server does not answer: {error}") from error
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                head += self._receive()
            self._take(head.partition(b"\r\n\r\n")[2])
            while True:
                self._take(self._receive())
        except OSError as error:
            with self.changed:
                self.broken = "" if self.closing else str(error) or type(error).__name__
                self.changed.notify_all()

    def _receive(self):
        data = self.connection.recv(65536)
        if not data:
            raise OSError("the guest ended the connection")
        return data

    def _take(self, data):
        at = self.bytes % SERVED_BYTES
        right = data == self._pattern[at:at + len(data)]
        with self.changed:
            self.bytes += len(data)
            self.wrong += not right
            self.samples.append((time.monotonic(), self.bytes))
            self.changed.notify_all()

    def flows(self, more=FLOWING_BYTES, seconds=QUIET_SECONDS):
        """Wait for so many bytes more. False: the transfer stands, or is over."""
        with self.changed:
            wanted = self.bytes + more
            return self.changed.wait_for(lambda: self.bytes >= wanted or self.broken, seconds) and not self.broken

    def longest_gap_us(self, since):
        times = [since, *(when for when, _ in self.samples if when > since)]
        return int(max((b - a for a, b in zip(times, times[1:])), default=0) * 1e6)

    def close(self):
        with self.changed:
            self.closing = True
        # close() alone does not wake the thread that waits in recv().
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join()
        self.connection.close()
