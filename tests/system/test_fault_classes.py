"""
Every class of faults once in a disk's and once in a network card's driver VM, under loads that check each byte: once with a seed
that stays, once with a fresh one. Many a fault stays without effect; what has to hold is that nothing but the driver suffers.
"""

import random
import time

from bare import free_port
from bulkhead_lib import devices, faultclass
from bulkhead_lib.control import ControlError
from harness import LOAD_ERRORS, MIB, case, check, faultlog, find_json, guest, main, manifest
from host_network import ADDRESS, counters, host_run, served_file
from transfers import DISCARD_PORT, Repeated, datagrams

LABEL = "faultclasses"
TIMEOUT = 1800

LIMITS = {"limit": "1000", "window": "1h", "deadline": "2s"}
LATENT_SECONDS, NOTICE_SECONDS, RESTART_SECONDS = 3, 30, 30
FETCH = MIB
# What a driver that lies can do to a load, and nobody can prevent. It can lose, repeat or make up no request.
LIES = ("mismatches", "io_errors")


def a_machine(lab, web, nowhere):
    found = devices.layout(["ahci"], ["e1000e"])
    backends = ["-drive", f"if=none,id=blk0-backend,format=raw,file={lab.disk()}", "-netdev",
                f"user,id=net0-backend,hostfwd=tcp:127.0.0.1:{web}-:80,hostfwd=udp:127.0.0.1:{nowhere}-:{DISCARD_PORT}"]
    sections = [device.section(**LIMITS) for device in found]
    return lab.machine(manifest(*sections, guest()), sata_disk=False, extra=[*backends, *devices.arguments(found)])


class DiskLoad:
    """The guest's verifying load, from now to finish()."""

    def __init__(self, rng, machine):
        self.machine = machine
        self.command = (f"blk load --seed {rng.randrange(1 << 32)} --depth 8 --size 65536 --sectors 16384 --seconds 3600 --final --quiet")
        machine.send(self.command)
        machine.expect("load: vda: seed", 60)

    def finish(self, allowed=()):
        self.machine.type("\x03")
        output, _ = self.machine.finish(self.command, 120)
        result = find_json(output)
        wrong = {name: result[name] for name in LOAD_ERRORS if result[name] and name not in allowed}
        check(not wrong and result["requests"] == result["completed"], f"the load saw {wrong}: {output.strip()[-800:]}")
        return result


def befall(lab, machine, rng, kind, vm):
    """One fault, and its end: what became of it."""
    seed = rng.randrange(1 << 32)
    last = max((record.sequence for record in faultlog.read(machine.control)), default=0)
    plan = kind.plan(random.Random(seed), vm, machine.control, lab.images)
    faultclass.apply(machine.control, plan)
    deadline = time.monotonic() + (NOTICE_SECONDS if plan.wait else LATENT_SECONDS)
    records = []
    # A successor that fails in its start replaces the record of the fault before.
    while not any(record.outcome != "superseded" for record in records) and time.monotonic() < deadline:
        records = [record for record in faultlog.read(machine.control, last + 1) if record.vm == vm]
        time.sleep(0.05)
    seen = ", ".join(f"{record.kind}: {record.outcome}" for record in records) or "not manifested"
    lab.say(f"{vm} {kind.name} (seed {seed}): {plan.text}: {seen}")
    check(records or not plan.wait, f"{plan.text} was not noticed")
    check(all(record.outcome in ("recovered", "superseded") for record in records), f"{plan.text}: {seen}")
    for name in (vm, *plan.vms):
        renew(machine, name)
    check(machine.status("vm", "main")["state"] == "running", "the guest has ended")
    check(machine.status("hypervisor")["canary"] == "ok", "the hypervisor's canary was overwritten")
    return seen


def renew(machine, vm):
    """A driver VM from its pristine image, whatever was done to it."""
    deadline = time.monotonic() + RESTART_SECONDS
    before = machine.status("vm", vm)["generation"]
    asked = False
    while not (asked and (fields := machine.status("vm", vm))["state"] == "running" and fields["generation"] > before):
        check(time.monotonic() < deadline, f"{vm} does not come back: {machine.status('vm', vm)}")
        try:
            if not asked:
                machine.control.ask(f"restart {vm}")
            asked = True
        except ControlError:
            time.sleep(0.02)  # a recovery is under way


def fetch(web):
    data = host_run("curl", "-sS", "--max-time", "60", f"http://127.0.0.1:{web}/{FETCH // MIB}M", seconds=70)
    check(data == served_file(FETCH), "the guest serves something else")


def shuffled(rng, corrupts):
    faults = [(kind, vm) for kind in faultclass.CLASSES.values() if kind.corrupts == corrupts for vm in ("blk0", "net0")]
    rng.shuffle(faults)
    return faults


def honest(lab, machine, rng, web):
    """Faults after which no wrong byte is anybody's but ours."""
    load = DiskLoad(rng, machine)
    with Repeated(web, FETCH) as fetches:
        seen = [befall(lab, machine, rng, kind, vm) for kind, vm in shuffled(rng, False)]
    load.finish()
    check(fetches.error is None and fetches.done > 0, f"after {fetches.done} transfers: {fetches.error}")
    return seen


def lying(lab, machine, rng, web):
    """Faults after which a driver may lie, until it is replaced: then all is right again."""
    load = DiskLoad(rng, machine)
    seen = []
    for kind, vm in shuffled(rng, True):
        with Repeated(web, FETCH):
            seen.append(befall(lab, machine, rng, kind, vm))
    result = load.finish(LIES)
    lab.say(f"| what drivers told wrongly: {', '.join(f'{name} {result[name]}' for name in LIES)}")
    fetch(web)
    load = DiskLoad(rng, machine)
    time.sleep(1)
    load.finish()
    return seen


def classes(lab, rng):
    web, nowhere = free_port(), free_port()
    with a_machine(lab, web, nowhere) as machine:
        machine.boot()
        machine.run(ADDRESS)
        machine.run("http serve 80")
        with datagrams(nowhere):
            seen = honest(lab, machine, rng, web) + lying(lab, machine, rng, web)
        counters(machine)
        lab.say(f"| {len(seen)} faults, {sum(end != 'not manifested' for end in seen)} of them manifested")


@case
def each_class_with_a_fixed_seed(lab):
    classes(lab, random.Random("fault classes"))


@case
def each_class_with_a_fresh_seed(lab):
    classes(lab, lab.random)


@case
def a_flip_is_what_was_asked_for(lab):
    """The text that a mutation names is the driver's, is changed, and is back after a restart."""
    with a_machine(lab, free_port(), free_port()) as machine:
        machine.boot()
        driver = faultclass.image.of("blk0", machine.control, lab.images)
        function = next(f for f in driver.functions if f.name == "elf_parse")  # which no driver calls
        old = driver.read(function.address, 16)
        check(faultclass.memory.read(machine.control, "blk0", function.address, 16) == old, "its text is another")
        new = lab.random.randbytes(16)
        for line in faultclass.memory.lines(faultclass.memory.flips("blk0", function.address, old, new)):
            machine.control.ask(line)
        check(faultclass.memory.read(machine.control, "blk0", function.address, 16) == new, "it was changed otherwise")
        renew(machine, "blk0")
        check(faultclass.memory.read(machine.control, "blk0", function.address, 16) == old, "it was not put back")
        memory, ports = faultclass.memory.bars(machine.control, "blk0")
        check((len(memory), len(ports)) == (1, 1), f"an AHCI controller has other BARs: {memory}, {ports}")


if __name__ == "__main__":
    main()
