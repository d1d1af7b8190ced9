"""Fault records from the control port's `faults`, and what their time stamps mean."""

import dataclasses
import time

from .ui import Failure, percentile

# What people see: the duration's name and the field of a `fault` line that holds it, in µs; absent when it did not happen.
DURATIONS = {
    "detect": "detect_us",
    "quiesce": "quiesce_us",
    "reset": "reset_us",
    "restart": "restart_us",
    "replay": "replay_us",
    "fault_to_first_completion": "first_completion_us",
}
POLL_SECONDS = 0.01


@dataclasses.dataclass
class Record:
    sequence: int
    vm: str
    kind: str
    outcome: str
    injected: str
    text: str
    fields: dict

    def duration(self, name):
        """µs, or None when one of its ends did not happen."""
        return self.fields.get(DURATIONS[name])

    def durations(self):
        return {name: self.duration(name) for name in DURATIONS}

    def row(self):
        return {"seq": self.sequence, "vm": self.vm, "injected": self.injected or "-", "detector": self.kind,
                "outcome": self.outcome, **self.durations()}

    def as_dict(self):
        return {**self.fields, "durations_us": self.durations()}


def parse(fields):
    """A Record from the fields of one `fault` line."""
    return Record(sequence=int(fields.get("seq", 0)), vm=str(fields.get("vm", "")),
                  kind=str(fields.get("kind", "")), outcome=str(fields.get("outcome", "")),
                  injected=str(fields.get("injected", "")), text=str(fields.get("text", "")),
                  fields=fields)


def read(control, since=1):
    """The records from this sequence number on whose recovery has ended."""
    return [parse(fields) for fields in control.rows(f"faults {since}", "fault")]


def wait_for(control, vm, after, seconds):
    """The first record of this VM with a sequence above `after` whose recovery has ended, one way or the other."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = next((record for record in read(control, after + 1) if record.vm == vm), None)
        if found:
            return found
        time.sleep(POLL_SECONDS)
    raise Failure(f"{vm}: no fault was detected and dealt with within {seconds} s")


def summary(records):
    """p50, p99 and max in µs of each duration, as rows."""
    rows = []
    for name in DURATIONS:
        values = [value for value in (record.duration(name) for record in records) if value is not None]
        rows.append({"duration": name, "n": len(values), "p50": percentile(values, 50), "p99": percentile(values, 99),
                     "max": max(values, default=None)})
    return rows
