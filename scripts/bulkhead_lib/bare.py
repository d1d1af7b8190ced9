"""guestos in QEMU without a hypervisor beneath: the baseline, and the quick way to test what guestos does by itself."""

import shlex
import socket

from . import qemu
from .machine import Machine

KERNEL = "guestos.elf"


def free_port(kind=socket.SOCK_STREAM):
    """A port of 127.0.0.1 that nobody uses right now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class BareMachine(Machine):
    """
    QEMU's own devices (options.extra) under guestos.elf; prefix: a command that becomes QEMU. Its console works as that of any
    other machine; it has no control port.
    """

    def __init__(self, options, images, prefix=()):
        super().__init__(options, images, "")
        self.prefix = prefix

    def prepare(self):
        command = [*self.prefix, *qemu.bare_command(self.options, self.images / KERNEL)]
        (self.folder / "emulator.cmd").write_text(shlex.join(command) + "\n", encoding="utf-8")
        return command
