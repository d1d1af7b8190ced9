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


# For each figure whose ratio may count: the other columns that say the same for both sides, {header: figure}.
BESIDE = {
    "MB/s": {"CPU us": "cpu_us"},
    "IOPS": {"p50 us": "p50_us", "p99 us": "p99_us", "CPU us": "cpu_us"},
    "round trips/s": {"mean us": "mean_us", "CPU us": "cpu_us"},
    "instructions": {},
}


def show(result, verbose):
    item = "I/O" if result["what"] == "blk" else "packet"
    for figure in BESIDE:
        rows = [row(entry, workload, item) for entry in result["devices"] for workload in entry["workloads"]
                if workload["figure"] == figure]
        if rows:
            table(rows)
            print()
    if verbose:
        _details(result, item)
    sys.stdout.flush()
    what = "instructions" if result["icount"] else "rates"
    say("bare: the same guest on QEMU's VirtIO device, no hypervisor; *: that very device is what the driver VM drives, too\n"
        f"ratio: of the {what}, Bulkhead to bare: median of {result['rounds']} rounds, and their range; CPU us: the host's CPU time "
        f"for a{'n' if item == 'I/O' else ''} {item}")


def row(entry, workload, item):
    ours, bare, figure = workload["bulkhead"], workload["bare"], workload["figure"]
    cells = {"device": entry["device"] + ("*" if entry["same_device"] else ""), "grants": entry["grants"],
             "workload": workload["workload"], f"{figure}/{item}" if figure == "instructions" else figure: number(ours[figure]),
             "bare": number(bare[figure]), "ratio": number(workload["ratio"]),
             "range": f"{number(workload['ratio_lowest'])}-{number(workload['ratio_highest'])}"}
    for header, key in BESIDE[figure].items():
        cells |= {header: number(ours[key]), "bare" + " " * len(cells): number(bare[key])}
    for key, value in ours.get("instructions_by", {}).items():
        cells[key] = number(value)
    return cells | {f"exits/{item}": number(ours.get("exits"))}


def _details(result, item):
    """What the exits were, and who had the CPUs: a line for each workload, without what is next to nothing."""
    for title, key, least in ((f"exits/{item}", "exits_by", 0.005), ("percent of the CPUs' time", "time_percent", 0)):
        print(f"{title}:")
        for entry in result["devices"]:
            for workload in entry["workloads"]:
                parts = sorted(workload["bulkhead"].get(key, {}).items(), key=lambda part: -part[1])
                text = ", ".join(f"{name} {number(value)}" for name, value in parts if value >= least)
                print(f"  {entry['device']}, {entry['grants']}, {workload['workload']}: {text}")
        print()


def number(value):
    """Three digits or more; columns of them are aligned by ui.table."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
