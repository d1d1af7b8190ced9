"""The machine without a hypervisor (scripts/bulkhead_lib/bare.py), as the tests use it."""

from harness import qemu
from bulkhead_lib import bare
from bulkhead_lib.bare import free_port  # noqa: F401
from bulkhead_lib.debug import qmp

BOOT_SECONDS = 60
MEMORY = 256


class BareMachine(bare.BareMachine):
    """arguments: more of QEMU's; prefix: a command that becomes QEMU."""

    def __init__(self, lab, arguments, prefix=()):
        folder = lab.folder / "machine"
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(qemu.Options(folder=folder, cpus=1, memory=MEMORY, extra=list(arguments)), lab.images, prefix)

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
