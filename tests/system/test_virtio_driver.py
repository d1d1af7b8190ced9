"""
QEMU's virtio-blk and virtio-net as physical devices behind driver VMs of their own: real input, peers that nobody here
wrote, and the faults that the other drivers have to survive.
"""

import contextlib
import ctypes
import hashlib
import os
import pathlib
import subprocess
import time

from bare import free_port
from bulkhead_lib.debug import qmp
from driver_suite import bad_disk, bad_sector, inject, load_under_faults, verifying_load
from harness import MIB, case, check, driver, faultlog, find_json, guest, main, manifest, qemu, sha256_file
from host_network import ADDRESS, GATEWAY, HostFiles, counters, host_program, host_run, served_file
from pattern import SECTOR, wrong_sectors

LABEL = "virtio"
TIMEOUT = 900
ROUNDS = 5
LOAD_SECONDS = 20
BULK = 20 * MIB

DETECTORS = {
    "crash": "exception",
    "hang": "heartbeat",
    "wild-write": "nested-page",
    "garbage": "completion-ring",
}
# A request whose data nobody may reach ends in a virtio device that asks for a reset; the IOMMU has said so before.
DISK_DETECTORS = {**DETECTORS, "wild-dma": "dma"}

# Behind a root port it is a device of PCI Express, with a function-level reset; a bus has one device.
PORT = "pcie-root-port,id=root-port,chassis=1"
MODERN = "bus=root-port,disable-legacy=on,romfile="
FIRST_BEHIND = "pci:01:00.0"


def disk_machine(lab, disk, properties="", backend=None, platform="iommu_platform=on,", **keys):
    """A machine whose only disk for the guest is QEMU's virtio-blk. properties: more of them, each with its comma."""
    text = manifest(driver(image="virtio_blk.elf", device=FIRST_BEHIND, **keys), guest())
    device = f"virtio-blk-pci,drive=vd,{platform}{MODERN},serial=bulkhead-virtio{properties}"
    extra = backend or ["-drive", f"if=none,id=vd,format=raw,discard=unmap,file={disk}"]
    return lab.machine(text, disk=disk, sata_disk=False, devices=[PORT, device], extra=extra)


def net_machine(lab, netdev="user,id=n", properties="", **keys):
    text = manifest(driver("net0", image="virtio_net.elf", device="class:0200", limit="1000", window="1h", **keys), guest())
    device = f"virtio-net-pci,netdev=n,iommu_platform=on,{MODERN}{properties}"
    return lab.machine(text, sata_disk=False, devices=[PORT, device], extra=["-netdev", netdev])


def driver_said(machine, words):
    return any(words in event.get("text", "") for event in machine.events("driver-log"))


# ---- the disk ----

@case
def sha256_of_128_mib(lab):
    disk = lab.disk(128 * MIB, random_bytes=128 * MIB)
    expected = sha256_file(disk)
    with disk_machine(lab, disk) as machine:
        machine.boot()
        output = machine.run("sha256 /dev/vda", 240)
        check(expected in output, f"the guest says {output.strip()!r}, the host {expected}")
        machine.power_off()
    check(sha256_file(disk) == expected, "reading changed the image")


def write_and_compare(lab, first, count, properties="", interrupts="MSI", said=""):
    """A seeded pattern, flushed; the host finds every sector of it, and nothing outside."""
    disk = lab.disk(64 * MIB)
    seed = lab.random.randrange(1 << 32)
    with disk_machine(lab, disk, properties) as machine:
        machine.boot()
        machine.expect_log(f"blk0: virtio_blk.elf drives .* interrupts {interrupts}", 1)
        check(driver_said(machine, said), f"the driver does not say {said!r}")
        machine.run(f"blk write --seed {seed} {first} {count}", 240)
        machine.run(f"blk verify --seed {seed} {first} {count}", 240)
        check(machine.power_off() == qemu.POWERED_OFF, "no orderly end")
    wrong = wrong_sectors(disk, seed, first, count)
    check(not wrong, f"{len(wrong)} sectors are wrong on the host, the first is {wrong[:1]}")
    with open(disk, "rb") as file:
        check(not any(file.read(first * SECTOR)), "something was written below the range")
        file.seek((first + count) * SECTOR)
        check(not any(file.read()), "something was written above the range")


