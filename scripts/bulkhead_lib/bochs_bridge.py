"""
Bochs as a child process that behaves like QEMU: the first serial port on standard input and output, the second one on the
UNIX socket control.sock, an exit code that says how the machine ended. bochs.py makes the command line:
bochs_bridge.py FOLDER [--interactive].

Bochs connects to us over TCP on localhost, the only socket that its serial ports know. The machine cannot switch itself off:
after the hypervisor's last words it only halts, so these are recognized, and Bochs is ended.
"""

import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from bulkhead_lib import machine, paths, qemu  # noqa: E402  (the path must be set first)

CONNECT_SECONDS = 20
FAILED = 3
LINE_MAX = 4096
PENDING_MAX = 65536
ESCAPE_KEY = 1  # Ctrl-A
HELP = b"\r\nCtrl-A H  print this help\r\nCtrl-A X  end the machine\r\nCtrl-A Ctrl-A  send Ctrl-A to the guest\r\n"

# What machine_end() of the hypervisor prints last; the emulator's exit codes say the same of QEMU.
LAST_WORDS = {
    b"bulkhead: the machine has stopped; it can be switched off": qemu.POWERED_OFF,
    b"bulkhead: boot failed; the machine has stopped": qemu.BOOT_ERROR,
    b"bulkhead: the machine has stopped after a panic": qemu.PANIC,
}
# The firmware takes the first disk that has a boot loader; in Bochs nobody can tell it otherwise.
FOREIGN_LOADER = re.compile(rb"BdsDxe: starting .*Ata\(Primary,Master")
FOREIGN_TEXT = "the disk image has an EFI boot loader of its own, and the firmware starts that one; use QEMU for this image"


class LastWords:
    """
    Finds the machine's end in the console's bytes, however they are cut into pieces. The guest writes to the same console: one that
    prints such a line ends its own machine, which it may.
    """

    def __init__(self):
        self.line = b""

    def feed(self, data):
        """The exit code, or None while the machine goes on."""
        *lines, rest = (self.line + data).split(b"\n")
        self.line = rest[-LINE_MAX:]
        return next((code for code in map(self._judge, lines) if code is not None), None)

    @staticmethod
    def _judge(line):
        return FAILED if FOREIGN_LOADER.search(line) else LAST_WORDS.get(line.strip(b"\r"))


class Keys:
    """What a person types: Ctrl-A is ours."""

    def __init__(self):
        self.escaped = False

    def feed(self, data):
        """(bytes for the guest, bytes for the screen, whether the machine is to end)."""
        out, screen = bytearray(), b""
        for byte in data:
            if self.escaped:
                self.escaped = False
                if byte in b"xX":
                    return bytes(out), screen, True
                if byte in b"hH?":
                    screen += HELP
                elif byte == ESCAPE_KEY:
                    out.append(byte)
            elif byte == ESCAPE_KEY:
                self.escaped = True
            else:
                out.append(byte)
        return bytes(out), screen, False


class Port:
    """A connection with bytes that wait to be sent. Data for nobody is dropped, as on a serial line without a cable."""

    def __init__(self):
        self.connection = None
        self.pending = b""

    def send(self, data):
        if self.connection is not None and len(self.pending) < PENDING_MAX:
            self.pending += data
            self.flush()

    def flush(self):
        try:
            while self.pending:
                self.pending = self.pending[self.connection.send(self.pending):]
        except BlockingIOError:
            pass
        except OSError:
            self.pending = b""

    def receive(self):
        """What has come; empty: the other side has gone."""
        try:
            return self.connection.recv(65536)
        except ConnectionError:
            return b""

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.connection, self.pending = None, b""


def listen():
    """A port of localhost for one connection."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(4)
    return listener


def owner_of(address):
    """The user whose TCP socket on this machine has this local address; None: nobody's. From /proc/net/tcp."""
    wanted = f"{int.from_bytes(socket.inet_aton(address[0]), sys.byteorder):08X}:{address[1]:04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        for fields in (line.split() for line in table):
            if fields[1] == wanted:
                return int(fields[7])
    return None


def accept(listener, process):
    """Bochs's connection, None when it ended or takes too long. Any user of this host can reach the port: only ours are let in."""
    deadline = time.monotonic() + CONNECT_SECONDS
    listener.settimeout(0.2)
    with listener:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                connection, address = listener.accept()
            except TimeoutError:
                continue
            if owner_of(address) == os.getuid():
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection
            connection.close()
    return None


