"""
What every disk driver has to do: one list of cases, FUNCTIONS and FAULTS, and one table of the disks that they are for.

A new disk driver gets a line in DISKS. Cases that only one device can have stand in that device's own test file.
"""

import dataclasses
import hashlib
import subprocess
import tempfile
import time

from driver_suite import DETECTORS, canary_lives, check_cost, inject, judge, one_of_each, publish, stat, undisturbed
from harness import MIB, check, check_load, driver, guest, manifest, qemu
from bulkhead_lib import devices
from bulkhead_lib.debug import qmp
from bulkhead_lib.pattern import SECTOR, wrong_sectors

VM = "blk0"
BACKEND = f"{VM}-backend"
FAULTS_INJECTED, OPERATORS_RESTARTS = 100, 4


@dataclasses.dataclass(frozen=True)
class Disk:
    name: str  # the driver's; on a q35 also the model of scripts/bulkhead_lib/devices.py
    reset: str  # what the hypervisor can do to the device: `reset=` of its fault records
    left_out: dict = dataclasses.field(default_factory=dict)  # faults of DETECTORS that it is spared: why
    seen_by: dict = dataclasses.field(default_factory=dict)  # another detector than DETECTORS has
    machine: str = "q35"
    dma: str = "isolated"
    interrupts: str = "MSI"
    ranges: bool = False  # it writes zeroes, and discards
    size: int = 64  # MiB; what is written and read follows from it
    keys: dict = dataclasses.field(default_factory=dict)  # of its section in the manifest, beside those that everyone needs
    no_merging: str = ""  # property that makes each request one of the image's

    @property
    def faults(self):
        return [fault for fault in DETECTORS if fault not in self.left_out and fault != "restart"]

    @property
    def image(self):
        return devices.MODELS[self.name].image if self.name in devices.MODELS else f"{self.name}.elf"

    @property
    def sectors(self):
        return self.size * MIB // SECTOR + 3  # no multiple of anything


AHCI = Disk("ahci", "driver")
NVME = Disk("nvme", "flr", {"wild-dma": "QEMU dies without a pause before the reset: nvme/wild_dma_with_a_pause"}, ranges=True)
# QEMU puts neighbours in the queue together, and an error of the image is then everybody's.
VIRTIO_BLK = Disk("virtio-blk", "flr", ranges=True, no_merging=",request-merging=off")
# It moves some 10 MB/s: a full queue takes seconds. Without DMA it is its own CPU that goes to a wrong address.
ATA_PIO = Disk("ata_pio", "driver", seen_by={"wild-dma": "nested-page"}, machine="pc", dma="none", interrupts="INTx", size=16,
               keys={"deadline": "30s"})
DISKS = (AHCI, NVME, VIRTIO_BLK, ATA_PIO)


def disk_machine(lab, disk, image, backend=None, properties="", alter=None, more=(), **keys):
    """
    A machine whose only disk for the guest is this one. backend: QEMU's arguments for one called BACKEND; properties: of the
    device, each with its comma; alter: from the argument of -device to another; more of QEMU's arguments; keys: of the driver
    VM's section in the manifest.
    """
    keys = {**disk.keys, **keys}
    if disk.machine == "pc":
        section = driver(image=disk.image, device="class:0101", dma="none", **keys)
        arguments = ["-device", f"ide-hd,drive={BACKEND},bus=ide.0,unit=0,serial=bulkhead-{VM}"]
    else:
        entries = devices.layout([disk.name], [])
        section, arguments = entries[0].section(**keys), devices.arguments(entries)
    arguments[-1] = (alter(arguments[-1]) if alter else arguments[-1]) + properties
    backend = backend or ["-drive", f"if=none,id={BACKEND},format=raw,discard=unmap,file={image}"]
    return lab.machine(manifest(section, guest()), disk=image, sata_disk=False, machine=disk.machine,
                       extra=[*backend, *arguments, *more])


