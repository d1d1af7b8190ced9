"""
A machine without PCI Express, messages, or IOMMU: an IDE disk by port I/O alone, whose driver VM is isolated all the same,
and interrupts by lines. What Bochs offers, on the quicker QEMU. The suite that the disk's driver passes there is in test_blk.py and
test_faults.py.
"""

import re
import time

from harness import MIB, case, check, driver, guest, main, manifest, sha256_file, vm

LABEL = "i440fx"
TIMEOUT = 600

RESTARTS = 6

# What the probe of a line says of one that works.
WELL = ("interrupts 100 of 100, line armed each time and quiet afterwards",
        "unsilenced 0 while awake, 20 in 20 waits, quiet afterwards")


def ide(**keys):
    return driver(image="ata_pio.elf", device="class:0101", dma="none", **keys)


def machine_of(lab, *sections, **options):
    return lab.machine(manifest(*(sections or (ide(), guest()))), machine="pc", **options)


@case
def behind_other_devices(lab):
    """The disk is the secondary channel's slave; in front of it a CD-ROM drive and an empty channel's floating bus."""
    disk = lab.disk(16 * MIB, random_bytes=16 * MIB)
    devices = ["ide-cd,bus=ide.1,unit=0", "ide-hd,drive=far,bus=ide.1,unit=1"]
    drive = ["-drive", f"if=none,id=far,format=raw,file={disk}"]
    with machine_of(lab, disk=disk, sata_disk=False, devices=devices, extra=drive) as machine:
        machine.boot()
        output = machine.run("sha256 /dev/vda", 120)
        check(sha256_file(disk) in output, "the guest reads something else")
        log = [event["text"] for event in machine.events("driver-log")]
        check(any("secondary master: an ATAPI device" in text for text in log), f"no word of the CD-ROM: {log}")
        check(any("secondary slave, " in text for text in log), f"another disk was taken: {log}")


def probe(machine, generation=0):
    """
    What the VM that probes an e1000's line says in this generation, when it is done; and how many interrupts the
    hypervisor took in all.
    """
    deadline = time.monotonic() + 60
    while True:
        said = [event["text"] for event in machine.events() if event["vm"] == "line0" and event["kind"] in ("start", "driver-log")]
        begin = f"started, generation {generation}"
        log = said[said.index(begin):] if begin in said else []
        done = re.search(r"probe: done, (\d+) events", " ".join(log))
        if done:
            break
        check(time.monotonic() < deadline, f"the probe does not end: {log}")
        time.sleep(0.2)
    stats = next(fields for fields in machine.control.rows("stats", "vm") if fields["name"] == "line0")
    return " ".join(log), int(done[1]), stats["device_interrupts"]


def line_vm(dma):
    return vm("line0", {"kind": "driver", "image": "line_probe.elf", "device": "class:0200", "memory": "1M", "dma": dma})


def check_line(machine, dma):
    """A level-triggered line is armed for each interrupt, and masked while a device keeps it up; `dma` is what it says."""
    text, events, interrupts = probe(machine)
    for words in WELL:
        check(words in text, text)
    # Were the line left open, this would be one interrupt after the other for 50 ms.
    check(events <= interrupts <= events + 2, f"{interrupts} interrupts for {events} events")
    check(("DMA refused: " if dma == "none" else "DMA reaches our RAM") in text, text)
    state = machine.status("vm", "line0")
    check(state["dma"] == dma and state["interrupts"] == "INTx" and state["restarts"] == 0, f"another state: {state}")
    loud = any("WITHOUT" in line or "UNPROTECTED" in line for line in machine.log() if "line0" in line)
    check(loud == (dma == "unprotected"), f"the boot log is {'' if loud else 'not '}loud about the DMA")
    check(machine.status("hypervisor")["canary"] == "ok", "the hypervisor's canary was overwritten")


@case
def lines_without_dma(lab):
    with machine_of(lab, ide(), line_vm("none"), guest(), devices=["e1000"]) as machine:
        machine.boot()
        check_line(machine, "none")
        machine.run("blk read 0 2048 qd 16")


@case
def lines_with_unprotected_dma(lab):
    with machine_of(lab, ide(), line_vm("unprotected"), guest(), devices=["e1000"]) as machine:
        machine.boot()
        check_line(machine, "unprotected")
        machine.run("blk read 0 2048 qd 16")


@case
def q35_without_iommu(lab):
    """PCI Express and messages, but no IOMMU: the disk and the probe by `dma = unprotected`."""
    text = manifest(driver(dma="unprotected"), line_vm("unprotected"), guest())
    with lab.machine(text, iommu=False, devices=["e1000"]) as machine:
        machine.boot()
        check_line(machine, "unprotected")
        machine.run("blk read 0 2048 qd 16")
        check(machine.status("vm", "blk0")["interrupts"] == "MSI", "the disk interrupts in another way")


@case
def q35_with_remapped_interrupts(lab):
    """The line goes through the remapping table. Restarts at any moment close and open it: the last probe finds it as the first."""
    with lab.machine(manifest(driver(), line_vm("isolated"), guest()), devices=["e1000"]) as machine:
        machine.boot()
        check_line(machine, "isolated")
        for _ in range(RESTARTS):
            machine.control.ask("restart line0")
            # A random moment of the probe, from the seed: now and then its line is up and waits for an EOI.
            time.sleep(lab.random.uniform(0, 0.5))
        machine.control.ask("restart line0")
        text = probe(machine, RESTARTS + 1)[0]
        for words in WELL:
            check(words in text, text)
        machine.run("blk read 0 2048 qd 16")


if __name__ == "__main__":
    main()
