"""
Campaigns: each fault is told by a row, an interruption costs nothing that was done, shards are together the whole, a fault can be
repeated. Small ones, with the command that people type.
"""

import contextlib
import html.parser
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import types
from unittest import mock
from xml.etree import ElementTree

from bare import free_port
from harness import ROOT, case, check, faultlog, main
from bulkhead_lib import campaign_plan, campaign_worker, control, paths, trace
from bulkhead_lib.campaign import Runner, summary
from bulkhead_lib.campaign_load import REGION
from bulkhead_lib.campaign_plan import Evidence, Spec, judge
from bulkhead_lib.campaign_store import COLUMNS, Store
from bulkhead_lib.campaign_worker import Rig
from bulkhead_lib.faultclass import CLASSES as CLASS_TABLE
from bulkhead_lib.faultlog import Record
from bulkhead_lib.machine import die_with_parent
from bulkhead_lib.ui import Failure

LABEL = "campaign"
TIMEOUT = 600

SEED = 20240607
FAULTS = 300
JOBS = "3"  # machines at once: each waits for much of its time
CLASSES = "crash,hang,wild-write,wild-dma,garbage"
VMS = ("blk0", "net0")


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


def campaign(lab, db, *arguments, seed=SEED, classes=CLASSES, **keywords):
    chosen = ["--classes", classes] if classes else []
    return json.loads(run(lab, "campaign", "--no-install", "--json", "--accel", os.environ.get("BULKHEAD_ACCEL", "tcg"), "--seed", str(seed),
                          "--db", str(db), *chosen, *arguments, **keywords))


def rows(db):
    with Store.existing(db) as store:
        return store.rows()


def identity(row):
    return row["id"], row["seed"], row["vm"], row["class"]


def expected(faults, seed, classes=tuple(CLASSES.split(",")), vms=("blk0",)):
    spec = Spec(faults, seed, classes, vms, ("ahci",), ("e1000e",), (), "tcg", "release")
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
        # How much of it there was is a matter of time: a fault may meet the first requests, and be over before the next.
        check(row["stall_us"] > 0 and row["requests"] > 0, f"no load: {told}")


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
            (Evidence(corrupts=True, load={**LOAD, "protocol": 3, "implausible": 2}), "protocol"),
            (Evidence(corrupts=True, load={**LOAD, "protocol": 3, "implausible": 3}), "io-error"),
            (Evidence(load={**LOAD, "protocol": 3, "implausible": 3}), "failed-request"),
            (Evidence(corrupts=True, load={"mismatches": 0, "io_errors": 0, "mute": 1}), "wrong-data"),
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
    spec = Spec(101, 3, ("a", "b", "c"), ("blk0", "net0"), (), (), (), "tcg", "release")
    whole = sorted(index for part in range(4) for index in campaign_plan.indices(spec, (part, 4)))
    check(whole == list(range(101)), f"four shards have {len(whole)} faults")
    jobs = [campaign_plan.job(spec, index) for index in range(96)]
    for at in range(0, 96, 6):
        check(len({(job.vm, job.fault) for job in jobs[at:at + 6]}) == 6, f"a block lacks a class: {jobs[at:at + 6]}")
    check(len({job.load_seed for job in jobs}) == 96, "two faults have the same load")
    check(jobs != [campaign_plan.job(Spec(101, 4, *list(spec.as_dict().values())[2:]), index) for index in range(96)],
          "another seed makes the same campaign")


@case
def an_emulator_that_hangs(lab):
    """Its socket takes nobody in any more, its monitor is silent: neither may hold up a campaign, nor pass for the hypervisor's fault."""
    lab.folder.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as port, contextlib.ExitStack() as waiting, \
            mock.patch.object(control, "REPLY_SECONDS", 1), mock.patch.object(campaign_worker, "HANG_SECONDS", 0.5):
        port.bind(str(paths.socket_path(lab.folder, "control.sock")))
        port.listen(0)
        waiting.enter_context(socket.socket(socket.AF_UNIX)).connect(str(paths.socket_path(lab.folder, "control.sock")))
        try:
            control.Control(lab.folder).raw("status", 1)
            check(False, "somebody has answered")
        except Failure as failure:
            check("no machine answers" in str(failure), f"the control port says {failure}")
        for program, wanted in ((["sleep", "60"], "emulator-died"), ([sys.executable, "-c", "while True: pass"], "stuck")):
            rig, seen = Rig.__new__(Rig), Evidence()
            rig.folder = lab.folder
            with subprocess.Popen(program, preexec_fn=die_with_parent) as process:
                rig.machine = types.SimpleNamespace(process=process, text="")
                rig.explain(seen, Failure("no answer"))
                process.kill()
            check(judge(seen)[0] == wanted, f"{program[0]} is called {judge(seen)}")


