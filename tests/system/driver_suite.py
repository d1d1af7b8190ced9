"""What tests of every driver share, whatever its class: making it fail, and judging how that ended."""

import re
import time

from harness import MIB, check, faultlog, find_json
from bulkhead_lib.control import ControlError

ARM_SECONDS = 10

# Which detector has to see what. `restart` is the operator's.
DETECTORS = {
    "crash": "exception",
    "hang": "heartbeat",
    "wild-write": "nested-page",
    "wild-dma": "dma",
    "garbage": "completion-ring",
    "restart": "operator",
}

# What one driver VM may take.
MEMORY_MAX = 2 * MIB
IMAGE_MAX = MIB // 8


def inject(machine, vm, fault):
    """Arm it as soon as the injector is free; the record of the recovery."""
    deadline = time.monotonic() + ARM_SECONDS
    while True:
        try:
            record = machine.inject(vm, fault)
            break
        except ControlError as refusal:
            # The driver may be starting after the fault before: an orderly answer, with an end.
            if time.monotonic() > deadline:
                raise AssertionError(f"{fault} could not be injected: {refusal}") from refusal
            time.sleep(0.02)
    asked = "" if fault == "restart" else fault
    check(record.injected == asked, f"{fault} was asked for, but {record.injected or 'nothing'} is on record: {record.fields}")
    return record


def judge(record, fault, reset, seen_by=None):
    """The fault was seen by its own detector, and the driver came back after the reset that its device has."""
    check(record.kind == {**DETECTORS, **(seen_by or {})}[fault], f"{fault} was seen by another detector: {record.fields}")
    check(record.outcome == "recovered", f"no recovery from {fault}: {record.fields}")
    check(record.fields["reset"] == reset, f"after {fault} the reset was {record.fields['reset']}, not {reset}")


def one_of_each(lab, faults, total):
    """A list of so many faults, each about as often as the others, in random order."""
    chosen = [faults[number % len(faults)] for number in range(total)]
    lab.random.shuffle(chosen)
    return chosen


def canary_lives(machine):
    check(machine.status("hypervisor")["canary"] == "ok", "the hypervisor's canary was overwritten")


def undisturbed(machine, vm):
    """Whatever was asked of the device, its driver VM is still the first one."""
    fields = machine.status("vm", vm)
    check(fields["faults"] == 0 and fields["generation"] == 0, f"the driver VM did not last: {fields}")


def driver_said(machine, words):
    return any(words in event.get("text", "") for event in machine.events("driver-log"))


def publish(lab, name, faults, records):
    """The stages of all recoveries and, for each fault, the time to the first completion: for people, and as JSON."""
    rows = {}
    for fault in ("all", *dict.fromkeys(faults)):
        chosen = [record for asked, record in zip(faults, records) if fault in ("all", asked)]
        rows[fault] = faultlog.summary(chosen)
        for row in rows[fault]:
            if row["n"] and (fault == "all" or row["duration"] == "fault_to_first_completion"):
                lab.say(f"| {name}, {fault}: {row['duration']} p50 {row['p50']}, p99 {row['p99']}, max {row['max']} µs of {row['n']}")
    lab.report(f"{name}-faults", {"unit": "us", "summary": rows, "records": [record.as_dict() for record in records]})


def stat(machine):
    return find_json(machine.run("stat --json"))


def check_cost(lab, machine, vm, image):
    """
    A driver VM's memory and its image keep their limits, in the machine and in the file that the loader reads. The time of a
    start is wall time, here also that of others on the same CPU: told, not judged. Returns what `status` says of it all.
    """
    fields = machine.status("vm", vm)
    check(fields["memory"] <= MEMORY_MAX, f"{vm} has {fields['memory']} bytes of memory")
    check(0 < fields["image_bytes"] <= IMAGE_MAX, f"{image} has {fields['image_bytes']} bytes in its segments")
    file = lab.image(image)
    check(fields["image_bytes"] < len(file) <= IMAGE_MAX, f"the file {image} has {len(file)} bytes")
    check(b".debug_info" not in file, f"the file {image} has debug information")
    check(0 < fields["start_run_us"] <= fields["start_us"], f"{vm} took {fields['start_run_us']} of {fields['start_us']} us")
    check(fields["device_wait_us"] <= fields["start_us"], f"{vm} says that it waited for {fields['device_wait_us']} us")
    # Pristine copy and rings alone are more than the VM's own memory.
    check(fields["overhead"] > fields["memory"], f"{vm} costs {fields['overhead']} bytes beside its memory")
    cost = {key: fields[key] for key in ("memory", "overhead", "image_bytes", "start_us", "start_run_us", "device_wait_us")}
    lab.say(f"| {vm} {image}: " + ", ".join(f"{key} {value}" for key, value in cost.items()))
    return {"vm": vm, "image": image, **cost}


class Follower:
    """Reads the event log, which is a ring, as it grows."""

    def __init__(self, machine):
        self.machine = machine
        self.since = 1
        self.events = []

    def update(self):
        for event in self.machine.control.rows(f"events {self.since}", "event"):
            check(not self.events or event["seq"] == self.since, f"events {self.since}..{event['seq'] - 1} were lost")
            self.since = event["seq"] + 1
            self.events.append(event)

    def texts(self, kind, vm_name="rogue0"):
        return [event["text"] for event in self.events if event["kind"] == kind and event["vm"] == vm_name]

    def wait(self, kind, pattern, seconds):
        """The first text of this kind that matches, in what was read or is still to come."""
        deadline = time.monotonic() + seconds
        while True:
            self.update()
            found = next(filter(None, (re.search(pattern, text) for text in self.texts(kind))), None)
            if found:
                return found
            check(time.monotonic() < deadline, f"no `{kind}` event like {pattern!r}: {self.texts('driver-log')[-3:]}")
            time.sleep(0.2)
