"""
Driver VMs that are written to break out (drivervm/drivers/rogue), side by side with an honest one under a verifying load.

What each attempt must come to stands in ATTEMPTS. That nothing else came of it is judged from outside: canaries in the memory
of hypervisor and guest, the guest's data and counters, VT-d's fault records, the honest driver VM's own record. docs/HOSTILE.md
lists all attempts with the invariant that each attacks, and is held to be complete.
"""

import re
import time

from driver_suite import Follower, canary_lives, stat, undisturbed
from harness import ROOT, case, check, driver, find_json, guest, main, manifest, vm

LABEL = "hostile"
TIMEOUT = 300
GROUP_SECONDS = 150
BOOT_SECONDS = 180

# The rogue's own end, which makes room for its next attempt: it had survived this one.
OVER = r"declared: gave up on itself, code 0x100 "
DEADLINE = r"deadline: a request is in flight for"
REFUSED_OFFER = r"offer: its offer was refused: invalid value"
# Words of the rogue that must never be heard: something had worked.
BREACH = re.compile(r"\b(READ|WROTE|RAN|SENT|MOVED|DELIVERED|WRITTEN|WOKEN|BELIEVED|ACCEPTED|NOT|NO|ON|DONE|TOO LATE|STILL|WENT OFF|"
                    r"ALL LINES TAKEN|for ever)\b")


def ends(fault, *said):
    """It ends the VM: the one fault that has to be seen, and what was said before."""
    return fault, said


def survives(*said):
    return OVER, said


def dma(access, address):
    """VT-d refuses it and says so (VT-d appendix A: reason 5 is a write without permission, 6 a read)."""
    return ends(rf"dma: DMA {access} {address}: {access} without permission$")


