"""Addresses in a VM's code, for people: function, offset, file and line, by nm and addr2line on the image that booted."""

import bisect
import pathlib
import re
import shutil
import struct
import subprocess

from . import machine
from .ui import Failure

SECTION = re.compile(r"^\s*\[vm\s+([a-z0-9_-]+)\s*\]|^\s*image\s*=\s*(\S+)", re.MULTILINE)
# How a fault's text ends when it says where the code was: hv/exit, hv/recovery.
PLACE = re.compile(r",? (?:last at|at rip|at|rip) (?:0x)?([0-9a-f]+)$")
PT_LOAD, EXECUTE = 1, 1


def vm_images(manifest_text):
    """{VM name: image file name}."""
    result, name = {}, None
    for section, image in SECTION.findall(manifest_text):
        if section:
            name = section
        elif name:
            result[name] = image
    return result


def segments(image):
    """[(address, bytes of the file, size in memory, flags)] of an ELF64 file; [] when it is none."""
    try:
        first, = struct.unpack_from("<Q", image, 32)
        entry_size, count = struct.unpack_from("<HH", image, 54)
        headers = [struct.unpack_from("<IIQQQQQ", image, first + i * entry_size) for i in range(count)]
    except (struct.error, OverflowError):
        return []
    return [(address, image[offset:offset + in_file], in_memory, flags)
            for kind, flags, offset, address, _, in_file, in_memory in headers if kind == PT_LOAD]


def booted_images(folder):
    """{VM name: the image file on the instance's ESP}, and "hv"."""
    payload = pathlib.Path(folder) / "esp" / "bulkhead"
    try:
        names = vm_images((payload / "manifest.ini").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        raise Failure(f"{payload} has no manifest: nothing has booted there") from None
    return {"hv": payload / "hv.elf", **{vm: payload / name for vm, name in names.items()}}


def file_for(folder, vm):
    """
    The file with the most symbols for what this VM runs: of the build, unless that was built anew with another result
    since the machine has started; then the ESP's copy. Raises Failure for a VM that is not there.
    """
    booted = booted_images(folder)
    if vm not in booted:
        raise Failure(f"no VM '{vm}' in this instance; there are: {', '.join(booted)}")
    images = pathlib.Path(machine.Instance(folder).description()["images"])
    loaded = segments(booted[vm].read_bytes())
    for path in (images.parent / "debug" / booted[vm].name, images / booted[vm].name):
        if path.is_file() and segments(path.read_bytes()) == loaded:
            return path
    return booted[vm]


class Symbols:
    """Of one ELF file. Without binutils it knows nothing, and says so by None."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.code = [(address, address + size) for address, _, size, flags in segments(self.path.read_bytes())
                     if flags & EXECUTE]
        listed = _run("nm", "-n", "--defined-only", str(self.path)).splitlines()
        rows = [line.split() for line in listed]
        self.functions = [(int(row[0], 16), row[2]) for row in rows if len(row) == 3 and row[1] in "tT"]
        self.names = {row[2]: int(row[0], 16) for row in rows if len(row) == 3}

    def where(self, address):
        """`ahci_poll+0x1e (ahci.c:212)`; None when no function of this file is there."""
        index = bisect.bisect_right(self.functions, (address, "\x7f")) - 1
        if index < 0 or not any(first <= address < end for first, end in self.code):
            return None
        start, name = self.functions[index]
        line = _run("addr2line", "-e", str(self.path), hex(address)).split(" ")[0].strip()
        file, _, number = line.rpartition("/")[2].rpartition(":")
        place = f" ({file}:{number})" if number.isdigit() and number != "0" else ""
        return f"{name}+{hex(address - start)}{place}"


def _run(program, *arguments):
    if shutil.which(program) is None:
        return ""
    return subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          errors="replace", check=False).stdout


class Reasons:
    """Fault texts of an instance, with places in the code instead of addresses where they can be known."""

    def __init__(self, folder):
        self.folder = folder
        self.symbols = {}

    def of(self, vm):
        """The Symbols of a VM; None when there are none: a text with an address is better than no text."""
        if vm not in self.symbols:
            try:
                self.symbols[vm] = Symbols(file_for(self.folder, vm))
            except (Failure, OSError, KeyError):
                self.symbols[vm] = None
        return self.symbols[vm]

    def name(self, vm, text):
        """`exception 6 at 0x11e56` becomes `exception 6 in ahci_poll+0x1e (ahci.c:212)`."""
        found = PLACE.search(text)
        symbols = self.of(vm) if found else None
        where = symbols.where(int(found[1], 16)) if symbols else None
        return f"{text[:found.start()]} in {where}" if where else text
