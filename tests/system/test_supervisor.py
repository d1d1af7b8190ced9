"""The supervisor: states, orders, order of starts, escalation, images replaced under load, drivers that are ill for good."""

import time

from block_suite import endless_load, finish_load
from driver_suite import inject, judge
from harness import case, check, driver, faultlog, guest, main, manifest, vm
from bulkhead_lib.control import ControlError
from bulkhead_lib.telemetry import checksum, packed, replace_image
from bulkhead_lib.ui import percentile

LABEL = "supervisor"
TIMEOUT = 240
STATE_SECONDS = 20


def wait_state(machine, vm, state, seconds=STATE_SECONDS):
    """Until `status` says so; its fields."""
    deadline = time.monotonic() + seconds
    while True:
        fields = machine.status("vm", vm)
        if fields["state"] == state:
            return fields
        check(time.monotonic() < deadline, f"{vm} is {fields['state']}, not {state}: {fields}")
        time.sleep(0.02)


def order(machine, command, vm="blk0"):
    """`restart`, `stop` or `start`; the record of what came of it."""
    seen = max([record.sequence for record in faultlog.read(machine.control)], default=0)
    machine.control.ask(f"{command} {vm}")
    return faultlog.wait_for(machine.control, vm, seen, STATE_SECONDS)


def completions(machine):
    return next(row["completions"] for row in machine.control.rows("stats", "vm") if row["name"] == "blk0")


@case
def states_and_orders(lab):
    """
    Stopped under load, the device is silent and the guest waits; started, it goes on where it was. Faults make the driver VM
    degraded, and an order of the operator gives it fresh counters.
    """
    with lab.machine(manifest(driver(limit="4", window="1h"), guest())) as machine:
        machine.boot()
        command = endless_load(lab, machine)
        check(wait_state(machine, "blk0", "running")["uptime_us"] > 0, "it runs, but has no uptime")
        check(order(machine, "stop").outcome == "stopped", "the stop is not on record")
        fields = machine.status("vm", "blk0")
        check(fields["state"] == "stopped" and fields["uptime_us"] == 0, f"not stopped: {fields}")
        before = completions(machine)
        time.sleep(0.2)
        check(completions(machine) == before, "the device of a stopped driver VM completes requests")
        check(order(machine, "start").outcome == "recovered", "it does not start again")
        for number in (1, 2, 3):
            judge(inject(machine, "blk0", "crash"), "crash", "driver")
            fields = wait_state(machine, "blk0", "degraded" if number == 3 else "running")
            check(fields["crashes"] == fields["restarts_in_window"] == number, f"the counters are wrong: {fields}")
        check("exception" in fields["last_fault"], f"the last fault is {fields['last_fault']}")
        check(order(machine, "restart").outcome == "recovered", "it does not restart")
        fields = wait_state(machine, "blk0", "running")
        check((fields["crashes"], fields["restarts_in_window"], fields["restarts"]) == (3, 0, 5), f"the counters are wrong: {fields}")
        finish_load(machine, command)


def with_entry(image, code):
    """The image with these bytes where it starts (gABI 4.1: e_entry; the segments are one piece, the first is the text)."""
    image = bytearray(image)
    entry, headers = (int.from_bytes(image[at:at + 8], "little") for at in (24, 32))
    offset, address = (int.from_bytes(image[headers + at:headers + at + 8], "little") for at in (8, 16))
    at = entry - address + offset
    image[at:at + len(code)] = code
    return bytes(image)


UD2, JUMP_TO_ITSELF = b"\x0f\x0b", b"\xeb\xfe"
REPLACEMENTS = 20


@case
def images_replaced_under_load(lab):
    """
    The same driver as another image, again and again under a verifying load: a stall each time, no request fails. Images that
    are damaged are refused and change nothing; such that die, hang or offer another disk give way to the one before.
    """
    image = packed(lab.image("ahci.elf"))
    with lab.machine(manifest(driver(limit="2", window="1h", deadline="1s"), guest())) as machine:
        machine.boot()
        command = endless_load(lab, machine)
        sent, stalls = [], []
        for number in range(REPLACEMENTS):
            record, back, seconds = replace_image(machine.control, "blk0", image, image if number else b"")
            check(back is None and record.kind == "operator" and record.outcome == "recovered", f"not replaced: {record.fields}")
            sent.append(seconds)
            stalls.append(record.duration("fault_to_first_completion") or 0)
        fields = machine.status("vm", "blk0")
        check(fields["image"] == "uploaded" and fields["restarts"] == REPLACEMENTS and fields["crashes"] == 0, f"{fields}")
        lab.say(f"| {len(image)} bytes sent in {sent[0]:.2f} s; "
                f"stall p50 {percentile(stalls, 50)}, p99 {percentile(stalls, 99)}, max {max(stalls)} µs of {len(stalls)}")
        refused(machine, image)
        check(machine.status("vm", "blk0")["restarts"] == REPLACEMENTS, "a refused image restarted the driver VM")
        for code, kind in ((UD2, "exception"), (JUMP_TO_ITSELF, "offer")):
            record, back, _ = replace_image(machine.control, "blk0", with_entry(image, code), with_entry(image, bytes(2)))
            check(record.outcome == "superseded" and back.kind == kind and back.outcome == "recovered", f"{record} {back}")
        fields = machine.status("vm", "blk0")
        check(fields["crashes"] == 2 and fields["restarts_in_window"] == 0 and fields["state"] == "running", f"{fields}")
        finish_load(machine, command)


