"""What every driver has to do, whatever its device: each test boots a machine with its own one and calls these."""

import time

from harness import MIB, check, check_load, find_json
from bulkhead_lib.control import ControlError

# The last seconds of a load are left alone: a fault after its end would meet an idle driver.
MARGIN_SECONDS = 4
ARM_SECONDS = 10

# What one driver VM may take.
MEMORY_MAX = 2 * MIB
IMAGE_MAX = MIB // 8


def inject(machine, vm, fault):
    """Arm it as soon as the injector is free; the record of the recovery."""
    deadline = time.monotonic() + ARM_SECONDS
    while True:
        try:
            record = machine.inject(vm, fault)
            break
        except ControlError as refusal:
            # The driver may be starting after the fault before: an orderly answer, with an end.
            if time.monotonic() > deadline:
                raise AssertionError(f"{fault} could not be injected: {refusal}") from refusal
            time.sleep(0.02)
    check(record.injected == fault, f"{fault} was injected, but {record.injected or 'nothing'} is on record: {record.fields}")
    return record


def load_under_faults(lab, machine, faults, seconds):
    """A verifying load of so many seconds; takes faults off the list and injects them meanwhile. Returns their records."""
    command = f"blk load --seed {lab.random.randrange(1 << 32)} --depth 32 --seconds {seconds} --final --quiet"
    machine.send(command)
    end = time.monotonic() + seconds - MARGIN_SECONDS
    records = []
    # The first requests have to be there.
    time.sleep(0.5)
    while faults and time.monotonic() < end:
        # A random moment, from the seed: the wait is the point, not a guess at how long something takes.
        time.sleep(lab.random.uniform(0.01, 0.25))
        records.append(inject(machine, "blk0", faults.pop()))
    check_load(*machine.finish(command, seconds + 120))
    return records


def verifying_load(lab, machine, depth, seconds):
    """512 bytes to 1 MiB, unaligned segments, every byte verified."""
    seed = lab.random.randrange(1 << 32)
    result = check_load(*machine.command(f"blk load --seed {seed} --depth {depth} --seconds {seconds} --final --quiet", 180))
    check(result["requests"] > 100, f"only {result['requests']} requests were made")


def bad_disk(disk, name):
    """-blockdev's argument: the image, but sector 2048 cannot be read."""
    return (f"driver=raw,node-name={name},file.driver=blkdebug,file.image.driver=file,file.image.filename={disk},"
            "file.inject-error.0.event=read_aio,file.inject-error.0.sector=2048,file.inject-error.0.errno=5")


def bad_sector(machine):
    """On a bad_disk(): the requests that name the sector fail, and no other; the driver stays up."""
    generation = machine.status("vm", "blk0")["generation"]
    for _ in range(3):
        output, status = machine.command("blk read 2048 8", 30)
        check(status != 0, f"the bad sector was read: {output}")
        machine.run("blk read 0 2048 qd 16")
        machine.run("blk read 4096 8192 qd 32")
    stat = find_json(machine.run("stat --json"))
    check(stat["blk_io_errors"] == 3, f"{stat['blk_io_errors']} I/O errors instead of 3")
    check(machine.status("vm", "blk0")["generation"] == generation, "the driver VM was restarted")


def check_cost(lab, machine, vm, image):
    """
    A driver VM's memory and its image keep their limits, in the machine and in the file that the loader reads. The time of a
    start is wall time, here also that of others on the same CPU: told, not judged. Returns what `status` says of it all.
    """
    fields = machine.status("vm", vm)
    check(fields["memory"] <= MEMORY_MAX, f"{vm} has {fields['memory']} bytes of memory")
    check(0 < fields["image_bytes"] <= IMAGE_MAX, f"{image} has {fields['image_bytes']} bytes in its segments")
    file = lab.image(image)
    check(fields["image_bytes"] < len(file) <= IMAGE_MAX, f"the file {image} has {len(file)} bytes")
    check(b".debug_info" not in file, f"the file {image} has debug information")
    check(0 < fields["start_run_us"] <= fields["start_us"], f"{vm} took {fields['start_run_us']} of {fields['start_us']} us")
    check(fields["device_wait_us"] <= fields["start_us"], f"{vm} says that it waited for {fields['device_wait_us']} us")
    # Pristine copy and rings alone are more than the VM's own memory.
    check(fields["overhead"] > fields["memory"], f"{vm} costs {fields['overhead']} bytes beside its memory")
    cost = {key: fields[key] for key in ("memory", "overhead", "image_bytes", "start_us", "start_run_us", "device_wait_us")}
    lab.say(f"| {vm} {image}: " + ", ".join(f"{key} {value}" for key, value in cost.items()))
    return {"vm": vm, "image": image, **cost}
