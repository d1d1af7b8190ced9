"""The disk: sequential rates, and small requests with one and with many in flight."""

import functools

from .. import devices, hardware
from ..guest_output import find_json
from . import figures, rounds
from .sides import BareSide, BulkheadSide

BARE = "virtio-blk"
BARE_DEVICE = "virtio-blk-pci,drive=backend,disable-legacy=on,romfile="
DISK_BYTES = 256 << 20
BLOCK_BYTES = 4 << 20
# Name: the guest's command, and the figure whose ratio counts.
WORKLOADS = {
    "sequential read 1 MiB": ("blk bench read --size 1M --depth 8", "MB/s"),
    "sequential write 1 MiB": ("blk bench write --size 1M --depth 8", "MB/s"),
    "random read 4 KiB, depth 1": ("blk bench randread --size 4K --depth 1", "IOPS"),
    "random read 4 KiB, depth 32": ("blk bench randread --size 4K --depth 32", "IOPS"),
    "random write 4 KiB, depth 32": ("blk bench randwrite --size 4K --depth 32", "IOPS"),
}


def steps(setting, modes):
    return len(WORKLOADS) * setting.rounds * (len(modes) + 1)


def backend(folder, name):
    """A disk image of its own for each machine, in the host's page cache: what is compared is the way there."""
    path = folder / "bench.img"
    hardware.make_sparse(path, DISK_BYTES)
    block = bytes(range(256)) * (BLOCK_BYTES // 256)
    # Filled: a hole costs the host less than data.
    with open(path, "r+b") as file:
        for _ in range(DISK_BYTES // BLOCK_BYTES):
            file.write(block)
    return ["-drive", f"if=none,id={name},format=raw,cache=writeback,file={str(path).replace(',', ',,')}"]


def measure(setting, model, modes, progress):
    """One entry for each grant mode."""
    sides = []
    try:
        for mode in modes:
            sides.append(BulkheadSide(setting, mode, devices.layout([model], [])[0], backend))
        sides.append(BareSide(setting, BARE_DEVICE, backend))
        workloads = {name: functools.partial(_sample, name=name) for name in WORKLOADS}
        samples = rounds.measure(setting, sides, workloads, progress, model)
    finally:
        for side in sides:
            (side.folder / "bench.img").unlink(missing_ok=True)
    return [{"device": model, "grants": mode, "bare": BARE, "same_device": model == BARE,
             "workloads": [{"workload": name, "item": "I/O",
                            **figures.compare(samples[mode][name], samples["bare"][name], setting.figure(figure))}
                           for name, (_, figure) in WORKLOADS.items()]} for mode in modes]


def _sample(side, name):
    command, _ = WORKLOADS[name]
    if name not in side.overhead:
        side.overhead[name] = rounds.counted(side, lambda: _run(side, f"{command} --count 1"))
    result, delta = rounds.counted(side, lambda: _run(side, f"{command} --seconds {side.setting.seconds}"))
    return {"MB/s": float(result["mb_per_s"]), "IOPS": result["iops"], "p50_us": result["p50_us"], "p99_us": result["p99_us"],
            **figures.costs(delta, result["requests"], side.overhead[name][1], 1)}


def _run(side, command):
    return find_json(side.run(command, 120 + 20 * side.setting.seconds))
