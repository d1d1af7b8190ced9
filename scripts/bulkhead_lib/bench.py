"""`bench blk`: throughput and cost of the VirtIO disk through its driver VM, sticky and strict grants side by side."""

import re

from . import build, machine, paths, session
from .guest_output import find_json
from .ui import Failure, Progress, print_json, say, table

DISK_BYTES = 1 << 30
# Name, and the guest's command; {seconds} is filled in.
WORKLOADS = {
    "sequential read 1 MiB": "blk bench read --size 1M --depth 8 --seconds {seconds}",
    "sequential write 1 MiB": "blk bench write --size 1M --depth 8 --seconds {seconds}",
    "random read 4 KiB, depth 1": "blk bench randread --size 4K --depth 1 --seconds {seconds}",
    "random read 4 KiB, depth 32": "blk bench randread --size 4K --depth 32 --seconds {seconds}",
}
GRANTS_KEY = re.compile(r"^grants[ \t]*=.*$", re.MULTILINE)
DRIVER_KIND = re.compile(r"^(kind[ \t]*=[ \t]*driver.*)$", re.MULTILINE)


def with_grants(manifest, mode):
    """The manifest with this grant mode in every driver's section."""
    return DRIVER_KIND.sub(rf"\1\ngrants = {mode}", GRANTS_KEY.sub("", manifest))


def run(arguments):
    arguments.machine = arguments.model = None
    kind = session.choose_accel(arguments.accel)
    if arguments.icount:
        arguments.cpus = 1
    # Figures are of the release build: the debug build is compiled for the debugger.
    build.build("release", verbose=arguments.verbose)
    modes = ("sticky", "strict") if arguments.grants == "both" else (arguments.grants,)
    manifest = session.read_manifest(None)
    results = []
    progress = Progress("bench blk")
    for mode in modes:
        results += _measure(arguments, kind, with_grants(manifest, mode), mode, progress)
    progress.done()
    if arguments.json:
        print_json({"accelerator": kind, "icount": arguments.icount, "cpus": arguments.cpus, "results": results})
        return 0
    table(results)
    if not arguments.icount:
        say("instructions are counted with --icount only")
    return 0


def _measure(arguments, kind, manifest, mode, progress):
    folder = paths.instance(f"bench-{mode}")
    folder.mkdir(parents=True, exist_ok=True)
    disk = folder / "bench.img"
    session.make_sparse(disk, DISK_BYTES)
    arguments.gdb, arguments.disk, arguments.disk_snapshot = None, str(disk), False
    options = session.machine_options(arguments, folder, kind)
    rows = []
    try:
        with machine.Machine(options, paths.images("release"), manifest, on_error=say) as guest:
            guest.shell_start()
            for name, command in WORKLOADS.items():
                progress.update(f"{mode}: {name}")
                before = counters(guest.control)
                output, status = guest.command(command.format(seconds=arguments.seconds), 120 + 20 * arguments.seconds)
                if status != 0:
                    raise Failure(f"the guest's `{command}` ended with status {status}: {output.strip()[-200:]}")
                rows.append(figures(name, mode, find_json(output), before, counters(guest.control), arguments.icount))
            guest.power_off()
    finally:
        disk.unlink(missing_ok=True)
        machine.remove_instance(folder, keep=False)
    return rows


def counters(control):
    """Sums of the counters that `stats` gives, over all lines: {name: number}."""
    total = {}
    for _, fields in control.ask("stats"):
        for key, value in fields.items():
            if isinstance(value, int):
                total[key] = total.get(key, 0) + value
    return total


def figures(name, mode, result, before, after, icount):
    """One row: what the guest measured, and what it cost the hypervisor."""
    delta = {key: after[key] - before.get(key, 0) for key in after}
    done = delta["completions"]
    row = {"workload": name, "grants": mode}
    if not icount:  # virtual time jumps over all waiting: rates mean nothing then
        row |= {"MB/s": float(result["mb_per_s"]), "IOPS": int(result["iops"]),
                "p50 us": int(result["p50_us"]), "p99 us": int(result["p99_us"])}
    row["exits/IO"] = round(delta["exits"] / done, 2) if done else None
    if icount:
        row["hv instructions/IO"] = round(hypervisor_us(delta) * 1000 / done) if done else None
    return row


def hypervisor_us(delta):
    """
    Time that was spent neither in a VM nor idle. With -icount shift=0 an instruction takes a nanosecond of virtual time, so
    this counts instructions; that holds for one CPU only, because QEMU lets CPUs take turns on one clock.
    """
    return delta["up_us"] - delta["run_us"] - delta["idle_us"]
