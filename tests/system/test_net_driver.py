"""
The guest's network through a driver VM: QEMU's e1000e (82574L) and e1000 (82540EM) behind e1000.elf, peers that nobody
here wrote, and transfers that go on while the driver is made to fail.
"""

import hashlib
import json
import pathlib
import time

from bare import free_port
from bulkhead_lib.debug import qmp
from driver_suite import inject
from harness import MIB, case, check, driver, faultlog, find_json, guest, main, manifest
from host_network import (ADDRESS, GATEWAY, IPERF_SECONDS, HostFiles, counters, host_program, host_run, served_file)

LABEL = "net"
TIMEOUT = 600
ROUNDS = 3
BULK = 20 * MIB

# What QEMU calls it, and where it goes: behind a root port the hypervisor resets it by that port's bus, else only the
# driver does.
PLACES = {
    "e1000e behind a root port": (["pcie-root-port,id=root-port,chassis=1", "e1000e,netdev=n,bus=root-port,romfile="], "bus"),
    "e1000e": (["e1000e,netdev=n,romfile="], "driver"),
    "e1000": (["e1000,netdev=n,romfile="], "driver"),
}
DEFAULT = "e1000e behind a root port"

DETECTORS = {
    "crash": "exception",
    "hang": "heartbeat",
    "wild-write": "nested-page",
    "garbage": "completion-ring",
}


def machine_with(lab, place=DEFAULT, forward=(), **keys):
    """A machine on QEMU's user network; forward: (host port, guest port)."""
    ports = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{inside}" for host, inside in forward)
    text = manifest(driver("net0", image="e1000.elf", device="class:0200", limit="1000", window="1h", **keys), guest())
    return lab.machine(text, sata_disk=False, devices=PLACES[place][0], extra=["-netdev", f"user,id=n{ports}"])


