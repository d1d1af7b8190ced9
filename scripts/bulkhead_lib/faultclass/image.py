"""A driver's ELF file: functions, which of them run all the time, objects, instructions."""

import dataclasses
import functools
import importlib
import struct

from .. import packages, symbols
from ..ui import Failure

FUNCTION, OBJECT = 2, 1  # symbol types, ELF64
# What the event loop calls itself, besides what the driver's tables of functions name.
LOOP = ("ring_peek", "ring_release", "ring_heartbeat", "hypercall")
LAST = ("driver_fault", "log_line")  # called when something is wrong already
SELDOM = ("restart", "set_filter", "log_statistics", "ahci_recover")  # in these tables, or called from there


@dataclasses.dataclass(frozen=True)
class Symbol:
    name: str
    address: int
    size: int
    kind: int


def capstone():
    """Debian's disassembler, installed when it is first needed."""
    try:
        return importlib.import_module("capstone")
    except ImportError:
        packages.ensure({"inject"}, no_install=False)
        importlib.invalidate_caches()
        return importlib.import_module("capstone")


@functools.cache
def _decoder():
    library = capstone()
    decoder = library.Cs(library.CS_ARCH_X86, library.CS_MODE_64)
    decoder.detail = True
    return decoder


def decode(code, address):
    """The one instruction that `code` begins with; None when it begins with none."""
    return next(_decoder().disasm(bytes(code), address, 1), None)


class DriverImage:
    def __init__(self, path):
        self.name = path.name
        self.data = path.read_bytes()
        programs, sections = struct.unpack_from("<QQ", self.data, 32)
        program_size, program_count, section_size, section_count = struct.unpack_from("<HHHH", self.data, 54)
        headers = [struct.unpack_from("<IIQQQQQ", self.data, programs + i * program_size) for i in range(program_count)]
        self.segments = [(address, offset, in_file) for kind, _, offset, address, _, in_file, _ in headers if kind == 1]
        self.symbols = []
        for i in range(section_count):
            _, kind, _, _, offset, size, link, _ = struct.unpack_from("<IIQQQQII", self.data, sections + i * section_size)
            if kind == 2:  # SHT_SYMTAB
                names, = struct.unpack_from("<Q", self.data, sections + link * section_size + 24)
                self.symbols = [self._symbol(at, names) for at in range(offset, offset + size, 24)]

    def _symbol(self, at, names):
        name, info, _, _, address, size = struct.unpack_from("<IBBHQQ", self.data, at)
        start = names + name
        return Symbol(self.data[start:self.data.index(b"\0", start)].decode(), address, size, info & 15)

    def find(self, name):
        """The symbol's address; KeyError."""
        for symbol in self.symbols:
            if symbol.name == name:
                return symbol.address
        raise KeyError(f"{self.name} has no symbol {name}")

    def read(self, address, size):
        """Bytes as they are loaded; zeros beyond what the file has."""
        for start, offset, in_file in self.segments:
            if start <= address < start + in_file:
                part = self.data[offset + address - start:offset + min(in_file, address - start + size)]
                return part + bytes(size - len(part))
        return bytes(size)

    @functools.cached_property
    def functions(self):
        return [symbol for symbol in self.symbols if symbol.kind == FUNCTION and symbol.size]

    @functools.cached_property
    def objects(self):
        """Variables and constants."""
        return [symbol for symbol in self.symbols if symbol.kind == OBJECT and symbol.size]

    @functools.cache
    def instructions(self, function):
        return list(_decoder().disasm(self.read(function.address, function.size), function.address))

    def place(self, address):
        """An address for people: function+offset."""
        owner = next((f for f in self.functions if f.address <= address < f.address + f.size), None)
        return f"{owner.name}+0x{address - owner.address:x}" if owner else f"0x{address:x}"

    @functools.cached_property
    def tables(self):
        """The functions that the objects `driver` and `blk_driver` or `net_driver` name. The first of each starts it."""
        owners = [o for o in self.objects if o.name == "driver" or o.name.endswith("_driver")]
        by_address = {f.address: f for f in self.functions}
        words = [struct.unpack(f"<{o.size // 8}Q", self.read(o.address, o.size // 8 * 8)) for o in owners]
        return [[by_address[word] for word in table if word in by_address] for table in words]

    @functools.cached_property
    def warm(self):
        """Functions that run not only at the start: all that the loop calls, what these call, and so on."""
        found, left = set(), [f for table in self.tables for f in table[1:]] + self.hot
        while left:
            found.update(left)
            left = sorted({g for f in left for g in self._called(f)} - found, key=lambda f: f.address)
        return sorted(found, key=lambda f: f.address)

    @functools.cached_property
    def hot(self):
        """Functions that run again and again: what the loop calls, and what these call themselves."""
        called = {f for table in self.tables for f in table[1:]} | {f for f in self.functions if f.name in LOOP}
        called |= {g for f in called if f.name not in SELDOM for g in self._called(f)}
        return sorted((f for f in called if f.name not in SELDOM), key=lambda f: f.address)

    def _called(self, function):
        by_address = {f.address: f for f in self.functions}
        targets = [i.operands[0].imm for i in self.instructions(function) if i.mnemonic == "call" or i.mnemonic.startswith("j")]
        return {by_address[at] for at in targets if at in by_address and by_address[at].name not in LAST}


@functools.cache
def _load(path, _changed):
    return DriverImage(path)


def of(vm, control, images):
    """The image that this VM was booted from."""
    manifest = (control.folder / "esp" / "bulkhead" / "manifest.ini").read_text(errors="replace")
    names = symbols.vm_images(manifest)
    if vm not in names:
        raise Failure(f"no VM is called '{vm}'; there are: {', '.join(names)}")
    path = images / names[vm]
    return _load(path, path.stat().st_mtime_ns)
