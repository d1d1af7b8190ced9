"""Fault records from the control port's `faults`, and what their time stamps mean."""

import dataclasses
import time

from .ui import Failure, percentile

# The stamps of struct fault_record (hv/recovery/recovery.h) in their order; in a line of `faults` they are µs since boot.
STAMPS = ("injected", "detect", "decide", "quiesce", "reset", "restart", "offer", "replay", "first_completion")
# What a duration is called, from which stamp to which. A stage's stamp says when it began.
DURATIONS = {
    "detect": ("injected", "detect"),
    "quiesce": ("quiesce", "reset"),
    "reset": ("reset", "restart"),
    "restart": ("restart", "offer"),
    "replay": ("offer", "replay"),
    "outage": ("detect", "first_completion"),
    "fault_to_first_completion": ("injected", "first_completion"),
}
POLL_SECONDS = 0.05


@dataclasses.dataclass
class Record:
    sequence: int
    vm: str
    kind: str
    outcome: str
    injected: str
    text: str
    stamps: dict
    fields: dict

    def duration(self, name):
        """µs, or None when one of its ends did not happen."""
        start, end = (self.stamps.get(stamp) for stamp in DURATIONS[name])
        return end - start if start and end and end >= start else None

    def durations(self):
        return {name: self.duration(name) for name in DURATIONS}

    def row(self):
        return {"seq": self.sequence, "vm": self.vm, "injected": self.injected or "-", "detector": self.kind,
                "outcome": self.outcome, **self.durations()}

    def as_dict(self):
        return {**self.fields, "durations_us": self.durations()}


def _stamp(fields, name):
    value = fields.get(f"t_{name}", fields.get(f"{name}_us", 0))
    return value if isinstance(value, int) else 0


def parse(fields):
    """A Record from the fields of one `fault` line."""
    return Record(sequence=int(fields.get("sequence", fields.get("seq", 0))), vm=str(fields.get("vm", "")),
                  kind=str(fields.get("kind", "")), outcome=str(fields.get("outcome", "")),
                  injected=str(fields.get("injected", "")), text=str(fields.get("text", "")),
                  stamps={name: _stamp(fields, name) for name in STAMPS}, fields=fields)


def read(control):
    return [parse(fields) for fields in control.rows("faults", "fault")]


def wait_for(control, vm, after, seconds):
    """The first record of this VM with a sequence above `after` whose recovery has ended, one way or the other."""
    deadline = time.monotonic() + seconds
    found = None
    while time.monotonic() < deadline:
        found = next((r for r in read(control) if r.sequence > after and r.vm == vm), None)
        if found and found.outcome not in ("", "open"):
            return found
        time.sleep(POLL_SECONDS)
    if found:
        raise Failure(f"{vm}: {found.kind} was detected, but the recovery did not end within {seconds} s")
    raise Failure(f"{vm}: no fault was detected within {seconds} s")


def summary(records):
    """p50, p99 and max in µs of each duration, as rows."""
    rows = []
    for name in DURATIONS:
        values = [value for value in (record.duration(name) for record in records) if value is not None]
        rows.append({"duration": name, "n": len(values), "p50": percentile(values, 50), "p99": percentile(values, 99),
                     "max": max(values, default=None)})
    return rows
