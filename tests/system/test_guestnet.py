"""guestos' network by itself: its virtio-net driver on QEMU's device, no hypervisor, peers that nobody here wrote."""

import hashlib
import json
import pathlib
import socket
import subprocess
import time

from bare import BareMachine, free_port
from ethernet_peer import ICMP, EthernetPeer, checksum, ip_packet
from harness import MIB, case, check, find_json, main
from host_network import ADDRESS, GATEWAY, IPERF_SECONDS, HostFiles, counters, fetch_from_host, host_program, host_run, served_file

LABEL = "net"
TIMEOUT = 300


def user_network(lab, forward=()):
    """A machine on QEMU's user network; forward: (host port, guest port)."""
    ports = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for host, guest in forward)
    return BareMachine(lab, ["-netdev", f"user,id=n{ports}", "-device", "virtio-net-pci,disable-legacy=on,netdev=n"])


@case
def address_and_ping(lab):
    """An address by DHCP and a fixed one; replies of the gateway, in one frame and in fragments; the link goes and comes."""
    with user_network(lab) as machine:
        machine.boot()
        check("10.0.2.15" in machine.run("ifconfig dhcp"), "DHCP gave another address")
        check("3 received" in machine.run(f"ping {GATEWAY} 3"), "replies are missing")
        output = machine.run("ifconfig 10.0.2.99/24 10.0.2.2 10.0.2.3")
        check("10.0.2.99" in output and "by DHCP" not in output, f"the fixed address was not taken: {output}")
        machine.run(f"ping {GATEWAY} 2 -s 4000")
        machine.run("ifconfig promisc on")
        machine.run("ifconfig promisc off")
        machine.monitor("set_link", {"name": "n", "up": False})
        check("link down" in machine.run("ifconfig"), "the link is still up")
        machine.run(f"ping {GATEWAY} 1", status=1)
        machine.monitor("set_link", {"name": "n", "up": True})
        machine.run(f"ping {GATEWAY} 2")
        check(counters(machine)["link"] is True, "the link is still down")


@case
def guest_serves(lab):
    """curl against the guest's HTTP server: status page, errors, a file, four at once, while the shell is busy otherwise."""
    port = free_port()
    with user_network(lab, [(port, 80)]) as machine:
        machine.boot()
        machine.run(ADDRESS)
        machine.run("http serve 80")
        url = f"http://127.0.0.1:{port}"
        check(b"guestos" in host_run("curl", "-sS", f"{url}/"), "no status page")
        head = host_run("curl", "-sSI", f"{url}/1M").decode()
        check("200 OK" in head and f"Content-Length: {MIB}" in head, f"HEAD says {head}")
        for path, status in (("/no", b"404"), ("/12X", b"404")):
            got = host_run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url + path)
            check(got == status, f"{path} gives {got}")
        expected = hashlib.sha256(served_file(10 * MIB)).hexdigest()
        machine.send("sleep 8")
        check(hashlib.sha256(host_run("curl", "-sS", f"{url}/10M")).hexdigest() == expected, "the file arrived otherwise")
        programs = [host_program("sh", "-c", f"curl -sS {url}/10M | sha256sum") for _ in range(4)]
        for program in programs:
            check(expected in program.communicate(timeout=60)[0], "one of four files arrived otherwise")
        machine.finish("sleep 8")
        machine.run("http stop")
        counters(machine)


@case
def guest_fetches(lab):
    """The guest fetches from Python's HTTP server; SHA-256 of both ends."""
    data = lab.random.randbytes(10 * MIB)
    files = pathlib.Path(lab.folder) / "files"
    files.mkdir()
    (files / "data").write_bytes(data)
    with HostFiles(files) as server, user_network(lab) as machine:
        machine.boot()
        machine.run(ADDRESS)
        result = find_json(machine.run(f"http get http://{GATEWAY}:{server.port}/data", 120))
        check(result["bytes"] == len(data) and result["sha256"] == hashlib.sha256(data).hexdigest(), f"got {result}")
        machine.run(f"http get {GATEWAY}:{server.port}/data discard", 120)
        check("404" in machine.run(f"http get http://{GATEWAY}:{server.port}/none", status=1), "not a 404")
        machine.run(f"http get http://{GATEWAY}:{free_port()}/", status=1)
        counters(machine)
    (files / "data").unlink()


