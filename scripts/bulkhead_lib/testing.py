"""
`test`: unit tests and fuzz targets through CTest, system tests as programs, in bounded time and in two lanes: most tests leave half of
two CPUs idle.

A system test is a Python file tests/*/test_*.py that says LABEL (one or more) and TIMEOUT (seconds) in its first lines and prints a
line "PASS name ..." or "FAIL name: why" for each of its cases (tests/system/harness.py does that).
"""

import collections
import concurrent.futures
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time

from . import build, paths
from .session import choose_accel
from .ui import Failure, say

CTEST_PRESETS = ("host", "fuzz")
SYSTEM_FOLDERS = ("tests/system", "tests/model", "tests/proof")
RESULT = re.compile(r"^(PASS|FAIL) (\S+?):?(?:\s|$)")
SETTING = re.compile(r'^(LABEL|TIMEOUT) = (?:"([\w -]+)"|(\d+))', re.MULTILINE)
TAIL_LINES = 30
LONG = "vmx"  # the label of what runs in Bochs, which has a time of its own


class Job:
    """One program that reports one or more results."""

    def __init__(self, name, label, command, timeout, cwd=None, environment=None, cases=False):
        self.name = name
        self.label = label  # of a system test: words
        self.command = command
        self.timeout = timeout
        self.cwd = cwd
        self.environment = environment or {}
        self.cases = cases  # prints PASS/FAIL lines of its own


def run(arguments):
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    deadline = time.monotonic() + arguments.time_limit * 60
    wanted = set(arguments.label or [])
    system = system_jobs(wanted)
    labels = {"unit": "host", "fuzz": "fuzz"}
    presets = [preset for label, preset in labels.items() if not wanted or label in wanted]
    known = set(labels) | {label for job in system_jobs(set()) for label in job.label.split()}
    if wanted - known:
        raise Failure(f"no test has the label {', '.join(sorted(wanted - known))}; there are: {', '.join(sorted(known))}")
    for preset in presets:
        build.build(preset, verbose=arguments.verbose)
    if system:
        build.build("release", verbose=arguments.verbose)
    jobs = [job for preset in presets for job in ctest_jobs(preset)] + system
    if not jobs:
        raise Failure("there is nothing to test")
    if arguments.list:
        for job in jobs:
            print(f"{job.label:12} {job.name}")
        return 0
    accelerator = choose_accel(arguments.accel) if system else "tcg"
    say(f"seed: {seed} (repeat with --seed {seed})")
    shutil.rmtree(paths.TEST_LOGS, ignore_errors=True)
    return _run_all(jobs, deadline, {"BULKHEAD_SEED": str(seed), "BULKHEAD_ACCEL": accelerator})