# ---- with machines ----

def all_classes(lab, seed):
    """A campaign over all classes on both driver VMs in which nothing breaks the promise; its file."""
    db = lab.folder / "campaign.db"
    found = campaign(lab, db, "--faults", str(FAULTS), "--vm", ",".join(VMS), "--jobs", JOBS, seed=seed, classes=None, seconds=TIMEOUT)
    lab.say(f"| seed {seed}: {found['outcomes']}")
    rows_ = rows(db)
    wanted = expected(FAULTS, seed, tuple(CLASS_TABLE), VMS)
    check([identity(row) for row in rows_] == wanted, "other faults than were asked for")
    check(found["broken"] == 0 and found["faults"] == FAULTS, f"not all is well: {found['outcomes']}")
    for row in rows_:
        told = {name: row[name] for name in COLUMNS if name not in ("record", "load", "plan")}
        check(row["image"] == 1 or row["outcome"] in ("wrong-data", *campaign_plan.LAST), f"never compared with its image: {told}")
        check(row["manifested"] == (row["outcome"] not in ("not-manifested", "not-injected")), f"manifested or not? {told}")
        # A crash is noticed, and what makes no liar of a driver leaves right data or none.
        check(row["class"] != "crash" or row["outcome"] == "recovered", f"a crash ended otherwise: {told}")
        check(CLASS_TABLE[row["class"]].corrupts or row["outcome"] in ("recovered", "not-manifested", "not-injected", "emulator-died"),
              f"it ended otherwise: {told}")
    check(found["outcomes"]["recovered"] > FAULTS / 4, f"hardly any fault had an effect: {found['outcomes']}")
    return db


@case
def three_hundred_of_a_fixed_seed(lab):
    """Of all classes on both driver VMs; and one of them again, on a machine of its own."""
    db = all_classes(lab, SEED)
    number = lab.random.choice([row["id"] for row in rows(db) if row["class"] == "garbage"])
    again = json.loads(run(lab, "campaign", "--no-install", "--json", "--replay", str(number), "--db", str(db)))
    check(again["now"]["outcome"] == "recovered" and again["now"]["detector"] == again["then"]["detector"]
          and again["now"]["place"] == again["then"]["place"], f"repeated, it is another fault: {again}")


@case
def three_hundred_of_a_fresh_seed(lab):
    all_classes(lab, lab.random.randrange(1 << 32))


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


@case
def wrong_ends(lab):
    """
    An emulator that is killed, a campaign's own bug, and a sector of the image that changes behind everybody's back: each is told by its
    own outcome, costs no other fault, and leaves a directory from which it can be repeated.
    """
    spec = Spec(16, SEED, ("crash", "garbage"), ("blk0",), ("ahci",), ("e1000e",), (), os.environ.get("BULKHEAD_ACCEL", "tcg"), "release")
    inject, compare = Rig._inject, Rig.check_images

    def spoiled_inject(self, wanted, *arguments):
        if wanted.index == 3:
            self.machine.process.kill()
        if wanted.index == 6:
            raise ZeroDivisionError("a bug")
        return inject(self, wanted, *arguments)

    def spoiled_compare(self):
        for slot, (entry, _, _) in enumerate(self.pending):
            if entry.index == 9:
                with open(self.disk_images["blk0"], "r+b") as file:
                    file.seek((slot * REGION + 17) * 512 + 100)
                    file.write(b"\xff\x00\xff\x00")
        return compare(self)

    db = lab.folder / "wrong.db"
    Rig._inject, Rig.check_images = spoiled_inject, spoiled_compare
    try:
        with Store(db) as store:
            store.open_for(spec)
            Runner(spec, store, list(range(16)), 1).run()
    finally:
        Rig._inject, Rig.check_images = inject, compare
    found = {row["id"]: row["outcome"] for row in rows(db)}
    wanted = {**dict.fromkeys(range(16), "recovered"), 3: "emulator-died", 6: "worker-error", 9: "lost"}
    check(found == wanted, f"other ends: {found}")
    for number in (3, 6, 9):
        folder = db.with_suffix(".failures") / str(number)
        check((folder / "fault.json").exists() and (folder / "console.log").exists(), f"fault {number} left {sorted(folder.iterdir())}")
    check("kind=" in (db.with_suffix(".failures") / "9" / "events.txt").read_text(), "the events were not saved")
    check(summary(rows(db))["broken"] == 2, f"an emulator's end counts as broken: {summary(rows(db))}")
    again = json.loads(run(lab, "campaign", "--no-install", "--json", "--replay", str(db.with_suffix(".failures") / "9")))
    check((again["then"]["outcome"], again["now"]["outcome"]) == ("lost", "recovered"), f"repeated, without the change: {again}")


