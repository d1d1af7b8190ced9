"""Faults of a successor: it is changed after a restart, before its first instruction, and the restart is caused by a crash."""

from . import Plan, image, memory, register


def _crash_and(vm, commands):
    # The crash comes first, as it may be refused; it happens after the line.
    return memory.lines([f"inject {vm} crash", *commands])


@register("memory-exhausted", "after a crash the next driver finds little or no memory to allocate from")
def _exhausted(rng, vm, control, images):
    mark = image.of(vm, control, images).find("dma_next")
    left = rng.choice((0, 4096, 65536))
    used = memory.ram_size(control, vm) - left
    return Plan(_crash_and(vm, [f"flip {vm} 0x{mark:x} 8 0x{used:x} start"]), f"a crash, then a start with {left} bytes to allocate from")


STARTS = {"fails": (b"\x0f\x0b", "UD2"), "hangs": (b"\xeb\xfe", "JMP to itself")}


@register("during-recovery", "a crash, and the next driver fails or hangs in its start")
def _during(rng, vm, control, images):
    driver = image.of(vm, control, images)
    how = rng.choice(sorted(STARTS))
    code, name = STARTS[how]
    # The start of the class, or of the driver below it.
    function = rng.choice([table[0] for table in driver.tables])
    flips = memory.flips(vm, function.address, driver.read(function.address, 2), code, start=True)
    return Plan(_crash_and(vm, flips), f"a crash, and the next driver {how} in its start: {name} at {driver.place(function.address)}")
