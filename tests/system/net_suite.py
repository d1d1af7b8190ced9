"""
What every network driver has to do: one list of cases, and one table of the network cards that they are for. The peers are
programs that nobody here wrote: QEMU's user network with its DHCP, curl, iperf3, Python's HTTP server.

A new network driver gets a line in NICS. Cases that only one device can have stand in that device's own test file.
"""

import dataclasses
import hashlib
import json
import pathlib
import socket
import struct
import threading
import time

from bare import free_port
from driver_suite import DETECTORS, canary_lives, inject, judge, one_of_each, publish, undisturbed
from harness import MIB, check, find_json, guest, manifest
from host_network import ADDRESS, GATEWAY, IPERF_SECONDS, HostFiles, counters, host_program, host_run, served_file
from bulkhead_lib import devices
from bulkhead_lib.debug import qmp
from bulkhead_lib.machine import STATUS

VM = "net0"
BACKEND = f"{VM}-backend"
FAULTS_INJECTED = 12
BULK = 20 * MIB
FRAMES = 100  # that are for somebody else
# To a MAC address that nobody has, and to everybody; from another one, of an EtherType for experiments (IEEE 802).
FOREIGN_FRAME = bytes.fromhex("525400dddddd" "525400cccccc" "88b5") + bytes(100)
BROADCAST_FRAME = b"\xff" * 6 + FOREIGN_FRAME[6:]


@dataclasses.dataclass(frozen=True)
class Nic:
    name: str  # the model of scripts/bulkhead_lib/devices.py
    reset: str  # what the hypervisor can do to the device: `reset=` of its fault records
    interrupts: str = "MSI"
    root_bus: bool = False  # it stands on bus 0 although it is a device of PCI Express

    @property
    def faults(self):
        return [fault for fault in DETECTORS if fault != "restart"]


E1000 = Nic("e1000", "driver", "INTx")
E1000E = Nic("e1000e", "bus")
VIRTIO_NET = Nic("virtio-net", "flr")
NICS = (E1000, E1000E, VIRTIO_NET)


def net_machine(lab, nic, netdev, properties="", more=(), **keys):
    """
    A machine whose only network card for the guest is this one. netdev: the argument of -netdev for one called BACKEND;
    properties: of the card, each with its comma; more of QEMU's arguments; keys: of the driver VM's section in the manifest.
    """
    entries = devices.layout([], [nic.name])
    if nic.root_bus:
        entries = [dataclasses.replace(entries[0], port=None, address="00:08.0")]
    arguments = devices.arguments(entries)
    arguments[-1] += properties
    return lab.machine(manifest(entries[0].section(**keys), guest()), sata_disk=False,
                       extra=["-netdev", netdev, *arguments, *more])


def user_network(forward=()):
    """QEMU's user network; forward: (host port, guest port)."""
    return f"user,id={BACKEND}" + "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{inside}" for host, inside in forward)


class Wire:
    """Frames of our own for the card, between those of its backend, through a filter of QEMU's; connect() once that runs."""

    def __init__(self):
        self.port = free_port()
        self.socket = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._chatter, daemon=True)

    def arguments(self):
        return ["-chardev", f"socket,id=frames,host=127.0.0.1,port={self.port},server=on,wait=off",
                "-object", f"filter-redirector,id=frames-in,netdev={BACKEND},queue=tx,indev=frames"]

    def connect(self):
        self.socket = socket.create_connection(("127.0.0.1", self.port), 10)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.silence()
        if self.socket:
            self.socket.close()

    def send(self, *frames):
        self.socket.sendall(b"".join(struct.pack(">I", len(frame)) + frame for frame in frames))

    def chatter(self):
        """From now on a broadcast every few ms, so that receive buffers are used up whatever else happens."""
        self.thread.start()

    def silence(self):
        self.stop.set()
        if self.thread.is_alive():
            self.thread.join()

    def _chatter(self):
        while not self.stop.wait(0.003):
            try:
                self.send(BROADCAST_FRAME)
            except OSError:
                return  # the machine has ended, and others will say why


# ---- everything that works without a fault ----

