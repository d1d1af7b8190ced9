"""explore"""
import re, time
from driver_suite import Follower
from harness import case, check, driver, guest, main, manifest, vm, find_json

LABEL = "hostile"
TIMEOUT = 240
GROUPS = ("rings", "grants", "offers", "memory", "interrupts", "dma", "trap", "calls", "time")

def rogue(name, number, **keys):
    return vm(name, {"kind": "driver", "image": "rogue.elf", "device": f"pci:00:{number:02x}.0", "memory": "1M",
                     "limit": "1000", "window": "1h", "deadline": "400ms", **keys})

@case
def explore(lab):
    sections = [rogue(name, 0x10 + i, **({"grants": "strict"} if name == "grants" else {})) for i, name in enumerate(GROUPS)]
    sections.append(rogue("msix", 0x1a))
    devices = [f"edu,dma_mask=0xffffffffffffffff,addr={0x10 + i:#x}" for i in range(len(GROUPS))] + ["nvme,serial=x,addr=0x1a"]
    with lab.machine(manifest(driver(), *sections, guest()), devices=devices) as machine:
        t = time.monotonic()
        machine.boot()
        lab.say(f"boot {time.monotonic()-t:.1f}")
        machine.run("canary set 7", 180)
        lab.say(f"canary {time.monotonic()-t:.1f}")
        f = Follower(machine)
        load = "blk load --seed 6 --disk vda,vdb,vdc --depth 8 --seconds 3600 --final --quiet"
        machine.send(load)
        machine.expect("load: vda: seed", 20)
        names = (*GROUPS, "msix")
        for name in names:
            machine.control.ask(f"restart {name}")
        end = time.monotonic() + 60
        try:
            while time.monotonic() < end:
                f.update()
                left = [n for n in names if not any("has made" in x for x in f.texts("driver-log", n))]
                if not left: break
                time.sleep(0.2)
            lab.say(f"left {left} {time.monotonic()-t:.1f}")
        finally:
            for n in names:
                print("=====", n)
                for e in f.events:
                    if e["vm"] == n and e["kind"] in ("driver-log", "fault", "gave-up", "iommu-fault"): print(e["kind"], e["text"])
        machine.type("\x03")
        out, st = machine.finish(load, 60)
        print(out[-3000:], st)
        machine.run("canary check 7", 180)
        lab.say(f"end {time.monotonic()-t:.1f}")
        print(machine.status("vm", "blk0"), machine.status("hypervisor"))

if __name__ == "__main__":
    main()
