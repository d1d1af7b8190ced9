"""status, stats, events, faults, inject, restart, stop, start, replace: the control port, for people (tables) and programs (--json)."""

import base64
import pathlib
import random
import struct
import time

from . import faultclass, faultlog, paths, symbols
from .control import Control
from .machine import Instance
from .ui import Failure, print_json, say, table

RECOVERY_SECONDS = 15
IMAGE_MOST = 160 * 1024
PIECE = 165  # bytes of an image in one line of 255 characters, as base64
WIDE = 8  # more columns than this are printed as rows


def connect(arguments):
    folder = paths.instance(arguments.name)
    if not Instance.is_running(folder):
        raise Failure(f"no instance named '{arguments.name}' is running (start one: scripts/bulkhead run)")
    return Control(folder)


def reasons(arguments):
    return symbols.Reasons(paths.instance(arguments.name))


def _show(arguments, command):
    groups, named = {}, reasons(arguments)
    for kind, fields in connect(arguments).ask(command):
        if "last_fault" in fields:
            fields["last_fault"] = named.name(fields["name"], fields["last_fault"])
        groups.setdefault(kind, []).append(fields)
    if arguments.json:
        print_json(groups)
        return 0
    for i, (kind, rows) in enumerate(groups.items()):
        if i:
            print()
        if len(rows) == 1 and len(rows[0]) > 6:
            # One thing with many properties reads better downwards.
            print(kind)
            for key, value in rows[0].items():
                print(f"  {key:<24} {value}")
        elif len(set().union(*rows)) > WIDE:
            # A column for each thing, and a row for each property that is not zero or empty everywhere.
            keys = dict.fromkeys(key for row in rows for key in row if key != "name")
            names = [str(row.get("name", row.get("id", n))) for n, row in enumerate(rows)]
            cells = [{kind: key, **{name: row.get(key, "") for name, row in zip(names, rows)}}
                     for key in keys if any(row.get(key, "") not in ("", 0, "0") for row in rows)]
            table(cells)
        else:
            print(f"{kind}:")
            table(rows)
    return 0


def status(arguments):
    return _show(arguments, "status")


def stats(arguments):
    return _show(arguments, "stats")


def events(arguments):
    control = connect(arguments)
    rows = control.rows(f"events {arguments.since}", "event")
    if arguments.json:
        print_json(rows)
    else:
        table(rows)
    return 0


def faults(arguments):
    records, named = faultlog.read(connect(arguments)), reasons(arguments)
    if arguments.json:
        print_json([{**record.as_dict(), "reason": named.name(record.vm, record.text)} for record in records])
    elif not records:
        print("no fault so far")
    else:
        table([{**record.row(), "reason": named.name(record.vm, record.text)} for record in records])
    return 0


def inject(arguments):
    if arguments.list:
        width = max(map(len, faultclass.CLASSES))
        for kind in faultclass.CLASSES.values():
            print(f"{kind.name:<{width}}  {kind.description}")
        return 0
    if not (arguments.vm and arguments.fault):
        raise Failure("which VM and which fault? (scripts/bulkhead inject --list names the faults)")
    control = connect(arguments)
    last = max([record.sequence for record in faultlog.read(control)], default=0)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    images = pathlib.Path(Instance(control.folder).description()["images"])
    plan = faultclass.CLASSES[arguments.fault].plan(random.Random(seed), arguments.vm, control, images)
    faultclass.apply(control, plan)
    if not arguments.json:
        say(f"{arguments.vm}: {plan.text} (seed {seed})")
    if arguments.no_wait:
        return 0
    return _await(arguments, control, last, plan)


