"""
`bench recovery`: how long the guest's disk stands still when its driver crashes, without a spare and with one.

Two machines of each device, measured by turns, the other paused. A verifying load runs in the guest all the time; its end is part
of the measurement: what is quick and loses a byte is not a recovery. Times are the hypervisor's own stamps (docs/FAULTS.md, "Records").
With --icount they are of a CPU that executes an instruction a nanosecond: what else the host has to do, and what it costs to emulate
a device, do not count.
"""

import contextlib
import time

from .. import devices, faultlog, hardware, machine, paths, qemu
from ..guest_output import find_json
from ..ui import Failure, percentile, say, table
from .sides import GUEST, HEAD, Side

DISK_BYTES = 8 << 20  # which the load fills before the first crash
BATCH = 25
READY_SECONDS = 60
END_SECONDS = 300
# Some requests to do again, and the time is the restart's, not that of megabytes.
LOAD = "blk load --seed 1 --depth 4 --size 65536 --seconds 86400 --final --quiet"
ATA_PIO = "ata-pio"  # IDE in a machine without PCI Express, IOMMU and DMA: not one of `bench blk`'s
MODELS = [*devices.names("blk"), ATA_PIO]
SIDES = {"without": "no", "with": "yes"}
TOTAL = "fault to first completion"
# Name: the fields of a record, or of `status`, between which it lies, or that tell it. In the order in which they happen.
STAGES = ("detect", "decide", "quiesce", "reset", "restart", "driver's start", "replay", "first completion", TOTAL)
AIMS_US = (1000, 5000)


class Crashing(Side):
    """A machine whose disk's driver crashes again and again under load."""

    def __init__(self, setting, name, model):
        super().__init__(setting, name)
        self.samples, self.sequence = [], 0
        self.disk = self.folder / "recovery.img"
        drive = ["-drive", f"if=none,id=blk0-backend,format=raw,file={qemu.quote(self.disk)}"]
        keys = {"spare": SIDES[name], "limit": "1000", "window": "1ms"}
        if model == ATA_PIO:
            device = devices.Device("blk0", "ahci", "", None)
            section = device.section(image="ata_pio.elf", device="class:0101", dma="none", **keys)
            arguments = ["-device", "ide-hd,drive=blk0-backend,bus=ide.0,unit=0"]
        else:
            device = devices.layout([model], [])[0]
            section = device.section(dma=None if setting.iommu else "unprotected", **keys)
            arguments = devices.arguments([device])
        options = qemu.Options(folder=self.folder, accel=setting.accel, cpus=setting.cpus, memory=setting.memory, sata_disk=False,
                               iommu=setting.iommu and model != ATA_PIO, icount=setting.icount,
                               machine="pc" if model == ATA_PIO else "q35", extra=[*drive, *arguments, *setting.qemu_args])
        self.machine = machine.Machine(options, paths.images("release"), "\n".join([HEAD + section, GUEST]))

    def __enter__(self):
        hardware.make_sparse(self.disk, DISK_BYTES)
        super().__enter__()
        with self.awake():
            self.machine.send(LOAD)
            self.machine.expect("load: vda: seed", END_SECONDS)
        return self

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.disk.unlink(missing_ok=True)

    def status(self):
        return next(row for row in self.machine.control.rows("status", "vm") if row["name"] == "blk0")

    def crash(self):
        """One crash. With nothing in flight there was nothing to complete, and it does not count."""
        deadline = time.monotonic() + READY_SECONDS
        while self.name == "with" and self.status()["spare"] != "ready":
            if time.monotonic() > deadline:
                raise Failure(f"no spare stood by within {READY_SECONDS} s")
        self.machine.control.ask("inject blk0 crash")
        record = faultlog.wait_for(self.machine.control, "blk0", self.sequence, READY_SECONDS)
        self.sequence = record.sequence
        if record.outcome != "recovered" or record.kind != "exception":
            raise Failure(f"a crash ended otherwise: {record.fields}")
        if record.duration("fault_to_first_completion") is not None:
            self.samples.append(stages(record.fields, self.status()["start_us"]))

    def verdict(self):
        """The load ends, reads everything once more, and must have found each byte as it was written."""
        self.machine.type("\x03")
        output, status = self.machine.finish(LOAD, END_SECONDS)
        result = find_json(output)["disks"]["vda"]
        if status not in (0, 130) or any(result[key] for key in ("io_errors", "mismatches", "lost", "doubled", "unknown", "protocol")):
            raise Failure(f"the load has not survived {len(self.samples)} crashes: {result}")
        return result["requests"]


