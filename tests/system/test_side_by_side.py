"""
Driver VMs beside each other: what befalls one the others do not notice. And the reason for all of it: a TCP connection
outlives whatever the network card's driver does, byte for byte, while a disk beside it is read, written and checked.
"""

import contextlib
import io
import pathlib
import socket
import time

from bare import free_port
from bulkhead_lib import devices
from bulkhead_lib.ui import percentile, table
from driver_suite import inject
from harness import LOAD_ERRORS, MIB, case, check, find_json, guest, main, manifest
from host_network import counters, served_file
from transfers import DISCARD_PORT, FromGuest, Repeated, ToGuest, datagrams, longest_gap_ms

LABEL = "sidebyside"
TIMEOUT = 600

DETECTORS = {
    "crash": ("exception",),
    "hang": ("heartbeat",),
    "wild-write": ("nested-page",),
    # A driver that copies the data in question comes upon the wrong address with its own CPU.
    "wild-dma": ("dma", "nested-page"),
    "garbage": ("completion-ring",),
}
FAULTS = 20
TRANSFER = 100 * MIB
TRANSFER_BACK = 20 * MIB
LIMITS = {"limit": "1000", "window": "1h"}
# QEMU 7.2's controller needs time before it is reset (docs/FAULTS.md). The window is over at once: the pause does not double.
PAUSE = {"limit": "1000", "backoff": "1s", "window": "1ms"}
INTERRUPTED = 130


# ---- machines ----

class Ports:
    """Ports of the host's that lead to a card's HTTP server, and to where nobody listens."""

    def __init__(self, number):
        self.network = f"10.0.{2 + number}"
        self.http, self.nowhere = free_port(), free_port(socket.SOCK_DGRAM)

    def netdev(self, device):
        return (f"user,id={device.backend},net={self.network}.0/24,hostfwd=tcp:127.0.0.1:{self.http}-:80,"
                f"hostfwd=udp:127.0.0.1:{self.nowhere}-:{DISCARD_PORT}")


def machine_of(lab, disks, nics):
    """A machine with a driver VM for each of these devices; and each card's Ports, by the driver VM's name."""
    found = devices.layout(disks, nics)
    extra = devices.arguments(found)
    ports = {}
    for device in found:
        if device.role == "blk":
            extra += ["-drive", f"if=none,id={device.backend},format=raw,file={lab.disk()}"]
        else:
            ports[device.vm] = Ports(len(ports))
            extra += ["-netdev", ports[device.vm].netdev(device)]
    sections = [device.section(**(PAUSE if device.model == "nvme" else LIMITS)) for device in found]
    return lab.machine(manifest(*sections, guest()), sata_disk=False, extra=extra), ports


def boot_with_network(machine, ports):
    machine.boot()
    for name, port in ports.items():
        machine.run(f"ifconfig {name} {port.network}.15/24 {port.network}.2")
    machine.run("http serve 80")


def drivers(machine):
    """(generation, faults) of each driver VM."""
    return {row["name"]: (row["generation"], row["faults"])
            for row in machine.control.rows("status", "vm") if row["kind"] == "driver"}


class DiskLoad:
    """The guest's verifying load on these disks, from now to finish()."""

    def __init__(self, lab, machine, disks):
        self.machine = machine
        self.command = (f"blk load --seed {lab.random.randrange(1 << 32)} --disk {','.join(disks)} --depth 4 --size 65536 "
                        "--sectors 16384 --seconds 3600 --quiet")
        machine.send(self.command)

    def finish(self):
        self.machine.type("\x03")
        output, status = self.machine.finish(self.command, 60)
        check(status in (0, INTERRUPTED), f"the load ended with status {status}: {output.strip()[-300:]}")
        result = find_json(output)
        wrong = {name: result[name] for name in LOAD_ERRORS if result[name]}
        check(not wrong and result["requests"] == result["completed"], f"the load saw errors: {wrong}, {result}")
        check(all(disk["reads"] > 100 for disk in result["disks"].values()), f"hardly anything was read: {result}")
        return result


def inject_into(machine, vm, fault, ports):
    """The record of one fault; its detector and its end are checked."""
    with datagrams(ports[vm].nowhere) if fault == "wild-dma" and vm in ports else contextlib.nullcontext():
        record = inject(machine, vm, fault)
    check(record.kind in DETECTORS[fault] and record.outcome == "recovered", f"{fault}: {record.fields}")
    return record


def check_canary(machine):
    check(machine.status("hypervisor")["canary"] == "ok", "the hypervisor's canary was overwritten")


def say_table(lab, rows):
    text = io.StringIO()
    table(rows, out=text)
    for line in text.getvalue().splitlines():
        lab.say(f"| {line}")


# ---- four driver VMs ----

@case
def four_at_once(lab):
    """Two disks under load, two cards in transfers; each fault in each driver VM, and the other three stay as they were."""
    machine, ports = machine_of(lab, ["ahci", "nvme"], ["e1000e", "virtio-net"])
    faults = [(vm, fault) for vm in ("blk0", "blk1", "net0", "net1") for fault in DETECTORS]
    lab.random.shuffle(faults)
    with machine:
        boot_with_network(machine, ports)
        load = DiskLoad(lab, machine, ["vda", "vdb"])
        with Repeated(ports["net0"].http, 4 * MIB) as first, Repeated(ports["net1"].http, 4 * MIB) as second:
            before = drivers(machine)
            check(list(before.values()) == [(0, 0)] * 4, f"they did not come up in peace: {before}")
            for vm, fault in faults:
                inject_into(machine, vm, fault, ports)
                after = drivers(machine)
                expected = {**before, vm: (before[vm][0] + 1, before[vm][1] + 1)}
                check(after == expected, f"{fault} of {vm}: {before} became {after}")
                before = after
        load.finish()
        for fetches in (first, second):
            check(fetches.error is None and fetches.done > 0, f"after {fetches.done} transfers: {fetches.error}")
        counters(machine)
        check_canary(machine)
        lab.say(f"| {len(faults)} faults in four driver VMs, {first.done} + {second.done} transfers, both disks' data right")


