"""The pictures of a campaign, each as the text of an SVG element."""

import io
import math
import re

from .campaign_plan import BROKEN, OUTCOMES
from .ui import percentile

# Okabe and Ito's palette, which people with any kind of colour vision tell apart; reds for what must not happen.
COLOURS = {
    "recovered": "#009e73", "not-manifested": "#c4c4c4", "gave-up-by-policy": "#f0e442", "wrong-data": "#e69f00", "io-error": "#f6cf85",
    "not-injected": "#e8e8e8", "emulator-died": "#cc79a7",
}
BROKEN_COLOUR = "#d7191c"
LINE, BAND, GREY = "#0072b2", "#9ecae1", "#555555"
WIDTH = 9.0  # inches
STAGES = (("detect", "detect_us"), ("quiesce", "quiesce_us"), ("reset", "reset_us"), ("restart", "restart_us"), ("replay", "replay_us"),
          ("fault to first completion", "first_completion_us"), ("stall that the guest saw", "stall_us"))
BIN_MS, BEFORE_MS, AFTER_MS = 25, -400, 600


def _pyplot():
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
    pyplot.rcParams.update({
        "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
        "axes.edgecolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "axes.axisbelow": True, "grid.color": "#e3e3e3"})
    return pyplot


def svg(figure, name):
    """The element alone; the names inside it are this picture's own, so that several fit on a page."""
    from matplotlib import pyplot, rcParams
    rcParams["svg.hashsalt"] = name
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    body = text.getvalue()
    body = body[body.index("<svg "):]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    names = set(re.findall(r' id="([^"]+)"', body))
    for found in sorted(names, key=len, reverse=True):
        body = body.replace(f'id="{found}"', f'id="{name}-{found}"').replace(f"#{found})", f"#{name}-{found})").replace(
            f'"#{found}"', f'"#{name}-{found}"')
    return _compact(body).replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def _compact(body):
    """A quarter of the size: matplotlib writes a list of fonts for each word, and places to a millionth of a point."""
    body = re.sub(r"(font: \S+) [^;\"]*", r"\1 sans-serif", body)
    body = re.sub(r" transform=\"rotate\(-0 [^\"]*\"", "", body)
    body = re.sub(r"(\d+\.\d)\d+", r"\1", body)
    body = re.sub(r"<g id=\"[^\"]*\"/>", "", body)
    return re.sub(r"\s*\n\s*", " ", body)


def label(row):
    return f"{row['vm']} {row['class']}"


def outcomes(rows):
    """A bar for each class on each VM: how its faults ended, in shares; the number beside it."""
    pyplot = _pyplot()
    names = sorted({label(row) for row in rows}, reverse=True)
    kinds = [kind for kind in OUTCOMES if any(row["outcome"] == kind for row in rows)]
    totals = {name: sum(label(row) == name for row in rows) for name in names}
    figure, axes = pyplot.subplots(figsize=(WIDTH, 0.9 + 0.27 * len(names)))
    left = [0.0] * len(names)
    for kind in kinds:
        shares = [100 * sum(label(row) == name and row["outcome"] == kind for row in rows) / totals[name] for name in names]
        axes.barh(names, shares, left=left, height=0.72, color=COLOURS.get(kind, BROKEN_COLOUR), edgecolor="white", linewidth=0.6,
                  hatch="///" if kind in BROKEN else None, label=kind)
        left = [a + b for a, b in zip(left, shares)]
    for at, name in enumerate(names):
        axes.text(101, at, f"{totals[name]:,}", va="center", color=GREY, fontsize=8)
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("% of the class's faults; their number on the right")
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(len(kinds), 5), frameon=False, fontsize=8)
    return svg(figure, "outcomes")


def detectors(rows):
    """Which detector saw which class first, in % of the class's faults."""
    pyplot = _pyplot()
    names = sorted({label(row) for row in rows})
    columns = sorted({row["detector"] for row in rows if row["detector"]}) + ["none"]
    shares = []
    for name in names:
        mine = [row["detector"] or "none" for row in rows if label(row) == name]
        shares.append([100 * mine.count(column) / len(mine) for column in columns])
    figure, axes = pyplot.subplots(figsize=(WIDTH, 1.0 + 0.27 * len(names)))
    axes.pcolormesh(range(len(columns) + 1), range(len(names) + 1), shares, cmap="Blues", vmin=0, vmax=130, edgecolors="white", linewidth=1)
    for y, line in enumerate(shares):
        for x, share in enumerate(line):
            if share:
                axes.text(x + 0.5, y + 0.5, f"{share:.0f}" if share >= 1 else "<1", ha="center", va="center", fontsize=8,
                          color="white" if share > 70 else "black")
    axes.set_xticks([x + 0.5 for x in range(len(columns))], [column.replace("-", "-\n") for column in columns])
    axes.set_yticks([y + 0.5 for y in range(len(names))], names)
    axes.xaxis.tick_top()
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return svg(figure, "detectors")


def ms_text(us):
    ms = us / 1000
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.2g} ms" if ms >= 1 else f"{us:.0f} µs"


