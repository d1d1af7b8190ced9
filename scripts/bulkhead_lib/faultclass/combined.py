"""Several faults at one moment, in one driver VM or in two."""

from ..ui import Failure
from . import CLASSES, Plan, memory, register


def _parts(plan):
    return [part.strip() for line in plan.commands for part in line.split(";")]


def _together(plans):
    """
    All commands of the plans. What only prepares memory that nobody uses yet goes ahead, in lines of its own; the rest is one
    moment, with what the injector may refuse in front.
    """
    ahead, rest = [], []
    for plan in plans:
        *before, last = plan.commands
        ahead += before
        rest += [part.strip() for part in last.split(";")]
    rest.sort(key=lambda part: not part.startswith("inject "))
    return ahead + memory.lines(rest)


def _single(rng, exclude=()):
    return CLASSES[rng.choice(sorted(name for name, kind in CLASSES.items() if not kind.combines and name not in exclude))]


@register("two-at-once", "two faults of other classes at one moment", corrupts=True, combines=True)
def _two(rng, vm, control, images):
    first = _single(rng)
    # The injector has room for one of its own at a time, a hook for one stub.
    alike = [name for name in CLASSES if _kind(name) == _kind(first.name)]
    second = _single(rng, alike)
    plans = [first.plan(rng, vm, control, images), second.plan(rng, vm, control, images)]
    return Plan(_together(plans), " + ".join(plan.text for plan in plans), any(plan.wait for plan in plans))


def _kind(name):
    """Classes of one kind use the same means."""
    if name in ("register", "hypercall-fuzz", "device-register"):
        return "hook"
    if "interrupt" in name or name in ("crash", "hang", "wild-write", "wild-dma", "garbage", "memory-exhausted", "during-recovery", "slow-device"):
        return "armed"
    return name


@register("two-vms", "a fault in this driver VM and one in another at the same moment", corrupts=True, combines=True)
def _two_vms(rng, vm, control, images):
    others = [row["name"] for row in control.rows("status", "vm")
              if row["kind"] == "driver" and row["state"] not in ("off", "failed") and row["name"] != vm]
    if not others:
        raise Failure("a fault in two VMs needs a second driver VM")
    other = rng.choice(sorted(others))
    plans = [_single(rng).plan(rng, name, control, images) for name in (vm, other)]
    text = " + ".join(f"{name}: {plan.text}" for name, plan in zip((vm, other), plans))
    # Each VM must run for this: a refusal comes before anything is done.
    probes = [f"flip {name} 0x10000 1 0" for name in (vm, other)]
    commands = _together(plans)
    return Plan([*commands[:-1], *memory.lines([*probes, *commands[-1].split("; ")])], text, plans[0].wait, (other,))
