"""What a machine is made of, and the QEMU command line for it, in one place."""

import dataclasses
import pathlib
import shutil

from . import paths
from .ui import Failure

BINARY = "qemu-system-x86_64"
OVMF_CODE = pathlib.Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARS = pathlib.Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
EXIT_PORT = 0xF4

# isa-debug-exit turns a value v into QEMU's exit code (v << 1) | 1; values: enum machine_end of the hypervisor.
POWERED_OFF = (0x20 << 1) | 1
BOOT_ERROR = (0x21 << 1) | 1
PANIC = (0x22 << 1) | 1

QCOW2_MAGIC = b"QFI\xfb"


@dataclasses.dataclass
class Options:
    """What a machine is made of. The folder is the instance's: sockets, firmware variables and logs lie in it."""

    folder: pathlib.Path
    accel: str = "tcg"  # tcg, kvm, bochs
    machine: str = "q35"  # or pc: i440FX, without PCI Express, MSI-X on the disk, or IOMMU; QEMU only
    model: str = "corei7_skylake_x"  # of the CPU; Bochs only
    cpus: int = 2
    memory: int = 1024  # MiB
    disk: pathlib.Path | None = None
    disk_snapshot: bool = False
    iommu: bool = True
    interactive: bool = False
    gdb: int | None = None  # port of the gdbstub on localhost; the machine waits for a debugger
    icount: bool = False
    devices: list = dataclasses.field(default_factory=list)  # each an argument of -device
    extra: list = dataclasses.field(default_factory=list)  # raw arguments
    sata_disk: bool = True  # False: the SATA controller has no disk
    descriptors: list = dataclasses.field(default_factory=list)  # of files that the emulator inherits
    facts: dict = dataclasses.field(default_factory=dict)  # more about the machine, for instance.json


def disk_format(path):
    """raw or qcow2, by the file's first bytes. Never left to QEMU's guess: a guest could write a qcow2 header."""
    with open(path, "rb") as file:
        return "qcow2" if file.read(4) == QCOW2_MAGIC else "raw"


def quote(path):
    """A path inside a QEMU option: commas are doubled."""
    return str(path).replace(",", ",,")


def _machine(o):
    if o.accel == "kvm":
        # Interrupt remapping needs the IOAPIC in user space. `host` has VMX or SVM where KVM nests, and the host's physical
        # address width; a machine that nobody migrates may also have a TSC of constant rate.
        return ["-machine", f"{o.machine},kernel-irqchip=split", "-accel", "kvm", "-cpu", "host,migratable=off"]
    # CX16 is masked: TCG 7.2 corrupts EFLAGS around cmpxchg16b.
    thread = "single" if o.icount else "multi"
    args = ["-machine", o.machine, "-accel", f"tcg,thread={thread}", "-cpu", "max,-cx16"]
    if o.icount:
        # A nanosecond an instruction. Only while no CPU has anything to do does time go on as the host's: without sleep, it would
        # jump from timer to timer while the host reads a block.
        args += ["-icount", "shift=0,sleep=on"]
    return args


def _firmware(o):
    variables = pathlib.Path(o.folder) / "vars.fd"
    if not OVMF_CODE.exists():
        raise Failure(f"{OVMF_CODE} is missing (package ovmf)")
    shutil.copy(OVMF_VARS, variables)
    return ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={quote(OVMF_CODE)}",
            "-drive", f"if=pflash,unit=1,format=raw,file={quote(variables)}",
            # On a VirtIO disk, so that the q35's own SATA controller is free for the driver VM.
            "-drive", f"if=none,id=esp,format=raw,file=fat:rw:{quote(pathlib.Path(o.folder) / 'esp')}",
            "-device", "virtio-blk-pci,drive=esp,bootindex=0"]


def _disk(o):
    if o.disk is None or not o.sata_disk:
        return []
    snapshot = ",snapshot=on" if o.disk_snapshot else ""
    # q35: the SATA controller's first port; pc: the first IDE channel's master.
    place = "bus=ide.0" + (",unit=0" if o.machine == "pc" else "")
    return ["-drive", f"if=none,id=disk,format={disk_format(o.disk)},file={quote(o.disk)}{snapshot}",
            "-device", f"ide-hd,drive=disk,{place},serial=bulkhead-disk"]


def _console(o):
    qmp = quote(paths.socket_path(o.folder, "qmp.sock"))
    log = quote(pathlib.Path(o.folder) / "console.log")
    # mux with the monitor: Ctrl-A X, Ctrl-A C, Ctrl-A H as QEMU users know them. signal=off: Ctrl-C is the guest's.
    mux = ",mux=on" if o.interactive else ""
    return (["-chardev", f"stdio,id=console,signal=off{mux},logfile={log}", "-serial", "chardev:console"]
            + (["-mon", "chardev=console,mode=readline"] if o.interactive else [])
            + ["-qmp", f"unix:{qmp},server=on,wait=off"])


def _control(o):
    control = quote(paths.socket_path(o.folder, "control.sock"))
    return ["-chardev", f"socket,id=control,path={control},server=on,wait=off", "-serial", "chardev:control"]


def _frame(o):
    return [BINARY, *_machine(o), "-smp", str(o.cpus), "-m", str(o.memory), "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot"]


def bare_command(o, kernel):
    """Without a hypervisor, so without its firmware, IOMMU and control port: a PVH image on the same CPU and machine."""
    args = [*_frame(o), "-kernel", str(kernel), *_console(o)]
    for device in o.devices:
        args += ["-device", device]
    return args + list(o.extra)


def command(o):
    """The whole command line for these options."""
    args = [*_frame(o), "-boot", "menu=off"]
    if o.iommu and o.machine == "q35":
        # Before other devices: QEMU wants the IOMMU to exist when they are added. 48 bits: four-level tables. No caching-mode:
        # that is for devices of the host handed through by VFIO, which must see each mapping; emulated ones walk the tables.
        args += ["-device", "intel-iommu,intremap=on,aw-bits=48"]
    args += _firmware(o) + _disk(o)
    args += ["-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4"]
    args += _console(o) + _control(o)
    for device in o.devices:
        args += ["-device", device]
    if o.gdb is not None:
        args += ["-gdb", f"tcp:127.0.0.1:{o.gdb}", "-S"]
    return args + list(o.extra)