def check_rate(name, received, lab):
    lab.say(f"| {name}: {received / IPERF_SECONDS / 1e6:.0f} MB/s")
    check(received > MIB, f"{name}: only {received} bytes arrived")


@case
def iperf3_against_guest(lab):
    """Debian's iperf3 as the client: both directions, three streams, and a test that the guest refuses."""
    port = free_port()
    with user_network(lab, [(port, 5201)]) as machine:
        machine.boot()
        machine.run(ADDRESS)
        for extra in ([], ["-R"], ["-R", "-P", "3"]):
            machine.send("iperf3 -s -1")
            machine.expect("serving on port", 20)
            report = json.loads(host_run("iperf3", "-J", "-c", "127.0.0.1", "-p", str(port), "-t", str(IPERF_SECONDS), *extra))
            output, status = machine.finish("iperf3 -s -1")
            mine = find_json(output)
            check(status == 0 and mine["sender"] == bool(extra), f"the guest ended with {status}: {output}")
            received = report["end"]["sum_received"]["bytes"]
            check_rate(f"iperf3 {' '.join(extra)}", received, lab)
            # The sender may count what had not arrived when the time was over: up to both sides' buffers.
            check(received == (mine["peer_bytes"] if extra else mine["bytes"]), f"{received} bytes against {mine}")
        machine.send("iperf3 -s -1")
        machine.expect("serving on port", 20)
        program = host_program("iperf3", "-u", "-c", "127.0.0.1", "-p", str(port), "-t", "1")
        output, status = machine.finish("iperf3 -s -1")
        check(status == 1 and "not supported" in output, f"UDP: {status}, {output}")
        program.communicate(timeout=20)
        counters(machine)


@case
def iperf3_of_host(lab):
    """The guest as the client of Debian's iperf3 server, both directions, and `net bench`."""
    with user_network(lab) as machine:
        machine.boot()
        machine.run(ADDRESS)
        port = free_port()
        server = host_program("iperf3", "-s", "-B", "127.0.0.1", "-p", str(port), "--forceflush")
        try:
            while "listening" not in server.stdout.readline():
                check(server.poll() is None, "the host's iperf3 does not start")
            for options, sender in (("", True), ("-R", False), ("-P 3", True)):
                mine = find_json(machine.run(f"iperf3 -c {GATEWAY} -p {port} -t {IPERF_SECONDS} {options}".rstrip()))
                check(mine["sender"] is sender, f"the direction is wrong: {mine}")
                check_rate(f"guest's iperf3 {options}", mine["peer_bytes"] if sender else mine["bytes"], lab)
            machine.run(f"net bench {GATEWAY} -t 1 -p {port}")
        finally:
            server.kill()
            server.communicate()
        machine.run(f"iperf3 -c {GATEWAY} -p {port} -t 1", status=1)
        counters(machine)


# In a network namespace of its own, which ends with QEMU: a TAP device, whose other end is 10.9.0.1.
TAP_SETUP = ("ip link set lo up && ip tuntap add dev tap0 mode tap && ip addr add 10.9.0.1/24 dev tap0 && "
             "ip link set tap0 up && exec \"$@\"")


def can_use_tap():
    """Whether this user may make TAP devices and network namespaces here."""
    script = TAP_SETUP.replace('exec "$@"', "true")
    return subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, check=False).returncode == 0


@case
def offloads(lab):
    """A TAP device offers what QEMU's user network does not: checksums and TCP segmentation in the device. Linux is the peer."""
    if not can_use_tap():
        lab.say("| offloads: nothing was tested, TAP devices need privileges that are not there")
        return
    device = ["-netdev", "tap,id=n,ifname=tap0,script=no,downscript=no",
              "-device", "virtio-net-pci,disable-legacy=on,netdev=n"]
    with BareMachine(lab, device, ["unshare", "-n", "sh", "-c", TAP_SETUP, "sh"]) as machine:
        inside = ("nsenter", "-t", str(machine.process.pid), "-n")
        machine.boot()
        machine.run("ifconfig 10.9.0.2/24 10.9.0.1")
        machine.run("ping 10.9.0.1 2")
        machine.run("http serve 80")
        size = 30 * MIB
        before = counters(machine)
        data = host_run(*inside, "curl", "-sS", "http://10.9.0.2/30M")
        after = counters(machine)
        check(data == served_file(size), "the file arrived otherwise")
        frames = after["tx_frames"] - before["tx_frames"]
        check(frames < size / 1460 / 4, f"{frames} frames for {size} bytes: the device did not cut the segments")
        fetch_from_host(lab, machine, data, inside)
        counters(machine)


