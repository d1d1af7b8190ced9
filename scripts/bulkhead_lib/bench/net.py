"""The network: TCP both ways with Debian's iperf3 as the peer, and ping's round trips."""

import functools
import subprocess
import threading

from .. import devices
from ..bare import free_port
from ..guest_output import find_json
from ..machine import die_with_parent
from ..ui import Failure
from . import figures, rounds
from .sides import BareSide, BulkheadSide

BARE = "virtio-net"
BARE_DEVICE = "virtio-net-pci,netdev=backend,disable-legacy=on,romfile="
GATEWAY = "10.0.2.2"  # QEMU's user network; connections to it arrive at the host's 127.0.0.1
ADDRESS = f"ifconfig 10.0.2.15/24 {GATEWAY} 10.0.2.3"
PINGS = 1000  # for each second that was asked for
TO, FROM, PING = "TCP to the guest", "TCP from the guest", "ping, one at a time"
# The figure whose ratio counts, and of what CPU time and instructions are told.
FIGURES = {TO: ("MB/s", "KiB"), FROM: ("MB/s", "KiB"), PING: ("round trips/s", "packet")}


def steps(setting, modes):
    return len(FIGURES) * setting.rounds * (len(modes) + 1)


def backend(folder, name):
    return ["-netdev", f"user,id={name}"]


class IperfServer:
    """Debian's iperf3 as a server on the host, at a free port of 127.0.0.1. Use as a context manager."""

    def __enter__(self):
        self.port = free_port()
        self.process = subprocess.Popen(["iperf3", "-s", "-B", "127.0.0.1", "-p", str(self.port), "--forceflush"],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=die_with_parent)
        while "listening" not in (line := self.process.stdout.readline()):
            if not line:
                raise Failure("iperf3 does not start on the host")
        # What it says is not for us, but its pipe must not fill.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()


def measure(setting, model, modes, progress):
    """One entry for each grant mode."""
    sides = [BulkheadSide(setting, mode, devices.layout([], [model])[0], backend) for mode in modes]
    sides.append(BareSide(setting, BARE_DEVICE, backend))
    with IperfServer() as server:
        test = f"iperf3 -c {GATEWAY} -p {server.port} -t {setting.seconds}"
        workloads = {TO: functools.partial(_transfer, command=f"{test} -R"), FROM: functools.partial(_transfer, command=test),
                     PING: _pings}
        samples = rounds.measure(setting, sides, workloads, progress, model)
    return [{"device": model, "grants": mode, "bare": BARE, "same_device": model == BARE,
             "workloads": [{"workload": name, "item": item,
                            **figures.compare(samples[mode][name], samples["bare"][name], setting.figure(figure))}
                           for name, (figure, item) in FIGURES.items()]} for mode in modes]


def _transfer(side, command):
    side.run(ADDRESS, 20)
    result, delta = rounds.counted(side, lambda: find_json(side.run(command, 60 + 10 * side.setting.seconds)))
    packets = result["rx_frames"] + result["tx_frames"]
    # What the receiver counts: the sender's last bytes may not have arrived when the time was over.
    arrived = result["peer_bytes"] if result["sender"] else result["bytes"]
    # A packet is what the guest's driver puts into its queue: up to 64 KiB where the device cuts them. So work is
    # told for a KiB, exits for a packet.
    exits = {key: value for key, value in figures.costs(delta, packets).items() if key in ("exits", "exits_by")}
    return {"MB/s": arrived / result["elapsed_us"], "packets/s": packets * 1e6 / result["elapsed_us"],
            "packet_bytes": arrived / max(1, packets), **figures.costs(delta, arrived / 1024), **exits}


def _pings(side):
    side.run(ADDRESS, 20)
    result, delta = rounds.counted(side, lambda: _ping(side, PINGS * side.setting.seconds))
    if PING not in side.overhead:
        side.overhead[PING] = rounds.counted(side, lambda: _ping(side, 1))
    return {"round trips/s": 1e6 / max(1, result["mean_us"]), "mean_us": result["mean_us"], "max_us": result["max_us"],
            **figures.costs(delta, 2 * result["replies"], side.overhead[PING][1], 2)}


def _ping(side, count):
    # A reply that does not come is counted, and waited for longer than all others together take.
    result = find_json(side.run(f"ping {GATEWAY} {count} -f", 60 + count, (0, 1)))
    if result["replies"] < result["pings"] * 0.99:
        raise Failure(f"{side.name}: only {result['replies']} of {result['pings']} pings were answered")
    return result
