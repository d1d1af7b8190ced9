"""A hostile guest breaks every rule of virtio; hypervisor and driver live, and the device obeys again after a reset."""

from harness import case, check, main

LABEL = "hostile"
TIMEOUT = 240


@case
def all_rules(lab):
    with lab.machine() as machine:
        machine.boot()
        generation = machine.status("vm", "blk0")["generation"]
        output = machine.run("hostile all", 180)
        check(output.strip(), "`hostile all` printed nothing")
        machine.run("blk read 0 2048 qd 8")
        hypervisor = machine.status("hypervisor")
        blk0 = machine.status("vm", "blk0")
        check(hypervisor["canary"] == "ok", "the hypervisor's canary was overwritten")
        check(blk0["state"] == "running" and blk0["generation"] == generation,
              f"the guest made the driver VM fail: {blk0}")
        check(machine.events("broken-device"), "no event says that a device was broken")


if __name__ == "__main__":
    main()