@case
def lines_over_tcp(lab):
    """nc: what is typed arrives, what arrives is shown, and both ends may end it."""
    port = free_port()
    with user_network(lab, [(port, 7)]) as machine, socket.socket() as listener:
        machine.boot()
        machine.run(ADDRESS)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(20)
        machine.send(f"nc {GATEWAY} {listener.getsockname()[1]}")
        with listener.accept()[0] as connection, connection.makefile("rw") as stream:
            connection.settimeout(20)
            machine.type("typed in the guest\n")
            check(stream.readline() == "typed in the guest\n", "the line did not arrive")
            stream.write("from the host\n")
            stream.flush()
            machine.expect("from the host", 20)
        check(machine.finish("nc")[1] == 0, "nc did not end with its peer")
        machine.send("nc -l 7")
        with connect(port) as connection:
            connection.sendall(b"hello, listener\n")
            machine.expect("hello, listener", 20)
            machine.type("\x04")
            check(connection.recv(1) == b"", "Ctrl-D did not end the guest's side")
        check(machine.finish("nc")[1] == 0, "nc -l did not end")


def connect(port):
    """QEMU accepts before the guest listens; a connection that the guest refused is tried again."""
    deadline = time.monotonic() + 20
    while True:
        connection = socket.create_connection(("127.0.0.1", port), 20)
        connection.settimeout(0.5)
        try:
            if connection.recv(1, socket.MSG_PEEK) == b"" and time.monotonic() < deadline:
                connection.close()
                continue
        except TimeoutError:
            connection.settimeout(20)
            return connection
        except ConnectionError:
            connection.close()
            check(time.monotonic() < deadline, "the guest does not listen")


def two_networks(lab, extra=(), nets=("10.0.2.0/24", "10.0.3.0/24"), forward=("", "")):
    """A machine with two cards, each on a user network of its own."""
    arguments = list(extra)
    for number, net in enumerate(nets):
        arguments += ["-netdev", f"user,id=n{number},net={net}{forward[number]}",
                      "-device", f"virtio-net-pci,disable-legacy=on,netdev=n{number}"]
    return BareMachine(lab, arguments)