# ---- the connection that lives on ----

def places_in(lab, size, count):
    return sorted(lab.random.sample(range(size // 50, size * 9 // 10), count))


def transfer_under_faults(lab, machine, transfer, faults, ports):
    """Injects them at random places of the transfer. Rows: what each cost the host's end and, by its record, the guest, in ms."""
    times, rows = [], []
    for fault, place in zip(faults, transfer.places):
        check(transfer.reaches(place), f"the transfer was over after {len(rows)} of {len(faults)} faults")
        began = time.monotonic()
        record = inject_into(machine, "net0", fault, ports)
        times.append((began, time.monotonic()))
        transfer.went_on()
        fields = record.fields
        # Of receive buffers alone no completion is waited for: then the offer is the end.
        end = fields["t_first_completion"] or fields["t_replay"]
        rows.append({"fault": fault, "detected": fields["detect_us"] / 1000, "recovered": (end - fields["t_detect"]) / 1000,
                     "fault_to_first_completion": (end - fields["t_injected"]) / 1000})
    result = transfer.finish()
    for row, (began, ended) in zip(rows, times):
        row["gap"] = longest_gap_ms(result, began, ended)
    return rows


def publish(lab, name, rows, undisturbed_gap, disk=None):
    """Figures for people and, in JSON, for programs. The machine's other work is in them, so none is a reason to fail."""
    columns = {name: [row[name] for row in rows] for name in ("detected", "recovered", "fault_to_first_completion", "gap")}
    summary = [{"ms": name, "n": len(values), "p50": percentile(values, 50), "p99": percentile(values, 99), "max": max(values)}
               for name, values in columns.items()]
    lab.say(f"| {name}: {len(rows)} faults; the longest gap without one {undisturbed_gap} ms")
    say_table(lab, rows)
    say_table(lab, summary)
    lab.report(name, {"unit": "ms", "summary": summary, "undisturbed_gap": undisturbed_gap, "disk": disk, "faults": rows})


def shuffled(lab, count):
    faults = (list(DETECTORS) * count)[:count]
    lab.random.shuffle(faults)
    return faults


def loaded_transfer(lab, machine, ports, faults):
    """100 MiB through net0 and a load on blk0, with or without faults. (rows, the longest gap, the load's report)"""
    load = DiskLoad(lab, machine, ["vda"])
    transfer = FromGuest(ports["net0"].http, TRANSFER, places_in(lab, TRANSFER, len(faults)))
    rows = transfer_under_faults(lab, machine, transfer, faults, ports)
    result = load.finish()
    return rows, max((round(length * 1000, 1) for _, length in transfer.result["gaps"]), default=0.0), result


@case
def transfers_while_the_driver_fails(lab):
    machine, ports = machine_of(lab, ["ahci"], ["e1000e"])
    file = pathlib.Path(lab.folder) / "data"
    file.write_bytes(served_file(TRANSFER_BACK))
    with machine:
        boot_with_network(machine, ports)
        _, gap, before = loaded_transfer(lab, machine, ports, [])
        rows, _, during = loaded_transfer(lab, machine, ports, shuffled(lab, FAULTS))
        ratio = during["p99_us"] / before["p99_us"]
        disk = {"p99_undisturbed_us": before["p99_us"], "p99_during_faults_us": during["p99_us"], "ratio": ratio}
        publish(lab, "from-the-guest-100MiB", rows, gap, disk)
        lab.say(f"| disk p99 undisturbed {before['p99_us']} us, during faults {during['p99_us']} us, ratio {ratio:.2f}")
        check(drivers(machine)["blk0"] == (0, 0), f"the disk's driver VM has noticed: {drivers(machine)}")

        gap = longest_gap_ms(ToGuest(machine, file, TRANSFER_BACK).finish(), 0, time.monotonic())
        back = ToGuest(machine, file, TRANSFER_BACK, places_in(lab, TRANSFER_BACK, len(DETECTORS)))
        rows = transfer_under_faults(lab, machine, back, shuffled(lab, len(DETECTORS)), ports)
        publish(lab, "to-the-guest-20MiB", rows, gap)
        expected = {"blk0": (0, 0), "net0": (FAULTS + len(DETECTORS),) * 2}
        check(drivers(machine) == expected, f"more has failed: {drivers(machine)}")
        counters(machine)
        check_canary(machine)
    file.unlink()


def wild_dma(lab, model):
    """Receive buffers that lead elsewhere, while the guest sends, and while it receives."""
    machine, ports = machine_of(lab, [], [model])
    file = pathlib.Path(lab.folder) / "data"
    file.write_bytes(served_file(TRANSFER_BACK))
    with machine:
        boot_with_network(machine, ports)
        places = places_in(lab, TRANSFER_BACK, 3)
        for start in (lambda: FromGuest(ports["net0"].http, TRANSFER_BACK, places), lambda: ToGuest(machine, file, TRANSFER_BACK, places)):
            transfer_under_faults(lab, machine, start(), ["wild-dma"] * 3, ports)
        counters(machine)
        check_canary(machine)
    file.unlink()


@case
def wild_dma_of_e1000(lab):
    wild_dma(lab, "e1000")


@case
def wild_dma_of_virtio_net(lab):
    wild_dma(lab, "virtio-net")


if __name__ == "__main__":
    main()
