"""The same hostile guest under strict emulation: VMX and SVM in Bochs, where a boot takes long and a selection has to do."""

import concurrent.futures

from harness import MIB, case, main
from hostile_cpu import ENDS, NOT_DONE, TRIPLE, UNEXPECTED, all_that_come_back, ends, manifest_text

LABEL = "vmx"
TIMEOUT = 900
BOOT_SECONDS = 200
BACK_SECONDS = 400
SPIN_SECONDS = 2
DISK_BYTES = 8 * MIB

# Of each kind one or two; what TCG cannot show, all. With two CPUs those in which the other CPU has a part: it stops the VM, waits for
# the lock, or runs the driver. What one instruction does on its own CPU is cheaper to see on a machine with one.
TWO_CPUS = ("triple-fault", "fetch-beyond", "device-lock", "stack-in-device", "idt-in-device", "debug-loop", "spin", "exit-storm",
            "cr0-pg-off", "cr0-pe-off", "task-gate", "real-mode")
ONE_CPU = ("spin", "halt", "shadow-loop", "exit-storm", "debug-loop", "triple-fault", "device-lock", "stack-in-device", "fetch-across",
           "cr3-bit-51", "cr3-bit-62", "table-device", "alignment-loop", "cr0-nw", "cr0-high", "task-jump", "virtual-8086",
           "cr4-32-bit", "long-mode-loop")

# Bochs 2.7's SVM: an intercepted #DB leaves guest mode before DR6 says why.
RYZEN_BACK = {"step-chain": "ended, 9 traps, 9 expected, DR6.BS in 5"}
RYZEN_ENDS = {
    # It has no intercept for shutdowns: a triple fault ends Bochs. So may garbage.
    **{name: NOT_DONE for name, expected in ENDS.items() if TRIPLE in expected},
    # No interrupt ends guest mode while the guest has IF clear and nothing exits: drivers starve, and the guest cannot be stopped.
    "spin": NOT_DONE,
    # It takes protection from under paging, and ends.
    "cr0-pe-off": NOT_DONE,
    # The instruction has to be read, and only 64-bit page tables are (docs/PLATFORM.md).
    "cr4-32-bit": (UNEXPECTED,),
}


def two_cpus(machine, back, deviations):
    with machine:
        machine.boot(BOOT_SECONDS)
        all_that_come_back(machine, back, BACK_SECONDS)
        return ends(machine, TWO_CPUS, deviations, SPIN_SECONDS)


def one_cpu(machine, deviations):
    with machine:
        machine.boot(BOOT_SECONDS)
        return ends(machine, ONE_CPU, deviations, SPIN_SECONDS)


def on_model(lab, model, back, deviations):
    """With two CPUs and with one, side by side."""
    text = manifest_text(image="ata_pio.elf", device="class:0101", dma="none")
    machines = [lab.machine(text, disk=lab.disk(DISK_BYTES), accel="bochs", model=model, cpus=cpus) for cpus in (2, 1)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = [pool.submit(two_cpus, machines[0], back, deviations), pool.submit(one_cpu, machines[1], deviations)]
        for result in results:
            for name, text in result.result().items():
                lab.say(f"| {name}: {text}")


@case
def vmx_on_skylake(lab):
    on_model(lab, "corei7_skylake_x", {}, {})


@case
def svm_on_ryzen(lab):
    on_model(lab, "ryzen", RYZEN_BACK, RYZEN_ENDS)


if __name__ == "__main__":
    main()
