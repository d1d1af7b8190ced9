"""
A run in Chrome's trace-event format (ui.perfetto.dev and chrome://tracing open it): VMs as processes; in each the stages of its
recoveries, its events, and, where the run was watched, what it exits for and what I/O it does.

It holds what fault records, the event log and the counters hold, no more: the way of a single request is in none of them.
"""

import json
import time

from . import faultlog

STAGE_ROW, EVENT_ROW = 1, 2
SAMPLE_SECONDS = 0.1
# (name, its begin, its end): fields of a fault record; an end in µs of length has a unit in its name.
STAGES = (
    ("detect", "t_injected", "t_detect"),
    ("decide", "t_decide", "t_quiesce"),
    ("quiesce", "t_quiesce", "quiesce_us"),
    ("reset", "t_reset", "reset_us"),
    ("restart", "t_restart", "t_offer"),
    ("replay", "t_offer", "t_replay"),
    ("first completion", "t_replay", "t_first_completion"),
)
COUNTERS = {"I/O a second": ("requests", "completions", "kicks"), "bytes a second": ("bytes_read", "bytes_written")}


class Trace:
    """Collects events; all times are µs since the hypervisor's boot."""

    def __init__(self):
        self.events = []
        self.pids = {}

    def pid(self, vm):
        """The process that stands for a VM; `-` in the event log is the hypervisor itself."""
        name = "hypervisor" if vm in ("-", "") else vm
        if name not in self.pids:
            pid = self.pids[name] = len(self.pids) + 1
            self._name(pid, 0, "process_name", name)
            self._name(pid, STAGE_ROW, "thread_name", "recovery")
            self._name(pid, EVENT_ROW, "thread_name", "events")
        return self.pids[name]

    def _name(self, pid, tid, kind, name):
        self.events.append({"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": {"name": name}})

    def add_faults(self, records):
        """Fields of fault records, of one VM after the other in order."""
        for at, fields in enumerate(records):
            later = [other["t_detect"] for other in records[at + 1:] if other["vm"] == fields["vm"]]
            # A fault in a recovery ends that one's record while its last stage has no end.
            self._add_fault(fields, min(later, default=float("inf")))

    def _add_fault(self, fields, limit):
        spans = []
        for name, begin, end in STAGES:
            start = fields.get(begin, 0)
            stop = start + fields[end] if end.endswith("_us") and end in fields else fields.get(end, 0)
            if 0 < start <= stop:
                spans.append((name, start, min(stop, max(limit, start))))
        if not spans:
            return
        first = fields.get("t_injected") or fields["t_detect"]
        first, last = min(first, spans[0][1]), max(stop for _, _, stop in spans)
        what = f"{fields.get('injected') or 'fault'}: {fields['kind']}, {fields['outcome']}"
        for name, start, stop in [(what, first, last), *spans]:
            self.events.append({"ph": "X", "pid": self.pid(fields["vm"]), "tid": STAGE_ROW, "cat": "recovery", "name": name,
                                "ts": start, "dur": stop - start, "args": dict(fields) if name == what else {}})

    def add_events(self, rows):
        """Lines of the event log."""
        for row in rows:
            self.events.append({"ph": "i", "s": "t", "pid": self.pid(row["vm"]), "tid": EVENT_ROW, "cat": row["kind"], "ts": row["us"],
                                "name": f"{row['kind']}: {row.get('text', '')}", "args": {"seq": row["seq"]}})

    def add_rates(self, samples):
        """(µs, {VM: counters of `stats`}) one after the other: what each VM did between two of them."""
        for (before, old), (now, new) in zip(samples, samples[1:]):
            for vm, fields in new.items():
                kinds = tuple(key for key in fields if key.startswith("exits_"))
                for name, keys in {"exits a second": kinds, **COUNTERS}.items():
                    rates = {key.removeprefix("exits_"): round((fields[key] - old[vm][key]) * 1e6 / (now - before))
                             for key in keys if key in fields and key in old.get(vm, {}) and now > before}
                    if rates:
                        self.events.append({"ph": "C", "pid": self.pid(vm), "name": name, "ts": now, "args": rates})

    def write(self, path):
        path.write_text(json.dumps({"displayTimeUnit": "ms", "traceEvents": self.events}), encoding="utf-8")
        return len(self.events)


def sample(control):
    """(µs since boot, {VM: counters})."""
    rows = control.ask("stats")
    return (max(fields["up_us"] for kind, fields in rows if kind == "cpu"),
            {fields["name"]: {key: value for key, value in fields.items() if isinstance(value, int)} for kind, fields in rows if kind == "vm"})


def watch(control, seconds):
    """A trace of the next seconds of a running instance."""
    samples = [sample(control)]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(SAMPLE_SECONDS)
        samples.append(sample(control))
    begin = samples[0][0]
    trace = Trace()
    trace.add_rates(samples)
    trace.add_faults([record.fields for record in faultlog.read(control) if record.fields["t_detect"] >= begin])
    trace.add_events([row for row in control.rows("events", "event") if row["us"] >= begin])
    return trace


def of_campaign(store, machine=None):
    """A trace of one machine of a campaign."""
    rows = [row for row in store.rows("record IS NOT NULL") if machine in (None, row["machine"])]
    counts = {}
    for row in rows:
        counts[row["machine"]] = counts.get(row["machine"], 0) + 1
    if not counts:
        return None, Trace()
    chosen = max(counts, key=counts.get)
    trace = Trace()
    events = store.events(chosen)
    records = [fields for row in rows if row["machine"] == chosen for fields in json.loads(row["record"])]
    if events:
        # Events are kept of a machine's first faults only; records without their events would be half a story.
        records = [fields for fields in records if fields["t_detect"] <= events[-1]["us"]]
    trace.add_faults(sorted(records, key=lambda fields: fields["t_detect"]))
    trace.add_events(events)
    return chosen, trace
