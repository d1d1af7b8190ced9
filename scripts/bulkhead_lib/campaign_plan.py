"""
What a campaign is made of, and how a fault is judged: no machine is needed for any of it.

Everything about a fault follows from the campaign's seed and the fault's number, so that any of them can be repeated alone and
the shards of a campaign, wherever they ran, are together exactly the whole.
"""

import dataclasses
import random

from . import devices
from .ui import Failure

# The longest wait, in ms, between the start of the load and the fault.
MOMENT_MS = 30
# One in so many faults is watched from well before to well after, for the picture of the throughput.
WATCH_EVERY = 20

# How a fault can end. True: it breaks the promise that the guest sees a short stall and nothing else.
OUTCOMES = {
    "recovered": False,  # noticed, and the driver came back: every byte has its expected value, no request failed
    "not-manifested": False,  # no detector saw it and nothing went wrong; the driver VM was replaced afterwards
    "gave-up-by-policy": False,  # the policy said so; the device answers with errors, the guest lives
    "wrong-data": False,  # from a driver that the fault made a liar: nothing outside the driver can tell
    "io-error": False,  # the same driver said of its own accord that a request had failed, or answered with nonsense
    "not-injected": False,  # the injector found no place for it
    "emulator-died": False,  # killed by a signal: a bug of the emulator's device model
    "failed-request": True,  # a request failed although the driver was not made a liar
    "lost": True,  # an acknowledged write is missing, or read data were wrong, after a fault that cannot make them wrong
    "protocol": True,  # a rule of the virtqueue was broken: a request completed twice, or one that nobody made
    "stuck": True,  # a request, a connection, a recovery or the control port did not come to an end
    "canary": True,  # a page of the hypervisor was overwritten
    "guest-crash": True,
    "hv-crash": True,
    "worker-error": True,  # the campaign itself failed: nothing is known, so it counts
}
BROKEN = tuple(name for name, breaks in OUTCOMES.items() if breaks)
# With these a machine ends as well.
LAST = ("emulator-died", "gave-up-by-policy")


@dataclasses.dataclass(frozen=True)
class Spec:
    """The whole campaign, whatever part of it runs here. Equal specs have equal faults."""

    faults: int
    seed: int
    classes: tuple
    vms: tuple
    disks: tuple
    nics: tuple
    keys: tuple  # of the driver VMs' sections in the manifest, as KEY=VALUE
    accel: str
    preset: str

    def as_dict(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields):
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})

    def layout(self):
        """The devices of its machines: those whose driver VMs are attacked, and no others."""
        found = devices.layout(list(self.disks), list(self.nics))
        unknown = [vm for vm in self.vms if vm not in [device.vm for device in found]]
        if unknown:
            raise Failure(f"the machine has no driver VM {', '.join(unknown)}; there are: {', '.join(d.vm for d in found)}")
        return [device for device in found if device.vm in self.vms]


@dataclasses.dataclass(frozen=True)
class Job:
    """One fault: all that is random about it."""

    index: int
    seed: str
    vm: str
    fault: str  # name of its class
    moment: float  # seconds after the load has begun
    load_seed: int
    watched: bool

    def random(self):
        """For the class, to choose a place."""
        return random.Random(f"{self.seed}/place")


def job(spec, index):
    """
    Faults come in blocks; each block has every class on every driver VM once, in an order of its own, so that each stretch of a
    campaign covers all and each shard gets its share of each.
    """
    pairs = [(vm, fault) for vm in spec.vms for fault in spec.classes]
    block, at = divmod(index, len(pairs))
    random.Random(f"{spec.seed}/block/{block}").shuffle(pairs)
    seed = f"{spec.seed}/{index}"
    rng = random.Random(seed)
    return Job(index, seed, *pairs[at], rng.uniform(0, MOMENT_MS) / 1000, rng.randrange(1, 1 << 31), rng.randrange(WATCH_EVERY) == 0)


def parse_shard(text):
    """`i/n`, i from 1; (0, 1) for all of it."""
    part, slash, parts = (text or "1/1").partition("/")
    if not slash or not part.isdecimal() or not parts.isdecimal() or not 1 <= int(part) <= int(parts):
        raise Failure(f"--shard {text}: this is not I/N with I from 1 to N")
    return int(part) - 1, int(parts)


def indices(spec, shard):
    return range(shard[0], spec.faults, shard[1])


@dataclasses.dataclass
class Evidence:
    """All that was seen of one fault and is judged by; filled while it runs."""

    corrupts: bool = False  # the class makes a liar of the driver
    records: list = dataclasses.field(default_factory=list)  # fault records of the VM, in order
    load: dict = dataclasses.field(default_factory=dict)  # the load's verdict
    vms: tuple = ()  # others that the class has hit as well
    image: bool | None = None  # the image holds what was acknowledged; None: not looked at
    canary: bool = True
    guest_failed: str = ""  # why the guest is dead
    hypervisor_failed: str = ""
    emulator_died: str = ""
    not_injected: str = ""
    stuck: str = ""  # what did not end
    error: str = ""  # of the campaign's own code


PROTOCOL = ("doubled", "unknown", "protocol")
FAILED = ("io_errors", "aborted", "implausible")


def judge(seen):
    """(outcome, one sentence). The gravest thing first: a broken canary is told even when the request got lost as well."""
    load = seen.load
    if seen.error:
        return "worker-error", seen.error
    if seen.hypervisor_failed:
        return "hv-crash", seen.hypervisor_failed
    if seen.emulator_died:
        return "emulator-died", seen.emulator_died
    if not seen.canary:
        return "canary", "a page of the hypervisor was overwritten"
    if seen.guest_failed:
        return "guest-crash", seen.guest_failed
    if seen.stuck:
        return "stuck", seen.stuck
    if load.get("lost") or load.get("requests", 0) != load.get("completed", 0):
        return "stuck", f"{load['requests'] - load['completed']} requests were never completed, {load['lost']} were late"
    # An answer that contradicts itself, within its buffers, is no matter of the queue: the hypervisor knows nothing of disks.
    broken = {name: load.get(name, 0) for name in PROTOCOL}
    broken["protocol"] -= load.get("implausible", 0)
    if any(broken.values()):
        return "protocol", ", ".join(f"{name} {count}" for name, count in broken.items() if count)
    gave_up = next((record for record in seen.records if record.outcome == "gave-up"), None)
    if load.get("mismatches") or seen.image is False:
        where = f"{load.get('mismatches', 0)} sectors read wrong" + ("" if seen.image is not False else ", the image differs")
        return "wrong-data" if seen.corrupts else "lost", where
    if load.get("mute"):
        return "wrong-data", "nothing that the card sent was understood, until its driver was replaced"
    if gave_up:
        return "gave-up-by-policy", gave_up.text
    if any(load.get(name) for name in FAILED):
        return "io-error" if seen.corrupts else "failed-request", ", ".join(f"{name} {load[name]}" for name in FAILED if load.get(name))
    if seen.not_injected and not seen.records:
        return "not-injected", seen.not_injected
    if seen.records:
        return "recovered", seen.records[0].text
    return "not-manifested", ""