@case
def two_cards(lab):
    """Two cards on two networks fetch at once, one of them to a disk; each serves; the default is the first with an address."""
    data = lab.random.randbytes(8 * MIB + 333)
    digest = hashlib.sha256(data).hexdigest()
    files = pathlib.Path(lab.folder) / "files"
    files.mkdir()
    (files / "data").write_bytes(data)
    image = lab.folder / "disk.img"
    image.write_bytes(b"\xff" * (16 * MIB))
    ports = [free_port() for _ in range(2)]
    drive = ["-drive", f"if=none,id=d,format=raw,file={image}", "-device", "virtio-blk-pci,disable-legacy=on,drive=d"]
    forward = [f",hostfwd=tcp:127.0.0.1:{port}-:80" for port in ports]
    with HostFiles(files) as server, two_networks(lab, drive, forward=forward) as machine:
        machine.boot()
        check("net1: " in (output := machine.run("ifconfig net1 dhcp")) and ", default" in output, f"no default: {output}")
        check("no address" in machine.run(f"ping {GATEWAY} 1 --if net0", status=1), "net0 has no address")
        machine.run("ifconfig net0 10.0.2.15/24 10.0.2.2 10.0.2.3")
        default = [line.split(":")[0] for line in machine.run("ifconfig").splitlines() if ", default" in line]
        check(default == ["net0"], f"the default is {default}")
        before = counters(machine)["cards"]
        urls = [f"http://{host}:{server.port}/data" for host in (GATEWAY, "10.0.3.2")]
        result = find_json(machine.run(f"http get {urls[0]} {urls[1]}", 120))
        check([file["sha256"] for file in result["files"]] == [digest] * 2, f"got {result}")
        after = counters(machine)["cards"]
        for name in ("net0", "net1"):
            check(after[name]["rx_bytes"] - before[name]["rx_bytes"] > len(data), f"{name} did not carry its file: {after}")
        result = find_json(machine.run(f"http get {urls[1]} --if net1 --to /dev/vda", 120))
        check(result["sha256"] == digest, f"got {result}")
        check(digest in machine.run(f"sha256 /dev/vda {len(data)}"), "the disk holds something else")
        machine.run(f"http get {urls[0]}/none --to /dev/vda", status=1)
        machine.run("http serve 80")
        for port in ports:
            check(host_run("curl", "-sS", f"http://127.0.0.1:{port}/1M") == served_file(MIB), "the file arrived otherwise")
        counters(machine)
    written = image.read_bytes()
    end = -(-len(data) // 512) * 512
    check(written[:len(data)] == data and not any(written[len(data):end]), "the file on the disk is another")
    check(written[end:] == b"\xff" * (16 * MIB - end), "the disk was written beyond the file")
    (files / "data").unlink()
    image.unlink()


@case
def two_cards_in_one_network(lab):
    """What belongs to an address leaves through its card, also where both networks have the same name."""
    port = free_port()
    with two_networks(lab, nets=("10.0.2.0/24",) * 2, forward=("", f",hostfwd=tcp:127.0.0.1:{port}-10.0.2.16:80")) as machine:
        machine.boot()
        machine.run("ifconfig net0 10.0.2.15/24 10.0.2.2")
        machine.run("ifconfig net1 10.0.2.16/24 10.0.2.2")
        machine.run("http serve 80")
        for name in ("net0", "net1"):
            before = counters(machine)["cards"]
            machine.run(f"ping {GATEWAY} 2 --if {name}")
            after = counters(machine)["cards"]
            for other in ("net0", "net1"):
                moved = after[other]["rx_frames"] - before[other]["rx_frames"]
                check((moved >= 2) == (other == name), f"`ping --if {name}` over {other}: {moved} frames")
        check(host_run("curl", "-sS", f"http://127.0.0.1:{port}/1M") == served_file(MIB), "the file arrived otherwise")
        check(counters(machine)["cards"]["net1"]["tx_bytes"] > MIB, "the answer went out of the other card")


@case
def names_and_broken_frames(lab):
    """DNS; then frames of any kind and length, and damaged ICMP: none is answered, and the guest lives."""
    with EthernetPeer({"there.example": "10.7.0.77"}) as peer:
        with BareMachine(lab, ["-netdev", peer.netdev(), "-device", "virtio-net-pci,disable-legacy=on,netdev=n"]) as machine:
            machine.boot()
            machine.run("ifconfig 10.7.0.2/24 10.7.0.1 10.7.0.1")
            check("10.7.0.77: 2 sent, 2 received" in machine.run("ping there.example 2"), "the name was not resolved")
            machine.run("ping nowhere.example 1", status=1)
            check({"there.example", "nowhere.example"} <= set(peer.questions), f"questions: {peer.questions}")
            guest, me = socket.inet_aton("10.7.0.2"), socket.inet_aton("10.7.0.9")
            random = lab.random
            for _ in range(3000):
                payload = random.randbytes(random.randrange(0, 1480))
                kind = random.randrange(4)
                if kind == 0:
                    peer.send(peer.guest_mac + random.randbytes(random.randrange(2, 1508)))
                elif kind == 1:
                    peer.send_ip(ip_packet(random.choice((1, 2, 6, 17)), me, guest, payload))
                elif kind == 2:
                    packet = bytearray(ip_packet(6, me, guest, payload))
                    packet[random.randrange(20)] ^= 1 << random.randrange(8)
                    peer.send_ip(bytes(packet))
                else:
                    echo = struct_echo(payload)
                    packet = bytearray(ip_packet(ICMP, me, guest, echo))
                    packet[22] ^= 0x55  # its checksum
                    peer.send_ip(bytes(packet))
            check("2 received" in machine.run("ping there.example 2"), "the guest does not answer any more")
            found = find_json(machine.run("ifconfig --json"))
            check(found["rx_frames"] > 500 and found["resets"] == 0, f"frames were lost: {found}")


def struct_echo(payload):
    """An ICMP echo request with a correct checksum."""
    echo = b"\x08\0\0\0\0\1\0\1" + payload
    return echo[:2] + checksum(echo).to_bytes(2, "big") + echo[4:]


@case
def without_device(lab):
    """A machine without a network: every command says so, and nothing else changes."""
    with BareMachine(lab, []) as machine:
        machine.boot()
        for command in ("ifconfig", f"ping {GATEWAY}", "http serve 80", "iperf3 -s", "nc -l 7"):
            check("no network device" in machine.run(command, status=1), f"`{command}` says something else")


if __name__ == "__main__":
    main()
