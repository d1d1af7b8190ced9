"""One machine that lives for many faults: boots, runs a load, injects, watches the recovery, tells what it saw."""

import json
import pathlib
import re
import shutil
import signal
import subprocess
import time
import uuid

from . import debug, devices, esp, faultclass, faultlog, hardware, machine, network, paths, qemu
from .campaign_load import QUIET_SECONDS, REGION, REGIONS, SECTOR, BlockSamples, DiskLoad, NetLoad, guest_hash, image_hash
from .campaign_plan import BROKEN, LAST, Evidence, judge
from .control import Control, ControlError
from .hostprocess import cpu_us
from .ui import Failure

DISK_BYTES = 64 << 20
BOOT_SECONDS = 150
# Faults with a detector of their own are noticed within a heartbeat's time; others may never be.
NOTICE_SECONDS, LATENT_SECONDS = 2.0, 0.1
MUTE_SECONDS = 1.5  # that a transfer may stand before its driver, of which anything is possible, is replaced
SETTLE_SECONDS = 80  # a recovery, with the pauses that the manifest may ask for, or until the policy gives up
WATCH_BEFORE, WATCH_AFTER = 0.4, 0.6
HANG_SECONDS = 5.0
POLL_SECONDS = 0.006
REGISTER_SAMPLES = 8
EVENTS_KEPT = 200  # faults of each machine whose events are kept for `report --trace`
UP, DEAD = ("running", "degraded"), ("failed", "off", "stopped")
GUEST_PANIC = re.compile(r"guestos: panic:.*")
# A device that never comes back is given up on before the guest calls its requests lost. Orders of ours make the policy count from
# zero, so that many faults one after the other are not taken for that.
POLICY = {"limit": "8", "window": "5m", "deadline": "2s"}
CRASHES_COUNTED = 3
# QEMU's NVMe model needs a pause before its reset (docs/FAULTS.md); in a window of 1 ms it does not double, and never gives up.
PAUSES = {"nvme": {"backoff": "1s", "limit": "1000", "window": "1ms"}}


class Stranded(Failure):
    """A driver VM does not come back from its planned restart: what the fault before has left, so that one answers for it."""

    def __init__(self, text, gave_up):
        super().__init__(text)
        self.gave_up = gave_up


class Session(Control):
    """A control port that one process keeps to itself: no turns to take and no leftovers to wait for, so a tenth of the time."""

    connection = None

    def raw(self, command, timeout=10):
        deadline = time.monotonic() + timeout
        try:
            if self.connection is None:
                self.connection = self._connect()
                self._drain(self.connection)
            self.connection.sendall(command.encode() + b"\n")
            return self._reply(self.connection, command, deadline)
        except ControlError:
            raise
        except (Failure, OSError) as error:
            self.close()
            raise Failure(f"the machine ended during `{command}`" if isinstance(error, OSError) else str(error)) from error

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None


def manifest(spec, found):
    extra = dict(pair.split("=", 1) for pair in spec.keys)
    sections = [device.section(**{**POLICY, **PAUSES.get(device.model, {}), **extra}) for device in found]
    return "\n".join(["[hypervisor]\ncontrol = com2\nexit_port = 0xf4\n", *sections,
                      "[vm main]\nkind = guest\nimage = guestos.elf\nmemory = 256M\n"])


