"""A driver VM's bytes through the control port, which flips bits and tells what they were."""

import struct

from . import ask

LINE = 250  # the port takes 255 bytes
WORD = 8

# shared/abi/hypercall.h, shared/abi/request_ring.h
INFO, STASH, RINGS, RING_STRIDE, COMPLETIONS = 0xf00000000, 0xf00002000, 0xf00100000, 0x40000, 0x20000
RING_CELLS, RING_ENTRIES, CELLS, ENTRIES = 4096, 256, 4096, 64


def lines(commands):
    """Commands with semicolons between, in as few lines as they fit into; those of a line happen at one moment."""
    result = []
    for command in commands:
        if result and len(result[-1]) + 2 + len(command) <= LINE:
            result[-1] += f"; {command}"
        else:
            result.append(command)
    return result


def flips(vm, address, old, new, start=False):
    """Commands that make `new` of the bytes `old`."""
    commands = []
    for at in range(0, len(old), WORD):
        size = min(WORD, len(old) - at)
        mask = int.from_bytes(old[at:at + size], "little") ^ int.from_bytes(new[at:at + size], "little")
        if mask:
            commands.append(f"flip {vm} 0x{address + at:x} {size} 0x{mask:x}{' start' if start else ''}")
    return commands


def words(control, vm, addresses):
    """The 8-byte words at these addresses, now."""
    result = []
    for line in lines([f"flip {vm} 0x{address:x} {WORD} 0" for address in addresses]):
        result += [int(str(fields["was"]), 16) for kind, fields in ask(control, line) if kind == "memory"]
    return result


def read(control, vm, address, size):
    """Bytes, now; size: a multiple of 8."""
    return struct.pack(f"<{size // WORD}Q", *words(control, vm, range(address, address + size, WORD)))


def write(control, vm, address, new):
    """Commands that put `new` over what is there now; its length: a multiple of 8."""
    return flips(vm, address, read(control, vm, address, len(new)), new)


def ram_size(control, vm):
    return words(control, vm, [INFO + 16])[0]


def bars(control, vm):
    """[(address, size)] of the memory BARs, [(first port, count)] of the others: struct driver_info."""
    memory, ports = [], []
    values = words(control, vm, range(INFO + 88, INFO + 88 + 6 * 24, WORD))
    for i in range(0, 18, 3):
        address, size, kind = values[i:i + 3]
        if kind & 0xffffffff:
            (memory if kind & 0xffffffff == 1 else ports).append((address, size))
    return memory, ports
