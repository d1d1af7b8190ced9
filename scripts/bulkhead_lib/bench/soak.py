"""Full load for minutes, on a host that is busy otherwise as well. Nothing is broken, so nothing may be restarted."""

import contextlib
import subprocess
import sys
import time

from ..devices import MODELS as ALL
from ..hostprocess import cpu_us, wait_us
from ..machine import die_with_parent
from ..ui import say, table
from . import supervised
from .report import Steps

MODELS = [name for name in ALL if name != "e1000"]  # the same driver as e1000e
LOOK_SECONDS = 0.2
STEP_SECONDS = 10


@contextlib.contextmanager
def busy_host(count):
    """So many programs of the host that compute and do nothing else."""
    programs = []
    try:
        for _ in range(count):
            programs.append(subprocess.Popen([sys.executable, "-c", "while True: pass"], preexec_fn=die_with_parent))
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def run(arguments, accel):
    chosen = supervised.models(arguments.device, MODELS)
    count = max(1, round(arguments.minutes * 60 / STEP_SECONDS))
    progress = Steps("bench soak", count)
    progress.say("boots")
    with supervised.Rig(f"{arguments.name}-soak", accel, chosen, {}, arguments.cpus, arguments.qemu_arg) as rig:
        with busy_host(arguments.host_load):
            found = watch(rig, count, progress)
        result = rig.finish()
    progress.done()
    names = dict(zip(rig.vms, sorted(chosen, key=lambda model: ALL[model].role)))
    vms = [{"vm": vm, "device": names[vm], **found["vms"][vm]} for vm in rig.vms]
    failed = result["wrong"] or found["records"] or any(vm["restarts"] or vm["misses"] for vm in vms)
    return {"minutes": arguments.minutes, "host_load": arguments.host_load, **found, **result, "vms": vms, "failed": bool(failed)}


def watch(rig, count, progress):
    pid = rig.machine.process.pid
    used, waited, start = cpu_us(pid), wait_us(pid), time.monotonic()
    first = before = rig.reading()
    misses, steps = dict.fromkeys(rig.vms, 0), []
    for number in range(count):
        progress.step(f"{number + 1} of {count}")
        end = start + (number + 1) * STEP_SECONDS
        while time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            rig.keep_transfers()
            for fields in rig.control.rows("status", "vm"):
                if fields["name"] in misses:
                    misses[fields["name"]] = max(misses[fields["name"]], fields["heartbeat_misses"])
        after = rig.reading()
        steps.append({vm: supervised.rates(before, after, vm) for vm in rig.vms})
        before = after
    used, waited = cpu_us(pid) - used, wait_us(pid) - waited
    vms = {}
    for vm in rig.vms:
        status = rig.status(vm)
        vms[vm] = {**supervised.rates(first, before, vm), "misses": misses[vm],
                   **{key: status[key] for key in ("restarts", "crashes", "faults", "state")}}
    return {"vms": vms, "steps": steps, "records": [record.as_dict() for record in rig.new_records()],
            "cpu_waited_percent": round(100 * max(0, waited) / (used + max(0, waited)), 1)}


def show(result):
    table([{"vm": vm["vm"], "device": vm["device"], "MB/s": vm["mb_per_s"], "requests/s": vm["iops"], "heartbeats missed": vm["misses"],
            "restarts": vm["restarts"], "faults": vm["faults"], "state": vm["state"]} for vm in result["vms"]])
    print(f"\n{result['minutes']:g} minutes with {result['host_load']} busy programs beside it; wrong: {result['wrong'] or 'nothing'}\n"
          f"for {result['cpu_waited_percent']} % of the time in which the emulator's threads wanted a CPU they had none")
    for record in result["records"]:
        say(f"a fault: {record}")


def draw(result, axes):
    """Throughput of each device over time."""
    for vm in result["vms"]:
        axes.plot([number * STEP_SECONDS for number in range(len(result["steps"]))], [step[vm["vm"]]["mb_per_s"] for step in result["steps"]],
                  label=f"{vm['vm']}, {vm['device']}")
    axes.set_xlabel("s")
    axes.set_ylabel("MB/s")
    axes.legend(fontsize="small")
