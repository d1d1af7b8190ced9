"""What the network cards of a machine are plugged into: QEMU's user network, TAP devices, a network namespace, nothing."""

import dataclasses
import errno
import fcntl
import os
import re
import shutil
import socket
import struct
import subprocess

from . import devices, namespace, paths
from .machine import Instance, die_with_parent
from .ui import Failure

KINDS = ("user", "netns", "tap", "none")
PYTHON = "/usr/bin/python3"
SIOCGIFFLAGS, IFF_UP = 0x8913, 1  # linux/sockios.h, linux/if.h
HOLDER_SECONDS = 20
FORWARD = re.compile(r"(?:(net\d+):)?(\d{1,5}):(\d{1,5})")
LOCALHOST = "127.0.0.1"


@dataclasses.dataclass
class Network:
    arguments: list  # -netdev arguments, one backend for each card
    notes: list  # what each card is plugged into, a line for the person at the console
    ways: list  # how the host's programs get to the guest: lines that a script's log wants, too
    facts: dict  # for instance.json
    descriptors: list = dataclasses.field(default_factory=list)  # of files that QEMU inherits

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for descriptor in self.descriptors:
            os.close(descriptor)


@dataclasses.dataclass(frozen=True)
class Forward:
    """A TCP port of the host's 127.0.0.1 that leads to one of the guest."""

    card: str  # net0, ...
    host: int
    guest: int


def parse_forward(text):
    """[CARD:]HOST:GUEST; HOST 0 stays 0."""
    match = FORWARD.fullmatch(text)
    if not match or int(match[2]) > 65535 or not 0 < int(match[3]) <= 65535:
        raise Failure(f"--forward {text}: this is not HOST:GUEST, two TCP ports (0:80 takes a free one of the host; "
                      "net1:8080:80 leads to the second card)")
    return Forward(match[1] or "net0", int(match[2]), int(match[3]))


def take_port(forward):
    """The same forward with a port that is free at this moment; Failure when the wanted one is not."""
    with socket.socket() as probe:
        # As QEMU does: connections of the past hold no port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, forward.host))
        except OSError as error:
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror.lower()})"
            raise Failure(f"--forward: port {forward.host} of {LOCALHOST} {why}; 0:{forward.guest} takes a free one") from None
        return dataclasses.replace(forward, host=probe.getsockname()[1])


def line(device, text):
    """What is said of a device when a machine starts."""
    return f"{device.vm:<5} {device.model:<11} {text}"


def _ifconfig(cards, card):
    """The guest's command for this card, whose name may be left out for the first one."""
    return "ifconfig" if card is cards[0] else f"ifconfig {card.vm}"


def user(cards, forwards):
    """QEMU's user network: no privileges; the guest reaches what this user can reach. A subnet of its own for each card."""
    unknown = {forward.card for forward in forwards} - {card.vm for card in cards}
    if unknown:
        raise Failure(f"--forward: there is no {', '.join(sorted(unknown))}; the machine has "
                      f"{', '.join(card.vm for card in cards) or 'no network card'}")
    chosen = []
    for forward in forwards:
        while (taken := take_port(forward)).host in [other.host for other in chosen]:
            if forward.host:
                raise Failure(f"--forward: port {forward.host} is named twice")
        chosen.append(taken)
    args, notes, ways = [], [], []
    for number, card in enumerate(cards):
        subnet = f"10.0.{2 + number}"
        rules = "".join(f",hostfwd=tcp:{LOCALHOST}:{forward.host}-:{forward.guest}" for forward in chosen if forward.card == card.vm)
        args += ["-netdev", f"user,id={card.backend},net={subnet}.0/24{rules}"]
        notes.append(line(card, f"QEMU's user network {subnet}.0/24; at the prompt: {_ifconfig(cards, card)} dhcp"))
    for forward in chosen:
        ways.append(f"{LOCALHOST}:{forward.host} -> guest port {forward.guest}" + (f" ({forward.card})" if len(cards) > 1 else ""))
    return Network(args, notes, ways, {"forwards": [dataclasses.asdict(forward) for forward in chosen]})


def unplugged(cards):
    """Cards with nobody at the other end."""
    args = []
    for number, card in enumerate(cards):
        # A hub with one port: a card without any backend makes QEMU warn.
        args += ["-netdev", f"hubport,id={card.backend},hubid={number}"]
    return Network(args, [line(card, "nobody at the other end") for card in cards], [], {})


def tap(cards, names):
    """TAP devices that the user has made: opened, nothing more."""
    if len(names) != len(cards):
        raise Failure(f"--net tap: name a TAP device for each network card (--tap NAME); cards: {len(cards)}, named: {len(names)}")
    descriptors, args, notes = [], [], []
    for card, name in zip(cards, names):
        descriptors.append(_open_existing(name))
        args += _tap_argument(card, descriptors[-1])
        notes.append(line(card, f"TAP device {name}" + ("" if _is_up(name) else f", which is down: ip link set {name} up")))
    return Network(args, notes, [], {"taps": names}, descriptors)


