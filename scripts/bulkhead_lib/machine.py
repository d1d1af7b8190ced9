"""One machine: an instance folder, its emulator, its console and its control port."""

import ctypes
import fcntl
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time

from . import bochs, esp, paths, qemu
from .console import ERROR_LINE, ConsoleFilter
from .control import Control
from .ui import Failure

PROMPT = "guestos> "
STATUS = re.compile(r"\[status (-?\d+)\]\n?")
BACK_TO_FIRMWARE = "bulkhead: boot failed, back to the firmware"
# The guest's UART is emulated, with a FIFO of 16 bytes: type no faster than that is emptied.
TYPE_BYTES = 12
TYPE_PAUSE = 0.002


_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def die_with_parent():
    """In the child, before the emulator starts: it is killed when we are, even by SIGKILL, so that none is left behind."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class MachineEnded(Failure):
    """The emulator ended while something was expected from the machine."""


class Instance:
    """A named folder under build/run (or any folder) that one machine owns at a time."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self._lock = None

    def take(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        # Inherited by nobody: the lock ends with this process, however it ends.
        self._lock = open(self.folder / "instance.lock", "a+", encoding="ascii")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise Failure(f"an instance named '{self.folder.name}' is running; choose another --name") from None
        for name in ("control.sock", "qmp.sock"):
            paths.socket_path(self.folder, name).unlink(missing_ok=True)

    def describe(self, **fields):
        (self.folder / "instance.json").write_text(json.dumps(fields, indent=1, default=str), encoding="utf-8")

    def description(self):
        try:
            return json.loads((self.folder / "instance.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise Failure(f"no instance named '{self.folder.name}' has run here") from None

    def release(self):
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @staticmethod
    def is_running(folder):
        try:
            with open(pathlib.Path(folder) / "instance.lock", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True


def prepare(options, images, manifest_text, replace=None):
    """Assemble the ESP and write down the command line. The instance must be taken. Returns the command."""
    esp.assemble(options.folder / "esp", images, manifest_text, replace)
    command = bochs.command(options) if options.accel == "bochs" else qemu.command(options)
    (options.folder / "emulator.cmd").write_text(shlex.join(command) + "\n", encoding="utf-8")
    return command


class Machine:
    """
    A machine with its console on pipes. A thread reads the console; waiting is by events with a deadline, never by
    sleeping. Use as a context manager: on the way out the emulator is gone, whatever happened.
    """

    def __init__(self, options, images, manifest_text, replace=None, on_log=None, on_error=None):
        self.options = options
        self.folder = pathlib.Path(options.folder)
        self.images = images
        self.manifest_text = manifest_text
        self.replace = replace
        self.on_log = on_log or (lambda line: None)
        self.on_error = on_error or (lambda line: None)
        self.instance = Instance(self.folder)
        self.control = Control(self.folder)
        self.process = None
        self.text = ""  # the guest's text so far, log lines cut out
        self.position = 0  # what expect() has consumed of it
        self.filter = ConsoleFilter()
        self.ended = False
        self._changed = threading.Condition()
        self._thread = None

    # ---- life ----

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.kill()

    def prepare(self):
        """Everything that the emulator finds in the folder; the command that starts it."""
        return prepare(self.options, self.images, self.manifest_text, self.replace)

    def start(self):
        self.instance.take()
        try:
            command = self.prepare()
            with open(self.folder / "emulator.stderr", "wb") as stderr:
                self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                                                preexec_fn=die_with_parent, pass_fds=self.options.descriptors)
        except FileNotFoundError:
            self.instance.release()
            raise Failure(f"{command[0]} is missing (package qemu-system-x86)") from None
        except BaseException:
            self.instance.release()
            raise
        self.instance.describe(pid=os.getpid(), emulator=self.process.pid, accel=self.options.accel,
                               images=self.images, gdb=self.options.gdb, **self.options.facts)
        self._thread = threading.Thread(target=self._read_console, daemon=True)
        self._thread.start()

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            # An orderly end first: the bridge before Bochs then waits for its child, and leaves no dead one to init.
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        if self.process is not None:
            self.process.wait()
            self._thread.join()
            self.process.stdin.close()
            self.process.stdout.close()
        self.instance.release()

    def wait_exit(self, timeout=60):
        """The emulator's exit code, once it has ended by itself."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"the machine did not end within {timeout:.0f} s") from None
        self._thread.join()
        return code

    def _read_console(self):
        decoder_errors = "replace"
        seen_errors = 0
        while True:
            data = os.read(self.process.stdout.fileno(), 65536)
            with self._changed:
                logged = len(self.filter.log)
                self.text += self.filter.feed(data.decode("utf-8", decoder_errors)) if data else self.filter.finish()
                self.ended = not data
                new_log = self.filter.log[logged:]
                # Only whole lines: the last one may still grow.
                errors = ERROR_LINE.findall(self.text[:self.text.rfind("\n") + 1])
                self._changed.notify_all()
            for line in new_log:
                self.on_log(line)
            for line in errors[seen_errors:]:
                self.on_error(line)
            seen_errors = len(errors)
            if not data:
                return

    # ---- console ----

    def errors(self):
        """The `bulkhead: ` lines that the loader or the hypervisor printed so far."""
        with self._changed:
            return ERROR_LINE.findall(self.text)

    def in_firmware(self):
        """The loader gave up where there is no exit port: the machine goes on, in the firmware."""
        with self._changed:
            return BACK_TO_FIRMWARE in self.text

    def log(self):
        """The hypervisor's and the loader's log lines so far."""
        with self._changed:
            return list(self.filter.log)

    def forget(self):
        """Drop the text that expect() has consumed: each wait searches all that is kept, and a machine may live for long."""
        with self._changed:
            self.text, self.position = self.text[self.position:], 0

    def expect(self, pattern, timeout=60):
        """Wait until the pattern (regular expression) appears in the guest's text after what was consumed; consume it."""
        regex = re.compile(pattern)
        return self._wait(lambda: self._match(regex), timeout, f"text like {pattern!r}")

    def expect_log(self, pattern, timeout=60):
        """Wait for a log line; returns its match. Looks at all lines from the start."""
        regex = re.compile(pattern)
        return self._wait(lambda: next(filter(None, map(regex.search, self.filter.log)), None), timeout,
                          f"a log line like {pattern!r}")

    def _match(self, regex):
        match = regex.search(self.text, self.position)
        if match:
            self.before = self.text[self.position:match.start()]
            self.position = match.end()
        return match

    def _wait(self, probe, timeout, what):
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = probe()
                if found:
                    return found
                failed = ERROR_LINE.findall(self.text)
                if BACK_TO_FIRMWARE in self.text or (self.ended and failed):
                    raise MachineEnded(failed[0])
                if self.ended:
                    raise MachineEnded(f"the machine ended while waiting for {what}{self._why()}")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Failure(f"no {what} within {timeout:.0f} s")
                self._changed.wait(left)

    def _why(self):
        try:
            tail = (self.folder / "emulator.stderr").read_text(errors="replace").strip().splitlines()[-1:]
        except OSError:
            tail = []
        return f" ({tail[0]})" if tail else ""

    def type(self, text):
        data = text.encode()
        try:
            for at in range(0, len(data), TYPE_BYTES):
                self.process.stdin.write(data[at:at + TYPE_BYTES])
                self.process.stdin.flush()
                time.sleep(TYPE_PAUSE)
        except BrokenPipeError:
            raise MachineEnded("the machine ended while a command was typed") from None

    # ---- guest shell ----

    def wait_prompt(self, timeout=120):
        self.expect(re.escape(PROMPT), timeout)

    def shell_start(self, timeout=120):
        """Wait for the prompt and make the shell say each command's status."""
        self.wait_prompt(timeout)
        self.type("status on\n")
        self.expect(STATUS.pattern, 20)
        self.wait_prompt(20)

    def send(self, line):
        """Type a command without waiting for its end; finish() collects it."""
        self.type(line + "\n")

    def finish(self, line, timeout=60):
        """(output, status) of the command that send() typed."""
        match = self.expect(STATUS.pattern, timeout)
        output, status = self.before, int(match[1])
        self.wait_prompt(20)
        return strip_echo(output, line), status

    def command(self, line, timeout=60):
        """Type a command at the prompt; (output, status)."""
        self.send(line)
        return self.finish(line, timeout)

    def power_off(self, timeout=60):
        """`poweroff` in the guest; the emulator's exit code."""
        self.send("poweroff")
        return self.wait_exit(timeout)


def strip_echo(output, line):
    """The output without the shell's echo of the command."""
    first, newline, rest = output.partition("\n")
    return rest if newline and first.strip() == line.strip() else output


def remove_instance(folder, keep):
    """After the end: sockets always; disk, ESP and firmware variables unless they are to be kept."""
    folder = pathlib.Path(folder)
    for name in ("control.sock", "qmp.sock"):
        paths.socket_path(folder, name).unlink(missing_ok=True)
    bochs.clean(folder)
    if not keep:
        shutil.rmtree(folder / "esp", ignore_errors=True)
        for path in [*folder.glob("scratch*.img"), folder / "vars.fd", folder / "instance.json"]:
            path.unlink(missing_ok=True)
