"""
The host's end of a transfer, a program of its own, so that nothing else delays it. It notes the gaps: pauses of at least
GAP_SECONDS between two pieces. It says `at N` after each MiB and at each stop, and in the end one line of JSON: bytes, sha256,
and the gaps as [when it began, how long], in seconds of the monotonic clock.

    GATE STOPS receive       takes standard input to its end
    GATE STOPS serve FILE    Python's own HTTP server, which first says `port N`, and ends after one transfer of the file

STOPS are numbers of bytes, with commas. At each of them it goes on when another byte comes through the pipe GATE (a descriptor),
or when that is closed: a fast machine must not be done before all faults have met the transfer.
"""

import hashlib
import http.server
import json
import os
import pathlib
import socket
import sys
import time

MIB = 1 << 20
GAP_SECONDS = 0.001
# What the kernel holds back from a guest that stands still hides a part of the gap.
SEND_BUFFER = 1 << 14


class Watch:
    """Counts what goes by, and notes when."""

    def __init__(self, gate, stops):
        self.gate, self.stops = gate, stops
        self.digest = hashlib.sha256()
        self.count = 0
        self.gaps = []
        self.before = None

    def arrived(self, data):
        """Right after a piece has come, or gone."""
        now = time.monotonic()
        if self.before is not None and now - self.before >= GAP_SECONDS:
            self.gaps.append([self.before, now - self.before])
        self.digest.update(data)
        whole = self.count // MIB
        self.count += len(data)
        stop = self.stops and self.count >= self.stops[0]
        if stop or self.count // MIB > whole:
            print(f"at {self.count}", flush=True)
        while self.stops and self.count >= self.stops[0]:
            os.read(self.gate, 1)
            self.stops.pop(0)
        self.before = time.monotonic()

    def end(self):
        print(json.dumps({"bytes": self.count, "sha256": self.digest.hexdigest(), "gaps": self.gaps}), flush=True)


def receive(gate, stops):
    watch = Watch(gate, stops)
    while data := os.read(0, 1 << 16):
        watch.arrived(data)
    watch.end()


def serve(gate, stops, path):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(path.parent))

        def log_message(self, *arguments):
            pass

        def copyfile(self, source, outputfile):
            watch = Watch(gate, stops)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            while data := source.read(SEND_BUFFER):
                outputfile.write(data)
                watch.arrived(data)
            watch.end()

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        print(f"port {server.server_port}", flush=True)
        server.handle_request()


if __name__ == "__main__":
    where = int(sys.argv[1]), [int(stop) for stop in sys.argv[2].split(",") if stop]
    receive(*where) if sys.argv[3] == "receive" else serve(*where, pathlib.Path(sys.argv[4]))
