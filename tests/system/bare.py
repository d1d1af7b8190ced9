"""guestos in QEMU without a hypervisor beneath: the baseline, and the quick way to test what guestos does by itself."""

import socket
import subprocess
import threading

from harness import Machine, paths, qemu
from bulkhead_lib.debug import qmp
from bulkhead_lib.machine import die_with_parent

BOOT_SECONDS = 60


def free_port(kind=socket.SOCK_STREAM):
    """A port of 127.0.0.1 that nobody uses right now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class BareMachine(Machine):
    """
    QEMU's own devices under guestos.elf; arguments: more of QEMU's; prefix: a command that becomes QEMU. Its console works as
    that of any other machine.
    """

    def __init__(self, lab, arguments, prefix=()):
        folder = lab.folder / "machine"
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(qemu.Options(folder=folder), lab.images, "")
        self.arguments = arguments
        self.prefix = prefix

    def start(self):
        self.instance.take()
        log = str(self.folder / "console.log").replace(",", ",,")
        monitor = str(paths.socket_path(self.folder, "qmp.sock")).replace(",", ",,")
        command = [*self.prefix, qemu.BINARY, "-accel", "tcg", "-cpu", "max,-cx16", "-machine", "q35", "-m", "256", "-nodefaults",
                   "-no-user-config", "-display", "none", "-no-reboot", "-kernel", str(self.images / "guestos.elf"),
                   "-chardev", f"stdio,id=console,signal=off,logfile={log}", "-serial", "chardev:console",
                   "-qmp", f"unix:{monitor},server=on,wait=off", *self.arguments]
        with open(self.folder / "emulator.stderr", "wb") as stderr:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                                            preexec_fn=die_with_parent)
        self._thread = threading.Thread(target=self._read_console, daemon=True)
        self._thread.start()

    def boot(self):
        self.shell_start(BOOT_SECONDS)
        return self

    def run(self, line, timeout=60, status=0):
        """A command that must end with this status; its output."""
        output, got = self.command(line, timeout)
        if got != status:
            raise AssertionError(f"`{line}` ended with status {got}: {output.strip()[-300:]}")
        return output

    def monitor(self, command, arguments):
        """One command to QEMU's monitor."""
        qmp(self.folder, command, arguments)
