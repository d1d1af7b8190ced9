"""
Crash reports: what a failed driver VM has left is an ELF core that the real gdb opens, with a backtrace that names the
driver's functions, and reasons have names instead of addresses.
"""

import json
import re
import signal
import subprocess

from driver_suite import inject
from harness import MIB, case, check, check_load, driver, guest, main, manifest, paths
from bulkhead_lib import core, symbols
from bulkhead_lib.control import ControlError
from bulkhead_lib.machine import die_with_parent
from bulkhead_lib.ui import Failure

LABEL = "core"
TIMEOUT = 400
BOOT_SECONDS = 120

FRAME = re.compile(r"^#\d+ +(?:0x[0-9a-f]+ in )?(\S+) \(")
PLACE = re.compile(r" in (\w+)\+0x[0-9a-f]+ \(\w+\.[cS]:\d+\)$")
# Registers that a function leaves as they were, and those of a hypercall's arguments (System V ABI, shared/abi/hypercall.h).
STEADY = ("rbx", "rbp", "r12", "r13", "r14", "r15", "rsp", "rip", "rdi", "rsi", "rdx", "r10")


def two_drivers(lab):
    """A disk, perhaps with a spare, and a network card; the card's policy is to give up at once."""
    text = manifest(driver(limit="1000", window="1h", spare=lab.random.choice(("yes", "no"))),
                    driver("net0", image="e1000.elf", device="class:0200", restart="never"), guest())
    return lab.machine(text, devices=["e1000e,netdev=n,romfile="], extra=["-netdev", "user,id=n"])


def refused(machine, vm, why):
    try:
        core.save(machine.folder, machine.control, vm)
    except (ControlError, Failure) as refusal:
        check(why in str(refusal), f"{vm}: refused, but not for '{why}': {refusal}")
        return
    raise AssertionError(f"there is a core of {vm}")


def take(machine, vm, record, code, rip):
    """The core of this fault: the instruction there, the backtrace, the memory are as they must be. What `save` tells."""
    found = core.save(machine.folder, machine.control, vm)
    check(found["fault"] == record.sequence and found["kind"] == record.kind, f"another fault than {record.fields}: {found}")
    check(found["generation"] == record.fields["generation"], f"of another generation than {record.fields}: {found}")
    check(found["registers"]["rip"] == int(rip, 16), f"rip is {found['registers']['rip']:#x}, on record is {rip}")
    program = symbols.Symbols(found["program"])
    frames = [FRAME.match(line) for line in found["backtrace"]]
    check(all(frames), f"frames without a function: {found['backtrace']}")
    names = [frame[1] for frame in frames]
    check(len(names) >= 3 and names[-1] == "_start" and names[-2] == "runtime_main", f"no backtrace: {names}")
    # What the innermost functions were inlined into has a symbol.
    inner = next(name for name in names if name in program.names)
    check(found["where"].startswith(f"{inner}+"), f"gdb says {inner}, addr2line {found['where']}")
    # The image on disk does not have what the injector wrote: gdb reads the core.
    shown = core.run_gdb(found["program"], found["core"], f"x/{len(code)}xb $pc", "p driver_info->generation",
                         "p (char *)driver_info->name").splitlines()[-3:]
    check([int(byte, 16) for byte in shown[0].split("\t")[1:]] == list(code), f"{shown[0]} is not {code}")
    check(shown[1].endswith(f"= {found['generation']}") and f'"{vm}"' in shown[2], f"driver_info: {shown}")
    same_constants(found)
    text = open(found["report"], encoding="utf-8").read()
    for part in (found["reason"], found["backtrace"][0], f"rip {found['registers']['rip']:016x}", f"  {record.kind}: {record.text}"):
        check(part in text, f"'{part}' is not in the report: {text}")
    return found


def same_constants(found):
    """What a driver cannot change by accident: its read-only data is in the core as in the image."""
    with open(found["core"], "rb") as file:
        left = {address: data for address, data, _, _ in symbols.segments(file.read())}
    with open(found["program"], "rb") as file:
        parts = symbols.segments(file.read())
    address, data = next((address, data) for address, data, _, flags in parts if flags == 4)
    check(len(data) > 100 and left[0][address:address + len(data)] == data, "constants of the image are others in the core")
    check(sorted(left) == [0, core.INFO_ADDRESS], f"other memory: {list(left)}")


@case
def cores_open_in_gdb(lab):
    """Idle and under load, by the driver's own handler and without it; each fault replaces what the one before has left."""
    with two_drivers(lab) as machine:
        machine.boot()
        refused(machine, "blk0", "has had no fault")
        refused(machine, "main", "has no driver")
        refused(machine, "blk7", "no such VM")

        # Idle, it stands behind its `wait`: once stopped by its exception handler, once where it was.
        record = inject(machine, "blk0", "crash")
        crashed = take(machine, "blk0", record, b"\x0f\x0b", record.fields["address"])
        record = inject(machine, "blk0", "hang")
        hanging = take(machine, "blk0", record, b"\xeb\xfe", record.fields["detail"])
        differ = {name: (crashed["registers"][name], hanging["registers"][name]) for name in STEADY
                  if crashed["registers"][name] != hanging["registers"][name]}
        check(not differ, f"not what the exception interrupted: {differ}")
        check(crashed["registers"]["rax"] & 1, "the event of the request is not what `wait` returned")

        command = f"blk load --seed {lab.random.randrange(1 << 32)} --depth 32 --seconds 20 --final --quiet"
        machine.send(command)
        record = inject(machine, "blk0", "wild-write")
        take(machine, "blk0", record, b"\xa2", record.fields["detail"])
        record = inject(machine, "blk0", "crash")
        last = take(machine, "blk0", record, b"\x0f\x0b", record.fields["address"])
        record = inject(machine, "net0", "crash")
        check(record.outcome == "gave-up", f"net0: {record.fields}")
        take(machine, "net0", record, b"\x0f\x0b", record.fields["address"])
        again = core.save(machine.folder, machine.control, "blk0")
        check(again["fault"] == last["fault"] and again["registers"] == last["registers"], "another VM's fault has changed the core")
        check_load(*machine.finish(command, 120))


