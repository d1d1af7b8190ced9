"""
A machine without PCI Express, messages, or IOMMU: an IDE disk by port I/O alone, whose driver VM is isolated all the same,
and interrupts by lines. What Bochs offers, on the quicker QEMU.
"""

import re
import time

from driver_suite import bad_disk, bad_sector, check_cost, inject
from harness import MIB, case, check, check_load, driver, faultlog, find_json, guest, main, manifest, qemu, sha256_file, vm
from pattern import SECTOR, wrong_sectors

LABEL = "i440fx"
TIMEOUT = 600

# None needs an IOMMU to be seen: where data moves by port I/O, it is the driver's own CPU that goes to a wrong address.
DETECTORS = {"crash": "exception", "hang": "heartbeat", "wild-write": "nested-page", "wild-dma": "nested-page",
             "garbage": "completion-ring"}
ROUNDS = 5
RESTARTS = 6

# What the probe of a line says of one that works.
WELL = ("interrupts 100 of 100, line armed each time and quiet afterwards",
        "unsilenced 0 while awake, 20 in 20 waits, quiet afterwards")


def ide(**keys):
    return driver(image="ata_pio.elf", device="class:0101", dma="none", **keys)


def machine_of(lab, *sections, **options):
    return lab.machine(manifest(*(sections or (ide(), guest()))), machine="pc", **options)


@case
def sha256_and_write(lab):
    """Real input, and what was written is on the host's side; nothing outside."""
    disk = lab.disk(64 * MIB, random_bytes=32 * MIB)
    expected = sha256_file(disk)
    first, count, seed = 12345, 16 * MIB // SECTOR, lab.random.randrange(1 << 32)
    with machine_of(lab, disk=disk) as machine:
        machine.boot()
        output = machine.run("sha256 /dev/vda", 240)
        check(expected in output, f"the guest says {output.strip()!r}, the host {expected}")
        check("bulkhead-disk" in machine.run("blk id"), "the serial number is another")
        machine.run(f"blk write --seed {seed} {first} {count}", 240)
        machine.run(f"blk verify --seed {seed} {first} {count}", 240)
        machine.run("blk flush")
        state = machine.status("vm", "blk0")
        check(state["dma"] == "none" and state["interrupts"] == "INTx", f"dma or interrupts are others: {state}")
        check_cost(lab, machine, "blk0", "ata_pio.elf")
        check(machine.power_off() == qemu.POWERED_OFF, "no orderly end")
    wrong = wrong_sectors(disk, seed, first, count)
    check(not wrong, f"{len(wrong)} sectors are wrong on the host, the first is {wrong[:1]}")


@case
def faults_under_load(lab):
    """A transfer is cut in its middle, in most cases with the disk asking for data: reset, replay, no error seen."""
    faults = list(DETECTORS) * ROUNDS
    lab.random.shuffle(faults)
    with machine_of(lab, ide(limit="1000", window="1h"), guest()) as machine:
        machine.boot()
        command = f"blk load --seed {lab.random.randrange(1 << 32)} --depth 32 --seconds 30 --final --quiet"
        machine.send(command)
        time.sleep(0.5)
        for fault in faults:
            # A random moment, from the seed: the wait is the point, not a guess at how long something takes.
            time.sleep(lab.random.uniform(0.05, 0.8))
            record = inject(machine, "blk0", fault)
            check(record.kind == DETECTORS[fault] and record.outcome == "recovered", f"{fault}: {record.fields}")
        check_load(*machine.finish(command, 180))
        stat = find_json(machine.run("stat --json"))
        check(stat["blk_requests"] == stat["blk_completions"], "requests got lost")
        check(machine.status("hypervisor")["canary"] == "ok", "the hypervisor's canary was overwritten")
        rows = faultlog.summary(faultlog.read(machine.control, 1))
        for row in rows:
            lab.say(f"| {row}")


@case
def error_of_the_disk(lab):
    """A sector that cannot be read fails the requests that name it, and no other; the driver stays up."""
    disk = lab.disk(16 * MIB, 16 * MIB)
    with machine_of(lab, disk=disk, sata_disk=False, devices=["ide-hd,drive=bad,bus=ide.0"],
                    extra=["-blockdev", bad_disk(disk, "bad")]) as machine:
        machine.boot()
        bad_sector(machine)
        check(machine.status("vm", "blk0")["generation"] == 0, "the driver VM was restarted")


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
