"""
What `bench storm`, `bench replace` and `bench soak` have in common: one machine whose disks and network cards are under a load
that checks every byte, and what the driver VMs did meanwhile.
"""

import random
import time

from .. import campaign_load, devices, faultlog, hardware, machine, network, paths, qemu
from ..campaign_worker import Session
from ..guest_output import find_json
from ..ui import Failure

DISK_BYTES = 64 << 20
# 32 in flight are 1 MiB on average. What is in flight is done again after a kill, so that of large requests costs most.
REQUEST_BYTES = 64 << 10
REGIONS = 32  # of campaign_load.REGION sectors: 16 MiB of each disk
GUEST = "[vm main]\nkind = guest\nimage = guestos.elf\nmemory = 256M\n"
HEAD = "[hypervisor]\ncontrol = com2\nexit_port = 0xf4\n"
# Bounds for a host that is busy beyond measure; nothing is judged by them.
BOOT_SECONDS, LOAD_SECONDS, SETTLE_SECONDS, QUIET_SECONDS = 900, 900, 60, 120
WRONG = ("io_errors", "mismatches", "doubled", "unknown", "protocol", "lost", "aborted")
# Restarts without end: what is measured is the recovery, not where the policy stops.
POLICY = {"limit": "1000", "window": "1ms"}
ATA = "ata-pio"  # the IDE disk of QEMU's `pc`, where nothing else can be chosen
ATA_SECTION = {"kind": "driver", "image": "ata_pio.elf", "device": "class:0101", "memory": "1M", "dma": "none", "deadline": "30s"}


def models(text, everything):
    """The devices that a list between commas names."""
    wanted = list(everything) if text == "all" else list(dict.fromkeys(text.split(",")))
    for name in wanted:
        if name not in everything:
            raise Failure(f"no {name} here; there are: {', '.join(everything)}")
    return wanted


