"""Which disks and network cards the machine of `run` has, and the images behind the disks, from the flags."""

import os
import pathlib

from . import devices, network
from .ui import Failure

SCRATCH_BYTES = 256 << 20
DEFAULT_DISK = "ahci"
DEFAULT_NIC = "e1000e"


def has_choice(arguments, kind):
    """Whether devices can be chosen: on PCI Express. The other machines have an IDE disk and nothing else."""
    return kind != "bochs" and arguments.machine != "pc"


def choose(arguments, kind):
    """The devices that the flags name, defaults filled in (`arguments.net`, too); None for a machine without a choice."""
    if has_choice(arguments, kind):
        nics = arguments.nics
        if nics is None:
            nics = [] if arguments.net == "none" else [DEFAULT_NIC]
        arguments.net = arguments.net or ("tap" if arguments.tap else "user")
        return devices.layout([DEFAULT_DISK] if arguments.disks is None else arguments.disks, nics)
    unfit = {"--disks": arguments.disks, "--nics": arguments.nics, "--net": arguments.net not in (None, "none"),
             "--forward": arguments.forward, "--tap": arguments.tap}
    given = [flag for flag, value in unfit.items() if value]
    if given:
        where = "Bochs" if kind == "bochs" else "--machine pc"
        raise Failure(f"{given[0]} is for QEMU's q35 machine: {where} has one IDE disk and no network card")
    arguments.net = "none"
    return None


def images(arguments, folder, found):
    """The user's images, in the order of the disks, and the paths of scratch ones (not yet made) for the disks that are left."""
    count = 1 if found is None else len(devices.disks(found))
    given = [pathlib.Path(name).resolve() for name in arguments.disk]
    for name, path in zip(arguments.disk, given):
        if not path.is_file():
            raise Failure(f"{name}: no such disk image")
        if not os.access(path, os.R_OK if arguments.disk_snapshot else os.R_OK | os.W_OK):
            raise Failure(f"{name}: not {'readable' if arguments.disk_snapshot else 'writable'} "
                          "(--disk-snapshot needs no write permission)")
    if len(given) > count:
        hint = "" if found is None else "; name more disks: --disks ahci,nvme"
        raise Failure(f"{len(given)} images, but the machine has {count} disk{'' if count == 1 else 's'}{hint}")
    return given, [folder / f"scratch{number or ''}.img" for number in range(len(given), count)]


def make_scratch(scratch, keep):
    """Empty disks, except those that --keep has kept."""
    for path in scratch:
        if not (keep and path.exists()):
            make_sparse(path, SCRATCH_BYTES)


def make_sparse(path, size):
    with open(path, "wb") as file:
        file.truncate(size)


def plug_in(options, found, disk_images, net, snapshot):
    """Put disks and network cards into the emulator's options."""
    if found is None:
        options.disk, options.disk_snapshot = disk_images[0], snapshot
        return
    options.extra = devices.drives(found, disk_images, snapshot) + net.arguments + devices.arguments(found) + options.extra
    options.descriptors = net.descriptors
    options.facts = net.facts


def describe(found, given, scratch):
    """A line for each disk."""
    places = [devices.Device("blk0", "ide", "", None)] if found is None else devices.disks(found)
    return [network.line(place, path) for place, path in zip(places, [*given, *(f"scratch disk {path}" for path in scratch)])]
