"""
What the system tests stand on: real images in a real emulator, driven by console and control port.

A test file says LABEL and TIMEOUT, marks its cases with @case (or, where devices share a suite, with cases_for) and ends
with main(). A case takes a Lab, boots what it needs with lab.machine(...), and raises (assert, check) when something is
wrong. Everything random comes from lab.random, whose seed is printed. Waiting is for events with a deadline; nothing sleeps.

By hand: /usr/bin/python3 tests/system/test_blk.py [--seed N] [--case 'nvme/*'] [-v], after scripts/bulkhead built `release`.
"""

import argparse
import fnmatch
import functools
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import sys
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "scripts"))

from bulkhead_lib import esp, faultlog, paths, qemu  # noqa: E402
from bulkhead_lib.control import Control  # noqa: E402
from bulkhead_lib.guest_output import find_json  # noqa: E402,F401
from bulkhead_lib.machine import Machine, MachineEnded, remove_instance  # noqa: E402,F401
from bulkhead_lib.hardware import make_sparse  # noqa: E402

MIB = 1 << 20
BOOT_SECONDS = 90
DISK_BYTES = 64 * MIB
TAIL_LINES = 40
TAIL_COLUMNS = 240

_cases = {}


def case(function):
    """Marks a test case."""
    _cases[function.__name__] = function
    return function


def cases_for(device, functions):
    """Makes a case DEVICE/FUNCTION of each function of a suite; it takes the Lab and the device, which has a name."""
    for function in functions:
        _cases[f"{device.name}/{function.__name__}"] = functools.partial(function, device=device)


def check(condition, message):
    """Like assert, with a sentence; stands also under python -O."""
    if not condition:
        raise AssertionError(message)


def driver(name="blk0", **keys):
    """A section of a manifest: the disk's driver VM. Keys replace or add; None leaves a key out."""
    return vm(name, {"kind": "driver", "image": "ahci.elf", "device": "pci:00:1f.2", "memory": "1M", **keys})


def guest(name="main", **keys):
    return vm(name, {"kind": "guest", "image": "guestos.elf", "memory": "256M", **keys})


def vm(name, keys):
    lines = [f"{key.removesuffix('_')} = {value}" for key, value in keys.items() if value is not None]
    return "\n".join([f"[vm {name}]", *lines, ""])


def manifest(*sections, control="com2", exit_port="0xf4"):
    """A whole manifest; without sections: the disk's driver and the guest."""
    head = vm("x", {"control": control, "exit_port": exit_port}).replace("[vm x]", "[hypervisor]")
    return "\n".join([head, *(sections or (driver(), guest()))])


def line_of(text, pattern):
    """The 1-based line of a manifest that the pattern first matches."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(pattern, line):
            return number
    raise ValueError(f"no line like {pattern!r}")


class LoggedControl(Control):
    """A control port whose exchanges are written down in the case's folder."""

    def raw(self, command, timeout=30.0):
        with open(self.folder / "control.log", "a", encoding="utf-8") as log:
            log.write(f"> {command}\n")
            lines = super().raw(command, timeout)
            log.writelines(f"{line}\n" for line in lines)
        return lines


class TestMachine(Machine):
    """A machine that leaves its events behind, and says in one call what tests ask for most."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.control = LoggedControl(self.folder)
        self.fault_sequence = 0

    def boot(self, timeout=BOOT_SECONDS):
        """To the guest's prompt, with command statuses on."""
        self.shell_start(timeout)
        return self

    def run(self, line, timeout=60, status=0):
        """A guest command that must end with this status (None: any); its output."""
        output, got = self.command(line, timeout)
        check(status is None or got == status, f"`{line}` ended with status {got}: {output.strip()[-300:]}")
        return output

    def events(self, kind=None):
        rows = self.control.rows("events", "event")
        return [row for row in rows if kind is None or row.get("kind") == kind]

    def status(self, kind, name=None):
        """The fields of the status line of this kind (and name)."""
        for fields in self.control.rows("status", kind):
            if name is None or fields.get("name") == name:
                return fields
        raise AssertionError(f"`status` has no line `{kind}{' name=' + name if name else ''}`")

    def inject(self, vm, fault, seconds=20):
        """Make a driver VM fail (or, fault `restart`, ask for another) and wait for the end of its recovery; its record."""
        # Only what is newer than the last one seen is asked for: the history of a long test is long.
        seen = faultlog.read(self.control, self.fault_sequence + 1)
        self.fault_sequence = max([record.sequence for record in seen], default=self.fault_sequence)
        self.control.ask(f"restart {vm}" if fault == "restart" else f"inject {vm} {fault}")
        record = faultlog.wait_for(self.control, vm, self.fault_sequence, seconds)
        self.fault_sequence = record.sequence
        return record

    def ends_with_error(self, timeout=BOOT_SECONDS):
        """Wait for the machine to refuse to boot; its `bulkhead: ` lines. Fails when it boots instead."""
        try:
            self.wait_prompt(timeout)
        except MachineEnded:
            # Without an exit port QEMU goes on, in the firmware: the line itself is what ended the wait.
            errors = self.errors()
            check(errors, "the machine ended without a `bulkhead: ` line")
            if not self.in_firmware():
                code = self.wait_exit(20)
                check(code == qemu.BOOT_ERROR, f"QEMU ended with {code}, a boot error would be {qemu.BOOT_ERROR}")
            return errors
        raise AssertionError("the guest came up, although the boot should have been refused")

    def save_logs(self):
        """events and status, while somebody is there to ask."""
        if self.process is None or self.process.poll() is not None:
            return
        # A machine that stayed in the firmware has no control port to wait for.
        if not any(line.startswith("[hv ") for line in self.log()):
            return
        for command in ("events", "status"):
            try:
                lines = Control(self.folder).raw(command, 5)
            except Exception as error:  # a dead machine is no reason to hide the test's own failure
                lines = [f"({error})"]
            (self.folder / f"{command}.log").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def __exit__(self, *exc):
        self.save_logs()
        super().__exit__(*exc)
        remove_instance(self.folder, keep=False)