class Rig:
    """A booted machine. run() makes one fault and returns its row; check_images() compares the last ones with the disks."""

    def __init__(self, spec, folder, accel):
        self.name = uuid.uuid4().hex[:8]
        self.folder = pathlib.Path(folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.found = spec.layout()
        disks, nics = devices.disks(self.found), devices.nics(self.found)
        self.disks = {device.vm: f"vd{chr(ord('a') + number)}" for number, device in enumerate(disks)}
        self.disk_images = {device.vm: self.folder / f"{device.vm}.img" for device in disks}
        for path in self.disk_images.values():
            hardware.make_sparse(path, DISK_BYTES)
        self.images = paths.images(spec.preset)
        net = network.user(nics, [network.Forward(card.vm, 0, 80) for card in nics])
        self.ports = {forward["card"]: forward["host"] for forward in net.facts["forwards"]}
        options = qemu.Options(folder=self.folder, accel=accel, memory=512, sata_disk=False)
        options.extra = devices.drives(self.found, list(self.disk_images.values()), unsafe=True) + net.arguments + devices.arguments(self.found)
        self.machine = machine.Machine(options, self.images, manifest(spec, self.found), esp.checked(self.images))
        self.control = Session(self.folder)
        self.sequence = 0  # of the last fault record that was looked at
        self.events_from = 1
        self.count = 0
        self.pending = []  # (job, row, hash of its region): not yet compared with the image
        self.replaced = False  # a planned restart is under way
        self.silent = ""  # why the control port is not to be believed any more: a late answer would be taken for the next one's
        self.crashes = {}  # of each VM since the last order for it

    def __enter__(self):
        self.machine.start()
        try:
            self.machine.shell_start(BOOT_SECONDS)
            for number, card in enumerate(devices.nics(self.found)):
                self.machine.command(f"ifconfig {card.vm} 10.0.{2 + number}.15/24 10.0.{2 + number}.2")
            if self.ports:
                self.machine.command("http serve 80")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self.control.close()
        self.machine.kill()
        machine.remove_instance(self.folder, keep=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- one fault ----

    def run(self, job, plan=None):
        """
        The row of a fault, whatever happens in it, and what it was judged by. plan: to be repeated; None: the class makes it. Raises
        Stranded before anything is done.
        """
        self._settle()
        self.count += 1
        seen = Evidence(corrupts=faultclass.CLASSES[job.fault].corrupts)
        row = {"id": job.index, "seed": job.seed, "vm": job.vm, "class": job.fault, "machine": self.name, "started": time.time()}
        start = time.monotonic()
        self.machine.forget()
        try:
            (self._disk_fault if job.vm in self.disks else self._net_fault)(job, plan, seen, row)
            self._look_around(job, seen)
        except Failure as failure:
            self.explain(seen, failure)
        except Exception as error:  # a worker's own bug is this fault's outcome: the others still run
            seen.error = f"{type(error).__name__}: {error}"
        row["seconds"] = round(time.monotonic() - start, 3)
        self._fill(row, seen)
        if row["outcome"] not in BROKEN + LAST:
            self.crashes[job.vm] = self.crashes.get(job.vm, 0) + len(seen.records)
            hidden = faultclass.CLASSES[job.fault].combines or row["outcome"] != "recovered" or self.crashes[job.vm] >= CRASHES_COUNTED
            self._replace((job.vm, *seen.vms) if hidden else seen.vms, row)
        return row, seen

    def _disk_fault(self, job, plan, seen, row):
        slot = len(self.pending)
        load = DiskLoad(self.machine, self.disks[job.vm], slot, job.load_seed)
        if job.watched:
            with BlockSamples(self.folder, f"{job.vm}-backend") as sampled:
                time.sleep(WATCH_BEFORE)
                at = self._inject(job, plan, seen, row)
                time.sleep(WATCH_AFTER)
            row["throughput"] = relative(sampled.samples, at)
        else:
            time.sleep(job.moment)
            self._inject(job, plan, seen, row)
        seen.load = load.finish()
        row["stall_us"] = seen.load["max_stall_us"]
        row["requests"], row["bytes"] = seen.load["requests"], seen.load["bytes"]
        self._watch_other_regions(job, seen)
        self.pending.append((job, row, image_hash(self.disk_images[job.vm], slot)))

    def _watch_other_regions(self, job, seen):
        """What earlier faults have left on the disk must not change now: else this fault has written there, and answers for it."""
        for slot, (entry, row, then) in enumerate(self.pending):
            if entry.vm == job.vm and (now := image_hash(self.disk_images[job.vm], slot)) != then:
                seen.image = False
                self.pending[slot] = entry, row, now

    def _net_fault(self, job, plan, seen, row):
        load = NetLoad(self.ports[job.vm])
        try:
            if not load.flows():
                raise Failure(f"the transfer stands before the fault: {load.broken or 'no more bytes'}")
            time.sleep(WATCH_BEFORE if job.watched else job.moment)
            at = self._inject(job, plan, seen, row)
            if job.watched:
                time.sleep(WATCH_AFTER)
            mute = not self._goes_on(load, (job.vm, *seen.vms), seen, row)
            row["stall_us"] = load.longest_gap_us(at)
            row["requests"], row["bytes"] = None, load.bytes
            seen.load = {"mismatches": load.wrong, "io_errors": int(bool(load.broken)), "mute": int(mute), "said": [load.broken]}
        finally:
            load.close()
        if job.watched:
            row["throughput"] = relative(load.samples, at)
        row["image"] = 1  # there is none: every byte was compared on its way

    def _goes_on(self, load, vms, seen, row):
        """
        Whether the transfer goes on. A driver that was made a liar may send what nobody understands for as long as it lives: then
        the same connection must go on with its successor.
        """
        if load.flows(seconds=MUTE_SECONDS if seen.corrupts else QUIET_SECONDS) or load.broken:
            return True
        if seen.corrupts:
            self._replace(vms, row)
            # A peer that has taken bytes that nobody sent acknowledges what the guest has yet to send: that connection is past help.
            if load.flows() or load.broken or load.wrong:
                return False
        seen.stuck = "the transfer stands"
        return True

    def _inject(self, job, plan, seen, row):
        """Make the fault and wait until it was dealt with, or for as long as it may take to be noticed. When it was made."""
        at = time.monotonic()
        try:
            plan = plan or self._plan(job)
            row["place"] = plan.text
            row["plan"] = json.dumps({"commands": plan.commands, "wait": plan.wait, "vms": plan.vms})
            at = time.monotonic()
            faultclass.apply(self.control, plan)
        except ControlError as refusal:
            seen.not_injected = str(refusal)
            return at
        seen.vms = plan.vms
        deadline = time.monotonic() + (NOTICE_SECONDS if plan.wait else LATENT_SECONDS)
        while not self._read_records(job, seen) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return at

    def _plan(self, job):
        try:
            return faultclass.CLASSES[job.fault].plan(job.random(), job.vm, self.control, self.images)
        except (Failure, ValueError, KeyError) as error:
            # Either the class finds nothing here that it could change, or nobody answers any more.
            self.control.raw("tsc")
            raise ControlError(str(error)) from error

    def _read_records(self, job, seen):
        """Add what is new to the evidence; whether a recovery of this VM has come to its end."""
        for record in faultlog.read(self.control, self.sequence + 1):
            self.sequence = max(self.sequence, record.sequence)
            if record.kind == "operator":
                continue  # our own order
            # Those of other VMs, which a class may hit as well, stand behind: the first one is the fault's own.
            seen.records.insert(len([r for r in seen.records if r.vm == job.vm]) if record.vm == job.vm else len(seen.records), record)
        # One that fails in its start replaces the fault before.
        return any(record.vm == job.vm and record.outcome != "superseded" for record in seen.records)

    def _states(self, seen=None):
        """{VM: state}; with the evidence: what `status` says about guest and canary goes there."""
        rows = self.control.ask("status")
        vms = [fields for kind, fields in rows if kind == "vm"]
        if seen is not None:
            seen.canary = all(fields["canary"] == "ok" for kind, fields in rows if kind == "hypervisor")
            main = next(fields for fields in vms if fields["kind"] == "guest")
            seen.guest_failed = str(main.get("failed", "")) if main["state"] != "running" else ""
        return {fields["name"]: fields["state"] for fields in vms if fields["kind"] == "driver"}

    def _look_around(self, job, seen):
        """After the load: wait for recoveries that are still under way, then for what the records say of them."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while unsettled := [f"{vm} is {state}" for vm, state in self._states(seen).items() if state not in UP + DEAD]:
            if time.monotonic() > deadline:
                seen.stuck = ", ".join(unsettled)
                break
            time.sleep(POLL_SECONDS)
        self._read_records(job, seen)
        if panic := GUEST_PANIC.search(self.machine.text):
            seen.guest_failed = panic[0]

    def explain(self, seen, failure):
        """Something did not go on. The machine's end tells more than the wait that it cut short."""
        panic = GUEST_PANIC.search(self.machine.text)
        try:
            # Its sockets end before it does.
            code = self.machine.process.wait(2)
        except subprocess.TimeoutExpired:
            code = None
        if code is not None:
            last = (self.machine.errors() or ["without a word"])[-1]
            if code < 0:
                seen.emulator_died = f"killed by {signal.Signals(-code).name}: {self._last_words()}".rstrip(": ")
            else:
                # 0: a reset, which QEMU was told to end with: a triple fault of the host CPU.
                seen.hypervisor_failed = f"the machine ended with {code}: {last}"
        elif panic:
            seen.guest_failed = panic[0]
        elif self._cpu_state():
            seen.stuck = str(failure)
        elif self._hangs():
            seen.emulator_died = "hangs: no answer by its monitor, and no CPU time used"
        else:
            seen.stuck = f"{failure}; the emulator's monitor is silent, too"

    def _fill(self, row, seen):
        """The columns that follow from the evidence."""
        record = seen.records[0] if seen.records else None
        row["outcome"], row["detail"] = judge(seen)
        row["manifested"] = int(record is not None or row["outcome"] not in ("not-manifested", "not-injected"))
        row["recoveries"] = len(seen.records)
        row["replayed"] = sum(r.fields.get("replayed", 0) for r in seen.records)
        row["load"] = json.dumps(seen.load)
        if record:
            row["detector"] = record.kind
            row.update({f"{name}_us": record.duration(name) for name in ("detect", "quiesce", "reset", "restart", "replay")})
            row["first_completion_us"] = fault_to_end(record, seen.records)
            row["record"] = json.dumps([r.fields for r in seen.records])

    def _last_words(self):
        lines = (self.folder / "emulator.stderr").read_text(errors="replace").strip().splitlines()
        return lines[-1][-300:] if lines else ""

    def _hangs(self):
        """Whether its threads wait for each other. One on a busy host, or one whose CPUs all go round in circles, uses time."""
        used = cpu_us(self.machine.process.pid)
        time.sleep(HANG_SECONDS)
        return cpu_us(self.machine.process.pid) == used

    def _cpu_state(self):
        """All registers of the host CPUs, as the emulator's monitor tells them; empty when it does not."""
        try:
            return debug.qmp(self.folder, "human-monitor-command", {"command-line": "info registers -a"})
        except Failure:
            return ""

    # ---- between two faults ----

    def _replace(self, vms, row):
        """Planned restarts, so that what nobody noticed does not stay in a driver. They go on while the next load starts."""
        for vm in vms:
            try:
                faultclass.ask(self.control, f"restart {vm}", SETTLE_SECONDS)
                self.replaced = True
                self.crashes[vm] = 0
            except ControlError as refusal:
                row["detail"] = f"{row['detail']}; the restart of {vm} afterwards was refused: {refusal}".strip("; ")
            except Failure as failure:
                self.silent = str(failure)

    def _settle(self):
        """Wait for a planned restart's end."""
        if self.silent:
            raise Stranded(self.silent, False)
        if not self.replaced:
            return
        deadline = time.monotonic() + SETTLE_SECONDS
        try:
            while away := {vm: state for vm, state in self._states().items() if state not in UP}:
                if dead := [vm for vm, state in away.items() if state in DEAD]:
                    raise Stranded(f"{dead[0]} was given up on when it was restarted after the fault", True)
                if time.monotonic() > deadline:
                    raise Stranded(f"{', '.join(away)}: the restart after the fault does not end", False)
                time.sleep(POLL_SECONDS)
        except Stranded:
            raise
        except Failure as failure:
            raise Stranded(str(failure), False) from failure
        for record in faultlog.read(self.control, self.sequence + 1):
            self.sequence = max(self.sequence, record.sequence)
        self.replaced = False

    def full(self):
        return len(self.pending) >= REGIONS

    def check_images(self):
        """
        Compare the regions of the last faults with the images: what the guest reads now, what the image holds now, and what it held
        when the guest had just compared all of it with what it had written. Returns the rows that are settled by it.
        """
        rows = []
        for vm, disk in self.disks.items():
            mine = {slot: entry for slot, entry in enumerate(self.pending) if entry[0].vm == vm}
            if not mine:
                continue
            path, first, last = self.disk_images[vm], min(mine), max(mine)
            same = guest_hash(self.machine, disk, first, last - first + 1) == image_hash(path, first, last - first + 1)
            for slot, (_, row, then) in mine.items():
                now = image_hash(path, slot)
                row["image"] = int(now == then and (same or guest_hash(self.machine, disk, slot) == now))
                rows.append(row)
        self.pending = []
        return rows

    def events(self):
        """The events since the last call, of the first faults of this machine."""
        if self.count > EVENTS_KEPT:
            return []
        found = self.control.rows(f"events {self.events_from}", "event")
        self.events_from = max([event["seq"] for event in found], default=self.events_from - 1) + 1
        return found

    def save(self, folder):
        """All that may tell what went wrong."""
        folder.mkdir(parents=True, exist_ok=True)
        for command in ("events", "faults", "status", "stats"):
            try:
                lines = self.control.raw(command, 5)
            except Failure as failure:
                lines = [f"({failure})"]
            (folder / f"{command}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        # Of several moments: a CPU that goes round in circles shows where.
        (folder / "registers.txt").write_text("\n".join(self._cpu_state() for _ in range(REGISTER_SAMPLES)), encoding="utf-8")
        for name in ("console.log", "emulator.cmd", "emulator.stderr"):
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, folder / name)
        (folder / "manifest.ini").write_text(self.machine.manifest_text, encoding="utf-8")
        for path in self.disk_images.values():
            with open(path, "rb") as file:
                (folder / path.name).write_bytes(file.read(REGIONS * REGION * SECTOR))


def fault_to_end(first, records):
    """µs from the injection to the first completion that the guest got; a fault in a recovery prolongs it. None: there was none."""
    begin = first.fields["t_injected"] or first.fields["t_detect"]
    last = next((record for record in records if record.vm == first.vm and record.outcome != "superseded"), first)
    end = last.fields["t_first_completion"]
    return end - begin if end else None


def relative(samples, at):
    """(ms since the fault, bytes since the first sample), no finer than needed."""
    base = samples[0][1] if samples else 0
    found = []
    for when, count in samples:
        ms = round((when - at) * 1000, 1)
        if not found or ms - found[-1][0] >= 5:
            found.append((ms, count - base))
    return found
