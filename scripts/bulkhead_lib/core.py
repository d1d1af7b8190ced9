"""
`core`: what a driver VM's last fault has left, as an ELF core that gdb opens, with the image that it ran and a report in
words. The control port's `core VM FROM` gives the memory page by page.

What the driver has left is data: it goes into the core as it is, and decides nothing but what the report says.
"""

import dataclasses
import os
import pathlib
import shutil
import struct
import subprocess

from . import faultlog, paths, symbols
from .control import Control
from .machine import Instance
from .ui import Failure, Progress, print_json, say, warn

PAGE = 4096
INFO_ADDRESS = 0xf00000000  # DRIVER_INFO_ADDRESS, shared/abi/hypercall.h
COMMANDS_AT_ONCE = 16  # then another user of the control port may have a turn
TRIES = 3
EVENTS = 25

# By their numbers in instructions, as the control port and struct exception_frame (drivervm/runtime) have them.
NUMBERED = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
EXCEPTION_FRAME = (*NUMBERED, "vector", "error", "rip", "cs", "rflags", "rsp", "ss")
FAULT_EXCEPTION = 1  # DRIVER_FAULT_EXCEPTION
HYPERCALLS = (b"\x0f\x01\xd9", b"\x0f\x01\xc1")  # VMMCALL, VMCALL

