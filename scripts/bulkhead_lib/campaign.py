"""`campaign`: many faults under a verifying load, a row of SQLite for each; goes on where it was interrupted; shards, merges, repeats."""

import collections
import hashlib
import json
import pathlib
import random
import threading
import time

from . import build, campaign_store, faultclass, paths
from .campaign_plan import BROKEN, LAST, OUTCOMES, Evidence, Spec, indices, job, judge, parse_shard
from .campaign_store import Store
from .campaign_worker import Rig, Stranded
from .session import choose_accel
from .ui import Failure, Progress, percentile, print_json, say, table, warn

FOLDER = paths.BUILD / "campaigns"
FAULTS_A_MACHINE = 1000  # then it boots anew, so that nothing can pile up for ever
SETBACKS = 3  # of a worker, one after the other and with nothing done between them, end the campaign
DURATIONS = ("detect_us", "reset_us", "restart_us", "replay_us", "first_completion_us", "stall_us")


def run(arguments):
    if arguments.list_classes:
        table([{"class": kind.name, "corrupts": "yes" if kind.corrupts else "", "what": kind.description} for kind in faultclass.CLASSES.values()])
        return 0
    if arguments.merge:
        have, lack = campaign_store.merge(arguments.merge, arguments.inputs)
        say(f"{arguments.merge}: {have} faults" + (f", {lack} are missing" if lack else ", all of them"))
        return 0
    if arguments.inputs:
        raise Failure("files are named with --merge OUT.db only")
    if arguments.replay is not None:
        return _replay(arguments)
    return _campaign(arguments)


# ---- what is asked for ----

def spec_of(arguments, kind):
    unknown = set(arguments.classes or []) - set(faultclass.CLASSES)
    if unknown:
        raise Failure(f"no class of faults is called {', '.join(sorted(unknown))}; there are: {', '.join(faultclass.CLASSES)}")
    if bad := [pair for pair in arguments.key if "=" not in pair]:
        raise Failure(f"--key {bad[0]}: this is not KEY=VALUE")
    if arguments.faults < 1 or arguments.jobs < 1:
        raise Failure("at least one fault and one job are needed")
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    # What takes two driver VMs is left out where there is one.
    fitting = [name for name in faultclass.CLASSES if name != "two-vms" or len(arguments.vm) > 1]
    return Spec(arguments.faults, seed, tuple(arguments.classes or fitting), tuple(arguments.vm), tuple(arguments.disks),
                tuple(arguments.nics), tuple(arguments.key), kind, arguments.preset)


def _campaign(arguments):
    shard = parse_shard(arguments.shard)
    if arguments.shard and arguments.seed is None:
        raise Failure("--shard needs --seed: all shards of a campaign have the same one")
    spec = spec_of(arguments, choose_accel(arguments.accel))
    spec.layout()
    name = f"seed-{spec.seed}" + (f"-shard-{shard[0] + 1}-of-{shard[1]}" if shard[1] > 1 else "")
    path = pathlib.Path(arguments.db or FOLDER / f"{name}.db").resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with Store(path) as store:
        store.open_for(spec)
        done = store.done()
        todo = [index for index in indices(spec, shard) if index not in done]
        say(f"seed {spec.seed}, results in {path}" + (f"; going on, {len(done)} are there" if done else ""))
        if todo:
            build.build(spec.preset, verbose=arguments.verbose)
            Runner(spec, store, todo, arguments.jobs).run()
        return summarize(store, arguments.json)


# ---- running ----