@case
def write_32_mib(lab):
    write_and_compare(lab, 12345, 32 * MIB // SECTOR)


@case
def a_device_that_offers_little(lab):
    """No indirect descriptors, no event index, a small queue, no discard."""
    write_and_compare(lab, 777, 8 * MIB // SECTOR, ",indirect_desc=off,event_idx=off,queue-size=32,discard=off,write-zeroes=off")


@case
def without_messages(lab):
    """Without MSI-X it has a line, which goes through the IOAPIC and the remapping table."""
    write_and_compare(lab, 888, 8 * MIB // SECTOR, ",vectors=0", interrupts="INTx")


@case
def notified_through_a_port(lab):
    write_and_compare(lab, 999, 8 * MIB // SECTOR, ",modern-pio-notify=on", said="among ports: notify")


@case
def blocks_of_4_kib(lab):
    """Whole blocks work; a part of one is an I/O error of that request."""
    properties = ",logical_block_size=4096,physical_block_size=4096"
    write_and_compare(lab, 8 * 1000, 8 * MIB // SECTOR, properties)
    with disk_machine(lab, lab.disk(16 * MIB), properties) as machine:
        machine.boot()
        check("block size 4096" in machine.run("blk info"), "the guest sees other blocks")
        check(machine.command("blk read 1 1", 30)[1] != 0, "a part of a block was read")
        machine.run("blk read 0 4096 qd 16")


@case
def small_requests(lab):
    """Identity, flush, and a request type that the device does not know."""
    with disk_machine(lab, lab.disk(16 * MIB)) as machine:
        machine.boot()
        check("bulkhead-virtio" in machine.run("blk id"), "the serial number is another")
        machine.run("blk flush")
        machine.run("blk unsupported")
        machine.run("blk read 0 64")
        check(driver_said(machine, "indirect, event"), "features are missing")


@case
def a_device_past_the_iommu(lab):
    """
    Without ACCESS_PLATFORM its DMA is not translated. Who allows that is not told of an IOMMU that holds it; the driver will
    not have it all the same, and says why.
    """
    with disk_machine(lab, lab.disk(16 * MIB), platform="", dma="unprotected", limit="2") as machine:
        machine.boot()
        machine.expect_log("WARNING: blk0: UNPROTECTED DMA", 1)
        check(machine.status("vm", "blk0")["isolation"] == "UNPROTECTED DMA", "`status` says otherwise")
        check(driver_said(machine, "ACCESS_PLATFORM"), "the log does not say why")
        deadline = time.monotonic() + 20
        while machine.status("vm", "blk0")["state"] != "failed":
            check(time.monotonic() < deadline, f"it was not given up: {machine.status('vm', 'blk0')}")


def mixed_load(lab, **keys):
    with disk_machine(lab, lab.disk(64 * MIB), **keys) as machine:
        machine.boot()
        verifying_load(lab, machine, 64, 10)


@case
def load_with_sticky_grants(lab):
    """512 bytes to 1 MiB in any segments, every byte verified."""
    mixed_load(lab, grants="sticky")


@case
def load_with_strict_grants(lab):
    mixed_load(lab, grants="strict")


@case
def error_of_the_disk(lab):
    """A sector that cannot be read fails the requests that name it, and no other; the driver stays up."""
    disk = lab.disk(16 * MIB, 16 * MIB)
    with disk_machine(lab, disk, backend=["-blockdev", bad_disk(disk, "vd")]) as machine:
        machine.boot()
        bad_sector(machine)


@case
def faults_under_load(lab):
    """Each fault ROUNDS times, seen by its detector and recovered, with a function-level reset; no request suffers."""
    faults = list(DISK_DETECTORS) * ROUNDS
    lab.random.shuffle(faults)
    records = []
    with disk_machine(lab, lab.disk(64 * MIB), limit="1000", window="1h") as machine:
        machine.boot()
        while faults:
            records += load_under_faults(lab, machine, faults, LOAD_SECONDS)
        stat = find_json(machine.run("stat --json"))
        canary = machine.status("hypervisor")["canary"]
    rows = faultlog.summary(records)
    lab.report("virtio-blk-faults", {"unit": "us", "summary": rows, "records": [record.as_dict() for record in records]})
    for name in ("blk_io_errors", "blk_protocol", "blk_unknown", "blk_doubled"):
        check(stat[name] == 0, f"the guest counts {name} = {stat[name]}")
    check(stat["blk_requests"] == stat["blk_completions"], "requests got lost")
    check(canary == "ok", "the hypervisor's canary was overwritten")
    wrong = [record.row() for record in records
             if record.kind != DISK_DETECTORS[record.injected] or record.outcome != "recovered"]
    check(not wrong, f"seen by another detector, or not recovered: {wrong[:3]}")
    check({record.fields["reset"] for record in records} == {"flr"}, "another reset than the function's own")


# ---- the network ----

def use_network(lab, properties="", interrupts="MSI"):
    """One pass over what the network is for."""
    port = free_port()
    files = pathlib.Path(lab.folder) / "files"
    files.mkdir()
    data = lab.random.randbytes(4 * MIB)
    (files / "data").write_bytes(data)
    with HostFiles(files) as server, net_machine(lab, f"user,id=n,hostfwd=tcp:127.0.0.1:{port}-:80", properties) as machine:
        machine.boot()
        check("10.0.2.15" in machine.run("ifconfig dhcp"), "DHCP gave another address")
        machine.run(f"ping {GATEWAY} 5")
        machine.run(f"ping {GATEWAY} 3 -s 4000")
        machine.run("http serve 80")
        check(host_run("curl", "-sS", f"http://127.0.0.1:{port}/4M") == served_file(4 * MIB),
              "what the guest serves arrived otherwise")
        result = find_json(machine.run(f"http get http://{GATEWAY}:{server.port}/data", 120))
        check(result["sha256"] == hashlib.sha256(data).hexdigest(), f"the guest fetched {result}")
        counters(machine)
        fields = machine.status("vm", "net0")
        check(fields["faults"] == 0 and fields["generation"] == 0, f"the driver VM did not last: {fields}")
        check(fields["interrupts"] == interrupts, f"it interrupts in another way: {fields}")
    (files / "data").unlink()


@case
def network(lab):
    use_network(lab)


@case
def network_of_a_device_that_offers_little(lab):
    use_network(lab, ",indirect_desc=off,event_idx=off,ctrl_vq=off,status=off")


@case
def network_without_messages(lab):
    use_network(lab, ",vectors=0", "INTx")


def set_link(machine, up):
    """Plug or unplug the cable and wait until the guest has seen it."""
    qmp(machine.folder, "set_link", {"name": "n", "up": up})
    deadline = time.monotonic() + 20
    while find_json(machine.run("ifconfig --json"))["link"] is not up:
        check(time.monotonic() < deadline, f"the guest does not see that the link is {'up' if up else 'down'}")


@case
def link_and_receive_mode(lab):
    """The link goes and comes; the guest's promiscuous mode is the device's, and its successor's."""
    with net_machine(lab) as machine:
        machine.boot()
        machine.run(ADDRESS)
        set_link(machine, False)
        machine.run(f"ping {GATEWAY} 1", status=1)
        set_link(machine, True)
        machine.run(f"ping {GATEWAY} 2")
        machine.run("ifconfig promisc on")
        check(receive_mode(machine)["promiscuous"] is True, "the device is not promiscuous")
        inject(machine, "net0", "crash")
        machine.run(f"ping {GATEWAY} 2")
        check(receive_mode(machine)["promiscuous"] is True, "the device is no longer promiscuous after a restart")
        machine.run("ifconfig promisc off")
        check(receive_mode(machine)["promiscuous"] is False, "the device is still promiscuous")
        counters(machine)


def receive_mode(machine):
    """What the device itself says."""
    return qmp(machine.folder, "query-rx-filter")[0]


@case
def a_guest_that_starts_again(lab):
    """A new guest takes over the device from the old one: receive buffers come back without a packet."""
    with net_machine(lab) as machine:
        machine.boot()
        machine.run(ADDRESS)
        machine.run(f"ping {GATEWAY} 2")
        machine.control.ask("restart main")
        machine.shell_start(60)
        machine.run(ADDRESS)
        machine.run(f"ping {GATEWAY} 2")
        check(machine.status("vm", "net0")["faults"] == 0, "the driver VM failed")


CLONE_NEWNET = 0x40000000
TAP_SETUP = ("ip link set lo up && ip tuntap add dev tap0 mode tap && ip addr add 10.9.0.1/24 dev tap0 && "
             "ip link set tap0 up")


@contextlib.contextmanager
def tap_network():
    """A network namespace of its own for what is started meanwhile, with a TAP device; its address is 10.9.0.1. False: we may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        allowed = libc.unshare(CLONE_NEWNET) == 0
        yield allowed and subprocess.run(["sh", "-c", TAP_SETUP], capture_output=True, check=False).returncode == 0
    finally:
        check(libc.setns(before, CLONE_NEWNET) == 0, "the way back out of the network namespace is closed")
        os.close(before)


@case
def offloads(lab):
    """A TAP device offers what QEMU's user network does not: checksums and TCP segmentation in the device. Linux is the peer."""
    with tap_network() as allowed:
        if not allowed:
            lab.say("| offloads: nothing was tested, TAP devices need privileges that are not there")
            return
        with net_machine(lab, "tap,id=n,ifname=tap0,script=no,downscript=no") as machine:
            machine.boot()
            machine.run("ifconfig 10.9.0.2/24 10.9.0.1")
            machine.run("ping 10.9.0.1 2")
            check(driver_said(machine, "checksums, cuts segments, filter"), "the device offers less")
            machine.run("http serve 80")
            before = counters(machine)
            data = host_run("curl", "-sS", "http://10.9.0.2/20M")
            after = counters(machine)
            check(data == served_file(BULK), "the file arrived otherwise")
            frames = after["tx_frames"] - before["tx_frames"]
            check(frames < BULK / 1460 / 4, f"{frames} frames for {BULK} bytes: the device did not cut the segments")
            fetch(lab, machine, data)
            counters(machine)


def fetch(lab, machine, data):
    """The guest fetches data from the host: Linux leaves the checksums to whoever receives."""
    (lab.folder / "data").write_bytes(data)
    server = host_program("/usr/bin/python3", "-m", "http.server", "--bind", "10.9.0.1", "--directory", str(lab.folder), "8000")
    try:
        # Its listening is not announced on a pipe; the guest tries until somebody answers.
        deadline = time.monotonic() + 20
        while machine.command("http get 10.9.0.1:8000/ discard", 60)[1] != 0:
            check(server.poll() is None and time.monotonic() < deadline, "the host's HTTP server does not start")
        result = find_json(machine.run("http get 10.9.0.1:8000/data", 120))
        check(result["sha256"] == hashlib.sha256(data).hexdigest(), f"got {result}")
    finally:
        server.kill()
        server.communicate()
        (lab.folder / "data").unlink()


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


@case
def faults_during_transfers(lab):
    """Transfers until the list of faults is empty. No connection may be reset, no byte differ."""
    port = free_port()
    faults = list(DETECTORS) * ROUNDS
    lab.random.shuffle(faults)
    expected = hashlib.sha256(served_file(BULK)).hexdigest()
    records = []
    with net_machine(lab, f"user,id=n,hostfwd=tcp:127.0.0.1:{port}-:80") as machine:
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
    check({record.fields["reset"] for record in records} == {"flr"}, "another reset than the function's own")
    rows = faultlog.summary(records)
    lab.report("virtio-net-faults", {"unit": "us", "summary": rows})
    for row in rows:
        lab.say(f"| {row}")


if __name__ == "__main__":
    main()
