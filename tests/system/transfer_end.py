"""
The host's end of a transfer, a program of its own, so that nothing else delays it. It notes the gaps: pauses of at least
GAP_SECONDS between two pieces. It says `at N` after each MiB, and in the end one line of JSON: bytes, sha256, and the gaps as
[when it began, how long], in seconds of the monotonic clock.

    receive          takes standard input to its end
    serve FILE       Python's own HTTP server, which first says `port N`, and ends after one transfer of the file
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

    def __init__(self):
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
        if (self.count + len(data)) // MIB > self.count // MIB:
            print(f"at {self.count + len(data)}", flush=True)
        self.count += len(data)
        self.before = time.monotonic()

    def end(self):
        print(json.dumps({"bytes": self.count, "sha256": self.digest.hexdigest(), "gaps": self.gaps}), flush=True)


def receive():
    watch = Watch()
    while data := os.read(0, 1 << 16):
        watch.arrived(data)
    watch.end()


def serve(path):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(path.parent))

        def log_message(self, *arguments):
            pass

        def copyfile(self, source, outputfile):
            watch = Watch()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            while data := source.read(SEND_BUFFER):
                outputfile.write(data)
                watch.arrived(data)
            watch.end()

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        print(f"port {server.server_port}", flush=True)
        server.handle_request()


if __name__ == "__main__":
    receive() if sys.argv[1:] == ["receive"] else serve(pathlib.Path(sys.argv[2]))
