"""
A machine in Bochs: its configuration file, and the command that starts it.

Bochs has neither a console on its standard streams nor a UNIX socket nor an exit code that a guest chooses, so the command is
bochs_bridge.py, which starts Bochs and gives it all three. To the rest of the scripts it's one more emulator like QEMU.
"""

import pathlib
import re
import subprocess

from . import qemu
from .ui import Failure, say

BINARY = "bochs"
FIRMWARE = pathlib.Path("/usr/share/ovmf/OVMF.fd")  # code and variables in one file of 2 MiB
FIRMWARE_BASE = 0xFFE00000
# Shows the screen, which nobody looks at, with ncurses. The others need X, or (rfb) listen on every network interface.
DISPLAY = pathlib.Path("/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so")
DEFAULT_MODEL = "corei7_skylake_x"
SVM_MODELS = ("zambezi", "trinity_apu", "ryzen")
VMX_MODELS = ("corei7_skylake_x", "tigerlake", "corei7_icelake_u", "corei3_cnl", "broadwell_ult", "corei7_haswell_4770",
              "corei7_ivy_bridge_3770k", "corei7_sandy_bridge_2600k")
MAX_CPUS = 8
MAX_HOST_MEMORY = 2048  # MiB that Bochs takes in one piece
MIN_DISK = 16 * 63 * 512  # one cylinder
# Instructions that make a second of the machine's own time, which is all the time there is in it: TSC, timers and the PM timer count
# them. A quiet host runs about twice as many in a second. A heartbeat of 20 ms is a million instructions.
IPS = 50_000_000


def supported_models():
    """What this Bochs calls its CPU models; empty when there is no Bochs."""
    try:
        output = subprocess.run([BINARY, "-help", "cpu"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, errors="replace", check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_models(output)


def parse_models(output):
    """The names in the output of `bochs -help cpu`: one a line between its heading and the next empty line."""
    _, _, names = output.partition("Supported CPU models:\n\n")
    return re.findall(r"^[a-z0-9_]+$", names.partition("\n\n")[0], re.MULTILINE)


def check(o):
    """Everything that Bochs would refuse later and less clearly."""
    if not FIRMWARE.exists():
        raise Failure(f"{FIRMWARE} is missing (package ovmf)")
    if not DISPLAY.exists():
        raise Failure(f"{DISPLAY} is missing (package bochs-term)")
    models = supported_models()
    if not models:
        raise Failure(f"{BINARY} does not start (package bochs)")
    if o.model not in models:
        raise Failure(f"this Bochs has no CPU model '{o.model}'; with VMX or SVM there are: "
                      f"{', '.join(name for name in VMX_MODELS + SVM_MODELS if name in models)}")
    if o.cpus > MAX_CPUS:
        raise Failure(f"Bochs has at most {MAX_CPUS} CPUs")
    if o.gdb is not None or o.icount or o.extra or o.devices:
        raise Failure("--gdb, --icount and --qemu-arg are for QEMU, not for --accel bochs")


def _disk(o):
    """
    The disk in the instance's folder, by a name without surprises for a configuration file; Bochs also leaves a lock file beside
    an image. Returns its mode. Qcow2 images are unknown to Bochs.
    """
    link = o.folder / "bochs-disk.img"
    link.unlink(missing_ok=True)
    if qemu.disk_format(o.disk) == "qcow2":
        if not o.disk_snapshot:
            raise Failure(f"{o.disk} is a qcow2 image, and Bochs writes raw ones only: use --disk-snapshot, or convert it "
                          "(qemu-img convert -O raw IMAGE RAW)")
        say(f"{o.disk}: converted to a raw copy for Bochs; writes to it are forgotten")
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(o.disk), str(link)], check=True)
        return "flat"
    if o.disk.stat().st_size < MIN_DISK:
        raise Failure(f"{o.disk}: Bochs wants a disk of at least {MIN_DISK} bytes")
    link.symlink_to(o.disk)
    return "volatile" if o.disk_snapshot else "flat"


def configuration(o, disk_mode):
    """The text of bochsrc, without the serial ports: only the bridge knows where it listens. Relative to the instance's folder."""
    lines = [
        "config_interface: textconfig",
        "display_library: term",
        f"memory: guest={o.memory}, host={min(o.memory, MAX_HOST_MEMORY)}",
        f"cpu: model={o.model}, count={o.cpus}, ips={IPS}, reset_on_triple_fault=0, ignore_bad_msrs=1",
        f"romimage: file={FIRMWARE}, address={FIRMWARE_BASE:#x}",
        "pci: enabled=1, chipset=i440fx",
        "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14",
        "ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15",
        # Served as FAT; what the firmware writes goes to the journal and is forgotten.
        "ata1-master: type=disk, mode=vvfat, path=esp, journal=esp.journal",
        "boot: disk",
        "clock: sync=none, time0=utc",
        "panic: action=fatal",
        # Without these Bochs ends where there is no sound card.
        "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy",
        "speaker: enabled=0",
        "log: bochs.log",
    ]
    if disk_mode:
        lines.append(f"ata0-master: type=disk, mode={disk_mode}, path=bochs-disk.img, cylinders=0, heads=16, spt=63"
                     + (", journal=bochs-disk.journal" if disk_mode == "volatile" else ""))
    return "\n".join(lines) + "\n"


def command(o):
    """Writes the configuration into the instance's folder; the command line that runs it."""
    check(o)
    o.folder = pathlib.Path(o.folder)
    mode = _disk(o) if o.disk is not None and o.sata_disk else None
    # Left by a Bochs that was killed; the folder is ours, so nobody else holds them.
    for lock in o.folder.glob("*.lock"):
        if lock.name.startswith(("bochs-disk", "esp")):
            lock.unlink()
    (o.folder / "bochsrc").write_text(configuration(o, mode), encoding="utf-8")
    # Debian's Bochs is a debugger build: it wants to be told to go on.
    (o.folder / "bochs.commands").write_text("c\nq\n", encoding="ascii")
    bridge = pathlib.Path(__file__).with_name("bochs_bridge.py")
    return ["/usr/bin/python3", str(bridge), str(o.folder)] + (["--interactive"] if o.interactive else [])


def clean(folder):
    """After the end: what only Bochs leaves."""
    for pattern in ("bochs-disk*", "esp.journal*", "esp.lock", "bochs.commands"):
        for path in pathlib.Path(folder).glob(pattern):
            path.unlink()
