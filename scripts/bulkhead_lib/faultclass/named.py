"""The injector's own faults, and what befalls interrupts."""

from . import Plan, register

NAMED = {
    "crash": "an undefined instruction instead of the next one",
    "hang": "a jump to itself instead of the next instruction",
    "wild-write": "a store to a page of the hypervisor",
    "wild-dma": "the device is given an address outside its domain",
    "garbage": "a completion that belongs to no request, or with an impossible length",
}


def _named(name):
    def plan(_rng, vm, _control, _images):
        return Plan([f"inject {vm} {name}"], f"{name}: {NAMED[name]}")
    return plan


for _name, _text in NAMED.items():
    register(_name, _text)(_named(_name))


@register("lost-interrupts", "the device's next interrupts, up to 50, get lost")
def _lost(rng, vm, _control, _images):
    count = rng.randint(1, 50)
    return Plan([f"inject {vm} lose {count}"], f"the next {count} interrupts get lost", wait=False)


@register("spurious-interrupts", "up to 20 interrupts without a cause")
def _spurious(rng, vm, _control, _images):
    count = rng.randint(1, 20)
    return Plan([f"inject {vm} forge {count}"], f"{count} interrupts without a cause", wait=False)


@register("interrupt-storm", "interrupts without a cause, as fast as the CPU takes them")
def _storm(rng, vm, _control, _images):
    count = rng.randint(20000, 100000)
    return Plan([f"inject {vm} forge {count}"], f"a storm of {count} interrupts", wait=False)


@register("slow-device", "interrupts of up to 0.3 s are held back until its end")
def _slow(rng, vm, _control, _images):
    us = rng.randint(1000, 300000)
    return Plan([f"inject {vm} hold {us}"], f"interrupts of {us} µs come late", wait=False)
