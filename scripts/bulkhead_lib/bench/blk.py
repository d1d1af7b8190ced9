"""The disk: sequential rates, and small requests with one and with many in flight."""

import functools

from .. import devices, hardware, qemu
from ..guest_output import find_json
from . import figures, rounds
from .sides import Backend, BareSide, BulkheadSide

BARE_MODEL = "virtio-blk"
BARE_DEVICE = "virtio-blk-pci,drive=backend,disable-legacy=on,romfile="
DISK_BYTES = 256 << 20
BLOCK_BYTES = 4 << 20
# Name (xN: N requests in flight): the guest's command, and the figure whose ratio counts.
WORKLOADS = {
    "read 1 MiB x8": ("blk bench read --size 1M --depth 8", "MB/s"),
    "write 1 MiB x8": ("blk bench write --size 1M --depth 8", "MB/s"),
    "read 4 KiB x1": ("blk bench randread --size 4K --depth 1", "IOPS"),
    "read 4 KiB x32": ("blk bench randread --size 4K --depth 32", "IOPS"),
    "write 4 KiB x32": ("blk bench randwrite --size 4K --depth 32", "IOPS"),
}


def steps(setting, modes):
    return len(WORKLOADS) * setting.rounds * (len(modes) + 1)


def backend(path, drive):
    """A disk image of its own for each machine, in the host's page cache: what is compared is the way there."""
    hardware.make_sparse(path, DISK_BYTES)
    block = bytes(range(256)) * (BLOCK_BYTES // 256)
    # Filled: a hole costs the host less than data.
    with open(path, "r+b") as file:
        for _ in range(DISK_BYTES // BLOCK_BYTES):
            file.write(block)
    return Backend(["-drive", f"if=none,id={drive},format=raw,cache=writeback,file={qemu.quote(path)}"])


def measure(setting, model, modes, progress):
    """One entry for each grant mode."""
    device = devices.layout([model], [])[0]
    images = {name: setting.folder(name) / "bench.img" for name in (*modes, figures.BARE)}
    try:
        sides = [BulkheadSide(setting, mode, device, backend(images[mode], device.backend)) for mode in modes]
        sides.append(BareSide(setting, BARE_DEVICE, backend(images[figures.BARE], "backend")))
        samples = rounds.measure(setting, sides, {name: functools.partial(_sample, name=name) for name in WORKLOADS}, progress, model)
    finally:
        for image in images.values():
            image.unlink(missing_ok=True)
    return figures.entries(setting, samples, model, BARE_MODEL, {name: (figure, "I/O") for name, (_, figure) in WORKLOADS.items()})


def _sample(side, name):
    command, _ = WORKLOADS[name]
    if name not in side.overhead:
        side.overhead[name] = rounds.counted(side, lambda: _run(side, f"{command} --count 1"))
    result, delta = rounds.counted(side, lambda: _run(side, f"{command} --seconds {side.setting.seconds}"))
    return {"MB/s": float(result["mb_per_s"]), "IOPS": result["iops"], "p50_us": result["p50_us"], "p99_us": result["p99_us"],
            **figures.costs(delta, result["requests"], side.overhead[name][1], 1)}


def _run(side, command):
    return find_json(side.run(command, 120 + 20 * side.setting.seconds))