# struct elf_prstatus and elf_prpsinfo of Linux on x86-64, as gdb knows them (sys/procfs.h, sys/user.h).
PRSTATUS_REGISTERS = ("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
                      "orig_rax", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs")
NT_PRSTATUS, NT_PRPSINFO = 1, 3
NAME_MAX = 15  # of elf_prpsinfo.pr_fname
ET_CORE, EM_X86_64, PT_NOTE = 4, 62, 4

# The signal that a program would have got; gdb names it.
SIGNALS = {"exception": 11, "unexpected-exit": 31, "nested-page": 7, "dma": 7, "interrupt": 7, "heartbeat": 14, "deadline": 14,
           "completion-ring": 31, "declared": 6, "offer": 14, "operator": 15}
SIGNALS_BY_VECTOR = {0: 8, 1: 5, 3: 5, 6: 4, 16: 8, 17: 7, 19: 8}


@dataclasses.dataclass
class Crash:
    record: faultlog.Record
    registers: dict  # when the VM was stopped
    memory: bytearray  # RAM, from address 0
    info: bytearray  # the page at INFO_ADDRESS
    vector: int = None  # of the exception that its handler reported

    def read(self, address, length):
        return bytes(self.memory[address:address + length])


# ---- from the machine ----


def fetch(control, vm, progress=lambda part: None):
    """The Crash of a driver VM. A fault meanwhile replaces it: then from the start."""
    for _ in range(TRIES):
        crash = _fetch_once(control, vm, progress)
        if crash:
            return crash
    raise Failure(f"{vm} fails faster than its memory can be fetched")


def _fetch_once(control, vm, progress):
    record, registers, memory, info = None, {}, bytearray(), bytearray(PAGE)
    at, end = 0, 0
    while at <= end:
        with control.talk() as talk:
            for _ in range(COMMANDS_AT_ONCE):
                lines = dict.fromkeys(("fault", "registers", "next"))
                rows = []
                for kind, fields in talk(f"core {vm} {at}"):
                    if kind == "memory":
                        rows.append(fields)
                    else:
                        lines[kind] = fields
                if record and lines["fault"]["seq"] != record.sequence:
                    return None
                record, registers = faultlog.parse(lines["fault"]), lines["registers"]
                at, end = _number(lines["next"]["at"]), _number(lines["next"]["end"])
                memory = memory or bytearray(end)
                _store(rows, memory, info)
                progress(min(at, end) / end)
                if at > end:
                    break
    registers = {name: _number(value) for name, value in registers.items()}
    for number, name in enumerate(NUMBERED):
        registers[name] = registers.pop(f"r{number}") if number < 8 else registers[name]
    crash = Crash(record, {**registers, "cs": 0x08, "ss": 0x10}, memory, info)
    unwind_handler(crash)
    return crash


def _number(value):
    return value if isinstance(value, int) else int(value, 16)


def _store(rows, memory, info):
    for row in rows:
        at = _number(row["at"])
        data = b"".join(int(word, 16).to_bytes(8, "little") for word in row["words"].split(","))
        if at < len(memory):
            memory[at:at + len(data)] = data
        else:
            info[at - len(memory):at - len(memory) + len(data)] = data


def unwind_handler(crash):
    """
    A VM that was stopped in the hypercall of its exception handler: the registers become those of the code that the exception
    interrupted, which the handler has left in memory. As they are when anything there cannot be true.
    """
    registers = crash.registers
    frame = crash.read(registers["rdx"], 8 * len(EXCEPTION_FRAME))
    if crash.read(registers["rip"] - 3, 3) not in HYPERCALLS or registers["rdi"] != FAULT_EXCEPTION:
        return
    if len(frame) < 8 * len(EXCEPTION_FRAME):
        return
    # The pair of rsp: the CPU's comes last, and counts.
    interrupted = dict(zip(EXCEPTION_FRAME, struct.unpack(f"<{len(EXCEPTION_FRAME)}Q", frame)))
    if interrupted["rip"] == _number(crash.record.fields["address"]):
        crash.vector = interrupted.pop("vector")
        crash.registers = interrupted


# ---- to gdb ----


def _note(kind, data):
    return struct.pack("<III8s", 5, len(data), kind, b"CORE") + data + bytes(-len(data) % 4)


def _signal(crash):
    by_kind = SIGNALS.get(crash.record.kind, 11)
    return by_kind if crash.vector is None else SIGNALS_BY_VECTOR.get(crash.vector, by_kind)


def _notes(crash, program):
    registers = [crash.registers.get(name, 0) for name in PRSTATUS_REGISTERS]
    status = struct.pack("<iiih2xQQiiii64x27Qi4x", _signal(crash), 0, 0, _signal(crash), 0, 0, 1, 0, 0, 0, *registers, 0)
    notes = _note(NT_PRSTATUS, status)
    # gdb compares this name with the file's; a longer one could only differ.
    if len(program) <= NAME_MAX:
        what = f"{crash.record.vm}, generation {crash.record.fields['generation']}"
        notes += _note(NT_PRPSINFO, struct.pack("<4x4xQIIiiii16s80s", 0, 0, 0, 1, 0, 0, 0, program.encode(), what.encode()))
    return notes


def write(path, crash, program):
    """An ELF core; zeros are holes in the file. program: the name of the file with the symbols."""
    notes = _notes(crash, program)
    parts = [(PT_NOTE, 0, notes), (symbols.PT_LOAD, 0, crash.memory), (symbols.PT_LOAD, INFO_ADDRESS, crash.info)]
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", ET_CORE, EM_X86_64, 1, 0, 64, 0, 0, 64, 56, len(parts), 0, 0, 0)
    offset, placed = PAGE, []
    for kind, address, data in parts:
        placed.append((offset, data))
        header += struct.pack("<IIQQQQQQ", kind, 7, offset, address, address, len(data), len(data), PAGE if kind == symbols.PT_LOAD else 4)
        offset += len(data) + -len(data) % PAGE
    with open(path, "wb") as file:
        file.write(header)
        for start, data in placed:
            for at in range(0, len(data), PAGE):
                page = bytes(data[at:at + PAGE])
                if any(page):
                    file.seek(start + at)
                    file.write(page)
        file.truncate(offset)


def run_gdb(program, core, *commands):
    """What gdb prints for these commands. Nobody's configuration, nothing from the network, nothing to ask."""
    line = ["gdb", "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off", "-ex", "set width 0"]
    for command in commands:
        line += ["-ex", command]
    return subprocess.run([*line, str(program), str(core)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True, errors="replace", check=False).stdout


def backtrace(program, core):
    """(gdb's backtrace, the code that was next), lines. Files of this source tree by their paths in it."""
    _, _, shown = run_gdb(program, core, "echo \\n---\\n", "bt", "x/4i $pc").partition("\n---\n")
    lines = shown.replace(f"{paths.ROOT}/", "").splitlines()
    return [line for line in lines if line.startswith("#")], [line for line in lines if ":\t" in line]


# ---- for people ----


def _report(crash, reason, where, frames, code, events):
    record, registers = crash.record, crash.registers
    names = (*NUMBERED, "rip", "rflags")
    rows = [names[i:i + 3] for i in range(0, len(names), 3)]
    lines = [f"{record.vm}, generation {record.fields['generation']}, fault {record.sequence}: {reason}",
             f"detected by {record.kind}" + (f", injected: {record.injected}" if record.injected else "")
             + f", {record.fields['t_detect'] / 1e6:.6f} s after boot", f"at {where or hex(registers['rip'])}", "",
             "registers" + (" of the code that the exception interrupted" if crash.vector is not None else "")]
    lines += ["  ".join(f"{name:>6} {registers[name]:016x}" for name in row) for row in rows]
    lines += ["", "backtrace", *frames, "", "code", *code, "", "last events (seconds since boot)"]
    lines += [f"{row['us'] / 1e6:12.6f}  {row['kind']:<12}  {row['text']}" for row in events]
    return "\n".join(lines) + "\n"


def _events_before(control, record):
    """The last events of the VM, up to the report of its fault."""
    rows = [row for row in control.rows("events", "event") if row["vm"] == record.vm]
    before = sum(row["us"] <= record.fields["t_detect"] for row in rows)
    # The event of the report is made right after the record's stamp.
    return rows[:before + 1][-EVENTS:]


def save(folder, control, vm, output=None, progress=lambda part: None):
    """Fetch; write the core to output, beside it program and report. What there is to say about it, as a dictionary."""
    crash = fetch(control, vm, progress)
    core = pathlib.Path(output or pathlib.Path(folder) / f"{vm}-{crash.record.sequence}.core")
    program, report = core.with_suffix(".elf"), core.with_suffix(".txt")
    if core in (program, report):
        raise Failure(f"{core}: .elf and .txt are the names of what lies beside the core")
    try:
        shutil.copyfile(symbols.file_for(folder, vm), program)
        write(core, crash, program.name)
        reasons = symbols.Reasons(folder)
        reason = reasons.name(vm, crash.record.text)
        where = reasons.of(vm).where(crash.registers["rip"])
        frames, code = backtrace(program, core)
        report.write_text(_report(crash, reason, where, frames, code, _events_before(control, crash.record)), encoding="utf-8")
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror.lower()}") from error
    return {"vm": vm, "fault": crash.record.sequence, "generation": crash.record.fields["generation"], "kind": crash.record.kind,
            "reason": reason, "where": where, "registers": crash.registers, "backtrace": frames, "core": str(core),
            "program": str(program), "report": str(report)}


def core(arguments):
    """`core VM`."""
    folder = paths.instance(arguments.name)
    if not Instance.is_running(folder):
        raise Failure(f"no instance named '{arguments.name}' is running (start one: scripts/bulkhead run)")
    control = Control(folder)
    control.raw(f"core {arguments.vm} 0")  # refusals before the progress bar
    progress = Progress(f"memory of {arguments.vm}")
    found = save(folder, control, arguments.vm, arguments.output, lambda part: progress.update(f"{part * 100:.0f} %"))
    progress.done()
    debugger = ["gdb", "-q", found["program"], found["core"]]
    if arguments.json:
        print_json(found)
    elif arguments.backtrace:
        print("\n".join(found["backtrace"]))
    else:
        print(f"{found['vm']}, generation {found['generation']}, fault {found['fault']}: {found['reason']}")
        print(f"report:   {found['report']}\ndebugger: {' '.join(debugger)}")
    if not found["backtrace"]:
        warn("gdb shows no backtrace")
    if arguments.gdb:
        say(" ".join(debugger))
        os.execvp("gdb", debugger)
    return 0
