"""Progress and tables of a bench run; nothing wider than 120 columns."""

import sys
import time

from ..ui import Progress, say, table

BAR = 20


class Steps:
    """A bar for a known number of steps, with the time that is left by what they took so far."""

    def __init__(self, title, total):
        self.total = total
        self.number = 0
        self.start = time.monotonic()
        self.progress = Progress(title)

    def step(self, text):
        """Another step begins."""
        self.say(text)
        self.number += 1

    def say(self, text):
        full = BAR * self.number // self.total
        left = (time.monotonic() - self.start) * (self.total - self.number) / self.number if self.number else None
        rest = f", {left:.0f} s left" if left is not None else ""
        self.progress.update(f"[{'#' * full}{'.' * (BAR - full)}] {self.number}/{self.total}{rest}: {text}")

    def done(self):
        self.progress.done()


# Headers of a table for each figure whose ratio counts: what stands beside the rates, and where it is in a sample.
BESIDE = {
    "MB/s": {},
    "IOPS": {"p50 us": "p50_us", "p99 us": "p99_us"},
    "round trips/s": {"mean us": "mean_us", "max us": "max_us"},
    "instructions": {},
}
TITLES = {"instructions": "instructions/IO"}


def show(result, verbose):
    item = "IO" if result["what"] == "blk" else "packet"
    for figure in BESIDE:
        rows = [row(entry, workload, item) for entry in result["devices"] for workload in entry["workloads"]
                if workload["figure"] == figure]
        if rows:
            table(rows)
            print()
    if verbose:
        for title, key in ((f"exits/{item} by VM and kind", "exits_by"), ("percent of the CPUs' time", "time_percent")):
            print(f"{title}:")
            table([{"device": entry["device"], "grants": entry["grants"], "workload": workload["workload"],
                    **workload["bulkhead"].get(key, {})} for entry in result["devices"] for workload in entry["workloads"]])
            print()
    sys.stdout.flush()
    say("bare: the same guest on QEMU's virtio device, no hypervisor; *: Bulkhead's driver VM has the same device\n"
        f"ratio: Bulkhead / bare, median of {result['rounds']} rounds, with its range")


def row(entry, workload, item):
    ours, bare, figure = workload["bulkhead"], workload["bare"], workload["figure"]
    title = TITLES.get(figure, figure)
    cells = {"device": entry["device"] + ("*" if entry["same_device"] else ""), "grants": entry["grants"],
             "workload": workload["workload"], title: rate(ours[figure]), "bare": rate(bare[figure]),
             "ratio": two(workload["ratio"]), "range": f"{two(workload['ratio_lowest'])}-{two(workload['ratio_highest'])}"}
    for header, key in BESIDE[figure].items():
        cells |= {header: rate(ours[key]), "bare " + header.split()[0]: rate(bare[key])}
    return cells | {f"CPU us/{item}": rate(ours["cpu_us"]), "bare CPU": rate(bare["cpu_us"]), f"exits/{item}": two(ours.get("exits"))}


def rate(value):
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def two(value):
    return "-" if value is None else f"{value:.2f}"
