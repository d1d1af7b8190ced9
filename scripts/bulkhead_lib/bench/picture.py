"""Pictures of a bench run, in SVG."""

import pathlib

from ..ui import Failure, say

AIM = 0.9
BAR_HEIGHT = 0.8  # of all bars of one workload together
INCHES_A_BAR = 0.22


def check_path(name):
    """Before minutes of measuring: can the picture be written where it shall be?"""
    path = pathlib.Path(name)
    if not path.resolve().parent.is_dir() or path.is_dir():
        raise Failure(f"--svg {name}: there is no such folder, or this is one")


def draw(result, name):
    # Imported late: only who wants a picture needs the package.
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot

    workloads = [workload["workload"] for workload in result["devices"][0]["workloads"]]
    count = len(result["devices"])
    figure, axes = pyplot.subplots(figsize=(9, 1.5 + INCHES_A_BAR * (count + 1) * len(workloads)))
    step = BAR_HEIGHT / count
    for number, entry in enumerate(result["devices"]):
        places = [at - BAR_HEIGHT / 2 + (number + 0.5) * step for at in range(len(workloads))]
        values = [workload["ratio"] or 0 for workload in entry["workloads"]]
        errors = [[(workload["ratio"] or 0) - (workload["ratio_lowest"] or 0) for workload in entry["workloads"]],
                  [(workload["ratio_highest"] or 0) - (workload["ratio"] or 0) for workload in entry["workloads"]]]
        same = ", the same device" if entry["same_device"] else ""
        axes.barh(places, values, step * 0.9, xerr=errors, label=f"{entry['device']}, {entry['grants']} grants{same}",
                  error_kw={"elinewidth": 1})
    axes.set_yticks(range(len(workloads)), workloads)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    if result["icount"]:
        axes.set_xscale("log")  # from a few times to a thousand
    else:
        axes.axvline(AIM, color="black", linewidth=1, linestyle=":")
        axes.set_xlim(left=0)
    what = "instructions (less is better)" if result["icount"] else "rates"
    axes.set_xlabel(f"{what}: Bulkhead / the same guest on QEMU's {result['devices'][0]['bare']}, no hypervisor")
    axes.legend(fontsize="small")
    _save(figure, name)


def plot(draw_result, result, name):
    """One picture of a result, drawn by draw_result(result, axes)."""
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4))
    draw_result(result, axes)
    axes.set_ylim(bottom=0)
    _save(figure, name)


def _save(figure, name):
    figure.tight_layout()
    try:
        figure.savefig(name, format="svg")
    except OSError as error:
        raise Failure(f"--svg {name}: {error.strerror.lower()}") from None
    say(f"picture: {name}")
