"""Transfers between the guest and programs of the host that nobody here wrote, watched byte by byte (transfer_end.py)."""

import contextlib
import hashlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

from bulkhead_lib.background import Background
from bulkhead_lib.machine import die_with_parent
from harness import MIB, check, find_json
from host_network import GATEWAY, host_run, served_file

END = pathlib.Path(__file__).with_name("transfer_end.py")
DISCARD_PORT = 9  # of the guest's, where nobody listens


class Transfer:
    """
    What the host's end of a transfer says while it goes on. places: numbers of bytes at which something is to be done to it; it does
    not go on from one of them, nor come to its end, before went_on() has been called for the one before.
    """

    def __init__(self, size, places, *arguments, stdin=None):
        self.places = places
        stops = [*places[1:], size * 95 // 100] if places else []
        self.size = size
        waits, self.gate = os.pipe()
        self.end = subprocess.Popen([sys.executable, str(END), str(waits), ",".join(map(str, stops)), *arguments], stdin=stdin, stdout=subprocess.PIPE, text=True,
                                    pass_fds=(waits,), preexec_fn=die_with_parent)
        os.close(waits)
        self.bytes = 0
        self.port = self.result = None
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self):
        for line in self.end.stdout:
            word, _, value = line.partition(" ")
            with self.changed:
                if word == "at":
                    self.bytes = int(value)
                elif word == "port":
                    self.port = int(value)
                else:
                    self.result = json.loads(line)
                self.changed.notify_all()

    def _wait(self, condition, seconds=60):
        with self.changed:
            check(self.changed.wait_for(condition, seconds), f"nothing more within {seconds} s, after {self.bytes} bytes")

    def reaches(self, count):
        """Waits until so many bytes have gone by. False: the transfer is over."""
        self._wait(lambda: self.result or self.bytes >= count)
        return self.result is None

    def went_on(self):
        os.write(self.gate, b".")

    def finish(self):
        """The end's result: all bytes, all of them right."""
        self._wait(lambda: self.result)
        self.end.wait(20)
        os.close(self.gate)
        self.thread.join(20)
        right = self.result["sha256"] == hashlib.sha256(served_file(self.size)).hexdigest()
        check(self.result["bytes"] == self.size and right, f"{self.result['bytes']} bytes of {self.size}, or others")
        return self.result


class FromGuest(Transfer):
    """curl, which does not try again, fetches from the guest's server."""

    def __init__(self, port, size, places=()):
        self.curl = subprocess.Popen(["curl", "-sS", f"http://127.0.0.1:{port}/{size // MIB}M"], stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, preexec_fn=die_with_parent)
        super().__init__(size, places, "receive", stdin=self.curl.stdout)
        self.curl.stdout.close()

    def finish(self):
        # Its output has another reader, so there is no communicate().
        errors = self.curl.stderr.read().decode(errors="replace").strip()
        check(self.curl.wait(60) == 0, f"curl ended with {self.curl.returncode} after {self.bytes} bytes: {errors}")
        return super().finish()


class ToGuest(Transfer):
    """The guest's `http get` fetches from Python's own server."""

    def __init__(self, machine, file, size, places=()):
        super().__init__(size, places, "serve", str(file))
        self._wait(lambda: self.port)
        self.machine = machine
        self.command = f"http get http://{GATEWAY}:{self.port}/{file.name}"
        machine.send(self.command)

    def finish(self):
        output, status = self.machine.finish(self.command, 180)
        check(status == 0, f"the guest's transfer ended with {status}: {output.strip()[-300:]}")
        result = super().finish()
        check(find_json(output)["sha256"] == result["sha256"], f"the guest has got something else: {output.strip()[-300:]}")
        return result


class Repeated(Background):
    """Fetches from the guest, one after the other, for as long as the context lasts. Each must be right."""

    def __init__(self, port, size, places=()):
        super().__init__()
        self.port = port
        self.size = size
        self.done = 0
        self.error = None

    def _run(self):
        expected = hashlib.sha256(served_file(self.size)).hexdigest()
        try:
            while not self.stop.is_set():
                data = host_run("curl", "-sS", f"http://127.0.0.1:{self.port}/{self.size // MIB}M", seconds=120)
                check(hashlib.sha256(data).hexdigest() == expected, f"{len(data)} bytes of {self.size}, or others")
                self.done += 1
        except (AssertionError, subprocess.SubprocessError) as error:
            self.error = error


@contextlib.contextmanager
def datagrams(port):
    """
    Small datagrams to a port of the guest, for as long as the context lasts. A wild receive buffer is noticed when its turn
    comes, up to 127 frames later: this brings it on where few frames go to the guest.
    """
    stop = threading.Event()

    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not stop.wait(0.002):
                for _ in range(8):
                    sender.sendto(b"turn", ("127.0.0.1", port))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def longest_gap_ms(result, began, ended):
    """Of the gaps that touch this time."""
    touching = [length for start, length in result["gaps"] if start + length >= began and start <= ended]
    return round(max(touching, default=0.0) * 1000, 1)
