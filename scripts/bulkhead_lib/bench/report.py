"""Progress and tables of a bench run; nothing wider than 120 columns."""

import statistics
import sys
import time

from ..ui import Progress, say, table

BAR = 20
WAITED_PERCENT = 10  # from here on the host is too busy for rates


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

    def skip_to(self, part, parts):
        """Whatever was left of this part of the parts is not done."""
        self.number = self.total * part // parts

    def say(self, text):
        full = BAR * self.number // self.total
        left = (time.monotonic() - self.start) * (self.total - self.number) / self.number if self.number else None
        rest = f", {left:.0f} s left" if left is not None else ""
        self.progress.update(f"[{'#' * full}{'.' * (BAR - full)}] {self.number}/{self.total}{rest}: {text}")

    def done(self):
        self.progress.done()


# For each figure whose ratio may count: what else of both sides stands beside it, {header: figure}.
BESIDE = {
    "MB/s": {"CPU us/{item}": "cpu_us"},
    "IOPS": {"p50 us": "p50_us", "p99 us": "p99_us", "CPU us/{item}": "cpu_us"},
    "round trips/s": {"mean us": "mean_us", "CPU us/{item}": "cpu_us"},
    "instructions": {},
}


def show(result, verbose):
    rows = [(entry, workload) for entry in result["devices"] for workload in entry["workloads"]]
    unit = "I/O" if result["what"] == "blk" else "packet"
    for figure, item in dict.fromkeys((workload["figure"], workload["item"]) for _, workload in rows):
        table([_row(entry, workload, unit) for entry, workload in rows if (workload["figure"], workload["item"]) == (figure, item)])
        print()
    if verbose:
        _details(rows, unit)
    sys.stdout.flush()
    what = "instructions, of which less is better" if result["icount"] else "rates"
    say(f"bare, and in parentheses: the same guest on QEMU's {result['devices'][0]['bare']}, no hypervisor\n"
        "*: the driver VM drives that device, too; the ratio of the others compares different devices\n"
        f"ratio, range: of the {what}; median and ends of {result['rounds']} round(s); of best: of each side's best one\n"
        "CPU us: of the host, the emulation of devices included")
    waited = {side: statistics.median(workload[side]["waited_percent"] for _, workload in rows) for side in ("bulkhead", "bare")}
    if max(waited.values()) > WAITED_PERCENT and not result["icount"]:
        say("This host was busy with something else: of the time in which they wanted a CPU, the emulators' threads had none\n"
            f"for {waited['bulkhead']:.0f} % (bare: {waited['bare']:.0f} %). Rates suffer from that, and not alike; --icount counts what does not.")


def _row(entry, workload, unit):
    ours, bare, figure, item = workload["bulkhead"], workload["bare"], workload["figure"], workload["item"]
    cells = {"device": entry["device"] + ("*" if entry["same_device"] else ""), "grants": entry["grants"],
             "workload": workload["workload"], f"{figure}/{item}" if figure == "instructions" else figure: number(ours[figure]),
             "bare": number(bare[figure]), "ratio": number(workload["ratio"]),
             "range": f"{number(workload['ratio_lowest'])}-{number(workload['ratio_highest'])}",
             "of best": number(workload["ratio_of_best"])}
    cells |= {header.format(item=item): f"{number(ours[key])} ({number(bare[key])})" for header, key in BESIDE[figure].items()}
    if figure == "instructions":
        cells |= {who: number(value) for who, value in ours["instructions_by"].items()}
    return cells | {f"exits/{unit}": number(ours.get("exits"))}


def _details(rows, unit):
    """What the exits were, and who had the CPUs: a line for each workload, without what is next to nothing."""
    for title, key, least in ((f"exits/{unit}", "exits_by", 0.005), ("percent of the CPUs' time", "time_percent", 0)):
        print(f"{title}:")
        for entry, workload in rows:
            parts = sorted(workload["bulkhead"].get(key, {}).items(), key=lambda part: -part[1])
            text = ", ".join(f"{name} {number(value)}" for name, value in parts if value >= least)
            print(f"  {entry['device']}, {entry['grants']}, {workload['workload']}: {text}")
        print()


def number(value):
    """Three digits or more; columns of them are aligned by ui.table."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
