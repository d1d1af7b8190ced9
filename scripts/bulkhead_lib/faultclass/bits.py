"""Bit flips in data, stack, heap and rings."""

from . import Plan, image, memory, register

STACK_BYTES = 512  # below the top, that are in use at most
TRIES = 20


def _flip(rng, vm, address, size, where):
    bit = rng.randrange(8 * size)
    return Plan([f"flip {vm} 0x{address:x} {size} 0x{1 << bit:x}"], f"{where}: bit {bit} of the {size} bytes at 0x{address:x}", wait=False)


def _used(rng, control, vm, first, end):
    """The address of a word in this range that is not zero, if some tries find one."""
    places = [rng.randrange(first // 8, end // 8) * 8 for _ in range(TRIES)]
    values = memory.words(control, vm, places)
    return next((place for place, value in zip(places, values) if value), places[0])


@register("bit-data", "a bit of the driver's variables or constants", corrupts=True)
def _data(rng, vm, control, images):
    # By object: else all hit the large buffers.
    chosen = rng.choice(image.of(vm, control, images).objects)
    address = chosen.address + rng.randrange(chosen.size)
    return _flip(rng, vm, address, 1, f"data, {chosen.name}+0x{address - chosen.address:x}")


@register("bit-stack", "a bit of the driver's stack", corrupts=True)
def _stack(rng, vm, control, _images):
    top = memory.ram_size(control, vm)
    return _flip(rng, vm, _used(rng, control, vm, top - STACK_BYTES, top), 8, "stack")


@register("bit-heap", "a bit of what the driver allocated: descriptors, buffers", corrupts=True)
def _heap(rng, vm, control, images):
    driver = image.of(vm, control, images)
    first = driver.find("image_end")
    end, = memory.words(control, vm, [driver.find("dma_next")])
    # A mark that an earlier fault has hit is no guide.
    if not first + 8 <= end <= memory.ram_size(control, vm):
        end = first + 4096
    return _flip(rng, vm, _used(rng, control, vm, first, end), 8, "heap")


@register("bit-rings", "a bit of the rings between hypervisor and driver", corrupts=True)
def _rings(rng, vm, control, _images):
    # Most drivers use the first two queues.
    queue = rng.choice((0, 0, 1, 1, 2, 3))
    requests = memory.RINGS + queue * memory.RING_STRIDE
    completions = requests + memory.COMPLETIONS
    counters, = memory.words(control, vm, [completions])
    produced, consumed = counters & 0xffffffff, counters >> 32
    entry = completions + memory.ENTRIES + (produced - rng.randrange(4)) % memory.RING_ENTRIES * 8
    cell = requests + memory.CELLS + (consumed + rng.randrange(-8, 24)) % memory.RING_CELLS * 16
    address, size, what = rng.choice(((completions, 4, "entries produced"), (completions + 4, 4, "cells consumed"),
                                      (entry, 8, "a completion"), (cell, 8, "a request"), (cell + 8, 8, "a request"),
                                      (requests, 4, "cells produced")))
    return _flip(rng, vm, address, size, f"rings, queue {queue}, {what}")