def _open_existing(name):
    try:
        socket.if_nametoindex(name)
    except OSError:
        # Without this look the kernel would make one.
        raise Failure(f"--tap {name}: there is none; to make it: ip tuntap add {name} mode tap user $USER") from None
    try:
        return namespace.open_tap(name)
    except RuntimeError as error:
        raise Failure(f"--tap {name}: {error}") from None


def _is_up(name):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        reply = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
    return bool(struct.unpack("16xH22x", reply)[0] & IFF_UP)


def _tap_argument(card, descriptor):
    return ["-netdev", f"tap,id={card.backend},fd={descriptor}"]


class Namespace(Network):
    """
    A network namespace for the cards of one machine and for the host's programs that talk to its guest (`bulkhead netns`). A
    process holds it that ends with us, and the namespace with it (namespace.py).
    """

    def __init__(self, cards, name, as_user=None):
        rows = [(card, f"10.77.{number}") for number, card in enumerate(cards)]
        # Root has all rights here already; others get them in a user namespace, over nothing but this network.
        self.as_user = os.geteuid() != 0 if as_user is None else as_user
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            kind = ["--user", "--map-root-user", "--net"] if self.as_user else ["--net"]
            self.holder = subprocess.Popen(["unshare", *kind, "--", PYTHON, namespace.__file__, str(theirs.fileno()),
                                            *(f"{card.vm}={subnet}.1/24" for card, subnet in rows)],
                                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                           pass_fds=[theirs.fileno()], preexec_fn=die_with_parent)
        self.channel = ours
        descriptors = self._descriptors(len(cards))
        ways = [line(card, f"the host is {subnet}.1; at the prompt: {_ifconfig(cards, card)} {subnet}.2/24 {subnet}.1")
                for card, subnet in rows]
        option = "" if name == "default" else f"--name {name} "
        ways.append(f"programs of the host reach the guest by: scripts/bulkhead netns {option}COMMAND")
        args = [argument for card, descriptor in zip(cards, descriptors) for argument in _tap_argument(card, descriptor)]
        super().__init__(args, [], ways, {"namespace": {"pid": self.holder.pid, "user": self.as_user}}, descriptors)

    def _descriptors(self, count):
        self.channel.settimeout(HOLDER_SECONDS)
        try:
            answer, descriptors, _, _ = socket.recv_fds(self.channel, 4096, count)
        except TimeoutError:
            answer, descriptors = b"the namespace was not ready in time", []
        except BaseException:
            self.close([])
            raise
        if answer != b"ok":
            reason = answer.decode() or self._why()
            self.close(descriptors)
            raise Failure(f"--net netns: {reason}")
        return descriptors

    def _why(self):
        """unshare did not come as far as starting the holder."""
        reason = self.holder.stderr.read().strip().rpartition(": ")[2].lower()
        return (f"no network namespace can be made here ({reason or 'no reason given'}); that takes root"
                + (", or a kernel that lets everybody make user namespaces" if self.as_user else " with CAP_SYS_ADMIN"))

    def close(self, descriptors):
        for descriptor in descriptors:
            os.close(descriptor)
        self.channel.close()
        self.holder.stderr.close()
        try:
            self.holder.wait(5)
        except subprocess.TimeoutExpired:
            self.holder.kill()
            self.holder.wait()

    def __exit__(self, *exc):
        self.close(self.descriptors)


def namespace_problem():
    """Why --net netns cannot work here; "" when it can."""
    try:
        with Namespace(devices.layout([], ["e1000e"]), "default"):
            return ""
    except Failure as failure:
        return str(failure).removeprefix("--net netns: ")


def netns(arguments):
    """`netns`: a program of the host in the network namespace of a running instance; becomes that program."""
    folder = paths.instance(arguments.name)
    if not Instance.is_running(folder):
        raise Failure(f"no instance named '{arguments.name}' is running (start one: scripts/bulkhead run --net netns)")
    found = Instance(folder).description().get("namespace")
    if not found:
        raise Failure(f"the instance '{arguments.name}' has no network namespace (start it with --net netns)")
    command = arguments.program[1:] if arguments.program[:1] == ["--"] else arguments.program
    program = command or [os.environ.get("SHELL", "/bin/sh")]
    if shutil.which(program[0]) is None:
        raise Failure(f"{program[0]}: no such program")
    os.execvp("nsenter", inside(found, program))


def inside(place, program):
    """The command line that runs a program in a namespace, of which Namespace.facts tells."""
    kind = ["--user", "--preserve-credentials"] if place["user"] else []
    return ["nsenter", "--target", str(place["pid"]), *kind, "--net", "--", *program]


def plug(arguments, cards):
    """What `--net` asks for, for these cards. Use with `with`: what was made for it is gone afterwards."""
    forwards = [parse_forward(text) for text in arguments.forward]
    if forwards and arguments.net != "user":
        raise Failure(f"--forward is for --net user, not for --net {arguments.net}")
    if arguments.tap and arguments.net != "tap":
        raise Failure(f"--tap is for --net tap, not for --net {arguments.net}")
    if arguments.net == "user":
        return user(cards, forwards)
    if arguments.net == "none" or not cards:
        return unplugged(cards)
    return tap(cards, arguments.tap) if arguments.net == "tap" else Namespace(cards, arguments.name)
