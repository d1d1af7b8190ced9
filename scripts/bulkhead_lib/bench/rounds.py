"""The rounds of a comparison: every machine by turns, in alternating order."""

import contextlib

from . import figures


def measure(setting, sides, workloads, progress, lead):
    """{side's name: {workload: samples, one a round}}. workloads: {name: function(side) -> sample}."""
    samples = {side.name: {name: [] for name in workloads} for side in sides}
    with contextlib.ExitStack() as stack:
        for side in sides:
            progress.say(f"{lead}: {side.name} starts")
            stack.enter_context(side)
        for name, sample in workloads.items():
            for number in range(setting.rounds):
                # So that none of them always comes first.
                for side in sides if number % 2 == 0 else reversed(sides):
                    progress.step(f"{lead}: {name}, {side.name}, {number + 1} of {setting.rounds}")
                    with side.awake():
                        samples[side.name][name].append(sample(side))
    return samples


def counted(side, action):
    """(what the action returns, the difference that it makes to the machine's counters)."""
    before = side.counters()
    result = action()
    return result, figures.difference(side.counters(), before)
