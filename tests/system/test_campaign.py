"""
Campaigns: each fault is told by a row, an interruption costs nothing that was done, shards are together the whole, a fault can be
repeated. Small ones, with the command that people type.
"""

import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import time

from harness import ROOT, case, check, main
from bulkhead_lib import campaign_plan
from bulkhead_lib.campaign_plan import Evidence, judge
from bulkhead_lib.campaign_store import COLUMNS, Store
from bulkhead_lib.faultlog import Record

LABEL = "campaign"
TIMEOUT = 600

SEED = 20240607
FAULTS = 40
CLASSES = "crash,hang,wild-write,wild-dma,garbage"


def command(*arguments):
    return [str(ROOT / "scripts" / "bulkhead"), *arguments]


def run(lab, *arguments, status=0, seconds=240):
    """A command of bulkhead's that must end so; what it prints."""
    done = subprocess.run(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=seconds, check=False)
    check(done.returncode == status, f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-600:]}{done.stdout[-600:]}")
    for line in done.stderr.splitlines():
        if line.startswith("campaign of") and line.endswith("s)"):
            lab.say(f"| {line}")
    return done.stdout


def campaign(lab, db, *arguments, seed=SEED, **keywords):
    return json.loads(run(lab, "campaign", "--no-install", "--json", "--accel", os.environ.get("BULKHEAD_ACCEL", "tcg"), "--seed", str(seed),
                          "--db", str(db), "--classes", CLASSES, *arguments, **keywords))


def rows(db):
    with Store.existing(db) as store:
        return store.rows()


def identity(row):
    return row["id"], row["seed"], row["vm"], row["class"]


def expected(faults, seed, classes=tuple(CLASSES.split(",")), vms=("blk0",)):
    spec = campaign_plan.Spec(faults, seed, classes, vms, ("ahci",), ("e1000e",), (), "tcg", "release")
    jobs = [campaign_plan.job(spec, index) for index in range(faults)]
    return [(job.index, job.seed, job.vm, job.fault) for job in jobs]


def check_rows(found, wanted):
    """Each fault has its row; each was noticed and dealt with, and its disk holds what was acknowledged."""
    check([identity(row) for row in found] == wanted, f"other faults than were asked for: {[identity(row) for row in found]}")
    for row in found:
        told = {name: row[name] for name in COLUMNS if name not in ("record", "load", "plan")}
        check((row["outcome"], row["manifested"], row["image"]) == ("recovered", 1, 1), f"a fault ended otherwise: {told}")
        check(row["detector"] and row["place"], f"who noticed it, and where it was, is not told: {told}")
        check(all(row[name] is not None for name in ("reset_us", "restart_us", "stall_us")), f"a time is missing: {told}")
        check(row["stall_us"] > 0 and row["requests"] > 16, f"hardly any load: {told}")


# ---- without a machine ----

def _record(outcome="recovered"):
    return Record(1, "blk0", "exception", outcome, "crash", "UD2", {})


LOAD = {"requests": 100, "completed": 100, "lost": 0, "mismatches": 0, "io_errors": 0, "aborted": 0, "doubled": 0, "unknown": 0, "protocol": 0}


@case
def verdicts(lab):
    """What is seen of a fault, and what it is called."""
    fine = [_record()]
    for seen, wanted in (
            (Evidence(records=fine, load=LOAD), "recovered"),
            (Evidence(load=LOAD), "not-manifested"),
            (Evidence(records=[_record("gave-up")], load={**LOAD, "io_errors": 7}), "gave-up-by-policy"),
            (Evidence(records=fine, load={**LOAD, "mismatches": 1}), "lost"),
            (Evidence(records=fine, load=LOAD, image=False), "lost"),
            (Evidence(corrupts=True, load={**LOAD, "mismatches": 1}), "wrong-data"),
            (Evidence(corrupts=True, records=fine, load={**LOAD, "io_errors": 1}), "io-error"),
            (Evidence(records=fine, load={**LOAD, "io_errors": 1}), "failed-request"),
            (Evidence(corrupts=True, records=fine, load={**LOAD, "doubled": 1}), "protocol"),
            (Evidence(records=fine, load={**LOAD, "completed": 99}), "stuck"),
            (Evidence(records=fine, load=LOAD, stuck="the transfer stands"), "stuck"),
            (Evidence(corrupts=True, records=fine, load={**LOAD, "mismatches": 1}, canary=False), "canary"),
            (Evidence(records=fine, load=LOAD, guest_failed="triple fault"), "guest-crash"),
            (Evidence(load=LOAD, hypervisor_failed="the machine ended with 69"), "hv-crash"),
            (Evidence(load=LOAD, emulator_died="killed by SIGSEGV"), "emulator-died"),
            (Evidence(load=LOAD, not_injected="no place"), "not-injected")):
        check(judge(seen)[0] == wanted, f"{seen} is called {judge(seen)}, not {wanted}")


