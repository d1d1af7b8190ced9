"""What only QEMU's NVMe controller can do or be. The suite that all disk drivers pass is in test_blk.py and test_faults.py."""

from block_suite import (BACKEND, NVME, VM, blocks_of_4_kib_work, disk_machine, endless_load, finish_load, power_off,
                         write_and_compare)
from driver_suite import canary_lives, inject
from harness import MIB, case, check, main
from bulkhead_lib.pattern import SECTOR

LABEL = "nvme"
TIMEOUT = 300
ROUNDS = 6


@case
def small_transfers_only(lab):
    """MDTS of 8 KiB: every larger request goes in several commands."""
    image = lab.disk(16 * MIB)
    with disk_machine(lab, NVME, image, properties=",mdts=1") as machine:
        machine.boot()
        write_and_compare(lab, machine, image, 777, 8 * MIB // SECTOR)
        power_off(machine)


@case
def blocks_of_4_kib(lab):
    """On a namespace whose number is not 1."""
    image = lab.disk(16 * MIB)
    namespace = f"nvme-ns,bus={VM},drive={BACKEND},nsid=5,logical_block_size=4096,physical_block_size=4096"
    # A controller that has a drive makes a namespace of it.
    with disk_machine(lab, NVME, image, alter=lambda text: text.replace(f"drive={BACKEND},", ""),
                      more=["-device", namespace]) as machine:
        blocks_of_4_kib_work(lab, machine, image)


@case
def wild_dma_with_a_pause(lab):
    """The pause before a restart is before the reset, too: time for QEMU's model to end what it has under way."""
    # Twice what was enough in every try. A window that is over at once: the pause does not double.
    with disk_machine(lab, NVME, lab.disk(64 * MIB), backoff="1s", window="1ms") as machine:
        machine.boot()
        command = endless_load(lab, machine)
        records = [inject(machine, VM, "wild-dma") for _ in range(ROUNDS)]
        finish_load(machine, command)
        canary_lives(machine)
    # What the controller's lists cannot name the driver copies, and then its own CPU comes upon the wrong address first.
    check({"dma"} <= {record.kind for record in records} <= {"dma", "nested-page"}, f"{[record.row() for record in records]}")
    for record in records:
        fields = record.fields
        check(record.outcome == "recovered" and fields["reset"] == "flr", f"{fields}")
        pause = fields["t_reset"] - fields["t_decide"]
        check(pause >= 1000000, f"the reset came {pause} us after the fault")


if __name__ == "__main__":
    main()
