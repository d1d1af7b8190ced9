"""
A disk's driver killed again and again under load. Stormed and undisturbed phases take turns in one machine, so that whatever else
the host does hits both.
"""

import statistics
import time

from .. import faultlog
from ..control import ControlError
from ..ui import Failure, percentile, say, table
from . import supervised
from .report import Steps

MODELS = ("ahci", "virtio-blk", "nvme", supervised.ATA)
KINDS = ("undisturbed", "stormed")
PHASE_SECONDS = 5


def run(arguments, accel):
    every = milliseconds(arguments.every) / 1000
    chosen = supervised.models(arguments.device, MODELS)
    pairs = max(1, round((arguments.seconds or 60) / PHASE_SECONDS))
    keys = {**supervised.POLICY, **({"spare": "yes"} if arguments.spare else {})}
    progress = Steps("bench storm", len(chosen) * pairs * 2)
    entries = []
    for model in chosen:
        progress.say(f"{model}: boots")
        with supervised.Rig(f"{arguments.name}-storm-{model}", accel, [model], keys, arguments.cpus, arguments.qemu_arg) as rig:
            entries.append({"device": model, **measure(rig, model, every, pairs, progress)})
    progress.done()
    return {"every_ms": every * 1000, "spare": arguments.spare, "phase_seconds": PHASE_SECONDS, "devices": entries,
            "failed": any(entry["wrong"] or entry["others"] or entry["unrecovered"] for entry in entries)}


def milliseconds(text):
    """`100ms`, `1s` or a number of milliseconds."""
    for unit, factor in (("ms", 1), ("s", 1000), ("", 1)):
        number = text.removesuffix(unit)
        if text.endswith(unit) and number.isdigit() and int(number) > 0:
            return int(number) * factor
    raise Failure(f"--every {text}: such as 100ms or 1s")


def measure(rig, model, every, pairs, progress):
    phases, records, kills, refused = [], [], 0, 0
    for number in range(pairs):
        # So that neither kind always comes first.
        for kind in KINDS if number % 2 == 0 else reversed(KINDS):
            progress.step(f"{model}: {kind}, {number + 1} of {pairs}")
            before = rig.reading()
            if kind == "stormed":
                done, left = storm(rig, every)
                kills, refused = kills + done, refused + left
            else:
                time.sleep(PHASE_SECONDS)
            phases.append({"kind": kind, **supervised.rates(before, rig.reading(), "blk0")})
            rig.settle()
            records += rig.new_records()
    rig.settle()
    time.sleep(every)  # a kill that was still armed
    rig.settle()
    records += rig.new_records()
    result = rig.finish()
    return {**result, **summary(phases, records), "kills": kills, "refused": refused, "records": [record.row() for record in records]}


def storm(rig, every):
    """Kills at fixed times for a phase: (how many, how many could not be made because the driver was not back yet)."""
    start = time.monotonic()
    done = refused = number = 0
    while (at := start + number * every) < start + PHASE_SECONDS:
        time.sleep(max(0.0, at - time.monotonic()))
        try:
            rig.control.ask("inject blk0 crash")
            done += 1
        except ControlError:
            refused += 1
        number += 1
    time.sleep(max(0.0, start + PHASE_SECONDS - time.monotonic()))
    return done, refused


def summary(phases, records):
    sums = {kind: [sum(phase[key] for phase in phases if phase["kind"] == kind) for key in ("mb", "seconds")] for kind in KINDS}
    calm, stormy = (round(sums[kind][0] / sums[kind][1], 3) for kind in KINDS)
    ratios = [phase[1]["mb_per_s"] / phase[0]["mb_per_s"] for phase in
              (sorted(pair, key=lambda phase: KINDS.index(phase["kind"])) for pair in zip(phases[::2], phases[1::2])) if phase[0]["mb_per_s"]]
    return {"undisturbed_mb_per_s": calm, "stormed_mb_per_s": stormy, "ratio": round(stormy / calm, 3) if calm else 0.0,
            "ratio_median": round(statistics.median(ratios), 3) if ratios else None,
            "ratio_lowest": round(min(ratios, default=0), 3), "ratio_highest": round(max(ratios, default=0), 3),
            "recovered": sum(record.outcome == "recovered" for record in records),
            "superseded": sum(record.outcome == "superseded" for record in records),
            "unrecovered": sum(record.outcome not in ("recovered", "superseded") for record in records),
            "others": [record.row() for record in records if record.injected != "crash"],
            "durations": faultlog.summary(records), "phases": phases}


def show(result):
    rows = []
    for entry in result["devices"]:
        stalls = next(row for row in entry["durations"] if row["duration"] == "fault_to_first_completion")
        rows.append({"device": entry["device"], "calm MB/s": entry["undisturbed_mb_per_s"], "storm MB/s": entry["stormed_mb_per_s"],
                     "ratio": f"{entry['ratio']:.2f}", "of pairs": f"{entry['ratio_lowest']:.2f} to {entry['ratio_highest']:.2f}",
                     "kills": entry["kills"], "early": entry["refused"], "superseded": entry["superseded"],
                     "stall p50 ms": (stalls["p50"] or 0) / 1000, "p99 ms": (stalls["p99"] or 0) / 1000, "max ms": (stalls["max"] or 0) / 1000,
                     "wrong": entry["wrong"] or 0})
    table(rows)
    for entry in result["devices"]:
        print(f"\n{entry['device']}, where the time of a kill goes, µs:")
        table(entry["durations"])
        for row in entry["others"]:
            say(f"{entry['device']}: not one of the kills: {row}")


def draw(result, axes):
    """Throughput of each phase; whatever a driver's phases have in common with those of the other kind beside them is the host's."""
    for entry in result["devices"]:
        for kind, style in zip(KINDS, ("-", ":")):
            chosen = [(number * result["phase_seconds"], phase["mb_per_s"]) for number, phase in enumerate(entry["phases"]) if phase["kind"] == kind]
            axes.plot(*zip(*chosen), style, marker="o", markersize=3, label=f"{entry['device']}, {kind}")
    axes.set_xlabel("s")
    axes.set_ylabel("MB/s")
    axes.set_title(f"a kill every {result['every_ms']:.0f} ms{', with a spare' if result['spare'] else ''}")
    axes.legend(fontsize="small")
