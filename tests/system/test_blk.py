"""The conformance suite of the disk drivers, for each of them; its part with faults is in test_faults.py. Both are `-L blk`."""

from block_suite import AHCI, DISKS, FUNCTIONS, disk_machine
from harness import MIB, case, cases_for, check_load, main

LABEL = "blk"
TIMEOUT = 600

for disk in DISKS:
    cases_for(disk, FUNCTIONS)


@case
def load_with_few_grants(lab):
    """A grant cache much smaller than the arena, which is the same for all drivers: pages are evicted all the time."""
    with disk_machine(lab, AHCI, lab.disk(64 * MIB), grants="sticky", grant_pages="1024") as machine:
        machine.boot()
        seed = lab.random.randrange(1 << 32)
        check_load(*machine.command(f"blk load --seed {seed} --depth 32 --count 3000 --final --quiet", 180))


if __name__ == "__main__":
    main()
