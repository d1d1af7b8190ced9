"""The network: TCP both ways with Debian's iperf3 as the peer, and ping's round trips."""

import contextlib
import functools
import subprocess
import threading

from .. import devices, network
from ..bare import free_port
from ..guest_output import find_json
from ..machine import die_with_parent
from ..ui import Failure
from . import figures, rounds
from .sides import BareSide, BulkheadSide

BARE_MODEL = "virtio-net"
BARE_CARD = devices.Device("net0", BARE_MODEL, "", None)
BARE_DEVICE = f"virtio-net-pci,netdev={BARE_CARD.backend},disable-legacy=on,romfile="
PINGS = 1000  # for each second that was asked for
TO, FROM, PING = "TCP to the guest", "TCP from the guest", "ping x1"
# The figure whose ratio counts, and of what CPU time and instructions are told.
FIGURES = {TO: ("MB/s", "KiB"), FROM: ("MB/s", "KiB"), PING: ("round trips/s", "packet")}


def steps(setting, modes):
    return len(FIGURES) * setting.rounds * (len(modes) + 1)


class Peer:
    """
    What one machine's card is plugged into, and Debian's iperf3 there as a server. user: 10.0.2.2 is QEMU itself, which makes connections of its
    own to the host's 127.0.0.1. netns: Linux at the other end of a TAP device.
    """

    def __init__(self, kind, card, name):
        with contextlib.ExitStack() as stack:
            self.network = stack.enter_context(network.Namespace([card], name) if kind == "netns" else network.user([card], []))
            listen, self.host, guest = (("10.77.0.1", "10.77.0.1", "10.77.0.2") if kind == "netns"
                                        else ("127.0.0.1", "10.0.2.2", "10.0.2.15"))
            self.configure = f"ifconfig {guest}/24 {self.host}"
            self.port = free_port()
            command = ["iperf3", "-s", "-B", listen, "-p", str(self.port), "--forceflush"]
            if kind == "netns":
                command = network.inside(self.network.facts["namespace"], command)
            self.server = stack.enter_context(_server(command))
            self.stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stack.close()


@contextlib.contextmanager
def _server(command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=die_with_parent)
    try:
        said = ""
        while "listening" not in said:
            line = process.stdout.readline()
            if not line:
                raise Failure(f"iperf3 does not start on the host: {said.strip()}")
            said += line
        # What else it says is not for us, but its pipe must not fill.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield process
    finally:
        process.kill()
        process.wait()


def measure(setting, model, modes, progress):
    """One entry for each grant mode."""
    device = devices.layout([], [model])[0]
    with contextlib.ExitStack() as stack:
        peers = {name: stack.enter_context(Peer(setting.net, card, f"{setting.name}-{name}"))
                 for name, card in [*((mode, device) for mode in modes), (figures.BARE, BARE_CARD)]}
        sides = [BulkheadSide(setting, mode, device, peers[mode].network) for mode in modes]
        sides.append(BareSide(setting, BARE_DEVICE, peers[figures.BARE].network))
        workloads = {TO: functools.partial(_transfer, peers=peers, option=" -R"),
                     FROM: functools.partial(_transfer, peers=peers, option=""),
                     PING: functools.partial(_pings, peers=peers)}
        samples = rounds.measure(setting, sides, workloads, progress, model)
    return figures.entries(setting, samples, model, BARE_MODEL, FIGURES)


def _transfer(side, peers, option):
    peer = peers[side.name]
    side.run(peer.configure, 20)
    command = f"iperf3 -c {peer.host} -p {peer.port} -t {side.setting.seconds}{option}"
    result, delta = rounds.counted(side, lambda: find_json(side.run(command, 60 + 10 * side.setting.seconds)))
    packets = result["rx_frames"] + result["tx_frames"]
    # What the receiver counts: the sender's last bytes may not have arrived when the time was over.
    arrived = result["peer_bytes"] if result["sender"] else result["bytes"]
    # A packet is what the guest's driver puts into its queue: up to 64 KiB where the device cuts them. So work is told for a
    # KiB, exits for a packet.
    exits = {key: value for key, value in figures.costs(delta, packets).items() if key in ("exits", "exits_by")}
    return {"MB/s": arrived / result["elapsed_us"], "packets/s": packets * 1e6 / result["elapsed_us"],
            "packet_bytes": arrived / max(1, packets), **figures.costs(delta, arrived / 1024), **exits}


def _pings(side, peers):
    peer = peers[side.name]
    side.run(peer.configure, 20)
    if PING not in side.overhead:
        side.overhead[PING] = rounds.counted(side, lambda: _ping(side, peer, 1))
    result, delta = rounds.counted(side, lambda: _ping(side, peer, PINGS * side.setting.seconds))
    return {"round trips/s": 1e6 / max(1, result["mean_us"]), "mean_us": result["mean_us"], "max_us": result["max_us"],
            **figures.costs(delta, 2 * result["replies"], side.overhead[PING][1], 2)}


def _ping(side, peer, count):
    # A reply that does not come is counted, and waited for longer than all others together take.
    result = find_json(side.run(f"ping {peer.host} {count} -f", 60 + count, (0, 1)))
    if result["replies"] < result["pings"] * 0.99:
        raise Failure(f"{side.name}: only {result['replies']} of {result['pings']} pings were answered")
    return result
