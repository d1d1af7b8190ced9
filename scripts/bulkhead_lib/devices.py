"""
The devices that QEMU offers and a driver VM can drive: one table for `run`, `bench` and the tests.

A machine's devices are a list of Device, in the order in which the guest sees them; from it follow QEMU's arguments and the
manifest's sections. Each device of PCI Express sits behind a root port of its own, so that it can be reset by itself.
"""

import dataclasses
import re

from . import qemu
from .ui import Failure

FIRST_PORT = 0x10  # the first root port's slot on bus 0; OVMF numbers the buses behind them in the order of their slots
BARE_SLOT = 0x08  # of the first device that stands on bus 0 itself


@dataclasses.dataclass(frozen=True)
class Model:
    """One kind of device. {id}: of this device, {backend}: of its drive or netdev, {bus}, {serial}."""

    role: str  # blk or net
    image: str
    qemu: tuple  # arguments of -device
    express: bool = True
    fixed: str = ""  # its address, where it is part of the machine


VIRTIO = "iommu_platform=on,disable-legacy=on,romfile="
MODELS = {
    "ahci": Model("blk", "ahci.elf", ("ide-hd,drive={backend},bus=ide.0,serial={serial}",), False, "00:1f.2"),
    "nvme": Model("blk", "nvme.elf", ("nvme,id={id},drive={backend},{bus},serial={serial}",)),
    "virtio-blk": Model("blk", "virtio_blk.elf", ("virtio-blk-pci,id={id},drive={backend},{bus},serial={serial}," + VIRTIO,)),
    "e1000": Model("net", "e1000.elf", ("e1000,id={id},netdev={backend},{bus},romfile=",), False),
    "e1000e": Model("net", "e1000.elf", ("e1000e,id={id},netdev={backend},{bus},romfile=",)),
    "virtio-net": Model("net", "virtio_net.elf", ("virtio-net-pci,id={id},netdev={backend},{bus}," + VIRTIO,)),
}


def names(role):
    return [name for name, model in MODELS.items() if model.role == role]


@dataclasses.dataclass(frozen=True)
class Device:
    vm: str  # the driver VM's name: blk0, net1, ...
    model: str  # a key of MODELS
    address: str  # bus:device.function, as the manifest has it
    port: int | None  # slot of its root port; None: it stands on bus 0

    @property
    def role(self):
        return MODELS[self.model].role

    @property
    def backend(self):
        """The id of the -drive (blk) or -netdev (net) that belongs to it; whoever starts QEMU defines that."""
        return f"{self.vm}-backend"

    @property
    def serial(self):
        return f"bulkhead-{self.vm}"

    def section(self, **keys):
        """This driver VM's keys in the manifest, those that follow from the device first; None leaves one out."""
        rows = {"kind": "driver", "image": MODELS[self.model].image, "device": f"pci:{self.address}", "memory": "1M", **keys}
        return "\n".join([f"[vm {self.vm}]", *(f"{key} = {value}" for key, value in rows.items() if value is not None), ""])


def layout(disks, nics):
    """The devices for these models, in order: blk0, blk1, ..., then net0, ..."""
    found, port, slot = [], FIRST_PORT, BARE_SLOT
    for role, models in (("blk", disks), ("net", nics)):
        for number, model in enumerate(models):
            if model not in MODELS or MODELS[model].role != role:
                raise Failure(f"no {'disk' if role == 'blk' else 'network card'} is called '{model}'; there are: {', '.join(names(role))}")
            kind, at = MODELS[model], None
            if kind.fixed and any(device.model == model for device in found):
                others = " or ".join(name for name in names(role) if not MODELS[name].fixed)
                raise Failure(f"a machine has only one {model}; take {others} for another disk")
            if kind.express:
                at, port = port, port + 1
                address = f"{at - FIRST_PORT + 1:02x}:00.0"
            elif kind.fixed:
                address = kind.fixed
            else:
                address, slot = f"00:{slot:02x}.0", slot + 1
            found.append(Device(f"{role}{number}", model, address, at))
    return found


def arguments(devices):
    """QEMU's -device arguments for them. Their backends are not among them."""
    args = []
    for device in devices:
        if device.port is not None:
            args += ["-device", f"pcie-root-port,id={device.vm}-port,chassis={device.port},addr={device.port:#x}"]
        bus = f"bus={device.vm}-port" if device.port is not None else f"bus=pcie.0,addr={device.address.split(':')[1].split('.')[0]}"
        for text in MODELS[device.model].qemu:
            args += ["-device", text.format(id=device.vm, backend=device.backend, bus=bus, serial=device.serial)]
    return args


def drives(devices, images, snapshot=False, unsafe=False):
    """
    QEMU's -drive arguments for the disks among them, whose images are given in order. snapshot: writes are forgotten; unsafe: a flush does
    not reach the host's own disk, which matters only if the host crashes.
    """
    args = []
    for device, image in zip(disks(devices), images, strict=True):
        args += ["-drive", f"if=none,id={device.backend},format={qemu.disk_format(image)},file={qemu.quote(image)}"
                 + (",snapshot=on" if snapshot else "") + (",cache=unsafe" if unsafe else "")]
    return args


def disks(devices):
    return [device for device in devices if device.role == "blk"]


def nics(devices):
    return [device for device in devices if device.role == "net"]


SECTION = re.compile(r"^\[vm ([^\]]+)\]", re.MULTILINE)
COMMENTED_SECTION = re.compile(r"^(?:#[^\n]*\n)*\[vm ", re.MULTILINE)
LEADING_COMMENT = re.compile(r"^(?:#[^\n]*\n)+")


def manifest_for(template, devices):
    """
    The template's text with a driver VM for each device: the section of the template that has its role (blk0 for disks, net0
    for network cards) with another name, image and device. What else the template says stays, comments included.
    """
    starts = [match.start() for match in COMMENTED_SECTION.finditer(template)]
    rest = [template[start:end] for start, end in zip(starts, [*starts[1:], len(template)])]
    sections = {SECTION.search(text)[1]: text for text in rest}
    drivers = []
    for device in devices:
        text = sections[f"{device.role}0"]
        if device.vm != f"{device.role}0":
            text = LEADING_COMMENT.sub("", text)
        text = SECTION.sub(f"[vm {device.vm}]", text)
        text = re.sub(r"(?m)^(image\s*=\s*)\S+", rf"\g<1>{MODELS[device.model].image}", text)
        drivers.append(re.sub(r"(?m)^(device\s*=\s*)[^\s#]+[^\n]*", rf"\g<1>pci:{device.address}       # {device.model}", text))
    others = [text for name, text in sections.items() if name not in ("blk0", "net0")]
    return "".join([template[:starts[0]], *drivers, *others])