def write_and_compare(lab, machine, image, first, count):
    """A pattern, flushed; the guest reads it back, and the host finds it in the image, where QEMU has it from then on."""
    seed = lab.random.randrange(1 << 32)
    machine.run(f"blk write --seed {seed} {first} {count}", 240)
    machine.run(f"blk verify --seed {seed} {first} {count}", 240)
    wrong = wrong_sectors(image, seed, first, count)
    check(not wrong, f"{len(wrong)} sectors are wrong on the host, the first is {wrong[:1]}")


def sectors(image, first, count):
    with open(image, "rb") as file:
        file.seek(first * SECTOR)
        return file.read(count * SECTOR)


def power_off(machine):
    check(machine.power_off() == qemu.POWERED_OFF, "no orderly end")


def check_clean(machine):
    """Nothing that the guest counts tells of a lost or broken request."""
    counters = stat(machine)
    for name in ("blk_io_errors", "blk_protocol", "blk_unknown", "blk_doubled"):
        check(counters[name] == 0, f"the guest counts {name} = {counters[name]}")
    check(counters["blk_requests"] == counters["blk_completions"], "requests got lost")


# ---- reading, writing, sizes ----

def functions(lab, device):
    """
    Identity, capacity, every byte read, all sizes of requests, the disk's end, writes that the host finds in the image and
    nowhere else, flushes, unaligned segments at depth 32, requests that have no meaning.
    """
    image = lab.disk(device.size * MIB, random_bytes=device.size * MIB)
    with open(image, "ab") as file:
        file.write(lab.random.randbytes(device.sectors * SECTOR % MIB))
    before = image.read_bytes()
    # Two regions of a quarter of the disk each; the rest must stay as it was.
    count = device.size * MIB // 4 // SECTOR
    write, load = count // 3, 2 * count + 1
    with disk_machine(lab, device, image) as machine:
        machine.boot()
        identity(machine, device)
        check_cost(lab, machine, VM, device.image)
        reads(lab, machine, before)
        machine.run("hostile control sector-end sector-range sector-overflow odd-size reset-busy")
        machine.run("blk unsupported")
        write_and_compare(lab, machine, image, write, count)
        zeroes_and_discards(machine, device, image, write + 101)
        machine.run("blk flush")
        seed = lab.random.randrange(1 << 32)
        check_load(*machine.command(f"blk load --seed {seed} --depth 32 --count {20 * device.size} --lba {load} "
                                    f"--sectors {count} --final --quiet", 180))
        undisturbed(machine, VM)
        canary_lives(machine)
        power_off(machine)
    after = image.read_bytes()
    check(len(after) == len(before), "the image has another size")
    for first, end in ((0, write), (write + count, load), (load + count, device.sectors)):
        check(before[first * SECTOR:end * SECTOR] == after[first * SECTOR:end * SECTOR],
              f"sectors {first} to {end} changed, but nobody wrote them")


