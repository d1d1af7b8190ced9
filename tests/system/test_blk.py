"""Real input: what the guest reads is what the host has, what the guest writes is what the host gets."""

from driver_suite import bad_disk, bad_sector, verifying_load
from harness import MIB, case, check, driver, guest, main, manifest, qemu, sha256_file
from pattern import SECTOR, wrong_sectors

LABEL = "blk"
TIMEOUT = 420


@case
def sha256_of_256_mib(lab):
    disk = lab.disk(256 * MIB, random_bytes=256 * MIB)
    expected = sha256_file(disk)
    with lab.machine(disk=disk) as machine:
        machine.boot()
        output = machine.run("sha256 /dev/vda", 240)
        check(expected in output, f"the guest says {output.strip()!r}, the host {expected}")
        machine.power_off()
    check(sha256_file(disk) == expected, "reading changed the image")


@case
def write_64_mib(lab):
    """A seeded pattern, flushed; the host finds every sector of it, and nothing outside."""
    disk = lab.disk(128 * MIB)
    first, count, seed = 12345, 64 * MIB // SECTOR, lab.random.randrange(1 << 32)
    with lab.machine(disk=disk) as machine:
        machine.boot()
        machine.run(f"blk write --seed {seed} {first} {count}", 240)
        machine.run(f"blk verify --seed {seed} {first} {count}", 240)
        check(machine.power_off() == qemu.POWERED_OFF, "no orderly end")
    wrong = wrong_sectors(disk, seed, first, count)
    check(not wrong, f"{len(wrong)} sectors are wrong on the host, the first is {wrong[:1]}")
    with open(disk, "rb") as file:
        check(not any(file.read(first * SECTOR)), "something was written below the range")
        file.seek((first + count) * SECTOR)
        check(not any(file.read()), "something was written above the range")


def mixed_load(lab, **keys):
    with lab.machine(manifest(driver(**keys), guest()), disk=lab.disk(64 * MIB)) as machine:
        machine.boot()
        verifying_load(lab, machine, 32, 15)


@case
def load_with_sticky_grants(lab):
    """Depth 32, 512 bytes to 1 MiB, unaligned segments, every byte verified."""
    mixed_load(lab, grants="sticky")


@case
def load_with_strict_grants(lab):
    mixed_load(lab, grants="strict")


@case
def load_with_few_grants(lab):
    """A grant cache much smaller than the arena: pages are evicted all the time."""
    mixed_load(lab, grants="sticky", grant_pages="1024")


@case
def small_requests(lab):
    """Identity, flush, and a request type that the device does not know."""
    with lab.machine() as machine:
        machine.boot()
        check("bulkhead-disk" in machine.run("blk id"), "the serial number is another")
        machine.run("blk flush")
        machine.run("blk unsupported")
        machine.run("blk read 0 64")


@case
def error_of_the_disk(lab):
    """A sector that cannot be read fails the requests that name it, and no other; the driver stays up."""
    disk = lab.disk(16 * MIB, 16 * MIB)
    with lab.machine(disk=disk, sata_disk=False, devices=["ide-hd,drive=bad,bus=ide.0"],
                     extra=["-blockdev", bad_disk(disk, "bad")]) as machine:
        machine.boot()
        bad_sector(machine)


if __name__ == "__main__":
    main()