def refused(machine, image):
    """Cut off, not sent whole, no image at all. The image lies there, and does in the end."""
    for data, why in ((image[:len(image) // 4], "beyond"), (b"\0" + image[1:], "ELF"), (b"", "shorter")):
        try:
            replace_image(machine.control, "blk0", data, image)
        except ControlError as error:
            check(why.lower() in str(error).lower(), f"refused for another reason: {error}")
        else:
            raise AssertionError(f"{len(data)} bytes were taken for an image")
    try:
        machine.control.ask(f"replace blk0 {len(image)} {checksum(image) ^ 1}")
    except ControlError as error:
        check("checksum" in str(error), f"refused for another reason: {error}")
    else:
        raise AssertionError("a wrong checksum was taken")
    machine.control.ask("chunk blk0 0 fw")  # 0x7f, as it was


SPARE_CRASHES = 10


def wait_spare(machine, vm="blk0"):
    deadline = time.monotonic() + STATE_SECONDS
    while machine.status("vm", vm)["spare"] != "ready":
        check(time.monotonic() < deadline, f"no spare of {vm}: {machine.status('vm', vm)}")
        time.sleep(0.005)


@case
def a_spare_takes_over(lab):
    """
    Crashes under a verifying load, met by a spare; some while the next one is being prepared. Another image gets a spare of its
    own. One that dies or hangs in its boot never gets one, and that of the image before is there again.
    """
    image = lab.image("ahci.elf")
    with lab.machine(manifest(driver(spare="yes", limit="1000", deadline="1s"), guest())) as machine:
        machine.boot()
        check(machine.status("vm", "blk0")["spare"] in ("preparing", "ready"), "no spare")
        command = endless_load(lab, machine)
        for number in range(SPARE_CRASHES):
            if number % 3:
                wait_spare(machine)
            judge(inject(machine, "blk0", "crash"), "crash", "driver")
        wait_spare(machine)
        sent = b""
        for changed, kind in ((image, None), (with_entry(image, UD2), "exception"), (with_entry(image, JUMP_TO_ITSELF), "offer")):
            record, back, _ = replace_image(machine.control, "blk0", changed, sent)
            check((back.kind if back else None) == kind and (back or record).outcome == "recovered", f"{record} {back}")
            sent = changed
            wait_spare(machine)
            judge(inject(machine, "blk0", "crash"), "crash", "driver")
        fields = machine.status("vm", "blk0")
        check(fields["image"] == "uploaded" and fields["crashes"] == SPARE_CRASHES + 5, f"{fields}")
        finish_load(machine, command)


@case
def the_fallback_image(lab):
    """An image that dies at each start: after the limit the fallback serves the disk; before that, nothing starts that comes after."""
    replace = {"broken.elf": with_entry(lab.image("ahci.elf"), UD2)}
    text = manifest(driver(image="broken.elf", limit="2", escalate="image", fallback="ahci.elf"),
                    edu("late", 0, after="blk0"), guest())
    with lab.machine(text, replace=replace, devices=[EDU.format(0)]) as machine:
        machine.boot()
        fields = machine.status("vm", "blk0")
        check(fields["image"] == "fallback" and fields["crashes"] == 3 and fields["state"] == "running", f"{fields}")
        starts = [event["vm"] for event in machine.events() if event["kind"] in ("start", "offer")]
        check(starts[:5] == ["blk0"] * 5 and "late" in starts[5:], f"starts and offers came in another order: {starts}")
        machine.run("blk load --seed 7 --depth 8 --count 200 --final --quiet", 60)


EDU = "edu,dma_mask=0xffffffffffffffff,addr=0x1{}"


def edu(name, number, **keys):
    """A driver VM of the image that is ill as its name says; other names are healthy."""
    return vm(name, {"kind": "driver", "image": "ill_edu.elf", "device": f"pci:00:1{number}.0", "memory": "1M", **keys})


@case
def ill_for_good(lab):
    """One dies at each start, one changes its stash, one never calls `wait`, one never offers: each ends as its policy says."""
    ill = {"dies": {"limit": "3"}, "stash": {"limit": "4", "window": "1h"}, "mute": {"limit": "2", "escalate": "stop", "backoff": "5ms"},
           "slow": {"deadline": "100ms", "limit": "2"}}
    sections = [edu(name, number, **keys) for number, (name, keys) in enumerate(ill.items())]
    kept = edu("kept", 4, needs="dies")
    with lab.machine(manifest(driver(), *sections, kept, guest()), devices=[EDU.format(number) for number in range(5)]) as machine:
        machine.boot()
        load = "blk load --seed 7 --depth 8 --count 300 --final --quiet"
        machine.run(load, 60)
        for name, crashes, why in (("dies", 4, "exception"), ("mute", 3, "heartbeat"), ("slow", 3, "offer")):
            fields = wait_state(machine, name, "failed")
            check(fields["crashes"] == crashes and fields["last_fault"].startswith(why), f"{name}: {fields}")
        check(machine.status("vm", "kept")["state"] == "failed" and machine.status("vm", "kept")["restarts"] == 0, "it started")
        fields = wait_state(machine, "stash", "degraded")
        check(fields["restarts"] == 3, f"{fields}")
        events = machine.events()
        check(sum("dropped: checksum" in event["text"] for event in events if event["vm"] == "stash") == 3, "a stash was kept")
        check(not any("handed down" in event["text"] for event in events), "a broken stash was handed down")
        machine.run(load, 60)
        check(machine.status("vm", "blk0")["restarts"] == 0, "the healthy driver VM was restarted")


def crash_when_possible(machine):
    """A planned restart may be under way."""
    deadline = time.monotonic() + STATE_SECONDS
    while True:
        try:
            return machine.control.ask("inject blk0 crash")
        except ControlError:
            check(time.monotonic() < deadline, "no crash could be injected")
            time.sleep(0.02)


@case
def rejuvenation_and_dependents(lab):
    """A planned restart every so often; and those that need a driver VM start anew with it when its limit is reached."""
    text = manifest(driver(rejuvenate="1s", limit="1", window="1h", escalate="dependents"),
                    edu("next", 0, needs="blk0"), guest())
    with lab.machine(text, devices=[EDU.format(0)]) as machine:
        machine.boot()
        command = endless_load(lab, machine)
        planned = faultlog.wait_for(machine.control, "blk0", 0, STATE_SECONDS)
        check(planned.kind == "planned" and planned.outcome == "recovered" and "rejuvenation" in planned.text, f"{planned}")
        try:
            machine.control.ask("stop blk0")
        except ControlError as error:
            check("needs it" in str(error), f"refused for another reason: {error}")
        else:
            raise AssertionError("what another one needs was stopped")
        for number in (1, 2):
            crash_when_possible(machine)
            deadline = time.monotonic() + STATE_SECONDS
            while machine.status("vm", "blk0")["crashes"] < number or machine.status("vm", "blk0")["state"] == "recovering":
                check(time.monotonic() < deadline, "the crash was not dealt with")
                time.sleep(0.02)
            woken = [event for event in machine.events("fault") if event["vm"] == "next" and "blk0, which it needs" in event["text"]]
            check(len(woken) == number - 1, f"after crash {number}: {woken}")
        finish_load(machine, command)


STORM_KILLS, STORM_EVERY = 30, 0.1


@case
def a_storm_of_kills(lab):
    """
    The driver dies every 0.1 s under a verifying load, or with the first request that is served after its recovery where that
    is later. However little it gets done in between, nothing is lost and the guest gives nothing up.
    """
    with lab.machine(manifest(driver(limit="1000", window="1ms"), guest())) as machine:
        machine.boot()
        # Small ones: all that is in flight is done again after each kill.
        command = endless_load(lab, machine, "--size 65536 --sectors 16384")
        records = []
        for _ in range(STORM_KILLS):
            start = time.monotonic()
            records.append(inject(machine, "blk0", "crash"))
            judge(records[-1], "crash", "driver")
            time.sleep(max(0.0, start + STORM_EVERY - time.monotonic()))
        result = finish_load(machine, command)
        fields = machine.status("vm", "blk0")
        check((fields["crashes"], fields["state"]) == (STORM_KILLS, "running"), f"{fields}")
        stalls = [record.duration("fault_to_first_completion") or 0 for record in records]
        lab.say(f"| {STORM_KILLS} kills, {result['requests']} requests; stall p50 {percentile(stalls, 50)}, max {max(stalls)} µs")


if __name__ == "__main__":
    main()