class Lab:
    """What a case gets: its folder for logs, its random numbers, machines, disks."""

    def __init__(self, folder, seed, verbose):
        self.folder = folder
        self.seed = seed
        self.random = random.Random(seed)
        self.verbose = verbose
        self.machines = 0
        self.images = paths.images(os.environ.get("BULKHEAD_PRESET", "release"))

    def say(self, text):
        print(text, flush=True)

    def machine(self, manifest_text=None, disk=None, replace=None, **options):
        """A machine that is not started yet (`with` starts it). options: fields of qemu.Options; disk: None makes one."""
        self.machines += 1
        folder = self.folder / (f"machine{self.machines}" if self.machines > 1 else "machine")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        options.setdefault("accel", os.environ.get("BULKHEAD_ACCEL", "tcg"))
        if disk is None:
            disk = self.disk()
        show = self.say if self.verbose else None
        return TestMachine(qemu.Options(folder=folder, disk=disk, **options), self.images, manifest_text or manifest(),
                           {**esp.checked(self.images), **(replace or {})}, on_log=show, on_error=show)

    def disk(self, size=DISK_BYTES, random_bytes=0):
        """An image of `size` bytes whose first random_bytes are random (from the seed), the rest zero."""
        path = self.folder / f"disk{len(list(self.folder.glob('disk*.img')))}.img"
        make_sparse(path, size)
        with open(path, "r+b") as file:
            for at in range(0, random_bytes, MIB):
                file.write(self.random.randbytes(min(MIB, random_bytes - at)))
        return path

    def image(self, name):
        """The bytes of a built image, for tests that break it."""
        return (self.images / name).read_bytes()

    def report(self, name, value):
        """A JSON report beside the logs, where it outlives the run."""
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        self.say(f"report: {path}")


def sha256_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(4 * MIB):
            digest.update(block)
    return digest.hexdigest()


# What `blk load` counts and must not happen.
LOAD_ERRORS = ("io_errors", "mismatches", "doubled", "unknown", "protocol", "lost", "aborted")


def check_load(output, status):
    """A load's report must show no error of any kind; the report."""
    result = find_json(output)
    wrong = {name: result[name] for name in LOAD_ERRORS if result[name]}
    check(status == 0 and not wrong, f"the load ended with status {status}, {wrong}: {output.strip()[-600:]}")
    check(result["requests"] == result["completed"], f"requests without completion: {result}")
    return result


def _tails(folder):
    for name in ("console.log", "emulator.stderr", "control.log"):
        for path in sorted(folder.glob(f"**/{name}")):
            lines = path.read_text(errors="replace").replace("\r", "").splitlines()
            if lines:
                print(f"--- {path} (last lines)")
                for line in lines[-TAIL_LINES:]:
                    print(f"    {line[:TAIL_COLUMNS]}")


def _run_case(name, folder, seed, verbose):
    case_folder = folder / name
    shutil.rmtree(case_folder, ignore_errors=True)
    case_folder.mkdir(parents=True)
    start = time.monotonic()
    try:
        # Each case draws from its own generator: running one alone repeats what it did among the others.
        _cases[name](Lab(case_folder, f"{seed}/{name}", verbose))
    except Exception as error:  # whatever it is, it is this case's failure, and the others still run
        print(f"FAIL {name}: {type(error).__name__}: {error}", flush=True)
        traceback.print_exc(limit=-4, file=sys.stdout)
        _tails(case_folder)
        return False
    finally:
        # Images are large and can be made again from the seed.
        for image in case_folder.glob("disk*.img"):
            image.unlink()
    print(f"PASS {name} ({time.monotonic() - start:.1f} s)", flush=True)
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", default=os.environ.get("BULKHEAD_SEED", str(random.SystemRandom().randrange(1 << 32))))
    parser.add_argument("--case", action="append", help="only those of this name, which may be a pattern (repeat it for more)")
    parser.add_argument("--list", action="store_true", help="name the cases, run none")
    parser.add_argument("-v", "--verbose", action="store_true", help="show log lines while they come")
    arguments = parser.parse_args()
    name = pathlib.Path(sys.argv[0]).stem
    folder = pathlib.Path(os.environ.get("BULKHEAD_LOG_DIR", paths.TEST_LOGS / name))
    chosen = [case_name for case_name in _cases
              if any(fnmatch.fnmatchcase(case_name, pattern) for pattern in arguments.case or ["*"])]
    if not chosen:
        sys.exit(f"no such case; there are: {', '.join(_cases)}")
    if arguments.list:
        print("\n".join(chosen))
        return
    print(f"seed {arguments.seed}", flush=True)
    results = [_run_case(case_name, folder, arguments.seed, arguments.verbose) for case_name in chosen]
    sys.exit(0 if all(results) else 1)
