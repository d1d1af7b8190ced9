"""The image of a disk's driver VM replaced again and again under load, by the same driver as another file."""

import random
import time

from .. import paths
from ..control import Control
from ..devices import MODELS as ALL
from ..telemetry import packed, replace_image
from ..ui import Failure, percentile, table
from . import supervised
from .report import Steps

MODELS = [name for name, model in ALL.items() if model.role == "blk"]
PAUSE_SECONDS = 0.2  # at most, a random time: the load gets going again
OTHER = b"bulkhead: the other image"  # behind the last segment


def run(arguments, accel):
    chosen = supervised.models("ahci" if arguments.device == "all" else arguments.device, MODELS)
    if arguments.times < 1:
        raise Failure("at least one replacement is needed")
    progress = Steps("bench replace", len(chosen) * arguments.times)
    entries = []
    for model in chosen:
        progress.say(f"{model}: boots")
        image = packed((paths.images("release") / ALL[model].image).read_bytes())
        with supervised.Rig(f"{arguments.name}-replace-{model}", accel, [model], {}, arguments.cpus, arguments.qemu_arg, Control) as rig:
            entries.append({"device": model, "image_bytes": len(image), **measure(rig, model, image, arguments.times, progress)})
    progress.done()
    return {"times": arguments.times, "devices": entries, "failed": any(entry["wrong"] or entry["refused"] for entry in entries)}


def measure(rig, model, image, times, progress):
    pair, sent, seconds, stalls, refused = (image, image + OTHER), b"", [], [], []
    for number in range(times):
        progress.step(f"{model}: {number + 1} of {times}")
        time.sleep(random.uniform(0, PAUSE_SECONDS))
        # Every tenth time the whole file crosses the port; else what differs from the one before.
        whole = number % 10 == 0
        record, back, took = replace_image(rig.control, "blk0", pair[number % 2], b"" if whole else sent)
        sent = pair[number % 2]
        if whole:
            seconds.append(round(took, 3))
        if back or record.outcome != "recovered":
            refused.append(record.as_dict())
        # 0: nothing was in flight at that moment, so nobody waited
        stalls.append(record.duration("fault_to_first_completion") or 0)
    status = rig.status("blk0")
    if (status["restarts"], status["crashes"], status["image"]) != (times, 0, "uploaded"):
        refused.append(status)
    return {**rig.finish(), "refused": refused, "sent_seconds": seconds, "stalls_us": stalls,
            "stall_us": {name: percentile(stalls, percent) for name, percent in (("p50", 50), ("p99", 99), ("max", 100))}}


def show(result):
    table([{"device": entry["device"], "replaced": result["times"] - len(entry["refused"]), "failed requests": entry["wrong"] or 0,
            "of": entry["requests"], "stall p50 ms": entry["stall_us"]["p50"] / 1000, "p99 ms": entry["stall_us"]["p99"] / 1000,
            "max ms": entry["stall_us"]["max"] / 1000, "bytes": entry["image_bytes"],
            "sent in s": f"{min(entry['sent_seconds']):.2f} to {max(entry['sent_seconds']):.2f}"} for entry in result["devices"]])


def draw(result, axes):
    """How many of the stalls were so long or shorter."""
    for entry in result["devices"]:
        ordered = sorted(stall / 1000 for stall in entry["stalls_us"])
        axes.step(ordered, [100 * (number + 1) / len(ordered) for number in range(len(ordered))], where="post", label=entry["device"])
    axes.set_xlabel("stall, ms")
    axes.set_ylabel("percent of the replacements")
    axes.legend(fontsize="small")
