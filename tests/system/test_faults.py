"""
A hundred faults and some restarts by the operator at random moments of a verifying load, for each disk driver: its part of the
suite in block_suite.py.
"""

import time

from block_suite import DISKS, FAULTS, endless_load, finish_load
from driver_suite import inject, judge
from harness import MIB, case, cases_for, driver, guest, main, manifest

LABEL = "blk faults"
TIMEOUT = 900

for disk in DISKS:
    cases_for(disk, FAULTS)


@case
def reset_by_the_bus(lab):
    """A controller behind a root port of its own is reset by that port's secondary bus."""
    disk = lab.disk(64 * MIB)
    devices = ["pcie-root-port,id=root-port,chassis=1", "ich9-ahci,id=far,bus=root-port", "ide-hd,drive=far-disk,bus=far.0"]
    drive = ["-drive", f"if=none,id=far-disk,format=raw,file={disk}"]
    text = manifest(driver(device="pci:01:00.0", limit="1000"), guest())
    with lab.machine(text, disk=disk, sata_disk=False, devices=devices, extra=drive) as machine:
        machine.boot()
        command = endless_load(lab, machine)
        for fault in ("crash", "garbage", "wild-write"):
            time.sleep(lab.random.uniform(0.01, 0.2))
            judge(inject(machine, "blk0", fault), fault, "bus")
        finish_load(machine, command)


if __name__ == "__main__":
    main()
