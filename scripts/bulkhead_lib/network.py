"""What the network cards of a machine are plugged into: QEMU's user network, nothing, ..."""

import dataclasses
import errno
import re
import socket

from .ui import Failure

KINDS = ("user", "none")
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
        pass


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
        notes.append(f"{card.vm}: {card.model} on QEMU's user network {subnet}.0/24, gateway {subnet}.2; the guest asks for its address: ifconfig dhcp")
    for forward in chosen:
        whose = "guest port" if len(cards) == 1 else f"guest's {forward.card}, port"
        ways.append(f"{LOCALHOST}:{forward.host} -> {whose} {forward.guest}")
    return Network(args, notes, ways, {"forwards": [dataclasses.asdict(forward) for forward in chosen]})


def unplugged(cards):
    """Cards with nobody at the other end."""
    args = []
    for number, card in enumerate(cards):
        # A hub with one port: a card without any backend makes QEMU warn.
        args += ["-netdev", f"hubport,id={card.backend},hubid={number}"]
    return Network(args, [f"{card.vm}: {card.model}, nobody at the other end" for card in cards], [], {})


def plug(arguments, cards):
    """What `--net` asks for, for these cards. Use with `with`: what was made for it is gone afterwards."""
    forwards = [parse_forward(text) for text in arguments.forward]
    if forwards and arguments.net != "user":
        raise Failure("--forward is for --net user")
    if arguments.net == "user":
        return user(cards, forwards)
    return unplugged(cards)
