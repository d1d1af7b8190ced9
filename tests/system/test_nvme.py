"""QEMU's NVMe controller behind its own driver VM: the same real input, and the same faults, as the SATA disk."""

from harness import MIB, case, check, driver, find_json, guest, main, manifest, qemu, sha256_file

LABEL = "nvme"
TIMEOUT = 600


def nvme(lab, disk, device="nvme,drive=nv,serial=bulkhead-nvme", extra=(), drive=None, **keys):
    """A machine whose only disk for the guest is an NVMe namespace."""
    text = manifest(driver(image="nvme.elf", device="class:0108", **keys), guest())
    devices = ["pcie-root-port,id=root-port,chassis=1", device + ",bus=root-port", *extra]
    backend = drive or ["-drive", f"if=none,id=nv,format=raw,file={disk}"]
    return lab.machine(text, disk=disk, sata_disk=False, devices=devices, extra=backend)


@case
def sha256(lab):
    disk = lab.disk(64 * MIB, random_bytes=64 * MIB)
    expected = sha256_file(disk)
    with nvme(lab, disk) as machine:
        machine.boot()
        output = machine.run("sha256 /dev/vda", 240)
        check(expected in output, f"the guest says {output.strip()!r}, the host {expected}")
        check("bulkhead-nvme" in machine.run("blk id"), "the serial number is another")
        machine.power_off()
    check(sha256_file(disk) == expected, "reading changed the image")


if __name__ == "__main__":
    main()
