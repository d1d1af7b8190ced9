"""
What a hostile guest may make of its own virtual CPU, and what nobody else may notice of it.

`hostile cpu all` of guestos comes back: its own table says which exceptions are right. The other cases need not come back; here is
what each may end in. Expected is what a CPU does that keeps to its manual; where an emulator does not, DEVIATIONS says so, and then
exactly that is expected of it.
"""

import re
import time

from harness import check, driver, guest, manifest

SPINS = "goes on"
BACK = "came back: "  # and how the attempt ended: an exception, or "ended"
TRIPLE = "triple fault"
OUTSIDE = "code or page tables outside memory"
NO_MOVE = "access to device memory by an instruction other than a move"
UNREADABLE = "access to device memory by code that cannot be read: neither 64-bit paging nor none"
REFUSED = "CPU state that no CPU enters"
UNEXPECTED = "unexpected exit"
TASK_SWITCH = "task switch by hardware"
# Garbage may end in anything that has a name.
GARBAGE = (SPINS, TRIPLE, OUTSIDE, NO_MOVE, UNREADABLE, UNEXPECTED, TASK_SWITCH)

ENDS = {
    "triple-fault": (TRIPLE,),
    "fetch-beyond": (OUTSIDE,),
    "fetch-ioapic": (OUTSIDE,),
    "fetch-lapic": (OUTSIDE,),
    "fetch-bar": (OUTSIDE,),
    "fetch-across": (OUTSIDE,),
    "jump-absent": (TRIPLE,),
    "jump-non-canonical": (TRIPLE,),
    "cr3-beyond": (OUTSIDE,),
    "cr3-device": (OUTSIDE,),
    # Reserved bits are #GP (SDM 3A 4.5.1); bit 51 is none on a CPU with 52 address bits.
    "cr3-bit-51": (BACK + "#GP",),
    "cr3-bit-62": (BACK + "#GP",),
    "table-beyond": (OUTSIDE,),
    "table-device": (OUTSIDE,),
    "device-lock": (NO_MOVE,),
    "device-or": (NO_MOVE,),
    "device-xchg": (NO_MOVE,),
    "device-sse": (NO_MOVE,),
    "device-push": (NO_MOVE,),
    "device-movs": (NO_MOVE,),
    "device-call": (NO_MOVE,),
    "device-moffs": (NO_MOVE,),
    "stack-absent": (TRIPLE,),
    "stack-in-device": (NO_MOVE,),
    "stack-beyond": (NO_MOVE,),
    "idt-in-device": (NO_MOVE,),
    "gdt-in-device": (NO_MOVE,),
    "gdt-garbage": (TRIPLE,),
    "debug-loop": (SPINS,),
    "alignment-loop": (SPINS,),
    "spin": (SPINS,),
    "halt": (SPINS,),
    "shadow-loop": (SPINS,),
    "exit-storm": (SPINS,),
    "syscall-nowhere": (TRIPLE,),
    "sysenter-nowhere": (TRIPLE,),
    "cr0-pg-off": (BACK + "#GP",),
    "cr0-pe-off": (BACK + "#GP",),
    "cr0-nw": (BACK + "#GP",),
    "cr0-high": (BACK + "#GP",),
    "efer-nxe": (TRIPLE,),
    "dr6-high": (BACK + "#GP",),
    "dr7-high": (BACK + "#GP",),
    "task-jump": (TASK_SWITCH,),
    "task-gate": (TASK_SWITCH,),
    "real-mode": GARBAGE,
    "virtual-8086": GARBAGE,
    "protected-garbage": GARBAGE,
    "device-32-bit": (UNREADABLE,),
    "cr4-32-bit": (SPINS,),
    "long-mode-loop": (SPINS,),
}
NOT_DONE = "the emulator's own end"  # so it is not done there


def manifest_text(**keys):
    return manifest(driver(limit="1000", window="1h", **keys), guest(memory="64M"))


def all_that_come_back(machine, deviations, seconds):
    """The whole of `hostile cpu all`; what is wrong must be what this emulator is known for."""
    before = machine.status("vm", "blk0")
    output, _ = machine.command("hostile cpu all", seconds)
    wrong = dict(re.findall(r"^hostile cpu ([a-z0-9-]+): FAILED: (.*)$", output, re.MULTILINE))
    for name, text in deviations.items():
        check(wrong.pop(name, "nothing wrong").startswith(text), f"{name}: {text!r} was expected here: {output.strip()[-800:]}")
    check(not wrong, f"wrong: {wrong}")
    total = re.search(r"^hostile cpu: (\d+) passed, (\d+) failed", output, re.MULTILINE)
    check(total and int(total[1]) > 140 and int(total[2]) == len(deviations), f"not all were run: {output.strip()[-300:]}")
    after = machine.status("vm", "blk0")
    check(before["faults"] == after["faults"], f"the driver VM noticed: {after}")
    machine.run("blk read 0 256 qd 8")
    check(machine.inject("blk0", "crash").outcome == "recovered", "the driver VM did not come back")
    machine.run("blk read 0 256 qd 8")


def outcome(machine, name, expected, log_lines, seconds):
    """What came of the case that was just typed."""
    deadline = time.monotonic() + (seconds if SPINS in expected else 30)
    while True:
        ended = next(filter(None, (re.search(r"main has ended: (.*) \([0-9a-f]+\) at rip", line)
                                   for line in machine.log()[log_lines:])), None)
        if ended:
            return ended[1]
        text = machine.text[machine.position:]
        back = re.search(r"^hostile cpu: (came back: \S+)", text, re.MULTILINE)
        if back and re.search(r"\[status 0\]", text):
            return back[1]
        panicked = re.search(r"guestos: panic: (.*)", text)
        check(not panicked, f"{name}: the guest panicked: {panicked and panicked[1]}")
        check(not machine.ended, f"{name}: the machine has ended")
        if time.monotonic() > deadline:
            return SPINS
        time.sleep(0.02)


def one_end(machine, name, expected, seconds):
    """One case from the prompt to the next prompt, after a restart of the guest. Returns what it ended in."""
    before = machine.status("vm", "blk0")
    log_lines = len(machine.log())
    machine.send(f"hostile cpu {name}")
    got = outcome(machine, name, expected, log_lines, seconds)
    check(got in expected, f"{name}: {got}; expected: {' or '.join(expected)}")
    main_vm, blk0 = machine.status("vm", "main"), machine.status("vm", "blk0")
    failed = got != SPINS and not got.startswith(BACK)
    check(main_vm["state"] == ("failed" if failed else "running"), f"{name}: {got}, but status says {main_vm}")
    check(blk0["state"] == "running" and blk0["faults"] == before["faults"], f"{name}: the driver VM noticed: {blk0}")
    record = machine.inject("blk0", "crash")
    check(record.outcome == "recovered" and record.kind == "exception", f"{name}: {record.fields}")
    machine.control.ask("restart main")
    machine.expect("guestos: 64-bit", 60)
    machine.shell_start(60)
    return got


def ends(machine, names, deviations, seconds):
    """These cases in turn, in one boot. seconds: how long something must go on to count as going on."""
    results = {}
    for name in names:
        expected = deviations.get(name, ENDS[name])
        if expected != NOT_DONE:
            results[name] = one_end(machine, name, expected, seconds)
    machine.run("blk read 0 256 qd 8")
    hypervisor = machine.status("hypervisor")
    check(hypervisor["canary"] == "ok", "the hypervisor's canary was overwritten")
    return results
