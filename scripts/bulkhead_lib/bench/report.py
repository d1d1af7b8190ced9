"""Progress and tables of a bench run; nothing wider than 120 columns."""

import statistics
import sys
import time

from ..ui import Progress, say, table

BAR = 20
MOST_PARTS = 4
LEAST_SHARE = 0.05  # what is less of a whole is not told
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


# For each figure whose ratio may count: what else of both sides stands beside it, {header: (figure, divisor)}.
BESIDE = {
    "MB/s": {"CPU us/{item}": ("cpu_us", 1)},
    "IOPS": {"p50 us": ("p50_us", 1), "p99 ms": ("p99_us", 1000), "CPU us/{item}": ("cpu_us", 1)},
    "round trips/s": {"mean us": ("mean_us", 1), "CPU us/{item}": ("cpu_us", 1)},
    "instructions": {},
}


def show(result, verbose):
    rows = [(entry, workload) for entry in result["devices"] for workload in entry["workloads"]]
    unit = "I/O" if result["what"] == "blk" else "packet"
    for figure, item in dict.fromkeys((workload["figure"], workload["item"]) for _, workload in rows):
        table([_row(entry, workload) for entry, workload in rows if (workload["figure"], workload["item"]) == (figure, item)])
        print()
    if verbose:
        _details(rows, unit)
    sys.stdout.flush()
    what = "instructions (less is better)" if result["icount"] else "rates"
    say(f"bare, and in parentheses: the same guest on QEMU's {result['devices'][0]['bare']}, no hypervisor\n"
        "*: the driver VM drives that device, too; the ratio of the others compares different devices\n"
        f"ratio, range: of the {what}; median and ends of {result['rounds']} round(s); best: of each side's best one\n"
        f"CPU us: of the host, the emulation of devices included; exits: for each {unit}"
        + ("\nxN: N requests in flight; 1 MiB: sequential, 4 KiB: random" if result["what"] == "blk" else ""))
    waited = {side: statistics.median(workload[side]["waited_percent"] for _, workload in rows) for side in ("bulkhead", "bare")}
    if max(waited.values()) > WAITED_PERCENT and not result["icount"]:
        say("This host was busy with something else: of the time in which they wanted a CPU, the emulators' threads had none\n"
            f"for {waited['bulkhead']:.0f} % (bare: {waited['bare']:.0f} %). Rates suffer from that, and not alike; --icount counts what does not.")


def _row(entry, workload):
    ours, bare, figure, item = workload["bulkhead"], workload["bare"], workload["figure"], workload["item"]
    title = f"instr./{item}" if figure == "instructions" else figure
    cells = {"device": entry["device"] + ("*" if entry["same_device"] else ""), "grants": entry["grants"],
             "workload": workload["workload"], title: number(ours[figure]),
             "bare": number(bare[figure]), "ratio": number(workload["ratio"]),
             "range": f"{number(workload['ratio_lowest'])}-{number(workload['ratio_highest'])}",
             "best": number(workload["ratio_of_best"])}
    cells |= {header.format(item=item): f"{number(ours[key] / divisor)} ({number(bare[key] / divisor)})"
              for header, (key, divisor) in BESIDE[figure].items()}
    if figure == "instructions":
        cells |= {who: number(value) for who, value in ours["instructions_by"].items()}
    return cells | {"exits": number(ours["exits"])}


def _details(rows, unit):
    """What the exits were, and who had the CPUs: a line for each workload, without what is next to nothing."""
    for title, key in ((f"exits/{unit}", "exits_by"), ("percent of the CPUs' time", "time_percent")):
        print(f"{title}:")
        for entry, workload in rows:
            parts = sorted(workload["bulkhead"][key].items(), key=lambda part: -part[1])[:MOST_PARTS]
            least = LEAST_SHARE * sum(value for _, value in parts)
            text = ", ".join(f"{name} {number(value)}" for name, value in parts if value > least)
            print(f"  {entry['device']}, {entry['grants']}, {workload['workload']}: {text}")
        print()


def number(value):
    """Three digits or more; columns of them are aligned by ui.table."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
