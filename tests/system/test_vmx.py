"""
The CPU back ends under strict emulation: VMX and SVM in Bochs, where the disk is an IDE one whose driver VM moves the data by port
I/O; and the same on QEMU's `pc`. One boot for each machine, since firmware in Bochs takes ten seconds; a model's machines with one
and with two CPUs run side by side.
"""

import concurrent.futures
import io
import random
import time

from harness import MIB, case, check, check_load, driver, faultlog, find_json, guest, main, manifest, qemu, sha256_file
from bulkhead_lib.control import ControlError
from bulkhead_lib.pattern import SECTOR, wrong_sectors
from bulkhead_lib.ui import table

LABEL = "vmx"
TIMEOUT = 900

# Those that need no IOMMU to be noticed, each with its detector.
DETECTORS = {"crash": "exception", "hang": "heartbeat", "wild-write": "nested-page", "garbage": "completion-ring"}
ROUNDS = 5
# Long, for hosts that are busy with something else: a quiet one boots a machine in 15 s.
BOOT_SECONDS = 240
COMMAND_SECONDS = 240
RECOVERY_SECONDS = 60
ARM_SECONDS = 30
# The disk, in sectors: a written pattern and the load's playground lie between parts that are only read.
DISK_BYTES = 4 * MIB
PATTERN = (MIB // SECTOR, MIB // 2 // SECTOR)
LOAD = (2 * MIB // SECTOR, MIB // SECTOR)
# Seconds of the machine's own time, which in Bochs is not ours.
LOAD_SECONDS = 6
MARGIN_SECONDS = 2

MANIFEST = manifest(driver(image="ata_pio.elf", device="class:0101", dma="none", limit="1000", window="1h"), guest())


def inject(machine, fault):
    """Arm it as soon as the injector is free; the record of the recovery."""
    deadline = time.monotonic() + ARM_SECONDS
    while True:
        try:
            machine.control.ask(f"inject blk0 {fault}")
            break
        except ControlError as refusal:
            # The driver may be starting after the fault before: an orderly answer, with an end.
            if time.monotonic() > deadline:
                raise AssertionError(f"{fault} could not be injected: {refusal}") from refusal
            time.sleep(0.02)
    record = faultlog.wait_for(machine.control, "blk0", machine.fault_sequence, RECOVERY_SECONDS)
    machine.fault_sequence = record.sequence
    check(record.injected == fault, f"{fault} was injected, but {record.injected or 'nothing'} is on record: {record.fields}")
    return record


def one_load(rng, machine, faults):
    """A verifying load; takes faults off the list and injects them meanwhile. Returns their records."""
    lba, sectors = LOAD
    command = (f"blk load --seed {rng.randrange(1 << 32)} --depth 8 --lba {lba} --sectors {sectors} --seconds {LOAD_SECONDS} "
               "--final --quiet")
    now = machine.status("hypervisor")["uptime_us"]
    end = now + (LOAD_SECONDS - MARGIN_SECONDS) * 1000000
    machine.send(command)
    records = []
    # The last fault's record says how late it is in the machine.
    while faults and now < end:
        # A random moment, from the seed.
        time.sleep(rng.uniform(0.01, 0.1))
        records.append(inject(machine, faults.pop()))
        now = records[-1].fields["t_injected"]
    result = check_load(*machine.finish(command, COMMAND_SECONDS))
    check(result["requests"] > 20, f"only {result['requests']} requests were made")
    return records


def boots(machine, back_end):
    machine.boot(BOOT_SECONDS)
    machine.expect_log(rf"CPU back end {back_end} ", 1)
    machine.expect_log(r"blk0: ata_pio\.elf drives .*isolation no DMA", 1)
    check(machine.status("hypervisor")["iommu"] == "none", "an IOMMU was found where there is none")


def reads_and_writes(rng, machine, digest):
    """The whole image has the host's SHA-256; a pattern that is written is what is read back."""
    output = machine.run("sha256 /dev/vda", COMMAND_SECONDS)
    check(digest in output, f"the guest says {output.strip()!r}, the host {digest}")
    seed = rng.randrange(1 << 32)
    for verb in ("write", "verify"):
        machine.run(f"blk {verb} --seed {seed} {PATTERN[0]} {PATTERN[1]}", COMMAND_SECONDS)
    return seed


def survives(rng, machine):
    """Each fault in turn, in a random order, under a load that verifies every byte."""
    faults = list(DETECTORS) * ROUNDS
    rng.shuffle(faults)
    records = []
    while faults:
        records += one_load(rng, machine, faults)
    wrong = [record.row() for record in records if DETECTORS[record.injected] != record.kind or record.outcome != "recovered"]
    check(not wrong, f"seen by another detector, or not recovered: {wrong[:3]}")
    check(any(record.fields["replayed"] for record in records), "no fault met a request in flight")
    stat = find_json(machine.run("stat --json"))
    check(stat["blk_requests"] == stat["blk_completions"], "requests got lost")
    check(machine.status("hypervisor")["canary"] == "ok", "the hypervisor's canary was overwritten")
    return records


def host_finds(disk, before, seed):
    """The image after power-off: the pattern where it was written, and nothing changed outside of what the guest wrote to."""
    wrong = wrong_sectors(disk, seed, *PATTERN)
    check(not wrong, f"{len(wrong)} sectors are wrong on the host, the first is {wrong[:1]}")
    after = disk.read_bytes()
    written = [range(first * SECTOR, (first + count) * SECTOR) for first, count in (PATTERN, LOAD)]
    ends = [0, *(end for part in written for end in (part.start, part.stop)), DISK_BYTES]
    for start, stop in zip(ends[::2], ends[1::2]):
        check(after[start:stop] == before[start:stop], f"something between bytes {start} and {stop} changed")


def whole_story(machine, back_end, seed):
    """Everything that one boot shows; lines that tell how long it took."""
    rng = random.Random(seed)
    disk = machine.options.disk
    before, digest = disk.read_bytes(), sha256_file(disk)
    times = [time.monotonic()]
    with machine:
        boots(machine, back_end)
        times.append(time.monotonic())
        pattern_seed = reads_and_writes(rng, machine, digest)
        times.append(time.monotonic())
        records = survives(rng, machine)
        times.append(time.monotonic())
        check(machine.power_off() == qemu.POWERED_OFF, "no orderly end")
    host_finds(disk, before, pattern_seed)
    boot, data, faults = (f"{end - start:.0f} s" for start, end in zip(times, times[1:]))
    rows = [f"{machine.options.cpus} CPU: boot {boot}, data {data}, {len(records)} faults {faults}; µs of the machine's time:"]
    text = io.StringIO()
    table(faultlog.summary(records), out=text)
    return rows + text.getvalue().splitlines()


def on_one_and_two_cpus(lab, back_end, **options):
    machines = [lab.machine(MANIFEST, disk=lab.disk(DISK_BYTES, DISK_BYTES), cpus=cpus, **options) for cpus in (1, 2)]
    # Drawn before the threads start, so that the order in which they run changes nothing.
    seeds = [lab.random.random() for _ in machines]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for lines in pool.map(whole_story, machines, [back_end] * len(machines), seeds):
            for line in lines:
                lab.say(f"| {line}")


@case
def vmx_on_skylake(lab):
    on_one_and_two_cpus(lab, "vmx", accel="bochs", model="corei7_skylake_x")


@case
def vmx_on_tiger_lake(lab):
    on_one_and_two_cpus(lab, "vmx", accel="bochs", model="tigerlake")


@case
def svm_on_ryzen(lab):
    on_one_and_two_cpus(lab, "svm", accel="bochs", model="ryzen")


@case
def svm_on_qemu_pc(lab):
    """The same platform without PCI Express, on TCG's SVM."""
    on_one_and_two_cpus(lab, "svm", accel="tcg", machine="pc")


if __name__ == "__main__":
    main()