class Bridge:
    def __init__(self, folder, interactive):
        self.folder = pathlib.Path(folder)
        self.keys = Keys() if interactive else None
        self.last_words = LastWords()
        self.console, self.control, self.client = Port(), Port(), Port()
        self.process = None
        self.typing = True  # standard input has not ended
        self.code = None

    def start(self):
        """Starts Bochs and takes its two connections; opens what others connect to."""
        listeners = [listen(), listen()]
        serial = [f"com{number}: enabled=1, mode=socket-client, dev=127.0.0.1:{listener.getsockname()[1]}"
                  for number, listener in enumerate(listeners, 1)]
        with open(self.folder / "bochs.stderr", "wb") as errors:
            # What it draws has no reader; ncurses wants to know a terminal all the same.
            self.process = subprocess.Popen(["bochs", "-q", "-f", "bochsrc", "-rc", "bochs.commands", *serial], cwd=self.folder,
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                                            env=dict(os.environ, TERM="linux"), preexec_fn=machine.die_with_parent)
        for port, listener in zip((self.console, self.control), listeners):
            port.connection = accept(listener, self.process)
        if self.control.connection is None:
            self.ended()
            return
        path = paths.socket_path(self.folder, "control.sock")
        path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(4)

    def run(self):
        """Until the machine's end; the exit code."""
        self.start()
        with open(self.folder / "console.log", "wb", buffering=0) as self.log:
            while self.code is None:
                self.round()
        return self.code

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def round(self):
        """Waits until somebody can be read or written, and serves them."""
        readers = {self.console.connection: self.on_console, self.control.connection: self.on_control}
        # One client at a time on the control port, as with QEMU.
        if self.client.connection is None:
            readers[self.listener] = self.on_connect
        else:
            readers[self.client.connection] = self.on_client
        if self.typing and len(self.console.pending) < PENDING_MAX:
            readers[sys.stdin.fileno()] = self.on_input
        writers = {port.connection: port for port in (self.console, self.control, self.client) if port.pending}
        readable, writable, _ = select.select(list(readers), list(writers), [])
        for connection in writable:
            writers[connection].flush()
        for connection in readable:
            readers[connection]()

    def on_console(self):
        data = self.console.receive()
        if not data:
            self.ended()
            return
        self.log.write(data)
        show(data)
        code = self.last_words.feed(data)
        if code is not None:
            self.code = code
        if code == FAILED:
            print(f"Bochs: {FOREIGN_TEXT}", file=sys.stderr)

    def on_control(self):
        self.client.send(self.control.receive())

    def on_connect(self):
        self.client.connection = self.listener.accept()[0]
        self.client.connection.setblocking(False)

    def on_client(self):
        data = self.client.receive()
        if data:
            self.control.send(data)
        else:
            self.client.close()

    def on_input(self):
        data = os.read(sys.stdin.fileno(), 4096)
        self.typing = bool(data)
        if self.keys is not None:
            data, screen, end = self.keys.feed(data)
            show(screen)
            if end:
                self.code = 0
        self.console.send(data)

    def ended(self):
        """Bochs went away by itself, which no end of the machine makes it do: say what it said."""
        text = (self.folder / "bochs.stderr").read_text(errors="replace")
        cause = re.search(r"exiting with the following message:\n(.*)", text)
        print(f"Bochs: {cause[1].strip() if cause else 'it ended without a word, see bochs.log'}", file=sys.stderr)
        self.code = FAILED


def show(data):
    while data:
        data = data[os.write(sys.stdout.fileno(), data):]


def raw_terminal():
    """Keys go to the machine one by one, Ctrl-C too; what is printed is still processed, as QEMU sets it."""
    if sys.stdin.isatty():
        mode = termios.tcgetattr(sys.stdin)
        mode[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
                     | termios.ICRNL | termios.IXON)
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, mode)


def main(arguments):
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    interactive = "--interactive" in arguments[1:]
    bridge = Bridge(arguments[0], interactive)
    if interactive:
        raw_terminal()
    try:
        return bridge.run()
    except BrokenPipeError:
        return FAILED  # nobody reads the console any more
    finally:
        bridge.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