def functions(lab, device):
    """DHCP, ping, HTTP and iperf3 both ways, the link, the receive mode, a guest that starts again."""
    web, iperf = free_port(), free_port()
    netdev = user_network([(web, 80), (iperf, 5201)])
    with Wire() as wire, net_machine(lab, device, netdev, more=wire.arguments(), limit="1000") as machine:
        machine.boot()
        wire.connect()
        fields = machine.status("vm", VM)
        check((fields["dma"], fields["interrupts"]) == ("isolated", device.interrupts), f"DMA or interrupts are others: {fields}")
        check("10.0.2.15" in machine.run("ifconfig dhcp"), "DHCP gave another address")
        answers(machine)
        transfers(lab, machine, web)
        throughput(lab, machine, device, iperf)
        link_down_and_up(machine)
        # A new guest takes over the device from the old one: receive buffers come back without a packet.
        machine.control.ask("restart main")
        machine.shell_start(60)
        machine.run(ADDRESS)
        answers(machine)
        undisturbed(machine, VM)
        survives_without_a_link(machine)
        receive_mode(machine, wire)
        canary_lives(machine)


def answers(machine):
    """Echo requests in one frame and in fragments."""
    machine.run(f"ping {GATEWAY} 20 -f")
    machine.run(f"ping {GATEWAY} 10 -f -s 4000")


def transfers(lab, machine, port):
    """The host fetches from the guest and the guest from the host, every byte compared."""
    files = pathlib.Path(lab.folder) / "files"
    files.mkdir(exist_ok=True)
    data = lab.random.randbytes(4 * MIB)
    (files / "data").write_bytes(data)
    machine.run("http serve 80")
    check(host_run("curl", "-sS", f"http://127.0.0.1:{port}/4M") == served_file(4 * MIB),
          "what the guest serves arrived otherwise")
    with HostFiles(files) as server:
        result = find_json(machine.run(f"http get http://{GATEWAY}:{server.port}/data", 120))
    (files / "data").unlink()
    check(result["sha256"] == hashlib.sha256(data).hexdigest(), f"the guest fetched {result}")
    counters(machine)


