"""The oracle of checked builds: silent under load and faults, and it finds each of the seeded mistakes in its own place."""

from driver_suite import inject
from harness import MIB, case, cases_for, check, check_load, driver, guest, main, manifest, qemu
from bulkhead_lib import build
from bulkhead_lib.ui import Failure

LABEL = "oracle"
TIMEOUT = 600

FAULTS = ("crash", "hang", "wild-write", "wild-dma", "garbage", "restart")
LOAD = "blk load --seed 1 --depth 32 --lba 0 --sectors 65536 --seconds {} --final --quiet"


class Mistake:
    """One of tests/oracle/mistakes.cmake, what it takes to make it matter, and what the oracle says then."""

    def __init__(self, name, difference, crash=False):
        self.name = name
        self.difference = difference
        self.crash = crash


MISTAKES = (
    Mistake("grant", r"blk0: IOMMU domain, guest page 0x[1-9a-f][0-9a-f]*: expected 0x0, found 0x[1-9a-f][0-9a-f]+$"),
    Mistake("flush", r"blk0: not flushed from TLB and IOTLB, guest page 0x[1-9a-f][0-9a-f]*: expected 0x0, found 0x[13]$"),
    Mistake("domain", r"blk0: IOMMU context of device 0xfa: expected 0x[0-9a-f]+1, found 0x[0-9a-f]+1$", crash=True),
    Mistake("log", r"blk0: answers owed, queue 0x0: expected 0x[0-9a-f]+, found 0x[0-9a-f]+$"),
    Mistake("lost", r"blk0: answers owed, queue 0x0: expected 0x[0-9a-f]+, found 0x[1-9a-f][0-9a-f]*$", crash=True),
)


@case
def silent_when_all_is_right(lab):
    """A cache of grants that is always full, every fault, and everything looked at again and again."""
    with lab.machine(manifest(driver(grant_pages="512", limit="100"), guest())) as machine:
        machine.boot()
        machine.expect_log("oracle: looks", 1)
        load = LOAD.format(3600)
        machine.send(load)
        machine.expect("load: vda: seed", 20)
        for fault in FAULTS:
            record = inject(machine, "blk0", fault)
            check(record.outcome == "recovered", f"no recovery from {fault}: {record.fields}")
        machine.type("\x03")
        check_load(*machine.finish(load, 60))
        check(machine.power_off() == qemu.POWERED_OFF, "no orderly end")


def mistake_is_found(lab, device):
    build.build("release", target="mistakes")
    text = manifest(driver(grants="strict"), guest())
    with lab.machine(text, disk=lab.disk(32 * MIB), replace={"hv.elf": lab.image(f"hv-{device.name}.elf")}) as machine:
        try:
            machine.boot()
            machine.send(LOAD.format(60))
            if device.crash:
                machine.expect("load: vda: seed", 20)
                machine.control.ask("inject blk0 crash")
        except Failure:
            pass  # it was found while the guest started, or before the order was answered; the log has to say so
        said = machine.expect_log("panic on CPU .*oracle: (.*)", 60)[1]
        check(machine.wait_exit(20) == qemu.PANIC, "a difference has to end the machine")
        machine.expect_log(device.difference, 1)
        lab.say(f"| {device.name}: {said}")


for mistake in MISTAKES:
    cases_for(mistake, [mistake_is_found])


if __name__ == "__main__":
    main()
