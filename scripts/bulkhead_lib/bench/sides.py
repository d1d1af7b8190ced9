"""The machines that are compared: guestos under Bulkhead, and guestos alone."""

import contextlib
import dataclasses
import pathlib

from .. import devices, machine, paths, qemu
from ..bare import BareMachine
from ..debug import qmp
from ..hostprocess import cpu_us, wait_us
from ..ui import Failure
from . import figures, instructions

GUEST_MIB = 256  # of the guest under Bulkhead, and of the machine without it
BOOT_SECONDS = 600  # QEMU's -icount makes two minutes of the firmware's waiting on a busy host
HEAD = "[hypervisor]\ncontrol = com2\nexit_port = 0xf4\n\n"
GUEST = f"[vm main]\nkind = guest\nimage = guestos.elf\nmemory = {GUEST_MIB}M\n"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all machines of a run have in common."""

    name: str  # what the names of the instances begin with
    accel: str
    cpus: int
    memory: int  # MiB, of the machine under the hypervisor
    iommu: bool
    icount: bool  # count instructions
    qemu_args: tuple
    seconds: int
    rounds: int
    net: str  # what network cards are plugged into: a key of network.KINDS

    def describe(self):
        return {"accelerator": self.accel, "cpus": self.cpus, "iommu": self.iommu, "guest_mib": GUEST_MIB, "icount": self.icount, "net": self.net,
                "seconds": self.seconds, "rounds": self.rounds}

    def folder(self, side):
        found = paths.instance(f"{self.name}-{side}")
        found.mkdir(parents=True, exist_ok=True)
        return found

    def figure(self, rate):
        """The figure whose ratio counts, where it would be this rate if time counted."""
        return "instructions" if self.icount else rate

    def options(self, folder, memory, backend, device):
        """backend: QEMU's arguments for what the device stands on, and the descriptors that they name."""
        # Instructions are counted while time runs as it does: with QEMU's -icount it would jump whenever the CPU is idle,
        # and all timers of the guest and the hypervisor would fire while the host reads a block.
        counting = instructions.arguments(folder) if self.icount else []
        return qemu.Options(folder=folder, accel=self.accel, cpus=self.cpus, memory=memory, iommu=self.iommu,
                            sata_disk=False, extra=[*backend.arguments, *device, *counting, *self.qemu_args],
                            descriptors=list(backend.descriptors))


@dataclasses.dataclass
class Backend:
    """What a device stands on, for QEMU. A Network is one, too."""

    arguments: list
    descriptors: list = dataclasses.field(default_factory=list)


class Side:
    """One machine of a comparison, at the guest's prompt and paused; awake() while it is measured."""

    def __init__(self, setting, name):
        self.setting = setting
        self.name = name
        self.folder = setting.folder(name)
        self.overhead = {}  # of a workload, when it has next to nothing to do: (result, difference of the counters)

    def __enter__(self):
        try:
            self.machine.start()
            self.machine.shell_start(BOOT_SECONDS)
            self._pause("stop")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self.machine.kill()
        machine.remove_instance(self.folder, keep=False)

    @contextlib.contextmanager
    def awake(self):
        self._pause("cont")
        yield
        self._pause("stop")

    def _pause(self, command):
        # Under KVM the TSC goes on in a paused machine, and the hypervisor would miss its drivers' heartbeats.
        if self.setting.accel != "kvm":
            qmp(self.folder, command)

    def run(self, command, timeout, statuses=(0,)):
        """A command at the guest's prompt; its output."""
        output, status = self.machine.command(command, timeout)
        if status not in statuses:
            raise Failure(f"{self.name}: the guest's `{command}` ended with status {status}: {output.strip()[-200:]}")
        return output

    def counters(self):
        """What has been counted so far, {"NAME COUNTER": number}: by the host here, by the hypervisor in a BulkheadSide."""
        counted = instructions.read(self.folder) if self.setting.icount else {}
        pid = self.machine.process.pid
        return {figures.CPU: cpu_us(pid), figures.WAIT: wait_us(pid), **counted}


class BulkheadSide(Side):
    """The guest's device is a driver VM's."""

    def __init__(self, setting, grants, device, backend):
        super().__init__(setting, grants)
        options = setting.options(self.folder, setting.memory, backend, devices.arguments([device]))
        # Without an IOMMU the driver VM is let in, so that what the IOMMU costs can be told.
        section = device.section(grants=grants, dma=None if setting.iommu else "unprotected")
        manifest = "\n".join([HEAD + section, GUEST])
        self.machine = machine.Machine(options, paths.images("release"), manifest)

    def counters(self):
        found = super().counters()
        for kind, fields in self.machine.control.ask("stats"):
            name = fields.get("name", fields.get("id"))
            found.update({f"{name} {key}": value for key, value in fields.items() if isinstance(value, int) and key != "id"})
        return found


class BareSide(Side):
    """The guest's device is QEMU's."""

    def __init__(self, setting, device, backend):
        super().__init__(setting, figures.BARE)
        options = setting.options(self.folder, GUEST_MIB, backend, ["-device", device])
        self.machine = BareMachine(options, paths.images("release"))
