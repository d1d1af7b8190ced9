"""From readings to figures: what an I/O cost, medians over the rounds, ratios within them."""

import statistics

# The host's counters, beside those of the hypervisor: the emulator's CPU time, and how long it waited for a CPU.
CPU = "machine cpu_us"
WAIT = "machine wait_us"
BARE = "bare"  # what the side without a hypervisor is called; the others have the name of their grant mode


def difference(after, before):
    return {key: value - before.get(key, 0) for key, value in after.items()}


def costs(delta, items, base=None, base_items=0):
    """
    What one of so many items cost, from the difference of two readings of a machine's counters. base: the same of a command
    that had next to nothing to do, so that what the shell and the console cost is left out.
    """
    shares = time_shares(delta)
    wanted = delta[CPU] + max(0, delta[WAIT])
    waited = round(100 * (wanted - delta[CPU]) / wanted, 1) if wanted else 0.0
    if base is not None and items > base_items:
        delta, items = difference(delta, base), items - base_items
    if items <= 0:
        return {}
    found = {"cpu_us": round(max(0, delta[CPU]) / items, 2), "waited_percent": waited}
    for figure, words in (("instructions", " instructions"), ("exits", " exits_")):
        parts = {key.replace(words, " ").strip(): max(0, value) / items for key, value in delta.items() if words in key}
        if parts:
            found |= {figure: round(sum(parts.values()), 3),
                      f"{figure}_by": {key: round(value, 3) for key, value in parts.items() if value >= 0.001}}
    return found | ({"time_percent": shares} if shares else {})


def time_shares(delta):
    """Percent of all CPUs' time that each VM ran, that they were idle, and that the hypervisor needed for itself."""
    up = sum(value for key, value in delta.items() if key.endswith(" up_us"))
    if up <= 0:
        return {}
    parts = {key.removesuffix(" run_us"): value for key, value in delta.items() if key.endswith(" run_us")}
    parts["idle"] = sum(value for key, value in delta.items() if key.endswith(" idle_us"))
    parts["hypervisor"] = up - sum(parts.values())
    return {name: round(100 * value / up, 1) for name, value in parts.items()}


def compare(ours, bare, key):
    """
    Two lists of samples, one a round, as one entry. key: the figure whose ratio counts. It is taken within each round, where
    both were measured one after the other; given are the median of these ratios and their range, and the ratio of each
    side's best round, which a host that is busy otherwise disturbs least.
    """
    mine, theirs = ([round(sample[key], 3) for sample in side] for side in (ours, bare))
    ratios = [one / other for one, other in zip(mine, theirs) if other]
    entry = {"figure": key, "ratio": None, "ratio_lowest": None, "ratio_highest": None, "ratio_of_best": None}
    if len(ratios) == len(mine):
        best = min if key == "instructions" else max
        entry |= {"ratio": round(statistics.median(ratios), 3), "ratio_lowest": round(min(ratios), 3),
                  "ratio_highest": round(max(ratios), 3), "ratio_of_best": round(best(mine) / best(theirs), 3)}
    return entry | {"bulkhead": medians(ours), "bare": medians(bare), "samples": {"bulkhead": mine, "bare": theirs}}


def entries(setting, samples, model, bare_model, wanted):
    """
    One entry for each side of the samples that is not bare. wanted: {workload: (the rate whose ratio counts, of what its CPU
    time and instructions are told)}.
    """
    return [{"device": model, "grants": mode, "bare": bare_model, "same_device": model == bare_model,
             "workloads": [{"workload": name, "item": item, **compare(samples[mode][name], samples[BARE][name], setting.figure(rate))}
                           for name, (rate, item) in wanted.items()]} for mode in samples if mode != BARE]


def medians(samples):
    """Of each figure the median over the rounds; of a dictionary, of each figure in it."""
    result = {}
    for key, first in samples[0].items():
        if isinstance(first, dict):
            names = dict.fromkeys(name for sample in samples for name in sample[key])
            result[key] = {name: round(statistics.median(sample[key].get(name, 0) for sample in samples), 3) for name in names}
        else:
            result[key] = round(statistics.median(sample[key] for sample in samples), 3)
    return result