# ---- what is made of it ----

class Strict(html.parser.HTMLParser):
    """Elements must be closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.pictures, self.foreign = [], 0, []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.pictures += tag == "svg"
        self.foreign += [value for name, value in attributes if name in ("src", "href") and not value.startswith("#")]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        check(self.open and self.open.pop() == tag, f"</{tag}> closes something else, line {self.getpos()[0]}")


def invented_row(number, outcome, **fields):
    """A row as a campaign writes it."""
    began = 1000000 + number * 100000
    record = {"seq": number + 1, "vm": "blk0", "kind": "exception", "outcome": "recovered", "injected": "crash", "t_injected": began,
              "t_detect": began + 500, "t_decide": began + 510, "t_quiesce": began + 520, "quiesce_us": 300, "t_reset": began + 900, "reset_us": 50,
              "t_restart": began + 1000, "t_offer": began + 6000, "t_replay": began + 6400, "t_first_completion": began + 9000}
    return {"id": number, "seed": f"1/{number}", "vm": "blk0", "class": "crash", "place": "somewhere <&>", "manifested": 1, "detector": "exception",
            "detect_us": 500, "quiesce_us": 300, "reset_us": 50, "restart_us": 5000, "replay_us": 400, "first_completion_us": 9000 + number,
            "stall_us": 12000 + number, "outcome": outcome, "detail": "", "image": 1, "machine": "m", "started": 1.7e9 + number, "seconds": 0.2,
            "record": json.dumps([record]), "load": "{}", **fields}


@case
def page_and_trace(lab):
    """The page is one well-formed file with its pictures, and names each fault that was not recovered; the trace's spans lie in each other."""
    db = lab.folder / "invented.db"
    with Store(db) as store:
        store.open_for(Spec(60, 1, ("crash",), ("blk0", "net0"), ("ahci",), ("e1000e",), (), "tcg", "release"))
        for number in range(60):
            outcome = {7: "lost", 8: "not-manifested"}.get(number, "recovered")
            fields = {"detail": "three sectors <read> wrong"} if number == 7 else {}
            fields |= {"vm": "net0"} if number % 3 == 1 else {}
            store.put(invented_row(number, outcome, **fields))
        for number in (6, 9, 10, 13):
            store.put_throughput(number, [(ms, (ms + 500) * 40000) for ms in range(-500, 800, 10)])
        store.put_events("m", [{"seq": 1, "us": 5, "vm": "-", "kind": "log", "text": "booted"},
                               {"seq": 2, "us": 2000000, "vm": "blk0", "kind": "inject", "text": "crash armed"}])
    page, out = lab.folder / "page.html", lab.folder / "trace.json"
    run(lab, "report", "--no-install", str(db), "-o", str(page), "--trace", str(out))
    text = page.read_text(encoding="utf-8")
    parser = Strict()
    parser.feed(text)
    ElementTree.fromstring(text.split("\n", 1)[1])
    check(parser.open == [] and parser.pictures == 8, f"{parser.pictures} pictures, open: {parser.open}")
    check(not parser.foreign and "url(http" not in text and len(text) < 1 << 20, f"it is not self-contained: {parser.foreign[:3]}")
    check("three sectors &lt;read&gt; wrong" in text and "broke the promise" in text, "the lost fault is not told")
    names = re.findall(r' id="([^"]+)"', text)
    check(len(names) == len(set(names)), "two pictures share a name")
    check_trace(json.loads(out.read_text(encoding="utf-8")), {"blk0", "hypervisor"})