def bulkhead(name, *arguments):
    line = [str(paths.ROOT / "scripts" / "bulkhead"), arguments[0], "--no-install", "--name", name, *arguments[1:]]
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


@case
def as_typed(lab):
    """inject, status and faults say where it happened; core in its forms."""
    name = "core-as-typed"
    command = [str(paths.ROOT / "scripts" / "bulkhead"), "run", "--no-install", "--name", name, "--nics", "none",
               "--exec", "blk info; sleep 300"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent) as process:
        try:
            check(any("sectors" in line for line in process.stdout), "the guest does not come up")
            code, out, err = bulkhead(name, "core", "blk0")
            check(code == 1 and not out and err == "bulkhead: this VM has had no fault\n", f"ended with {code}: {out}{err}")
            code, out, err = bulkhead(name, "inject", "blk0", "crash")
            reason = PLACE.search(out.splitlines()[0])
            check(code == 0 and reason and "exception 6 in" in out, f"no place: {out}{err}")
            for show in ("status", "faults"):
                check(f"exception 6{reason[0]}" in bulkhead(name, show)[1], f"`{show}` does not say '{reason[0]}'")
            path = lab.folder / "blk0.core"
            found = json.loads(bulkhead(name, "core", "blk0", "--json", "-o", str(path))[1])
            check(found["core"] == str(path) and found["reason"].endswith(reason[0]), f"another core: {found}")
            code, out, err = bulkhead(name, "core", "blk0", "--backtrace")
            check(code == 0 and out.splitlines() == found["backtrace"], f"another backtrace: {out}{err}")
            code, out, err = bulkhead(name, "core", "blk0", "-o", "/nowhere/blk0.core")
            check(code == 1 and "/nowhere/blk0.elf: no such file" in err, f"ended with {code}: {err}")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@case
def what_cannot_be_true(lab):
    """Whatever a driver has left in its memory and registers, a core is made of it; gdb opens it."""
    program = lab.images / "ahci.elf"
    names = [*core.NUMBERED, "rip", "rflags"]
    for _ in range(3):
        registers = {name: lab.random.choice((0, 5, lab.random.randrange(1 << 20), (1 << 64) - 1, lab.random.randrange(1 << 64)))
                     for name in names} | {"rdi": core.FAULT_EXCEPTION, "cs": 8, "ss": 16}
        memory = bytearray(lab.random.randbytes(MIB))
        # A call of the handler, as far as one looks; its third argument is anything.
        at = min(registers["rip"], MIB)
        memory[max(0, at - 3):at] = core.HYPERCALLS[0][:min(3, at)]
        record = core.faultlog.parse({"seq": 1, "vm": "blk0", "generation": 0, "kind": "exception", "address": hex(registers["rip"])})
        crash = core.Crash(record, dict(registers), memory, bytearray(core.PAGE))
        core.unwind_handler(crash)
        check(crash.registers == registers, "registers from a frame that is none")
        core.write(lab.folder / "a.core", crash, program.name)
        shown = core.run_gdb(program, lab.folder / "a.core", "bt", "p/x $rip", "p/x $r15").split()
        check([int(shown[-4], 16), int(shown[-1], 16)] == [registers["rip"], registers["r15"]], f"gdb shows {shown}")


@case
def places(lab):
    """Texts with addresses, and what becomes of them."""
    program = symbols.Symbols(symbols.pathlib.Path(lab.images).parent / "debug" / "ahci.elf"
                              if (lab.images.parent / "debug").is_dir() else lab.images / "ahci.elf")
    start = program.names["runtime_main"]
    reasons = symbols.Reasons(lab.folder)
    reasons.symbols = {"blk0": program, "none": None}
    for text, before in ((f"exception 6 at {start:#x}", "exception 6 in "), (f"store at 4000000 outside its memory, rip {start:x}",
                         "store at 4000000 outside its memory in "), (f"ran 60000 us without progress, last at {start:#x}",
                         "ran 60000 us without progress in "), (f"port outside its device (70) at rip {start:x}", "port outside its device (70) in ")):
        found = reasons.name("blk0", text)
        check(found.startswith(before + "runtime_main+0x0 (loop.c:"), f"{text} became {found}")
        check(reasons.name("none", text) == text, "a place of nowhere")
    for text in ("exception 6 at 0x9", "exception 6 at 0xffffffffffffffffff", "DMA write 0x1000000000: write without permission",
                 f"exception 6 at {program.code[-1][1]:#x}", "restart by the operator", ""):
        check(reasons.name("blk0", text) == text, f"{text} became {reasons.name('blk0', text)}")
    check(symbols.segments(b"") == [] and symbols.segments(lab.random.randbytes(64)) == [], "segments of what is no ELF file")


if __name__ == "__main__":
    main()