@case
def shards_and_blocks(lab):
    """The shards' faults are together the whole's, and each block of faults has every class on every VM once."""
    spec = campaign_plan.Spec(101, 3, ("a", "b", "c"), ("blk0", "net0"), (), (), (), "tcg", "release")
    whole = sorted(index for part in range(4) for index in campaign_plan.indices(spec, (part, 4)))
    check(whole == list(range(101)), f"four shards have {len(whole)} faults")
    jobs = [campaign_plan.job(spec, index) for index in range(96)]
    for at in range(0, 96, 6):
        check(len({(job.vm, job.fault) for job in jobs[at:at + 6]}) == 6, f"a block lacks a class: {jobs[at:at + 6]}")
    check(len({job.load_seed for job in jobs}) == 96, "two faults have the same load")
    check(jobs != [campaign_plan.job(campaign_plan.Spec(101, 4, *list(spec.as_dict().values())[2:]), index) for index in range(96)],
          "another seed makes the same campaign")


# ---- with machines ----

@case
def forty_faults(lab):
    """A campaign with a fixed seed, one with a fresh one, and one fault of them again on a machine of its own."""
    db = lab.folder / "fixed.db"
    found = campaign(lab, db, "--faults", str(FAULTS))
    check(found["outcomes"] == {"recovered": FAULTS}, f"not all recovered: {found['outcomes']}")
    check_rows(rows(db), expected(FAULTS, SEED))
    fresh = lab.random.randrange(1 << 32)
    campaign(lab, lab.folder / "fresh.db", "--faults", "8", seed=fresh)
    check_rows(rows(lab.folder / "fresh.db"), expected(8, fresh))
    number = lab.random.randrange(FAULTS)
    again = json.loads(run(lab, "campaign", "--no-install", "--json", "--replay", str(number), "--db", str(db)))
    check(again["now"]["outcome"] == "recovered" and again["now"]["detector"] == again["then"]["detector"]
          and again["now"]["place"] == again["then"]["place"], f"repeated, it is another fault: {again}")


@case
def interrupted_and_in_shards(lab):
    """Killed in the middle, the same command goes on; its shards, and those that GNU parallel runs, are the whole."""
    db = lab.folder / "shard1.db"
    arguments = ["--seed", str(SEED), "--classes", CLASSES, "--faults", "24"]
    first = subprocess.Popen(command("campaign", "--no-install", *arguments, "--shard", "1/2", "--db", str(db)),
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(partial(db)) < 10:
        check(first.poll() is None and time.monotonic() < deadline, "it made no ten faults")
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = partial(db)
    campaign(lab, db, "--faults", "24", "--shard", "1/2")
    kept = [row for row in rows(db) if (row["id"], row["started"]) in before]
    check(8 <= len(kept) <= len(before) and len(rows(db)) == 12, f"{len(before)} faults before the kill, {len(kept)} kept")
    lab.say(f"| killed after {len(before)} faults, of which {len(kept)} did not have to be made again")
    shards_in_parallel(lab, arguments)
    run(lab, "campaign", "--merge", str(lab.folder / "all.db"), *(str(lab.folder / f"shard{part}.db") for part in (1, 2, 4)))
    check_rows(rows(lab.folder / "all.db"), expected(24, SEED))
    other = lab.folder / "other.db"
    run(lab, "campaign", "--merge", str(other), str(lab.folder / "shard1.db"))
    with sqlite3.connect(other) as base:
        base.execute("UPDATE campaign SET value = replace(value, ?, '1')", (str(SEED),))
    run(lab, "campaign", "--merge", str(other), str(lab.folder / "shard2.db"), status=1)


def partial(db):
    """(id, started) of the rows that are there, also while somebody writes."""
    try:
        with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as base:
            return base.execute("SELECT id, started FROM fault").fetchall()
    except sqlite3.OperationalError:
        return []


def shards_in_parallel(lab, arguments):
    """Quarters 2 and 4 through GNU parallel, as docs/CAMPAIGN.md has it; on this machine without ssh, one after the other."""
    line = command("campaign", "--no-install", *arguments, "--shard", "{}/4", "--db", str(lab.folder / "shard{}.db"))
    done = subprocess.run(["parallel", "--jobs", "1", "--halt", "soon,fail=1", " ".join(line), ":::", "2", "4"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=240, check=False)
    check(done.returncode == 0, f"GNU parallel ended with {done.returncode}: {done.stdout[-600:]}")


if __name__ == "__main__":
    main()