ATTEMPTS = {
    "memory": {
        "load-behind-ram": ends(r"nested-page: load at 100000 outside"),
        "store-behind-ram": ends(r"nested-page: store at 200000 outside"),
        "load-far": ends(r"nested-page: load at 100000000 outside"),
        "store-hypervisor": ends(r"nested-page: store at 4000000 outside"),
        "own-tables": ends(r"nested-page: store at 4000000 outside"),
        "fetch-outside": ends(r"nested-page: fetch at 4000000 outside"),
        "load-guest": ends(r"nested-page: load at 100c800000 outside"),
        "store-guest": ends(r"nested-page: store at 100c800000 outside"),
        "store-request-ring": ends(r"nested-page: store at f00101000 outside"),
        "store-info": ends(r"nested-page: store at f00000000 outside"),
        "store-events": ends(r"nested-page: store at f00001000 outside"),
    },
    "interrupts": {
        "ipi-xapic": ends(r"nested-page: store at fee00300 outside"),
        "ipi-x2apic": ends(r"unexpected-exit: MSR write \(830\)"),
        "apic-base": ends(r"unexpected-exit: MSR write \(1b\)"),
        "int-instruction": ends(r"exception: exception 13 "),
        "port-pic": ends(r"unexpected-exit: port outside its device \(20\)"),
        "port-reset": ends(r"unexpected-exit: port outside its device \(cf9\)"),
        "port-config": ends(r"unexpected-exit: port outside its device \(cf8\)"),
        "halt": ends(r"unexpected-exit: "),
        "triple-fault": ends(r"exception: triple fault"),
    },
    "dma": {
        "dma-own": survives("the device says that it is done", "own memory written"),
        "dma-hypervisor": dma("write", "0x4000000"),
        "dma-read": dma("read", "0x4000000"),
        "dma-behind-ram": dma("write", "0x100000"),
        "dma-guest": dma("write", "0x100c800000"),
        "dma-rings": dma("write", "0xf00100000"),
        "dma-iommu": dma("write", "0xfed90000"),
        # QEMU 7.2 lets messages of the old format pass (VT-d 5.1.4 has them blocked); who must not be interrupted is asked below.
        "message-fixed": survives("sent"),
        "message-nmi": survives("sent"),
        "message-remapped": survives("sent"),
        "message-unknown": survives("sent"),
    },
    "trap": {
        "trap-own": ends(r"exception: exception 6 "),
        "trap-own-found": survives("bus master off, transfer (not under way|over), memory clean"),
        "trap-foreign": ends(r"exception: exception 6 "),
        "trap-foreign-found": survives("bus master off, transfer (not under way|over), memory clean"),
        "trap-interrupts": ends(r"exception: exception 6 "),
        "trap-interrupts-found": survives("0 interrupts"),
        "trap-command": ends(r"exception: exception 6 ", "registers off: gone"),
        "trap-command-found": survives("registers answer"),
    },
    "msix": {
        "msix-load": ends(r"nested-page: load at "),
        "msix-store": ends(r"nested-page: store at "),
        "msix-control": survives("control denied: not allowed", "table denied: not allowed", "PBA denied: not allowed"),
        "config-bars": survives(*["BAR denied: not allowed"] * 6, "ROM denied: not allowed"),
        "config-everything": survives("none accepted"),
    },
    "calls": {
        "every-number": survives("none accepted"),
        "random-calls": survives("made"),
        "log-flood": survives("most lines refused"),
        "log-foreign": survives("log of foreign memory denied: out of range", "log across the end of RAM denied: out of range",
                                r"log across 2\^64 denied: out of range", "log of 201 bytes denied: out of range"),
        "stash-length": survives("4097 bytes denied: out of range", r"2\^32 \+ 1 bytes denied: out of range"),
        "stash-broken": survives(),
        "stash-beyond": survives("handed down: 0, left of the broken one: 0"),
        "stash-found": survives("handed down: 8, left beyond it: 0"),
    },
    "first": {
        # On a slow machine its time is over before it is.
        "offer-flood": ends(rf"({OVER}|offer: no offer within)"),
    },
    "offers": {
        "offer-features": ends(REFUSED_OFFER),
        "offer-type": ends(REFUSED_OFFER),
        "offer-queues": ends(REFUSED_OFFER),
        "offer-size": ends(REFUSED_OFFER),
        "offer-patience": ends(REFUSED_OFFER),
        "offer-garbage": ends(REFUSED_OFFER),
        "offer-nowhere": survives("offer from foreign memory denied: out of range", r"offer across 2\^64 denied: out of range"),
        "offer-twice": survives("offer denied: wrong state"),
        "offer-capacity": survives("result 0"),
        "config-range": survives("config of 97 bytes denied: out of range", r"config of 2\^32 bytes denied: out of range",
                                 "config from foreign memory denied: out of range"),
        "config-flood": survives("made"),
    },
    "rings": {
        "reorder": survives("believed: a device may answer in any order"),
        "forge": ends(r"completion-ring: queue 0: tag is not in flight"),
        "forge-range": ends(r"completion-ring: queue 0: tag is not in flight"),
        "repeat": ends(r"completion-ring: queue 0: tag is not in flight"),
        # By then the tag may name another request.
        "repeat-later": ends(r"completion-ring: queue 0: (tag is not in flight|impossible length)"),
        "longer": ends(r"completion-ring: queue 0: impossible length"),
        "longest": ends(r"completion-ring: queue 0: impossible length"),
        "shorter": survives("believed, which is the guest's to judge"),
        "produced-jumps": ends(r"completion-ring: queue 0: produced index jumps"),
        "produced-back": ends(r"completion-ring: queue 0: produced index jumps"),
        "consumed-jumps": ends(r"completion-ring: queue 0: consumed index jumps"),
        "consumed-back": ends(r"completion-ring: queue 0: consumed index jumps"),
        "other-queue": survives("ignored"),
    },
    "stall": {
        "withhold": ends(DEADLINE),
        "heartbeat-only": ends(DEADLINE),
        "wait-only": ends(DEADLINE),
    },
    "grants": {
        "readable-by-cpu": ends(r"nested-page: store at {page} outside", "page {page}"),
        "readable-by-dma": ends(r"dma: DMA write 0x{page}: write without permission$", "page {page}"),
        "after-by-cpu": ends(r"nested-page: load at {page} outside", "page {page}", "read [0-9a-f]+ while granted"),
        "after-by-dma": ends(r"dma: DMA read 0x{page}: read without permission$", "page {page}", "the device has read while granted"),
        "across-the-answer": ends(r"dma: DMA read 0x{page}: read without permission$", "page {page}",
                                  "answered before the device has begun"),
    },
    "time": {
        "spin": ends(r"heartbeat: ran \d+ us without progress"),
        "busy": survives("alive after 1000000 us, which harms nobody"),
        "call-storm": survives(r"\d+ calls in 1000000 us"),
        "interrupt-storm": ends(rf"(interrupt: \d+ interrupts without a completion|{OVER})"),
        "no-offer": ends(r"offer: no offer within 2000000 us of its start"),
    },
}