def zeroes_and_discards(machine, device, image, at):
    """Of 8192 sectors some become zeroes, in both ways, and some are discarded; their neighbours stay."""
    if not device.ranges:
        for command in ("discard", "zero"):
            check("does not offer it" in machine.run(f"blk {command} 0 8", status=1), f"{command} is offered")
        return
    before, expected = sectors(image, at, 8192), b""
    parts = (("zero", 1, 997, ""), ("zero", 1500, 1021, " --unmap"), ("discard", 3000, 4096, ""))
    for command, first, count, flag in parts:
        machine.run(f"blk {command} {at + first} {count}{flag}")
        expected += before[len(expected):first * SECTOR] + bytes(count * SECTOR)
    expected += before[len(expected):]
    after = sectors(image, at, 8192)
    # What was discarded may stay: whole blocks of the host's file system go, if that can make holes.
    first, end = 3000 * SECTOR, 7096 * SECTOR
    gone = after[first + MIB // 2:end - MIB // 2]
    check(not any(gone) or not makes_holes(image), "the discard did not reach the image")
    check(after[:first] + after[end:] == expected[:first] + expected[end:], "zeroes or discards hit other sectors than theirs")
    hashed = machine.run(f"blk read {at} 8192 --sha256")
    check(hashlib.sha256(after).hexdigest() in hashed, "the guest reads something else")


def makes_holes(image):
    """Whether the file system of the image gives space back."""
    with tempfile.NamedTemporaryFile(dir=image.parent) as file:
        file.write(b"x" * MIB)
        file.flush()
        command = ["fallocate", "--punch-hole", "--offset", "0", "--length", str(MIB), file.name]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def identity(machine, device):
    fields = machine.status("vm", VM)
    check((fields["dma"], fields["interrupts"]) == (device.dma, device.interrupts), f"DMA or interrupts are others: {fields}")
    check(f"bulkhead-{VM}" in machine.run("blk id"), "the serial number is another")
    info = machine.run("blk info")
    check(f"{device.sectors} sectors" in info and "block size 512" in info, f"another disk: {info}")


def reads(lab, machine, data):
    """The whole disk, then requests of each size at depths of 1 and 16, at random places; SHA-256 as the host's."""
    output = machine.run("sha256 /dev/vda", 240)
    check(hashlib.sha256(data).hexdigest() in output, f"the whole disk reads otherwise: {output.strip()!r}")
    end = len(data) // SECTOR
    places = [(0, 1, 512, 1), (end - 1, 1, 512, 1), (end - 17, 17, 4096, 4)]
    for size in (512, 1024, 4096, 65536 - 512, 131072, MIB):
        for depth in (1, 16):
            count = (3 if depth == 1 else 8) * size // SECTOR
            places.append((lab.random.randrange(end - count), count, size, depth))
    for first, count, size, depth in places:
        output = machine.run(f"blk read {first} {count} qd {depth} size {size} --sha256", 60)
        expected = hashlib.sha256(data[first * SECTOR:(first + count) * SECTOR]).hexdigest()
        check(expected in output, f"{count} sectors from {first} in requests of {size} bytes read otherwise: {output.strip()!r}")


def blocks_of_4_kib_work(lab, machine, image):
    """On a disk of at least 16 MiB with such blocks. Whole ones work; a part of one is an I/O error of that request."""
    machine.boot()
    check("block size 4096" in machine.run("blk info"), "the guest sees other blocks")
    check(machine.command("blk read 1 1", 30)[1] != 0, "a part of a block was read")
    machine.run("blk read 0 4096 qd 16")
    write_and_compare(lab, machine, image, 8 * 1000, 8 * MIB // SECTOR)
    power_off(machine)


# ---- errors of the disk ----

BAD_READ, BAD_WRITE, BAD_ZERO, BAD_DISCARD = 2048, 6144, 10240, 11264


def bad_disk(image):
    """QEMU's arguments: the image, but one sector cannot be read, others not written or given back, and the first flush fails."""
    rules = (f"iotype=read,sector={BAD_READ}", f"iotype=write,sector={BAD_WRITE}", f"iotype=write-zeroes,sector={BAD_ZERO}",
             f"iotype=discard,sector={BAD_DISCARD}", "iotype=flush,once=on")
    texts = [",".join(f"file.inject-error.{number}.{setting}" for setting in ("event=none", "errno=5", *rule.split(",")))
             for number, rule in enumerate(rules)]
    discard = ",".join(f"{node}discard=unmap" for node in ("", "file.", "file.image."))
    return ["-blockdev", f"driver=raw,node-name={BACKEND},file.driver=blkdebug,file.image.driver=file,"
                         f"file.image.filename={image},{discard},{','.join(texts)}"]


def errors_of_the_disk(lab, device):
    """An error of the disk is an I/O error of the requests that name the sector, and of no other; the driver stays up."""
    image = lab.disk(16 * MIB, 16 * MIB)
    with disk_machine(lab, device, image, bad_disk(image), device.no_merging) as machine:
        machine.boot()
        seed = lab.random.randrange(1 << 32)
        # The write ends with a flush, and the disk refuses its first.
        fails(machine, f"blk write --seed {seed} 0 64", "flush: I/O error", 1)
        machine.run("blk flush")
        machine.run(f"blk verify --seed {seed} 0 64")
        for _ in range(3):
            fails(machine, f"blk read {BAD_READ} 8", f"read: sector {BAD_READ}: I/O error", 1)
            machine.run(f"blk read 0 {BAD_READ} qd 16")
            # 64 requests at once, of which one meets it.
            fails(machine, "blk read 0 4096 qd 64 size 32768", f"read: sector {BAD_READ}: I/O error", 1)
            machine.run("blk read 4096 8192 qd 32")
            # In requests of 512 sectors: the first of three.
            fails(machine, f"blk write --seed {seed} 6000 1536", "write: sector 6000: I/O error", 1)
            machine.run(f"blk verify --seed {seed} 6512 1024")
        for command, bad in (("zero", BAD_ZERO), ("discard", BAD_DISCARD)) if device.ranges else ():
            fails(machine, f"blk {command} {bad - 8} 16", f"{command}: I/O error", 1)
            machine.run(f"blk {command} {bad + 8} 16")
        undisturbed(machine, VM)
        power_off(machine)


def fails(machine, command, message, errors):
    """The command fails with this message, once, and the guest counts so many I/O errors."""
    before = stat(machine)["blk_io_errors"]
    output, status = machine.command(command, 60)
    check(status != 0 and output.count(message) == 1, f"`{command}` did not fail as it should: {output.strip()!r}")
    found = stat(machine)["blk_io_errors"] - before
    check(found == errors and output.count("I/O error") == errors, f"{found} I/O errors instead of {errors}: {output.strip()!r}")


# ---- restarts ----

def endless_load(lab, machine, options=""):
    """Starts a verifying load, for finish_load() to end."""
    command = f"blk load --seed {lab.random.randrange(1 << 32)} --depth 32 --seconds 3600 --final --quiet {options}".strip()
    machine.send(command)
    machine.expect("load: vda: seed", 20)
    return command


def finish_load(machine, command):
    """Ctrl-C; everything is read once more. The load's report."""
    machine.type("\x03")
    return check_load(*machine.finish(command, 180))


def restarts_under_load(lab, device):
    """
    FAULTS_INJECTED faults and some restarts by the operator, at random moments of a verifying load with strict grants: each
    is seen by its own detector, and nothing is lost, doubled or wrong.
    """
    faults = one_of_each(lab, device.faults, FAULTS_INJECTED)
    for _ in range(OPERATORS_RESTARTS):
        faults.insert(lab.random.randrange(len(faults)), "restart")
    records = []
    with disk_machine(lab, device, lab.disk(device.size * MIB // 2), limit="1000", window="1h", grants="strict") as machine:
        machine.boot()
        command = endless_load(lab, machine)
        for fault in faults:
            # A random moment, from the seed: the wait is the point, not a guess at how long something takes.
            time.sleep(lab.random.uniform(0.01, 0.2))
            records.append(inject(machine, VM, fault))
            judge(records[-1], fault, device.reset, device.seen_by)
        result = finish_load(machine, command)
        check(result["requests"] > len(faults), f"only {result['requests']} requests were made")
        check_clean(machine)
        canary_lives(machine)
        generation = machine.status("vm", VM)["generation"]
    publish(lab, device.name, faults, records)
    check(generation == len(faults), f"{generation} generations of the driver VM after {len(faults)} restarts")


FUNCTIONS = (functions, errors_of_the_disk)
FAULTS = (restarts_under_load,)