class Runner:
    """Workers, each with a machine of its own, that take faults from one list."""

    def __init__(self, spec, store, todo, jobs):
        self.spec, self.store = spec, store
        self.queue = collections.deque(todo)
        self.jobs = min(jobs, len(todo))
        self.total = len(todo)
        self.outcomes = {}  # of each fault so far
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.setbacks = {}
        self.failure = None
        self.progress = None

    def run(self):
        self.progress = Progress(f"campaign of {self.total} faults")
        workers = [threading.Thread(target=self._guarded, args=(number,)) for number in range(self.jobs)]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                # In pieces: a Ctrl-C must get through while it waits.
                while worker.is_alive():
                    worker.join(0.5)
        finally:
            self.stopped.set()
            for worker in workers:
                worker.join()
        if self.failure:
            raise self.failure
        self.progress.done(self._told())

    def _guarded(self, number):
        """A worker's end by an error ends the others, too; nobody waits for ever."""
        try:
            self._work(number)
        except BaseException as error:
            self.failure = self.failure or error
            self.stopped.set()

    def _work(self, number):
        self.setbacks[number] = 0
        while not self.stopped.is_set() and self.queue:
            try:
                with Rig(self.spec, instance_folder(self.store.path, number), self.spec.accel) as rig:
                    self._live(rig, number)
            except Failure as failure:
                self.setbacks[number] += 1
                if self.setbacks[number] == SETBACKS:
                    raise
                warn(f"worker {number} starts again: {failure}")

    def _live(self, rig, number):
        """One machine's life: until the work is done, it has lived long enough, or something is wrong."""
        unchecked, row = set(), None
        try:
            while rig.count < FAULTS_A_MACHINE and not self.stopped.is_set() and (index := self._next()) is not None:
                try:
                    row, _ = rig.run(job(self.spec, index))
                except Stranded as failure:
                    self._give_back([index])
                    unchecked.discard(row["id"])
                    self._strand(rig, row, failure)
                    return
                row["worker"] = number
                self._put(row)
                if row["outcome"] in BROKEN + LAST:
                    self._wrong(rig, {**row, "image": row.get("image") or 0})
                    return
                unchecked |= {index} if row.get("image") is None else set()
                if rig.full() and not self._check(rig, unchecked, number):
                    return
            self._check(rig, unchecked, number)
        finally:
            # What was not compared with its image is made again.
            self._give_back(unchecked)

    def _check(self, rig, unchecked, number):
        """Settle the rows of the last faults. False: the machine did not survive the comparison, for which the last fault answers."""
        last = rig.pending[-1][1] if rig.pending else None
        try:
            settled = rig.check_images()
            self.store.put_events(rig.name, rig.events())
        except Failure as failure:
            if last is None:
                raise
            seen = Evidence()
            rig.explain(seen, failure)
            last["outcome"], last["detail"], last["image"] = *judge(seen), 0
            self._wrong(rig, last)
            unchecked.discard(last["id"])
            return False
        for row in settled:
            if not row["image"] and row["outcome"] not in ("wrong-data", "gave-up-by-policy"):
                liar = faultclass.CLASSES[row["class"]].corrupts
                row["outcome"], row["detail"] = "wrong-data" if liar else "lost", "the image lacks what was acknowledged"
                self._wrong(rig, row)
            self.store.put(row)
            unchecked.discard(row["id"])
        self.setbacks[number] = 0
        return True

    def _strand(self, rig, row, failure):
        """Its driver VM does not come back any more: this was not over when its row was written."""
        if failure.gave_up:
            row["outcome"], row["detail"] = "gave-up-by-policy", str(failure)
        else:
            seen = Evidence()
            rig.explain(seen, failure)
            row["outcome"], row["detail"] = judge(seen)
        row["manifested"], row["image"] = 1, row.get("image") or 0
        self._wrong(rig, row)

    def _wrong(self, rig, row):
        """The directory from which this fault can be repeated and understood."""
        self.store.put(row)
        with self.lock:
            self.outcomes[row["id"]] = row["outcome"]
        folder = failure_folder(self.store.path, row["id"])
        rig.save(folder)
        (folder / "fault.json").write_text(json.dumps({"spec": self.spec.as_dict(), "row": row}, indent=1, default=str), encoding="utf-8")
        warn(f"fault {row['id']}, {row['class']} on {row['vm']}: {row['outcome']}: {row['detail']}; "
             f"to repeat: scripts/bulkhead campaign --replay {folder}")

    def _next(self):
        with self.lock:
            return self.queue.popleft() if self.queue else None

    def _give_back(self, jobs):
        with self.lock:
            self.queue.extendleft(jobs)

    def _put(self, row):
        self.store.put(row)
        if row.get("throughput"):
            self.store.put_throughput(row["id"], row["throughput"])
        with self.lock:
            self.outcomes[row["id"]] = row["outcome"]
            self.progress.update(self._told())

    def _told(self):
        seconds = max(time.monotonic() - self.progress.start, 1e-3)
        count = len(self.outcomes)
        rate = count / seconds
        eta = f", {(self.total - count) / rate:.0f} s left" if 0 < count < self.total else ""
        counts = ", ".join(f"{name} {number}" for name, number in collections.Counter(self.outcomes.values()).most_common())
        return f"{count}/{self.total}, {rate:.1f} a second{eta}; {counts}"


