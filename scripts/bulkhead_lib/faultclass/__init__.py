"""
Classes of faults: what a broken driver or device would change, worked out here from the driver's image, and carried out by the
injector behind the control port, which offers a few primitives and knows no class (docs/FAULTS.md).

  __init__      what a class and a plan are, the table, how a plan is carried out
  image         a driver's ELF file: functions, which of them run all the time, objects, instructions
  memory        reading and changing a driver VM's bytes through the control port
  named         the injector's own faults, and what befalls interrupts
  text          instructions changed as in the studies of Nooks and MINIX 3
  bits          bit flips in data, stack, heap and rings
  hooks         something done once on the way into a function: registers, hypercalls, device registers
  starts        memory exhausted, faults during a recovery
  combined      several at once
"""

import dataclasses
import importlib
import time
from collections.abc import Callable

from ..control import ControlError

ARM_SECONDS = 10.0
# Refusals of the injector that end by themselves.
PASSING = ("is armed or not yet noticed", "is not running")


@dataclasses.dataclass(frozen=True)
class Plan:
    # For the control port, in this order. In a line with semicolons everything happens at one moment; what may be refused
    # stands first there, so that a line can be tried again.
    commands: list[str]
    text: str  # for people: what is done where
    wait: bool = True  # a detector must see it; False: it may well stay without effect
    vms: tuple[str, ...] = ()  # those besides the one asked for that get a fault, too


@dataclasses.dataclass(frozen=True)
class FaultClass:
    name: str
    description: str
    # (rng: random.Random, vm: str, control: Control, images: Path of the folder with the drivers' images) -> Plan
    plan: Callable
    # A driver that is broken in this way may deliver or store wrong data before anybody can notice: no isolation prevents that.
    # With any other class, wrong data is a bug of the hypervisor's.
    corrupts: bool = False
    # It is made of other classes.
    combines: bool = False


CLASSES: dict[str, FaultClass] = {}


def register(name, description, **flags):
    """Makes a class of a function plan(rng, vm, control, images)."""
    def add(plan):
        CLASSES[name] = FaultClass(name, description, plan, **flags)
        return plan
    return add


def ask(control, command, seconds=ARM_SECONDS):
    """A command's reply. A driver VM that is just starting, or an earlier fault that is not noticed yet, is waited for."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return control.ask(command)
        except ControlError as refusal:
            if time.monotonic() > deadline or not any(words in str(refusal) for words in PASSING):
                raise
            time.sleep(0.02)


def apply(control, plan, seconds=ARM_SECONDS):
    """Carry the plan out."""
    for command in plan.commands:
        ask(control, command, seconds)


for _module in ("named", "text", "bits", "hooks", "starts", "combined"):
    importlib.import_module(f".{_module}", __name__)
