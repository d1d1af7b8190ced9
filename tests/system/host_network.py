"""What tests of the guest's network share: peers on the host, and what the guest serves."""

import hashlib
import http.server
import subprocess
import threading
import time

from bulkhead_lib.machine import die_with_parent
from bulkhead_lib.pattern import SERVED_BYTES, served
from harness import check, find_json

GATEWAY = "10.0.2.2"  # QEMU's user network; connections to it arrive at the host's 127.0.0.1
ADDRESS = f"ifconfig 10.0.2.15/24 {GATEWAY} 10.0.2.3"
IPERF_SECONDS = 2


def served_file(size):
    """What the guest serves as a file of `size` bytes."""
    return (served() * (size // SERVED_BYTES + 1))[:size]


def counters(machine):
    """The interface's counters, of which none may tell of a broken rule."""
    found = find_json(machine.run("ifconfig --json"))
    check(found["protocol"] == 0 and found["unknown"] == 0 and found["resets"] == 0, f"the device broke rules: {found}")
    return found


def host_program(*command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)


def host_run(*command, seconds=60):
    """Output of a program on the host, which must succeed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds, check=False)
    check(done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-300:]} {done.stdout[-300:]}")
    return done.stdout


def fetch_from_host(lab, machine, data, inside=()):
    """The guest fetches data from 10.9.0.1, where a program of the host serves them; inside: a command that enters its namespace."""
    (lab.folder / "data").write_bytes(data)
    server = host_program(*inside, "/usr/bin/python3", "-m", "http.server", "--bind", "10.9.0.1", "--directory", str(lab.folder), "8000")
    try:
        # Its listening is not announced on a pipe; the guest tries until somebody answers.
        deadline = time.monotonic() + 20
        while machine.command("http get 10.9.0.1:8000/ discard", 60)[1] != 0:
            check(server.poll() is None and time.monotonic() < deadline, "the host's HTTP server does not start")
        result = find_json(machine.run("http get 10.9.0.1:8000/data", 120))
        check(result["sha256"] == hashlib.sha256(data).hexdigest(), f"got {result}")
    finally:
        server.kill()
        server.communicate()
        (lab.folder / "data").unlink()


class HostFiles:
    """Python's own HTTP server for a folder, on a free port of 127.0.0.1."""

    def __init__(self, folder):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments):
                super().__init__(*arguments, directory=str(folder))

            def log_message(self, *arguments):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()