def ctest_jobs(preset):
    """What CTest knows in this build folder. A broken registration is an error, not an empty list."""
    query = subprocess.run(["ctest", "--test-dir", str(paths.BUILD / preset), "--show-only=json-v1"],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if query.returncode != 0:
        raise Failure(f"ctest cannot list the tests of {preset}: {query.stderr.strip()}")
    jobs = []
    for test in json.loads(query.stdout)["tests"]:
        properties = {item["name"]: item["value"] for item in test.get("properties", [])}
        if "command" not in test:
            raise Failure(f"{test['name']} has no program; was it built?")
        environment = dict(item.split("=", 1) for item in properties.get("ENVIRONMENT", []))
        jobs.append(Job(test["name"], (properties.get("LABELS") or [preset])[0], test["command"],
                        float(properties.get("TIMEOUT", 120)), properties.get("WORKING_DIRECTORY"), environment))
    if not jobs:
        raise Failure(f"CTest knows no test in build/{preset}")
    return jobs


def system_jobs(wanted):
    jobs = []
    for folder in SYSTEM_FOLDERS:
        for path in sorted((paths.ROOT / folder).glob("test_*.py")):
            settings = {name: text or number for name, text, number in SETTING.findall(path.read_text(encoding="utf-8"))}
            label = settings.get("LABEL", path.stem.removeprefix("test_"))
            if not wanted or wanted & set(label.split()):
                jobs.append(Job(path.stem, label, ["/usr/bin/python3", str(path)], float(settings.get("TIMEOUT", 300)),
                                cases=True))
    return jobs


class _Run:
    """
    Runs jobs in two lanes and counts. One lane goes through the list from the front; the other begins with the long ones and
    goes on from the back, so that both end at about the same time.
    """

    def __init__(self, jobs, deadline, environment):
        self.total = len(jobs)
        self.long = collections.deque(job for job in jobs if LONG in job.label.split())
        self.others = collections.deque(job for job in jobs if LONG not in job.label.split())
        self.deadline = deadline
        self.environment = environment
        self.number = self.passed = self.failed = 0
        self.lock = threading.Lock()

    def front(self):
        self._until_empty(self.others.popleft)

    def back(self):
        self._until_empty(self.long.popleft)
        # One CPU is no more than one lane needs.
        if (os.cpu_count() or 1) > 1:
            self._until_empty(self.others.pop)

    def _until_empty(self, take):
        while True:
            try:
                job = take()
            except IndexError:
                return
            self._run(job)

    def _run(self, job):
        with self.lock:
            self.number += 1
            lead = f"[{self.number}/{self.total}] {job.label}: {job.name}"
        left = self.deadline - time.monotonic()
        if left <= 1:
            self._count(0, 1, f"{lead}: FAIL: not run, the time limit is over")
            return
        good, bad, seconds, why = _run_job(job, min(job.timeout, left), self.environment, lead)
        verdict = "ok" if not bad else f"FAIL{': ' + why if why else ''}"
        detail = f", {good} of {good + bad} cases" if job.cases else ""
        self._count(good, bad, f"{lead}: {verdict} ({seconds:.1f} s{detail})")

    def _count(self, good, bad, line):
        with self.lock:
            self.passed += good
            self.failed += bad
            print(line, flush=True)


def _run_all(jobs, deadline, environment):
    run_ = _Run(jobs, deadline, environment)
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        side = pool.submit(run_.back)
        try:
            run_.front()
            side.result()
        except BaseException:
            # Ctrl-C, most of all: the other lane must end as well, and what it runs hears no signal of the terminal.
            run_.long.clear()
            run_.others.clear()
            _Killer.kill_all()
            raise
    print(f"{run_.passed} passed, {run_.failed} failed", flush=True)
    return 1 if run_.failed else 0


def _run_job(job, timeout, environment, lead):
    """(passed, failed, seconds, why). The output goes to build/test-logs/<name>/output.log."""
    folder = paths.TEST_LOGS / job.name
    folder.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, **job.environment, **environment, "BULKHEAD_LOG_DIR": str(folder),
                 "PYTHONDONTWRITEBYTECODE": "1"}
    start = time.monotonic()
    lines = []
    with open(folder / "output.log", "w", encoding="utf-8") as log:
        # A process group of its own: on a time-out everything that the test started goes with it.
        with subprocess.Popen(job.command, cwd=job.cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", start_new_session=True) as process:
            timer = _Killer(process, timeout)
            try:
                for line in process.stdout:
                    log.write(line)
                    log.flush()
                    lines.append(line.rstrip("\n"))
                    # Long tests tell how they stand: on a terminal the line is replaced by the verdict.
                    if job.cases and (RESULT.match(line) or line.startswith(("| ", "report: "))):
                        print(f"  {job.name}: {line.rstrip()}", flush=True)
            except BaseException:
                timer.kill()
                raise
            finally:
                timer.cancel()
    return _judge(job, lines, process.returncode, timer.fired, time.monotonic() - start, folder, timeout, lead)


def _judge(job, lines, code, timed_out, seconds, folder, timeout, lead):
    results = [match[1] for match in map(RESULT.match, lines) if match] if job.cases else []
    good = results.count("PASS") if job.cases else int(code == 0 and not timed_out)
    bad = results.count("FAIL") if job.cases else 1 - good
    why = ""
    if timed_out:
        why = f"not done within {timeout:.0f} s"
    elif code != 0:
        why = f"exit code {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
    elif job.cases and not results:
        why = "it ran no case"
    # A program that dies between its cases must not look like a success.
    if why and not bad:
        bad = 1
    if bad:
        print(f"{lead}: the end of {folder / 'output.log'}:")
        for line in lines[-TAIL_LINES:]:
            print(f"    {line}")
    return good, bad, seconds, why


class _Killer:
    """Ends a process group after a time."""

    live = set()

    def __init__(self, process, seconds):
        self.process = process
        self.live.add(self)
        self.fired = False
        self.timer = threading.Timer(seconds, self._expire)
        self.timer.daemon = True
        self.timer.start()

    def _expire(self):
        self.fired = True
        self.kill()

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def cancel(self):
        self.timer.cancel()
        self.live.discard(self)

    @classmethod
    def kill_all(cls):
        for killer in list(cls.live):
            killer.kill()