def stages(fields, start_us):
    """The µs of each stage, from the fields of a record and the driver's own start, which lies at the end of `restart`."""
    return {"detect": fields["detect_us"], "decide": fields["t_quiesce"] - fields["t_detect"], "quiesce": fields["quiesce_us"],
            "reset": fields["reset_us"], "restart": max(0, fields["restart_us"] - start_us),
            "driver's start": min(start_us, fields["restart_us"]), "replay": fields["replay_us"],
            "first completion": fields["t_first_completion"] - fields["t_replay"], TOTAL: fields["first_completion_us"]}


def run_all(setting, models, crashes, progress):
    """(entries, failed): each device with both machines; minutes of the others are not lost with one that fails."""
    entries, failed = [], []
    for number, model in enumerate(models):
        try:
            entries.append(measure(setting, model, crashes, progress))
        except Failure as failure:
            failed.append({"device": model, "error": str(failure).removeprefix("bulkhead: ")})
            progress.skip_to(number + 1, len(models))
    return entries, failed


def steps(crashes):
    return len(SIDES) * -(-crashes // BATCH)


def measure(setting, model, crashes, progress):
    with contextlib.ExitStack() as stack:
        sides = []
        for name in SIDES:
            progress.say(f"{model}: the machine {name} a spare starts")
            sides.append(stack.enter_context(Crashing(setting, name, model)))
        for number, goal in enumerate(range(BATCH, crashes + BATCH, BATCH)):
            # So that none of them always comes first.
            for side in sides if number % 2 == 0 else reversed(sides):
                progress.step(f"{model}, {side.name} a spare: {len(side.samples)} of {crashes} crashes")
                with side.awake():
                    while len(side.samples) < min(goal, crashes):
                        side.crash()
        requests = {}
        for side in sides:
            with side.awake():
                requests[side.name] = side.verdict()
    return {"device": model, "crashes": crashes, "requests_verified": requests,
            "us": {side.name: {stage: summary([sample[stage] for sample in side.samples]) for stage in STAGES} for side in sides},
            "samples_us": {side.name: [sample[TOTAL] for sample in side.samples] for side in sides}}


def summary(values):
    return {"p50": percentile(values, 50), "p99": percentile(values, 99), "max": max(values)}


def show(entries, icount):
    if icount:
        say("an instruction takes 1 ns; what devices do costs the time in which the CPUs wait for them")
    for entry in entries:
        table([{f"{entry['device']}, us": stage, **{f"{side} {figure}": entry["us"][side][stage][figure]
                                                    for side in SIDES for figure in ("p50", "p99", "max")}} for stage in STAGES])
        print(flush=True)
        say(f"{entry['device']}: {entry['crashes']} crashes on each side; {sum(entry['requests_verified'].values())} verified requests, "
            "none failed, lost or wrong")


def draw(entries, name):
    """How many of the crashes were over after which time."""
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5))
    for number, entry in enumerate(entries):
        for side, style in (("without", ":"), ("with", "-")):
            values = sorted(entry["samples_us"][side])
            axes.step([value / 1000 for value in values], [100 * (i + 1) / len(values) for i in range(len(values))], style,
                      color=f"C{number}", where="post", label=f"{entry['device']}, {side} a spare")
    for aim in AIMS_US:
        axes.axvline(aim / 1000, color="black", linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlabel("fault to first completed request, ms")
    axes.set_ylabel("percent of the crashes")
    axes.legend(fontsize="small")
    figure.tight_layout()
    try:
        figure.savefig(name, format="svg")
    except OSError as error:
        raise Failure(f"--svg {name}: {error.strerror.lower()}") from None
    say(f"picture: {name}")