def _await(arguments, control, last, plan):
    named = reasons(arguments)
    try:
        record = faultlog.wait_for(control, arguments.vm, last, RECOVERY_SECONDS)
        # A successor that failed as well has a record of its own.
        while record.outcome == "superseded":
            say(f"{record.vm}: detected by {record.kind}: {named.name(record.vm, record.text)}; before that was over:")
            record = faultlog.wait_for(control, arguments.vm, record.sequence, RECOVERY_SECONDS)
    except Failure:
        if plan.wait:
            raise
        if arguments.json:
            print_json({"outcome": "not manifested"})
        else:
            print(f"{arguments.vm}: not manifested within {RECOVERY_SECONDS} s")
        return 0
    reason = named.name(record.vm, record.text)
    if arguments.json:
        print_json({**record.as_dict(), "reason": reason})
    else:
        print(f"{record.vm}: detected by {record.kind}: {reason}")
        print(f"{record.vm}: {record.outcome}; times in µs:")
        table([record.durations()])
    return 0 if record.outcome == "recovered" else 1


def checksum(data):
    """FNV-1a, 32 bits (hv/control/upload.c)."""
    value = 2166136261
    for byte in data:
        value = (value ^ byte) * 16777619 & 0xffffffff
    return value


ELF_HEADER, PROGRAM_HEADER = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")  # gABI 4.1


def packed(data):
    """The ELF file without what no start needs: padding, symbols, section headers. What is no such file stays as it is."""
    try:
        head = list(ELF_HEADER.unpack_from(data))
        rows = [list(PROGRAM_HEADER.unpack_from(data, head[5] + number * PROGRAM_HEADER.size)) for number in range(head[10])]
    except struct.error:
        return data
    if data[:4] != b"\x7fELF" or head[9] != PROGRAM_HEADER.size or any(row[2] + row[5] > len(data) for row in rows):
        return data
    at = ELF_HEADER.size + len(rows) * PROGRAM_HEADER.size
    segments = []
    for row in rows:
        segments.append(data[row[2]:row[2] + row[5]])
        row[2], at = at, at + row[5]
    head[5], head[6], head[12], head[13] = ELF_HEADER.size, 0, 0, 0
    return b"".join([ELF_HEADER.pack(*head), *(PROGRAM_HEADER.pack(*row) for row in rows), *segments])


def replace_image(control, vm, data, sent=b""):
    """
    Send an image and have the driver VM run it: (its record, the record of the way back or None, seconds of the transfer).
    sent: what was sent last and lies there still; pieces that are the same are left out.
    """
    if len(data) > IMAGE_MOST:
        raise Failure(f"the image has {len(data)} bytes; {IMAGE_MOST} are the most")
    last = max([record.sequence for record in faultlog.read(control)], default=0)
    start = time.monotonic()
    control.send_all([f"chunk {vm} {at} {base64.b64encode(data[at:at + PIECE]).decode().rstrip('=')}" for at in range(0, len(data), PIECE)
                      if data[at:at + PIECE] != sent[at:at + PIECE]])
    seconds = time.monotonic() - start
    control.ask(f"replace {vm} {len(data)} {checksum(data)}")
    record = faultlog.wait_for(control, vm, last, RECOVERY_SECONDS)
    back = None if record.outcome == "recovered" else faultlog.wait_for(control, vm, record.sequence, RECOVERY_SECONDS)
    return record, back, seconds


def replace(arguments):
    try:
        data = packed(pathlib.Path(arguments.image).read_bytes())
    except OSError as error:
        raise Failure(f"{arguments.image}: {error.strerror}") from error
    record, back, seconds = replace_image(connect(arguments), arguments.vm, data)
    if arguments.json:
        print_json({"seconds_sent": seconds, **(back or record).as_dict()})
    elif back:
        print(f"{arguments.vm}: the new image failed ({back.kind}: {back.text}); with the one before: {back.outcome}")
    else:
        print(f"{arguments.vm}: runs the new image; {len(data)} bytes sent in {seconds:.2f} s; times in µs:")
        table([record.durations()])
    return 1 if back else 0


def order(arguments):
    start = time.monotonic()
    connect(arguments).ask(f"{arguments.command} {arguments.vm}")
    say(f"{arguments.vm}: {arguments.command} ordered ({(time.monotonic() - start) * 1000:.0f} ms)")
    return 0
