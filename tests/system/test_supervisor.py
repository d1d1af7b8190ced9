"""The supervisor: states and orders of the operator."""

import time

from block_suite import endless_load, finish_load
from driver_suite import inject, judge
from harness import case, check, driver, faultlog, guest, main, manifest

LABEL = "supervisor"
TIMEOUT = 240
STATE_SECONDS = 20


def wait_state(machine, vm, state, seconds=STATE_SECONDS):
    """Until `status` says so; its fields."""
    deadline = time.monotonic() + seconds
    while True:
        fields = machine.status("vm", vm)
        if fields["state"] == state:
            return fields
        check(time.monotonic() < deadline, f"{vm} is {fields['state']}, not {state}: {fields}")
        time.sleep(0.02)


def order(machine, command, vm="blk0"):
    """`restart`, `stop` or `start`; the record of what came of it."""
    seen = max([record.sequence for record in faultlog.read(machine.control)], default=0)
    machine.control.ask(f"{command} {vm}")
    return faultlog.wait_for(machine.control, vm, seen, STATE_SECONDS)


def completions(machine):
    return next(row["completions"] for row in machine.control.rows("stats", "vm") if row["name"] == "blk0")


@case
def states_and_orders(lab):
    """
    Stopped under load, the device is silent and the guest waits; started, it goes on where it was. Faults make the driver VM
    degraded, and an order of the operator gives it fresh counters.
    """
    with lab.machine(manifest(driver(limit="4", window="1h"), guest())) as machine:
        machine.boot()
        command = endless_load(lab, machine)
        check(wait_state(machine, "blk0", "running")["uptime_us"] > 0, "it runs, but has no uptime")
        check(order(machine, "stop").outcome == "stopped", "the stop is not on record")
        fields = machine.status("vm", "blk0")
        check(fields["state"] == "stopped" and fields["uptime_us"] == 0, f"not stopped: {fields}")
        before = completions(machine)
        time.sleep(0.2)
        check(completions(machine) == before, "the device of a stopped driver VM completes requests")
        check(order(machine, "start").outcome == "recovered", "it does not start again")
        for number in (1, 2, 3):
            judge(inject(machine, "blk0", "crash"), "crash", "driver")
            fields = wait_state(machine, "blk0", "degraded" if number == 3 else "running")
            check(fields["crashes"] == fields["restarts_in_window"] == number, f"the counters are wrong: {fields}")
        check("exception" in fields["last_fault"], f"the last fault is {fields['last_fault']}")
        check(order(machine, "restart").outcome == "recovered", "it does not restart")
        fields = wait_state(machine, "blk0", "running")
        check((fields["crashes"], fields["restarts_in_window"], fields["restarts"]) == (3, 0, 5), f"the counters are wrong: {fields}")
        finish_load(machine, command)


if __name__ == "__main__":
    main()
