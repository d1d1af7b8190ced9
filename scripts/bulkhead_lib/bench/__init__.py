"""
`bench blk`, `bench net`: each device through its driver VM, beside the same guest on QEMU's virtio device without a hypervisor.
`bench recovery`: crashes of a disk's driver, without a spare and with one (`recovery.py`).

The machines of one comparison run at the same time, and are measured by turns, the others paused: what else the host does in
the meantime then hits all of them alike. `sides.py` has the machines, `blk.py` and `net.py` the workloads, `figures.py` makes
medians and ratios of the samples, `report.py` shows them.

`bench storm`, `bench replace`, `bench soak`: one machine under a verifying load whose driver VMs are killed, given another image, or
left alone (`supervised.py`, and a file each).
"""

import os

from .. import build, session
from ..devices import MODELS
from ..ui import Failure, print_json, warn
from . import blk, net, picture, recovery, replace, report, soak, storm
from .sides import Setting

ROLES = {"blk": blk, "net": net}
# With two CPUs and the emulator's own thread, a host of two or three has none left for anything else.
FEW_CPUS = 2 if (os.cpu_count() or 1) >= 4 else 1
SUPERVISED = {"storm": storm, "replace": replace, "soak": soak}


def run(arguments):
    if arguments.what in SUPERVISED:
        return _supervise(arguments)
    arguments.cpus = arguments.cpus or FEW_CPUS
    arguments.seconds = 2 if arguments.seconds is None else arguments.seconds
    return run_recovery(arguments) if arguments.what == "recovery" else _compare(arguments)


def _supervise(arguments):
    what = SUPERVISED[arguments.what]
    if arguments.icount or arguments.no_iommu:
        raise Failure(f"bench {arguments.what} has neither --icount nor --no-iommu")
    kind = session.choose_accel(arguments.accel)
    if arguments.svg:
        picture.check_path(arguments.svg)
    arguments.cpus = arguments.cpus or 2
    build.build("release", verbose=arguments.verbose)
    result = {"what": arguments.what, "accelerator": kind, "cpus": arguments.cpus, **what.run(arguments, kind)}
    if arguments.svg:
        picture.plot(what.draw, result, arguments.svg)
    if arguments.json:
        print_json(result)
    else:
        what.show(result)
    return 1 if result["failed"] else 0


def _compare(arguments):
    role = ROLES[arguments.what]
    models = chosen_models(arguments.what, arguments.device)
    if arguments.rounds < 1 or arguments.seconds < 1:
        raise Failure("at least one round of a second is needed")
    setting = prepare(arguments)
    modes = ("sticky", "strict") if arguments.grants == "both" else (arguments.grants,)
    progress = report.Steps(f"bench {arguments.what}", len(models) * role.steps(setting, modes))
    entries, failed = [], []
    for number, model in enumerate(models):
        try:
            entries += role.measure(setting, model, modes, progress)
        except Failure as failure:
            # Minutes of measuring others must not be lost with this one.
            failed.append({"device": model, "error": str(failure).removeprefix("bulkhead: ")})
            progress.skip_to(number + 1, len(models))
    progress.done()
    result = {"what": arguments.what, **setting.describe(), "devices": entries, "failed": failed}
    if entries and arguments.svg:
        picture.draw(result, arguments.svg)
    if arguments.json:
        print_json(result)
    elif entries:
        report.show(result, arguments.verbose)
    for entry in failed:
        warn(f"{entry['device']}: {entry['error']}")
    return 1 if failed else 0


def prepare(arguments):
    """All is built and can be written; what the machines have in common."""
    kind = session.choose_accel(arguments.accel)
    if arguments.icount and kind != "tcg":
        raise Failure("--icount needs --accel tcg")
    if arguments.svg:
        picture.check_path(arguments.svg)
    # Figures are of the release build: the debug build is compiled for the debugger.
    build.build("release", verbose=arguments.verbose)
    return Setting(arguments.name, kind, 1 if arguments.icount else arguments.cpus, arguments.memory,
                   not arguments.no_iommu, arguments.icount, tuple(arguments.qemu_arg), arguments.seconds, arguments.rounds,
                   arguments.net)


def run_recovery(arguments):
    models = chosen_models("recovery", arguments.device)
    if arguments.crashes < 1:
        raise Failure("at least one crash is needed")
    setting = prepare(arguments)
    progress = report.Steps("bench recovery", len(models) * recovery.steps(arguments.crashes))
    entries, failed = recovery.run_all(setting, models, arguments.crashes, progress)
    progress.done()
    if entries and arguments.svg:
        recovery.draw(entries, arguments.svg)
    if arguments.json:
        print_json({"what": "recovery", "accelerator": setting.accel, "cpus": setting.cpus, "iommu": setting.iommu,
                    "icount": setting.icount, "devices": entries, "failed": failed})
    else:
        recovery.show(entries, setting.icount)
    for entry in failed:
        warn(f"{entry['device']}: {entry['error']}")
    return 1 if failed else 0


def chosen_models(role, text):
    """The models of this role that a list between commas names; `all`: every one."""
    known = recovery.MODELS if role == "recovery" else [name for name, model in MODELS.items() if model.role == role]
    wanted = known if text == "all" else list(dict.fromkeys(text.split(",")))
    for name in wanted:
        if name not in known:
            raise Failure(f"bench {role} knows no {name}; there are: {', '.join(known)}")
    return wanted