def check_trace(trace, rows_):
    events = trace["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    whole = [span for span in spans if span["args"]]
    processes = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    check(processes == rows_, f"the rows are {processes}")
    check(whole and all(span["ts"] > 0 and span["dur"] >= 0 for span in spans), f"{len(whole)} faults, or a span before the boot")
    for stage in (span for span in spans if not span["args"]):
        inside = any(fault["pid"] == stage["pid"] and fault["ts"] <= stage["ts"] and stage["ts"] + stage["dur"] <= fault["ts"] + fault["dur"] + 1
                     for fault in whole)
        check(inside, f"a stage lies in no fault: {stage}")
    stages = {span["name"] for span in spans if not span["args"]}
    check({"detect", "decide", "quiesce", "reset", "restart", "replay"} <= stages, f"stages are missing, there are {stages}")
    end = max(span["ts"] + span["dur"] for span in spans)
    check(all(0 <= event["ts"] <= end + 60e6 for event in events if event["ph"] in "iC"), "an event lies outside of the run")


@case
def watched_run(lab):
    """A trace of a running machine: its counters as rates, and a fault that was made meanwhile with its six stages."""
    with lab.machine() as machine:
        machine.boot()
        command = "blk load --seed 1 --depth 8 --quiet"
        machine.send(command)
        machine.expect("load: vda: seed", 20)
        samples = [trace.sample(machine.control)]
        machine.inject("blk0", "crash")
        found = trace.watch(machine.control, 0.5)
        found.add_rates([*samples, trace.sample(machine.control)])
        found.add_faults([record.fields for record in faultlog.read(machine.control)])
        found.write(lab.folder / "trace.json")
        machine.type("\x03")
        machine.finish(command, 60)
    loaded = json.loads((lab.folder / "trace.json").read_text(encoding="utf-8"))
    check_trace(loaded, {"blk0", "main"})
    rates = {event["name"]: event["args"] for event in loaded["traceEvents"] if event["ph"] == "C" and max(event["args"].values()) > 0}
    check({"exits a second", "I/O a second", "bytes a second"} <= set(rates), f"no rates but {list(rates)}")


def partial(db):
    """(id, started) of the rows that are there, also while somebody writes."""
    try:
        with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as base:
            return base.execute("SELECT id, started FROM fault").fetchall()
    except sqlite3.OperationalError:
        return []


def shards_in_parallel(lab, arguments):
    """Quarters 2 and 4 through GNU parallel, as docs/CAMPAIGN.md has it: over ssh to this machine where there is an sshd."""
    line = command("campaign", "--no-install", *arguments, "--shard", "{}/4", "--db", str(lab.folder / "shard{}.db"))
    with Sshd(lab.folder / "ssh") as sshd:
        lab.say(f"| GNU parallel: {'over ssh' if sshd.login else 'no sshd here, so without ssh'}")
        done = subprocess.run(["parallel", "--jobs", "1", "--halt", "soon,fail=1", *sshd.login, " ".join(line), ":::", "2", "4"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, check=False)
    check(done.returncode == 0, f"GNU parallel ended with {done.returncode}: {done.stdout[-600:]}")


class Sshd:
    """An sshd of our own on 127.0.0.1, with keys of its own; without one that is installed, nothing."""

    PROGRAM = "/usr/sbin/sshd"

    def __init__(self, folder):
        self.folder, self.process, self.login = folder, None, []

    def __enter__(self):
        if not os.access(self.PROGRAM, os.X_OK) or not all(map(shutil.which, ("ssh", "ssh-keygen"))):
            return self
        self.folder.mkdir()
        key, port = self.folder / "key", free_port()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        settings = {"ListenAddress": "127.0.0.1", "Port": port, "HostKey": key, "AuthorizedKeysFile": f"{key}.pub", "StrictModes": "no",
                    "UsePAM": "no", "PidFile": "none", "PermitRootLogin": "prohibit-password"}
        config = self.folder / "config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()), encoding="ascii")
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)  # where Debian's separates its privileges
        log = open(self.folder / "log", "w", encoding="utf-8")
        self.process = subprocess.Popen([self.PROGRAM, "-D", "-e", "-f", str(config)], stderr=log, preexec_fn=die_with_parent)
        client = f"ssh -p {port} -i {key} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        self.login = ["--ssh", client, "--sshlogin", "127.0.0.1"]
        deadline = time.monotonic() + 20
        while subprocess.run([*client.split(), "127.0.0.1", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
            check(time.monotonic() < deadline, f"no login: {(self.folder / 'log').read_text()[-400:]}")
            time.sleep(0.2)
        return self

    def __exit__(self, *exc):
        if self.process:
            self.process.terminate()
            self.process.wait()


if __name__ == "__main__":
    main()
