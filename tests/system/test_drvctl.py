"""The control port inside the main guest: a virtio-console that the manifest allows, and guestos' command drvctl."""

import time

from harness import case, check, check_load, driver, guest, main, manifest
from bulkhead_lib.control import parse_line

LABEL = "supervisor"
TIMEOUT = 240
SAME = ("state", "device", "isolation", "generation", "restarts", "faults", "crashes", "limit", "reset", "image")


def raw(machine, command, kind):
    """The fields of the lines of this kind, as the guest gets them."""
    rows = []
    for line in machine.run(f"drvctl raw {command}").splitlines():
        if line.startswith(f"{kind} "):
            rows.append(parse_line(line)[1])
    return rows


def same_state(machine):
    """What the guest is told of the driver VM is what the operator is told."""
    mine = next(row for row in raw(machine, "status", "vm") if row["name"] == "blk0")
    his = machine.status("vm", "blk0")
    wrong = {key: (mine[key], his[key]) for key in SAME if mine[key] != his[key]}
    check(not wrong, f"guest and operator are told different things: {wrong}")
    return mine


@case
def the_same_state_and_orders_under_load(lab):
    """drvctl shows what the operator sees; restart under a verifying load, stop and start; after a restart of the guest as well."""
    with lab.machine(manifest(driver(), guest(control="yes"))) as machine:
        machine.boot()
        check(same_state(machine)["restarts"] == 0, "it has been restarted")
        check("blk0" in machine.run("drvctl status") and "running" in machine.run("drvctl status blk0"), "no blk0 in drvctl status")
        machine.run("drvctl restart blk0 --after 300 --times 3")
        output, status = machine.command("blk load --seed 5 --depth 8 --seconds 3 --final --quiet", 120)
        check_load(output, status)
        check(output.count("drvctl: restart blk0: ok") == 3, f"not three orders: {output}")
        check(same_state(machine)["restarts"] == 3 and len(raw(machine, "faults", "fault")) == 3, "not restarted three times")
        check(machine.run("drvctl faults").count("recovered") == 3, "drvctl faults tells of other recoveries")
        machine.run("drvctl stop blk0")
        deadline = time.monotonic() + 20
        while machine.status("vm", "blk0")["state"] != "stopped":
            check(time.monotonic() < deadline, "it does not stop")
        check(same_state(machine)["state"] == "stopped", "the guest is not told that it is stopped")
        check("it is stopped" in machine.run("drvctl stop blk0", status=1), "a second stop is not refused")
        machine.run("drvctl start blk0")
        machine.run("blk load --seed 5 --depth 8 --count 200 --final --quiet", 60)
        for command in ("restart main", "stop main", "raw inject blk0 crash", "raw flip blk0 0 1 0", "raw core blk0 0", "restart nobody"):
            machine.run(f"drvctl {command}", status=1)
        check(machine.status("vm", "blk0")["crashes"] == 0, "the guest has injected a fault")
        machine.control.ask("restart main")
        machine.boot()
        same_state(machine)


@case
def what_the_manifest_does_not_allow(lab):
    """`control = read` takes no orders; without the key there is no such device, and drvctl says why."""
    with lab.machine(manifest(driver(), guest(control="read"))) as machine:
        machine.boot()
        same_state(machine)
        for command in ("restart", "stop", "start"):
            check("the manifest does not allow this" in machine.run(f"drvctl {command} blk0", status=1), f"{command} was taken")
        check("restart" not in machine.run("drvctl help"), "help names what is refused")
        check(machine.status("vm", "blk0")["restarts"] == 0, "the driver VM was restarted")
    with lab.machine(manifest(driver(), guest())) as machine:
        machine.boot()
        check("the manifest" in machine.run("drvctl status", status=1), "drvctl does not say why there is nothing")


@case
def a_hostile_guest_harms_only_itself(lab):
    """Commands without end, answers never taken, broken chains: the operator's port and the driver VM go on as if nothing were."""
    with lab.machine(manifest(driver(), guest(control="yes"))) as machine:
        machine.boot()
        command = "hostile console 2"
        machine.send(command)
        slowest = 0.0
        for _ in range(20):
            start = time.monotonic()
            machine.control.ask("tsc")
            slowest = max(slowest, time.monotonic() - start)
            time.sleep(0.1)
        output, status = machine.finish(command, 120)
        check(status == 0 and "0 failed" in output, f"the device has taken what it must not: {output}")
        lab.say(f"| 20 answers to the operator meanwhile, the slowest after {slowest:.3f} s")
        same_state(machine)
        fields = machine.status("vm", "blk0")
        check(fields["restarts"] == 0 and fields["last_fault"] == "none", f"the driver VM was disturbed: {fields}")
        machine.run("blk load --seed 5 --depth 8 --count 200 --final --quiet", 60)


if __name__ == "__main__":
    main()