class Rig:
    """A booted machine, its loads running while it is a context. finish() ends them and says what was wrong."""

    def __init__(self, name, accel, chosen, keys, cpus, qemu_args=(), control=Session):
        self.folder = paths.instance(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        disks = [model for model in chosen if model == ATA or devices.MODELS[model].role == "blk"]
        self.images = [self.folder / f"blk{number}.img" for number in range(len(disks))]
        for path in self.images:
            hardware.make_sparse(path, DISK_BYTES)
        self.ports = {}
        options = qemu.Options(folder=self.folder, accel=accel, cpus=cpus, sata_disk=False)
        if ATA in chosen:
            options.machine = "pc"
            sections = ["\n".join(["[vm blk0]", *(f"{key} = {value}" for key, value in {**ATA_SECTION, **keys}.items()), ""])]
            options.extra = ["-drive", f"if=none,id=ide,format=raw,file={qemu.quote(self.images[0])}", "-device", "ide-hd,drive=ide,bus=ide.0"]
        else:
            found = devices.layout(disks, [model for model in chosen if model not in disks])
            cards = devices.nics(found)
            net = network.user(cards, [network.Forward(card.vm, 0, 80) for card in cards])
            self.ports = {forward["card"]: forward["host"] for forward in net.facts["forwards"]}
            sections = [device.section(**keys) for device in found]
            options.extra = devices.drives(found, self.images) + net.arguments + devices.arguments(found)
        options.extra += qemu_args
        self.vms = [*(f"blk{number}" for number in range(len(disks))), *self.ports]
        self.machine = machine.Machine(options, paths.images("release"), "\n".join([HEAD, *sections, GUEST]))
        self.control = control(self.folder)
        self.sequence = 0  # of the newest fault record that was looked at
        self.transfers = {}
        self.broken = []

    def __enter__(self):
        try:
            self.machine.start()
            self.machine.shell_start(BOOT_SECONDS)
            self._start_loads()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        for transfer in self.transfers.values():
            transfer.close()
        if isinstance(self.control, Session):
            self.control.close()
        self.machine.kill()
        machine.remove_instance(self.folder, keep=False)
        for path in self.images:
            path.unlink(missing_ok=True)

    def _start_loads(self):
        for number, card in enumerate(self.ports):
            self.machine.command(f"ifconfig {card} 10.0.{2 + number}.15/24 10.0.{2 + number}.2", LOAD_SECONDS)
        if self.ports:
            self.machine.command("http serve 80", LOAD_SECONDS)
        disks = ",".join(f"vd{chr(ord('a') + number)}" for number in range(len(self.images)))
        self.command = f"blk load --disk {disks} --seed {random.randrange(1 << 32)} --sectors {REGIONS * campaign_load.REGION} --size {REQUEST_BYTES} --seconds 86400 --final --quiet"
        self.machine.send(self.command)
        self.keep_transfers()
        # First the region is filled; the load proper reads, too.
        deadline = time.monotonic() + LOAD_SECONDS
        while any(self.reading()[vm]["bytes_read"] < 1 << 20 for vm in self.vms if vm not in self.ports):
            if time.monotonic() > deadline:
                raise Failure("the load does not get under way")
            time.sleep(0.1)

    def keep_transfers(self):
        """A transfer that has come to its end is followed by another one; one that broke is noted, and followed as well."""
        for card, port in self.ports.items():
            transfer = self.transfers.get(card)
            if transfer and not transfer.broken and not transfer.wrong:
                continue
            if transfer:
                self._end_transfer(card)
            self.transfers[card] = campaign_load.NetLoad(port, QUIET_SECONDS)

    def _end_transfer(self, card):
        transfer = self.transfers.pop(card)
        transfer.close()
        if transfer.wrong or (transfer.broken and transfer.bytes < campaign_load.FILE_BYTES):
            self.broken.append(f"{card}: {transfer.broken or 'wrong bytes'} after {transfer.bytes} bytes")

    # ---- looking ----

    def reading(self):
        """{VM: its counters}; `us`: the machine's time."""
        found = {}
        for kind, fields in self.control.ask("stats"):
            if kind == "cpu":
                found["us"] = fields["up_us"]
            elif fields["name"] in self.vms:
                found[fields["name"]] = fields
        return found

    def status(self, vm):
        return next(fields for fields in self.control.rows("status", "vm") if fields["name"] == vm)

    def new_records(self):
        """Fault records that have come to their end since the last look."""
        found = faultlog.read(self.control, self.sequence + 1)
        self.sequence = max([record.sequence for record in found], default=self.sequence)
        return found

    def settle(self, vm="blk0"):
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.status(vm)["state"] not in ("running", "degraded"):
            if time.monotonic() > deadline:
                raise Failure(f"{vm} does not come back: {self.status(vm)}")
            time.sleep(0.005)

    def finish(self):
        """Ends the loads and reads all of the disks once more, by the guest and in the images: {what was wrong: how much}."""
        for card in list(self.transfers):
            self._end_transfer(card)
        self.machine.type("\x03")
        output, status = self.machine.finish(self.command, LOAD_SECONDS)
        verdict = find_json(output)
        wrong = {name: verdict[name] for name in WRONG if verdict[name]}
        if status != 0 and not wrong:
            wrong["status"] = status
        if verdict["requests"] != verdict["completed"]:
            wrong["unanswered"] = verdict["requests"] - verdict["completed"]
        for number, path in enumerate(self.images):
            disk = f"vd{chr(ord('a') + number)}"
            if campaign_load.guest_hash(self.machine, disk, 0, REGIONS) != campaign_load.image_hash(path, 0, REGIONS):
                wrong[f"{disk} differs from its image"] = 1
        if self.broken:
            wrong["connections"] = self.broken
        return {"requests": verdict["requests"], "wrong": wrong}


def rates(before, after, vm):
    """Between two readings of a VM's counters."""
    seconds = (after["us"] - before["us"]) / 1e6
    moved, done = (sum(after[vm][key] - before[vm][key] for key in keys) for keys in (("bytes_read", "bytes_written"), ("completions",)))
    return {"seconds": round(seconds, 3), "mb": round(moved / 1e6, 3), "mb_per_s": round(moved / 1e6 / seconds, 3), "iops": round(done / seconds, 1)}