KEYS = {"stall": {"deadline": "1500ms"}, "grants": {"grants": "strict"}}
FIRST_SLOT = 0x10


def rogue_machine(lab, groups):
    sections, devices = [], []
    for number, group in enumerate(groups, FIRST_SLOT):
        keys = {"kind": "driver", "image": "rogue.elf", "device": f"pci:00:{number:02x}.0", "memory": "1M", "limit": "1000", "window": "1h"}
        sections.append(vm(group, {**keys, **KEYS.get(group, {})}))
        model = "nvme,serial=rogue" if group == "msix" else "edu,dma_mask=0xffffffffffffffff"
        devices.append(f"{model},addr={number:#x}")
    return lab.machine(manifest(driver(), *sections, guest()), devices=devices)


def generations(follower, group):
    """{generation: (lines that it logged, the fault that ended it or None)}"""
    found, current = {}, None
    for event in follower.events:
        if event["vm"] != group:
            continue
        if event["kind"] == "start":
            current = int(re.search(r"generation (\d+)", event["text"])[1])
            found[current] = ([], None)
        elif current is not None and event["kind"] == "driver-log":
            found[current][0].append(event["text"])
        elif current is not None and event["kind"] == "fault":
            found[current] = (found[current][0], event["text"])
    return found


def judge(lab, name, lines, fault):
    """One generation of a rogue against what its attempt must come to; the invariant that it attacked."""
    expected, said = next(attempts[name] for attempts in ATTEMPTS.values() if name in attempts)
    begun = next((found for found in (re.match(rf"rogue: {name} attacks: (.*)", line) for line in lines) if found), None)
    check(begun, f"{name} was not attempted; the generation ended by: {fault}; it said {lines}")
    reports = [line.removeprefix(f"rogue: {name}: ") for line in lines if line.startswith(f"rogue: {name}: ")]
    breaches = [line for line in reports if BREACH.search(line)]
    check(not breaches, f"{name} got through ({begun[1]}): {breaches}, then {fault}")
    page = next((line.removeprefix("page ") for line in reports if line.startswith("page ")), "")
    expected, said = expected.replace("{page}", page), [text.replace("{page}", page) for text in said]
    check(fault and re.match(expected, fault), f"{name} ({begun[1]}) should have ended by {expected!r}, not {fault!r}: {reports}")
    unsaid = [text for text in said if not any(re.fullmatch(text, line) for line in reports)]
    check(not unsaid, f"{name} ({begun[1]}): {unsaid} is not in {reports}")
    lab.say(f"| {name} | {begun[1]} | {fault if fault[:9] != OVER[:9] else '; '.join(reports[:-1]) or 'nothing'} |")
    return begun[1]


def judge_group(lab, follower, machine, group):
    """All attempts of a group, and that its driver VM is a healthy one afterwards."""
    found = generations(follower, group)
    for generation, name in enumerate(ATTEMPTS[group], last_generation(group) - len(ATTEMPTS[group])):
        check(generation in found, f"{name}, generation {generation} of {group}, never started")
        check_documented(name, judge(lab, name, *found[generation]))
    fields = machine.status("vm", group)
    check(fields["state"] in ("running", "degraded") and fields["generation"] == last_generation(group),
          f"{group} is not what it should be after its attempts: {fields}")


def check_documented(name, invariant):
    text = (ROOT / "docs" / "HOSTILE.md").read_text(encoding="utf-8")
    check(re.search(rf"^\| `{name}` \| {re.escape(invariant)} \|", text, re.M), f"docs/HOSTILE.md lacks `{name}`: {invariant}")


def last_generation(group):
    """The one that attempts nothing more; the attempts of `first` begin with the machine."""
    return len(ATTEMPTS[group]) + (0 if group == "first" else 1)


def wait_done(follower, groups):
    """Until their last generation serves. What it says is no sign of it: a flood may have used up what its VM may log."""
    deadline = time.monotonic() + GROUP_SECONDS
    left = list(groups)
    while left:
        follower.update()
        left = [group for group in left
                if not any(text.startswith(f"generation {last_generation(group)},") for text in follower.texts("recovered", group))]
        check(time.monotonic() < deadline, f"{left} have not come to their end")
        time.sleep(0.1)