def everything(lab, place, interrupts="MSI"):
    """One pass over what the network is for."""
    port, iperf = free_port(), free_port()
    files = pathlib.Path(lab.folder) / "files"
    files.mkdir()
    data = lab.random.randbytes(4 * MIB)
    (files / "data").write_bytes(data)
    with HostFiles(files) as server, machine_with(lab, place, [(port, 80), (iperf, 5201)]) as machine:
        machine.boot()
        check("10.0.2.15" in machine.run("ifconfig dhcp"), "DHCP gave another address")
        machine.run(f"ping {GATEWAY} 5")
        machine.run(f"ping {GATEWAY} 3 -s 4000")
        machine.run("http serve 80")
        got = host_run("curl", "-sS", f"http://127.0.0.1:{port}/4M")
        check(got == served_file(4 * MIB), "what the guest serves arrived otherwise")
        result = find_json(machine.run(f"http get http://{GATEWAY}:{server.port}/data", 120))
        check(result["sha256"] == hashlib.sha256(data).hexdigest(), f"the guest fetched {result}")
        for extra in ([], ["-R"]):
            machine.send("iperf3 -s -1")
            machine.expect("serving on port", 20)
            report = json.loads(host_run("iperf3", "-J", "-c", "127.0.0.1", "-p", str(iperf), "-t", str(IPERF_SECONDS), *extra))
            check(machine.finish("iperf3 -s -1")[1] == 0, "the guest's iperf3 failed")
            received = report["end"]["sum_received"]["bytes"]
            lab.say(f"| {place}, {'from' if extra else 'to'} the guest: {received / IPERF_SECONDS / 1e6:.1f} MB/s")
            check(received > MIB // 4, f"only {received} bytes arrived")
        counters(machine)
        fields = machine.status("vm", "net0")
        check(fields["faults"] == 0 and fields["generation"] == 0, f"the driver VM did not last: {fields}")
        check(fields["interrupts"] == interrupts, f"it interrupts in another way: {fields}")
    (files / "data").unlink()


@case
def e1000e_behind_a_root_port(lab):
    everything(lab, "e1000e behind a root port")


@case
def e1000e_on_the_root_bus(lab):
    everything(lab, "e1000e")


@case
def e1000(lab):
    """It has a line only, which goes through the IOAPIC and the remapping table."""
    everything(lab, "e1000", "INTx")


def set_link(machine, up):
    """Plug or unplug the cable and wait until the guest has seen it; the controller negotiates for half a second."""
    qmp(machine.folder, "set_link", {"name": "n", "up": up})
    deadline = time.monotonic() + 20
    while find_json(machine.run("ifconfig --json"))["link"] is not up:
        check(time.monotonic() < deadline, f"the guest does not see that the link is {'up' if up else 'down'}")


@case
def link_and_receive_mode(lab):
    """The link goes and comes; the guest's promiscuous mode is the device's, and its successor's."""
    with machine_with(lab) as machine:
        machine.boot()
        machine.run(ADDRESS)
        set_link(machine, False)
        machine.run(f"ping {GATEWAY} 1", status=1)
        set_link(machine, True)
        machine.run(f"ping {GATEWAY} 2")
        machine.run("ifconfig promisc on")
        inject(machine, "net0", "crash")
        machine.run(f"ping {GATEWAY} 2")
        machine.run("ifconfig promisc off")
        counters(machine)


@case
def a_guest_that_starts_again(lab):
    """A new guest takes over the device from the old one: receive buffers come back without a packet."""
    with machine_with(lab) as machine:
        machine.boot()
        machine.run(ADDRESS)
        machine.run(f"ping {GATEWAY} 2")
        machine.control.ask("restart main")
        machine.shell_start(60)
        machine.run(ADDRESS)
        machine.run(f"ping {GATEWAY} 2")
        check(machine.status("vm", "net0")["faults"] == 0, "the driver VM failed")


def faults_during(lab, machine, program, faults):
    """Takes faults off the list and injects them for as long as the program runs; their records."""
    records = []
    while faults and program.poll() is None:
        # A random moment, from the seed: the wait is the point, not a guess at how long something takes.
        time.sleep(lab.random.uniform(0.01, 0.1))
        fault = faults.pop()
        record = inject(machine, "net0", fault)
        check(record.injected == fault and record.kind == DETECTORS[fault] and record.outcome == "recovered",
              f"{fault}: {record.fields}")
        records.append(record)
    return records


def transfers_under_faults(lab, place):
    """Transfers until the list of faults is empty. No connection may be reset, no byte differ."""
    port = free_port()
    faults = list(DETECTORS) * ROUNDS
    lab.random.shuffle(faults)
    expected = hashlib.sha256(served_file(BULK)).hexdigest()
    records = []
    with machine_with(lab, place, [(port, 80)]) as machine:
        machine.boot()
        machine.run(ADDRESS)
        machine.run("http serve 80")
        while faults:
            # Slowly enough for faults to hit: curl reads what the guest sends, and the guest waits for it.
            command = f"curl -sS --limit-rate 8M http://127.0.0.1:{port}/{BULK // MIB}M | sha256sum"
            program = host_program("bash", "-o", "pipefail", "-c", command)
            records += faults_during(lab, machine, program, faults)
            output, errors = program.communicate(timeout=120)
            check(program.returncode == 0 and expected in output, f"{errors}, {output}")
        machine.run(f"ping {GATEWAY} 2", status=None)
        machine.run(f"ping {GATEWAY} 2")
        counters(machine)
        canary = machine.status("hypervisor")["canary"]
    check(canary == "ok", "the hypervisor's canary was overwritten")
    check({record.fields["reset"] for record in records} == {PLACES[place][1]}, "reset in another way")
    rows = faultlog.summary(records)
    lab.report(f"net-faults-{place.replace(' ', '-')}", {"unit": "us", "summary": rows})
    for row in rows:
        lab.say(f"| {row}")


@case
def faults_during_transfers(lab):
    transfers_under_faults(lab, "e1000e behind a root port")


@case
def faults_without_a_reset_by_the_bus(lab):
    transfers_under_faults(lab, "e1000e")


@case
def giving_up(lab):
    """Nothing that looks like a packet comes from a device that nobody drives, and the operator brings it back."""
    text = manifest(driver("net0", image="e1000.elf", device="class:0200", restart="never"), guest())
    with lab.machine(text, sata_disk=False, devices=PLACES[DEFAULT][0], extra=["-netdev", "user,id=n"]) as machine:
        machine.boot()
        machine.run(ADDRESS)
        machine.run(f"ping {GATEWAY} 1")
        before = counters(machine)["rx_frames"]
        machine.control.ask("inject net0 crash")
        machine.run(f"ping {GATEWAY} 2", status=1)
        check(machine.status("vm", "net0")["state"] == "failed", "it was not given up")
        check(counters(machine)["rx_frames"] == before, "frames came from nowhere")
        machine.control.ask("restart net0")
        machine.run(f"ping {GATEWAY} 3", status=None)
        machine.run(f"ping {GATEWAY} 2")


if __name__ == "__main__":
    main()
