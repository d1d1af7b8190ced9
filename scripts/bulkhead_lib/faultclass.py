"""
Classes of faults: what a broken driver or device would change, worked out here and carried out by the injector behind the
control port, which offers a few primitives and knows no class.
"""

import dataclasses
import random
import time
from collections.abc import Callable

from .control import ControlError

ARM_SECONDS = 10.0
# Refusals of the injector that end by themselves.
PASSING = ("is armed or not yet noticed", "is not running")


@dataclasses.dataclass(frozen=True)
class Plan:
    commands: list[str]  # for the control port, in this order
    text: str  # for people: what is done where
    wait: bool = True  # a detector must see it; False: it may well stay without effect


@dataclasses.dataclass(frozen=True)
class FaultClass:
    name: str
    description: str
    # (rng: random.Random, vm: str, control: Control, images: Path of the folder with the drivers' images) -> Plan
    plan: Callable
    # A driver that is broken in this way may deliver or store wrong data before anybody can notice: no isolation prevents that.
    # With any other class, wrong data is a bug of the hypervisor's.
    corrupts: bool = False


CLASSES: dict[str, FaultClass] = {}


def register(name, description, corrupts=False):
    """Makes a class of a function plan(rng, vm, control, images)."""
    def add(plan):
        CLASSES[name] = FaultClass(name, description, plan, corrupts)
        return plan
    return add


def apply(control, plan, seconds=ARM_SECONDS):
    """Carry the plan out. A driver VM that is just starting, or an earlier fault that is not noticed yet, is waited for."""
    deadline = time.monotonic() + seconds
    for command in plan.commands:
        while True:
            try:
                control.ask(command)
                break
            except ControlError as refusal:
                if time.monotonic() > deadline or not any(words in str(refusal) for words in PASSING):
                    raise
                time.sleep(0.02)


# ---- the injector's own faults ----

NAMED = {
    "crash": "an undefined instruction instead of the next one",
    "hang": "a jump to itself instead of the next instruction",
    "wild-write": "a store to a page of the hypervisor",
    "wild-dma": "the device is given an address outside its domain",
    "garbage": "a completion that belongs to no request, or with an impossible length",
}


def _named(name):
    def plan(_rng: random.Random, vm, _control, _images):
        return Plan([f"inject {vm} {name}"], f"{name}: {NAMED[name]}")
    return plan


for _name, _text in NAMED.items():
    register(_name, _text)(_named(_name))