def finish(machine, command):
    """Ctrl-C; the load's figures for each disk."""
    machine.type("\x03")
    output, _ = machine.finish(command, 120)
    return find_json(output)["disks"]


def check_disk(figures, name, allowed):
    """Each request was answered once and as a device may; what is `allowed` is a lie that its own reader has to see through."""
    wrong = {key: figures[name][key] for key in ("io_errors", "mismatches", "doubled", "unknown", "protocol", "lost", "aborted")
             if figures[name][key] > allowed.get(key, 0)}
    check(not wrong and figures[name]["requests"] == figures[name]["completed"] > 0, f"{name}: {wrong or figures[name]}")


def check_neighbours(machine, follower):
    """What nobody but the rogues may have noticed."""
    undisturbed(machine, "blk0")
    machine.run("canary check 7", 180)
    canary_lives(machine)
    check(stat(machine)["spurious_interrupts"] == 0, "the guest got interrupts that nobody owes it")
    foreign = [event for event in follower.events if event["kind"] == "iommu-fault" and event["vm"] not in ATTEMPTS]
    check(not foreign, f"VT-d holds a fault against somebody else: {foreign[:3]}")


def attack(lab, disks, groups):
    """These groups side by side, those with disks first, beside a verifying load on an honest disk and on theirs."""
    with rogue_machine(lab, disks + groups) as machine:
        machine.boot(BOOT_SECONDS)
        follower = Follower(machine)
        follower.update()
        check(follower.events[0]["seq"] == 1, "a driver VM pushed the machine's first events out of the log")
        machine.run("canary set 7", 180)
        names = ["vda", *(f"vd{chr(ord('b') + number)}" for number in range(len(disks)))]
        command = f"blk load --seed 6 --disk {','.join(names)} --depth 4 --size 8192 --seconds 3600 --final --quiet"
        machine.send(command)
        machine.expect("load: vda: seed", 20)
        for group in disks + groups:
            if group != "first":
                machine.control.ask(f"restart {group}")
        wait_done(follower, disks + groups)
        figures = finish(machine, command)
        for group in disks + groups:
            judge_group(lab, follower, machine, group)
        for name in names:
            # Their disks forget with each restart; `shorter` answers one request with less than it should.
            check_disk(figures, name, {} if name == "vda" else {"mismatches": 1 << 32, "protocol": int("rings" in disks)})
        check_neighbours(machine, follower)


@case
def cpu_and_device(lab):
    """Foreign memory by CPU and by DMA, interrupts, the MSI-X table, configuration space, traps for a successor."""
    attack(lab, (), ("memory", "interrupts", "dma", "trap", "msix"))


@case
def requests_and_calls(lab):
    """Lies in completion rings and in offers, hypercalls with senseless arguments, floods, the stash."""
    attack(lab, ("rings", "offers"), ("first", "calls"))


@case
def grants_and_time(lab):
    """
    Pages while a request names them and afterwards, one request at a time so that no later one names the page again; then VMs
    that take all the time they get, beside a load on an honest disk and on the one that leaves requests unanswered.
    """
    with rogue_machine(lab, ("grants", "stall", "time")) as machine:
        machine.boot(BOOT_SECONDS)
        follower = Follower(machine)
        machine.run("canary set 7", 180)
        machine.control.ask("restart grants")
        for number in range(len(ATTEMPTS["grants"])):
            machine.run(f"blk write --seed {number} 0 8 --disk vdb", 60)
            follower.update()
        wait_done(follower, ["grants"])
        judge_group(lab, follower, machine, "grants")
        machine.run("blk write --seed 99 0 8 --disk vdb")
        machine.run("blk verify --seed 99 0 8 --disk vdb")
        command = "blk load --seed 6 --disk vda,vdc --depth 4 --size 8192 --seconds 3600 --final --quiet"
        machine.send(command)
        machine.expect("load: vda: seed", 20)
        for group in ("stall", "time"):
            machine.control.ask(f"restart {group}")
            wait_done(follower, [group])
        figures = finish(machine, command)
        for group in ("stall", "time"):
            judge_group(lab, follower, machine, group)
        check_disk(figures, "vda", {})
        check_disk(figures, "vdc", {"mismatches": 1 << 32})
        lab.say(f"longest stall of the honest disk beside them: {figures['vda']['max_stall_us']} us")
        check_neighbours(machine, follower)


if __name__ == "__main__":
    main()
