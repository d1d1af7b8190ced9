"""Debug builds: before each entry the VMCS or the VMCB goes through the checker. On both back ends, with a driver VM that restarts."""

from harness import MIB, case, check, check_load, driver, guest, main, manifest, qemu, sha256_file
from bulkhead_lib import build, paths

LABEL = "vmx"
TIMEOUT = 600
BOOT_SECONDS = 240
DISK_BYTES = MIB
LOAD = "blk load --seed 1 --depth 4 --lba 0 --sectors 1024 --seconds 3 --final --quiet"

IDE = {"image": "ata_pio.elf", "device": "class:0101", "dma": "none"}


def every_entry_passes(lab, back_end, manifest_text, **options):
    build.build("debug")
    lab.images = paths.images("debug")
    disk = lab.disk(DISK_BYTES, DISK_BYTES)
    with lab.machine(manifest_text, disk=disk, **options) as machine:
        machine.boot(BOOT_SECONDS)
        machine.expect_log(rf"CPU back end {back_end} \(.*, each entry checked\)", 1)
        check(sha256_file(disk) in machine.run("sha256 /dev/vda", BOOT_SECONDS), "the guest reads something else")
        machine.send(LOAD)
        record = machine.inject("blk0", "crash", 60)
        check(record.kind == "exception" and record.outcome == "recovered", f"the crash became {record.fields}")
        check_load(*machine.finish(LOAD, BOOT_SECONDS))
        refused = [line for line in machine.log() if "refused" in line or "vmcs" in line]
        check(not refused, f"the checker found: {refused[:2]}")
        check(machine.power_off() == qemu.POWERED_OFF, "no orderly end")


@case
def svm_on_tcg(lab):
    every_entry_passes(lab, "svm", manifest(driver(), guest()), accel="tcg")


@case
def vmx_on_skylake(lab):
    every_entry_passes(lab, "vmx", manifest(driver(**IDE), guest()), accel="bochs", model="corei7_skylake_x")


if __name__ == "__main__":
    main()
