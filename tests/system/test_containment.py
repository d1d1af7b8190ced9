"""A driver VM that is out to do harm, and a device that DMAs wherever it is told: neither gets out."""

import time

from harness import case, check, check_load, driver, guest, main, manifest, vm

LABEL = "containment"
TIMEOUT = 420

EDU = "edu,dma_mask=0xffffffff,addr=0x10"
EDU_ADDRESS = "pci:00:10.0"
ROGUE_SECONDS = 240


def rogue(**keys):
    return vm("rogue0", {"kind": "driver", "image": "rogue_edu.elf", "device": EDU_ADDRESS, "memory": "1M",
                         "limit": "1000", "window": "1h", **keys})


def canaries_hold(machine):
    machine.run("canary check 7", 180)
    check(machine.status("hypervisor")["canary"] == "ok", "the hypervisor's canary was overwritten")


@case
def wild_writes_and_wild_dma(lab):
    """The injector's two wild faults leave both canaries alone, and the VT-d fault is in the event log."""
    with lab.machine() as machine:
        machine.boot()
        machine.run("canary set 7", 180)
        record = machine.inject("blk0", "wild-write")
        check(record.kind == "nested-page", f"wild-write was seen as {record.kind}")
        command = "blk load --seed 5 --depth 16 --seconds 8 --final --quiet"
        machine.send(command)
        record = machine.inject("blk0", "wild-dma")
        check(record.kind == "dma", f"wild-dma was seen as {record.kind}")
        check_load(*machine.finish(command, 120))
        fault_is_explained(machine, "00:1f.2")
        canaries_hold(machine)


def fault_is_explained(machine, source):
    """Source, address and reason of a VT-d fault in the event log."""
    texts = [event["text"] for event in machine.events("iommu-fault")]
    check(any(source in text and "0x" in text for text in texts),
          f"no VT-d fault with source {source} and an address: {texts[:3]}")


@case
def rogue_driver_and_device(lab):
    """A driver VM that owns QEMU's `edu` and tries everything; the guest's disk works on beside it."""
    with lab.machine(manifest(driver(), rogue(), guest()), devices=[EDU]) as machine:
        machine.boot()
        machine.run("canary set 7", 180)
        texts = rogue_finishes(machine)
        escaped = [text for text in texts if "LEAKED" in text or "ACCEPTED" in text]
        check(not escaped, f"the rogue got through: {escaped[:3]}")
        check(any("selfcheck ok" in text for text in texts), "the rogue's device did not even reach the rogue's own memory")
        check("reads_leaked=0" in texts[-1] and "accepted=0" in texts[-1], f"the rogue got through: {texts[-1]}")
        fault_is_explained(machine, "00:10.0")
        check_load(*machine.command("blk load --seed 6 --depth 16 --seconds 5 --final --quiet", 120))
        canaries_hold(machine)


def rogue_finishes(machine):
    """Follow the rogue's own log until it says that it is done. The event log is a ring: it is read as it grows."""
    deadline = time.monotonic() + ROGUE_SECONDS
    texts, since = [], 1
    while time.monotonic() < deadline:
        for event in machine.control.rows(f"events {since}", "event"):
            since = event["seq"] + 1
            if event["kind"] == "driver-log" and event["vm"] == "rogue0":
                texts.append(event["text"])
        if any("rogue: done" in text for text in texts):
            return texts
        time.sleep(0.5)
    raise AssertionError(f"the rogue did not finish: {texts[-3:]}")


if __name__ == "__main__":
    main()
