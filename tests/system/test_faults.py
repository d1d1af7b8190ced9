"""
Five kinds of faults at random moments of a verifying read/write load. Each must be seen by its own detector, each driver
VM must come back, and no request may fail, get lost, complete twice or carry wrong data.
"""

import io
import time

from driver_suite import inject, load_under_faults
from harness import MIB, case, check, check_load, driver, faultlog, find_json, guest, main, manifest
from bulkhead_lib.ui import table

LABEL = "faults"
TIMEOUT = 600
ROUNDS = 20
LOAD_SECONDS = 30

DETECTORS = {
    "crash": "exception",
    "hang": "heartbeat",
    "wild-write": "nested-page",
    "wild-dma": "dma",
    "garbage": "completion-ring",
}


@case
def under_load(lab):
    text = manifest(driver(limit="1000", window="1h"), guest())
    faults = list(DETECTORS) * ROUNDS
    lab.random.shuffle(faults)
    total = len(faults)
    records = []
    with lab.machine(text, disk=lab.disk(64 * MIB)) as machine:
        machine.boot()
        loads = 0
        while faults:
            records += load_under_faults(lab, machine, faults, LOAD_SECONDS)
            loads += 1
            lab.say(f"{len(records)} of {total} faults, {loads} loads without an error")
        stat = find_json(machine.run("stat --json"))
        canary = machine.status("hypervisor")["canary"]
    publish(lab, records)
    for name in ("blk_io_errors", "blk_protocol", "blk_unknown", "blk_doubled"):
        check(stat[name] == 0, f"the guest counts {name} = {stat[name]}")
    check(stat["blk_requests"] == stat["blk_completions"], "requests got lost")
    check(canary == "ok", "the hypervisor's canary was overwritten")
    wrong = [record.row() for record in records if DETECTORS[record.injected] != record.kind]
    check(not wrong, f"seen by another detector: {wrong[:3]}")
    stuck = [record.row() for record in records if record.outcome != "recovered"]
    check(not stuck, f"not recovered: {stuck[:3]}")


def publish(lab, records):
    """Figures for people and, in JSON, for programs."""
    report = {}
    for fault in list(DETECTORS) + ["all"]:
        chosen = [record for record in records if fault in ("all", record.injected)]
        rows = faultlog.summary(chosen)
        text = io.StringIO()
        table(rows, out=text)
        for line in [f"{fault}: {len(chosen)} faults, times in µs", *text.getvalue().splitlines()]:
            lab.say(f"| {line}")
        report[fault] = rows
    lab.report("faults", {"unit": "us", "summary": report, "records": [record.as_dict() for record in records]})


@case
def restart_by_the_operator(lab):
    """`restart VM` under load is a fault like any other to the guest: it sees a short stall."""
    with lab.machine() as machine:
        machine.boot()
        command = "blk load --seed 3 --depth 8 --seconds 8 --final --quiet"
        machine.send(command)
        time.sleep(1)
        before = machine.status("vm", "blk0")["generation"]
        machine.control.ask("restart blk0")
        faultlog.wait_for(machine.control, "blk0", 0, 20)
        check_load(*machine.finish(command, 120))
        check(machine.status("vm", "blk0")["generation"] == before + 1, "no restart, or more than one")


@case
def reset_by_the_bus(lab):
    """A controller behind a root port of its own is reset by that port's secondary bus."""
    disk = lab.disk(64 * MIB)
    devices = ["pcie-root-port,id=root-port,chassis=1", "ich9-ahci,id=far,bus=root-port", "ide-hd,drive=far-disk,bus=far.0"]
    drive = ["-drive", f"if=none,id=far-disk,format=raw,file={disk}"]
    text = manifest(driver(device="pci:01:00.0", limit="1000"), guest())
    with lab.machine(text, disk=disk, sata_disk=False, devices=devices, extra=drive) as machine:
        machine.boot()
        command = "blk load --seed 5 --depth 32 --seconds 6 --final --quiet"
        machine.send(command)
        time.sleep(0.5)
        for fault in ("crash", "garbage", "wild-write"):
            record = inject(machine, "blk0", fault)
            check(record.outcome == "recovered" and record.kind == DETECTORS[fault], f"{fault}: {record.fields}")
            check(record.fields["reset"] == "bus", f"reset was {record.fields['reset']}, not by the bus")
        check_load(*machine.finish(command, 120))


if __name__ == "__main__":
    main()
