"""A guest that is hostile to its CPU: every MSR, port and instruction; then every end that a CPU can come to."""

from harness import case, main
from hostile_cpu import BACK, ENDS, NOT_DONE, REFUSED, SPINS, UNEXPECTED, all_that_come_back, ends, manifest_text

LABEL = "hostile"
TIMEOUT = 420
SPIN_SECONDS = 0.6
# With one CPU for everything: what gives nothing up by itself, and one of each other kind.
ONE_CPU = ("spin", "halt", "shadow-loop", "exit-storm", "alignment-loop", "long-mode-loop", "triple-fault", "fetch-beyond",
           "device-lock", "stack-in-device", "real-mode", "task-jump")

# QEMU 7.2's TCG: no LOCK check, no INT1, no alignment checks.
TCG_BACK = {"cpuid-lock": "plain: ended", "icebp": "plain: #UD", "alignment": "ended"}
TCG_ENDS = {
    # It does not check CR0 and CR3 when they are written; VMRUN refuses what it has become (CR3), or goes on with it.
    "cr3-bit-51": (REFUSED,),
    "cr3-bit-62": (REFUSED,),
    "cr0-pg-off": (SPINS,),
    "cr0-pe-off": (BACK + "ended",),
    "cr0-nw": (BACK + "ended",),
    "cr0-high": (BACK + "ended",),
    # Task switches are not intercepted: the guest goes on in the new task.
    "task-jump": (SPINS,),
    "task-gate": (SPINS,),
    # Without decode assists the instruction has to be read, and only 64-bit page tables are (docs/PLATFORM.md).
    "cr4-32-bit": (UNEXPECTED,),
    # A watchpoint that is hit by the delivery of an exception fails an assertion of QEMU.
    "debug-loop": NOT_DONE,
}


def say(lab, results):
    for name, result in results.items():
        lab.say(f"| {name}: {result}")


@case
def everything_that_comes_back(lab):
    with lab.machine(manifest_text()) as machine:
        machine.boot()
        all_that_come_back(machine, TCG_BACK, 240)


@case
def every_end(lab):
    with lab.machine(manifest_text()) as machine:
        machine.boot()
        say(lab, ends(machine, ENDS, TCG_ENDS, SPIN_SECONDS))


@case
def ends_on_one_cpu(lab):
    with lab.machine(manifest_text(), cpus=1) as machine:
        machine.boot()
        say(lab, ends(machine, ONE_CPU, TCG_ENDS, SPIN_SECONDS))


if __name__ == "__main__":
    main()
