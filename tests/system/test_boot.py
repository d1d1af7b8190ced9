"""From firmware to the guest's prompt, and what the boot log tells."""

from driver_suite import check_cost
from harness import MIB, case, check, driver, guest, main, manifest, qemu
from bulkhead_lib import devices

LABEL = "boot"
TIMEOUT = 240


@case
def prompt_and_boot_log(lab):
    """The boot log names CPU back end, IOMMU, driver VM, its device and the isolation it got; powering off ends QEMU."""
    with lab.machine() as machine:
        machine.boot()
        machine.expect_log(r"CPU back end (svm|SVM)", 1)
        machine.expect_log(r"IOMMU: .*VT-d", 1)
        machine.expect_log(r"blk0: ahci\.elf drives 00:1f\.2 .*isolation ", 1)
        machine.expect_log(r"main starts: guestos\.elf, 256M", 1)
        machine.run("blk info")
        hypervisor = machine.status("hypervisor")
        check(hypervisor["canary"] == "ok" and hypervisor["iommu"] != "none", f"status says {hypervisor}")
        check(machine.status("vm", "blk0")["dma"] == "isolated", "the driver VM is not isolated")
        code = machine.power_off()
        check(code == qemu.POWERED_OFF, f"QEMU ended with {code}")


@case
def one_cpu(lab):
    """Driver VM and guest share the only CPU."""
    with lab.machine(cpus=1) as machine:
        machine.boot()
        machine.run("blk read 0 2048 qd 8")
        check(machine.power_off() == qemu.POWERED_OFF, "no orderly end")


@case
def much_memory(lab):
    """RAM above 4 GiB, and a guest that is larger than any hole below it."""
    with lab.machine(manifest(driver(), guest(memory="1G")), memory=6144, cpus=4) as machine:
        machine.boot()
        machine.run("blk read 0 2048 qd 8")
        check(machine.power_off() == qemu.POWERED_OFF, "no orderly end")


@case
def device_by_class(lab):
    """The driver's device named by its PCI class: SATA, AHCI."""
    with lab.machine(manifest(driver(device="class:010601"), guest())) as machine:
        machine.boot()
        check(machine.status("vm", "blk0")["device"] == "00:1f.2", "another device was taken")
        machine.run("blk read 0 64")


@case
def guest_reboots(lab):
    """The guest's own reset starts it anew; hypervisor and driver VM go on."""
    with lab.machine() as machine:
        machine.boot()
        machine.send("reboot")
        machine.shell_start()
        machine.run("blk read 0 64")
        check(machine.status("vm", "blk0")["state"] == "running", "the driver VM did not survive")


@case
def what_each_driver_vm_costs(lab):
    """Memory, image and start of every driver for PCI, all in one machine; ata_pio's are in test_blk."""
    found = devices.layout(["ahci", "nvme", "virtio-blk"], ["e1000", "e1000e", "virtio-net"])
    extra = devices.drives(found, [lab.disk(MIB) for _ in devices.disks(found)]) + devices.arguments(found)
    for device in devices.nics(found):
        extra += ["-netdev", f"user,id={device.backend}"]
    text = manifest(*(device.section() for device in found), guest())
    with lab.machine(text, sata_disk=False, extra=extra) as machine:
        machine.boot()
        lab.report("costs", [check_cost(lab, machine, device.vm, devices.MODELS[device.model].image) for device in found])


if __name__ == "__main__":
    main()
