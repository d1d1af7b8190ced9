"""
What a mutation of a driver's code needs: the bytes are the driver's own, are changed as asked, and are back after a restart. Every
class under load: test_campaign.py.
"""

import time

from harness import case, check, main
from bulkhead_lib import faultclass
from bulkhead_lib.control import ControlError

LABEL = "faultclasses"
TIMEOUT = 240

RESTART_SECONDS = 30


def renew(machine, vm):
    """A driver VM from its pristine image, whatever was done to it."""
    deadline = time.monotonic() + RESTART_SECONDS
    before = machine.status("vm", vm)["generation"]
    asked = False
    while not (asked and (fields := machine.status("vm", vm))["state"] == "running" and fields["generation"] > before):
        check(time.monotonic() < deadline, f"{vm} does not come back: {machine.status('vm', vm)}")
        try:
            if not asked:
                machine.control.ask(f"restart {vm}")
            asked = True
        except ControlError:
            time.sleep(0.02)  # a recovery is under way


@case
def a_flip_is_what_was_asked_for(lab):
    """The text that a mutation names is the driver's, is changed, and is back after a restart."""
    with lab.machine() as machine:
        machine.boot()
        driver = faultclass.image.of("blk0", machine.control, lab.images)
        function = next(f for f in driver.functions if f.name == "elf_parse")  # which no driver calls
        old = driver.read(function.address, 16)
        check(faultclass.memory.read(machine.control, "blk0", function.address, 16) == old, "its text is another")
        new = lab.random.randbytes(16)
        for line in faultclass.memory.lines(faultclass.memory.flips("blk0", function.address, old, new)):
            machine.control.ask(line)
        check(faultclass.memory.read(machine.control, "blk0", function.address, 16) == new, "it was changed otherwise")
        renew(machine, "blk0")
        check(faultclass.memory.read(machine.control, "blk0", function.address, 16) == old, "it was not put back")
        memory, ports = faultclass.memory.bars(machine.control, "blk0")
        check((len(memory), len(ports)) == (1, 1), f"an AHCI controller has other BARs: {memory}, {ports}")


if __name__ == "__main__":
    main()