def instance_folder(db, number):
    """Of a worker's machine: the same one after an interruption, another one for another file of the same name."""
    digest = hashlib.sha1(str(pathlib.Path(db).resolve()).encode()).hexdigest()[:8]
    return paths.RUN / f"campaign-{digest}-{number}"


def failure_folder(db, number):
    return pathlib.Path(db).with_suffix(".failures") / str(number)


# ---- telling ----

def summary(rows):
    """What a campaign came to, for people and programs."""
    classes = {}
    for row in rows:
        classes.setdefault((row["vm"], row["class"]), collections.Counter())[row["outcome"]] += 1
    times = []
    for name in DURATIONS:
        values = [row[name] for row in rows if row[name] is not None]
        times.append({"us": name.removesuffix("_us"), "n": len(values), "p50": percentile(values, 50), "p99": percentile(values, 99),
                      "max": max(values, default=None)})
    return {
        "faults": len(rows),
        "outcomes": dict(collections.Counter(row["outcome"] for row in rows).most_common()),
        "broken": sum(row["outcome"] in BROKEN for row in rows),
        "classes": [{"vm": vm, "class": name, "n": sum(counts.values()), **{key: counts.get(key, 0) for key in OUTCOMES
                     if any(row["outcome"] == key for row in rows)}} for (vm, name), counts in sorted(classes.items())],
        "times": times,
    }


def summarize(store, as_json):
    rows = store.rows()
    found = {"seed": store.spec().seed, "db": str(store.path), **summary(rows)}
    if as_json:
        print_json(found)
    else:
        table(found["classes"])
        print()
        table(found["times"])
        print(f"\n{found['faults']} faults: " + ", ".join(f"{name} {count}" for name, count in found["outcomes"].items()))
        for row in rows:
            if row["outcome"] in BROKEN:
                print(f"fault {row['id']}: {row['class']} on {row['vm']}: {row['outcome']}: {row['detail']}")
    return 1 if found["broken"] else 0


# ---- repeating one ----

def _replay(arguments):
    """The same fault at the same place with the same load, on a machine of its own; says what came of it, then and now."""
    spec, row = _recorded(arguments)
    build.build(spec.preset, verbose=arguments.verbose)
    accel = choose_accel(arguments.accel)
    wanted = job(spec, row["id"])
    plan = None
    if row.get("plan"):
        fields = json.loads(row["plan"])
        plan = faultclass.Plan(fields["commands"], row["place"], fields["wait"], tuple(fields["vms"]))
    folder = paths.RUN / f"replay-{row['id']}"
    with Rig(spec, folder, accel) as rig:
        again, seen = rig.run(wanted, plan)
        if again["outcome"] not in BROKEN + LAST:
            rig.check_images()
            if again["image"] == 0 and again["outcome"] != "wrong-data":
                again["outcome"] = "wrong-data" if seen.corrupts else "lost"
        if arguments.keep:
            rig.save(pathlib.Path(arguments.keep))
    shown = ("outcome", "detail", "detector", "place", *DURATIONS)
    both = {"id": row["id"], "vm": row["vm"], "class": row["class"], "seed": row["seed"],
            "then": {name: row.get(name) for name in shown}, "now": {name: again.get(name) for name in shown}}
    if arguments.json:
        print_json(both)
    else:
        print(f"fault {row['id']}: {row['class']} on {row['vm']}, seed {row['seed']}")
        table([{"": name, "then": both["then"][name], "now": both["now"][name]} for name in shown])
    return 1 if again["outcome"] in BROKEN else 0


def _recorded(arguments):
    """(spec, row) of --replay: a number in --db, or the directory that a fault has left."""
    folder = pathlib.Path(arguments.replay)
    if (folder / "fault.json").is_file():
        fields = json.loads((folder / "fault.json").read_text(encoding="utf-8"))
        return Spec.from_dict(fields["spec"]), fields["row"]
    if not arguments.replay.isdecimal():
        raise Failure(f"--replay {arguments.replay}: neither a fault's number nor a directory that a fault has left")
    path = arguments.db or max(FOLDER.glob("*.db"), key=lambda file: file.stat().st_mtime, default=None)
    if path is None:
        raise Failure("no campaign has run here; name its results with --db")
    with Store.existing(path) as store:
        return store.spec(), store.row(int(arguments.replay))