def _ticks(axis, low, high):
    """Plain numbers; 2 and 5 between the powers of ten where there are few of those."""
    from matplotlib import ticker
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(ticker.NullFormatter())


def distribution(rows, column, name, xlabel):
    """A histogram over a logarithmic axis with p50, p99 and the maximum marked; None without values."""
    values = sorted(max(row[column], 1) / 1000 for row in rows if row[column] is not None)
    if not values:
        return None
    pyplot = _pyplot()
    low, high = math.floor(math.log10(values[0]) * 10), math.ceil(math.log10(values[-1]) * 10)
    edges = [10 ** (step / 10) for step in range(low, max(high, low + 1) + 1)]
    figure, axes = pyplot.subplots(figsize=(WIDTH, 2.6))
    axes.hist(values, bins=edges, color=BAND, edgecolor="white", linewidth=0.5)
    axes.set_xscale("log")
    _ticks(axes.xaxis, values[0], values[-1])
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y")
    top = axes.get_ylim()[1]
    axes.set_ylim(0, top * 1.3)
    for step, (text, percent) in enumerate((("p50", 50), ("p99", 99), ("max", 100))):
        value = percentile(values, percent)
        axes.axvline(value, color=LINE, linewidth=1.2, linestyle=("-", "--", ":")[step])
        # One below the other: where they are close they would cover each other.
        axes.text(value, top * (1.24 - 0.1 * step), f" {text} {ms_text(value * 1000)} ", color=LINE, fontsize=8, va="center",
                  ha="right" if step and value > math.sqrt(values[0] * values[-1]) else "left",
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    axes.set_xlabel(f"{xlabel}, ms")
    axes.set_ylabel("faults")
    return svg(figure, name)


def stages(rows):
    """Each stage's p50, p99 and maximum on one logarithmic axis; None without values."""
    found = [(name, sorted(max(row[column], 1) / 1000 for row in rows if row[column] is not None)) for name, column in STAGES]
    found = [(name, values) for name, values in reversed(found) if values]
    if not found:
        return None
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(WIDTH, 0.8 + 0.32 * len(found)))
    for at, (_, values) in enumerate(found):
        p50, p99 = percentile(values, 50), percentile(values, 99)
        axes.plot([p50, values[-1]], [at, at], color="#cccccc", linewidth=1.5, zorder=1)
        axes.plot([p50, p99], [at, at], color=BAND, linewidth=7, solid_capstyle="butt", zorder=2)
        axes.plot(p50, at, "o", color=LINE, markersize=6, zorder=3, label="p50" if not at else None)
        axes.plot(p99, at, "|", color=LINE, markersize=11, markeredgewidth=2, zorder=3, label="p99" if not at else None)
        axes.plot(values[-1], at, "x", color=GREY, markersize=5, zorder=3, label="max" if not at else None)
    axes.set_xscale("log")
    _ticks(axes.xaxis, 1, 1e6)
    axes.set_yticks(range(len(found)), [name for name, _ in found])
    axes.set_ylim(-0.6, len(found) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("ms")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=8)
    return svg(figure, "stages")


def _rates(samples):
    """MB/s in each bin of time; None where nothing is known."""
    rates = []
    for start in range(BEFORE_MS, AFTER_MS, BIN_MS):
        inside = [_at(samples, start), _at(samples, start + BIN_MS)]
        rates.append(None if None in inside else (inside[1] - inside[0]) / BIN_MS / 1000)
    return rates


def _at(samples, ms):
    """Bytes moved until then, between two samples; None outside of them."""
    for (a, before), (b, after) in zip(samples, samples[1:]):
        if a <= ms <= b:
            return before + (after - before) * ((ms - a) / (b - a) if b > a else 0)
    return None


def throughput(series, title, name):
    """What the device moved around the moment of the fault, over all faults that were watched; None without any."""
    rates = [_rates(samples) for samples in series]
    times, low, middle, high = [], [], [], []
    for at, column in enumerate(zip(*rates)):
        known = [rate for rate in column if rate is not None]
        if len(known) * 2 > len(series):
            times.append(BEFORE_MS + at * BIN_MS + BIN_MS / 2)
            for target, percent in ((low, 10), (middle, 50), (high, 90)):
                target.append(percentile(known, percent))
    if not times:
        return None
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(WIDTH, 2.6))
    axes.fill_between(times, low, high, color=BAND, alpha=0.5, linewidth=0, label="10 % to 90 %")
    axes.plot(times, middle, color=LINE, linewidth=1.6, label="median")
    axes.axvline(0, color=BROKEN_COLOUR, linewidth=1)
    axes.set_ylim(bottom=0)
    axes.text(4, axes.get_ylim()[1] * 0.97, "fault", color=BROKEN_COLOUR, va="top", fontsize=8)
    axes.grid(axis="y")
    axes.set_xlabel(f"ms since the fault; {title}, {len(series)} faults")
    axes.set_ylabel("MB/s")
    axes.legend(loc="upper right", frameon=False, fontsize=8)
    return svg(figure, name)