def throughput(lab, machine, device, port):
    """Debian's iperf3 against the guest's, both directions."""
    for extra in ([], ["-R"]):
        machine.send("iperf3 -s -1")
        machine.expect("serving on port", 20)
        report = json.loads(host_run("iperf3", "-J", "-c", "127.0.0.1", "-p", str(port), "-t", str(IPERF_SECONDS), *extra))
        check(machine.finish("iperf3 -s -1")[1] == 0, "the guest's iperf3 failed")
        received = report["end"]["sum_received"]["bytes"]
        lab.say(f"| {device.name}, {'from' if extra else 'to'} the guest: {received / IPERF_SECONDS / 1e6:.1f} MB/s")
        check(received > MIB // 4, f"only {received} bytes arrived")
    counters(machine)


# ---- link and receive mode ----

def link(machine):
    return find_json(machine.run("ifconfig --json"))["link"]


def set_link(machine, up):
    """Plug or unplug the cable and wait until the guest has seen it; a controller may negotiate for half a second."""
    qmp(machine.folder, "set_link", {"name": VM, "up": up})
    deadline = time.monotonic() + 20
    while link(machine) is not up:
        check(time.monotonic() < deadline, f"the guest does not see that the link is {'up' if up else 'down'}")


def link_down_and_up(machine):
    set_link(machine, False)
    machine.run(f"ping {GATEWAY} 1", status=1)
    set_link(machine, True)
    answers(machine)


def survives_without_a_link(machine):
    """A driver that starts while the cable is out says so, and works when it is back."""
    set_link(machine, False)
    inject(machine, VM, "crash")
    check(link(machine) is False, "the new driver sees a link that is not there")
    set_link(machine, True)
    answers(machine)


def receive_mode(machine, wire):
    """Frames for others arrive in promiscuous mode only; a new driver has the mode of the one that crashed."""
    check_filter(machine, wire, False)
    machine.run("ifconfig promisc on")
    check_filter(machine, wire, True)
    inject(machine, VM, "crash")
    check_filter(machine, wire, True)
    machine.run("ifconfig promisc off")
    check_filter(machine, wire, False)
    answers(machine)


def check_filter(machine, wire, promiscuous):
    """Frames on the wire keep their order: with the last broadcast, all before it have met the filter."""
    expected = 10 + (FRAMES if promiscuous else 0)
    before = counters(machine)["rx_frames"]
    wire.send(*[FOREIGN_FRAME] * FRAMES, *[BROADCAST_FRAME] * 10)
    deadline = time.monotonic() + 20
    while (arrived := counters(machine)["rx_frames"] - before) < expected:
        check(time.monotonic() < deadline, f"{arrived} of {expected} frames arrived")
    # A few more may be anybody's: ARP, mostly.
    check(arrived < expected + FRAMES // 4, f"{arrived} frames arrived, {expected} were for us")


# ---- faults ----

def faults_during_transfers(lab, device):
    """
    Faults at random moments of transfers in both directions: each seen by its own detector, no connection reset, no byte
    different. There is chatter on the wire, which wild DMA needs: it is a receive buffer's. One fault more than the policy
    allows, and nothing comes from the device; the operator brings it back.
    """
    port = free_port()
    faults = one_of_each(lab, device.faults, FAULTS_INJECTED)
    files = pathlib.Path(lab.folder) / "files"
    files.mkdir()
    data = lab.random.randbytes(BULK)
    (files / "data").write_bytes(data)
    keys = {"limit": FAULTS_INJECTED, "window": "1h"}
    with (HostFiles(files) as server, Wire() as wire,
          net_machine(lab, device, user_network([(port, 80)]), more=wire.arguments(), **keys) as machine):
        machine.boot()
        wire.connect()
        wire.chatter()
        machine.run(ADDRESS)
        machine.run("http serve 80")
        records = []
        sending, receiving = faults[:FAULTS_INJECTED // 2], faults[FAULTS_INJECTED // 2:]
        while sending:
            records += faults_while_sending(lab, machine, device, port, sending)
        while receiving:
            records += faults_while_receiving(lab, machine, device, f"http://{GATEWAY}:{server.port}/data", data, receiving)
        answers_again(machine)
        counters(machine)
        wire.silence()
        giving_up(machine, wire)
        canary_lives(machine)
    (files / "data").unlink()
    publish(lab, device.name, faults, records)


def faults_during(lab, machine, device, faults, goes_on):
    """Takes faults off the list and injects them for as long as goes_on() says so; their records."""
    records = []
    while faults and goes_on():
        # A random moment, from the seed: the wait is the point, not a guess at how long something takes.
        time.sleep(lab.random.uniform(0.01, 0.1))
        fault = faults.pop(0)
        records.append(inject(machine, VM, fault))
        judge(records[-1], fault, device.reset)
    return records


def faults_while_sending(lab, machine, device, port, faults):
    """curl fetches from the guest."""
    # Slowly enough for faults to hit: curl reads what the guest sends, and the guest waits for it.
    command = f"curl -sS --limit-rate 8M http://127.0.0.1:{port}/{BULK // MIB}M | sha256sum"
    program = host_program("bash", "-o", "pipefail", "-c", command)
    records = faults_during(lab, machine, device, faults, lambda: program.poll() is None)
    output, errors = program.communicate(timeout=120)
    expected = hashlib.sha256(served_file(BULK)).hexdigest()
    check(program.returncode == 0 and expected in output, f"{errors}, {output}")
    return records


def faults_while_receiving(lab, machine, device, url, data, faults):
    """The guest fetches from the host."""
    machine.send(f"http get {url}")
    records = faults_during(lab, machine, device, faults, lambda: not STATUS.search(machine.text, machine.position))
    output, status = machine.finish(f"http get {url}", 120)
    check(status == 0 and hashlib.sha256(data).hexdigest() in output, f"the guest fetched {output.strip()!r}")
    return records


def answers_again(machine):
    """After a restart frames may have been lost: not every reply is owed."""
    machine.run(f"ping {GATEWAY} 5 -f", status=None)
    answers(machine)


def giving_up(machine, wire):
    """Nothing that looks like a packet comes from a device that nobody drives, and the operator brings it back."""
    before = counters(machine)["rx_frames"]
    check(inject(machine, VM, "crash").outcome == "gave-up", "the policy's limit was exceeded")
    wire.send(*[BROADCAST_FRAME] * 10)
    machine.run(f"ping {GATEWAY} 1", status=1)
    check(machine.status("vm", VM)["state"] == "failed", "it was not given up")
    check(counters(machine)["rx_frames"] == before, "frames came from nowhere")
    machine.control.ask(f"restart {VM}")
    answers_again(machine)


CASES = (functions, faults_during_transfers)
