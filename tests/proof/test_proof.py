"""
Proofs of the functions that read memory which others write, by Frama-C: WP for what functions promise, Eva for single bytes and
bits. docs/PROOFS.md says what is proven, and what is taken for granted. Each seeded mistake must leave something open, or the
proof beside it means little.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))
from harness import ROOT, case, check, main  # noqa: E402

LABEL = "proof"
TIMEOUT = 1800
EVERY_MISTAKE = os.environ.get("BULKHEAD_EVERY_MISTAKE") == "1"

FRAMA_C = ["frama-c", "-c11", "-machdep", "gcc_x86_64"]
# The provers' steps bound them (why3.conf), so that a busy machine proves the same; the seconds are for one that hangs.
WP = ["-wp", "-wp-rte", "-wp-model", "Typed+Cast", "-wp-prover", "cvc4,z3", "-wp-timeout", "3600", "-wp-par", "1", "-wp-cache", "none",
      "-wp-split", "-wp-simplify-forall", "-wp-simplify-is-cint"]
EVA = ["-eva", "-eva-msg-key=-initial-state,-final-states", "-eva-warn-key", "loop-unroll:partial=active",
       "-eva-warn-undefined-pointer-comparison", "none"]
# The contracts' postconditions are WP's.
NOT_FOR_EVA = r"function \w+: postcondition got status unknown"


@dataclasses.dataclass
class Mistake:
    old: str  # what the source says
    new: str
    open: str  # WP: the properties (-wp-prop) of which a goal must be open then; Eva: a part of an alarm
    function: str = ""  # WP looks at this one only
    seldom: bool = False  # planted only with BULKHEAD_EVERY_MISTAKE=1: together they take ten minutes of a CPU


@dataclasses.dataclass
class Proof:
    source: str  # the file that is proven, and may be changed
    header: str  # of tests/proof, included before it
    mistakes: list
    functions: tuple = ()  # WP: of the source
    program: str = ""  # what is compiled, when it is not the source itself: it includes the source
    options: tuple = ()
    assumed: str = NOT_FOR_EVA  # Eva: alarms of these words are no matter


def open_goals(proof, folder, source_root, mistake=None):
    """(what is not proven, how much was to be proven). Leaves a log."""
    folder.mkdir(exist_ok=True)
    method = EVA
    if proof.functions:
        method = [*WP, "-wp-fct", mistake.function if mistake else ",".join(proof.functions)]
        method += ["-wp-prop", mistake.open] if mistake else []
    includes = f"-cpp-extra-args=-I{source_root} -I{ROOT} -include tests/proof/{proof.header}"
    command = [*FRAMA_C, includes, *method, *proof.options, str(ROOT / proof.program if proof.program else source_root / proof.source)]
    done = subprocess.run(command, cwd=folder, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "WHY3CONFIG": str(ROOT / "tests/proof/why3.conf")})
    (folder / "frama-c.log").write_text(f"{command}\n{done.stdout}", encoding="utf-8")
    check(done.returncode == 0, f"Frama-C ended with {done.returncode}: {done.stdout[-600:]}")
    return wp_verdict(done.stdout) if proof.functions else eva_verdict(done.stdout, proof.assumed)


def wp_verdict(text):
    count = re.search(r"^\[wp\] Proved goals: +(\d+) / (\d+)$", text, re.MULTILINE)
    check(count and int(count[2]), f"WP ended without a verdict: {text[-600:]}")
    # The goal's name begins with its function's; what each prover says follows in indented lines.
    goals = re.findall(r"^\[wp\] \[[^\]]+\] Goal (?:typed_cast_)?(\S+)(?! : Valid)(?:\s.*)?\n((?:  .*\n)*)", text, re.MULTILINE)
    left = [f"goal {name} ({'; '.join(line.strip() for line in said.splitlines())})" for name, said in goals]
    check(len(left) == int(count[2]) - int(count[1]), f"WP counts {count[0]}, and names as open {left}")
    # Not run, or run out of seconds: nothing is known then, neither of the code nor of a mistake in it.
    check(not re.search(r"^  \S+ [\d.]+: (Timeout|Failed|Failure)", text, re.MULTILINE), f"a prover did not work: {left}")
    return left, int(count[2])


def eva_verdict(text, assumed):
    summary = re.search(r"(\d+) functions analyzed .*?(\d+) statements reached", text, re.DOTALL)
    check(summary, f"Eva ended without a verdict: {text[-600:]}")
    # A message goes on in indented lines.
    messages = re.findall(r"^\[eva:(?:alarm|loop-unroll:partial)\] .*\n(?:  .*\n)*", text, re.MULTILINE)
    left = [" ".join(message.split()) for message in messages if not re.search(assumed, message)]
    if re.search(r"end of function main:\n +NON TERMINATING", text):
        left.append("main() does not get to its end")
    return left, int(summary[2])


def prove(lab, *proofs):
    """Each proof must have nothing open, each mistake in it must."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        jobs = []
        for number, proof in enumerate(proofs):
            jobs.append(pool.submit(check_proof, lab, proof, lab.folder / f"proof{number}"))
            jobs += [pool.submit(check_mistake, lab, proof, mistake, lab.folder / f"proof{number}-mistake{i}")
                     for i, mistake in enumerate(proof.mistakes) if EVERY_MISTAKE or not mistake.seldom]
        for job in jobs:
            job.result()


def check_proof(lab, proof, folder):
    left, total = open_goals(proof, folder, ROOT)
    check(not left, f"{proof.source}: not proven: {', '.join(left)}; see {folder}/frama-c.log")
    names = ", ".join(proof.functions)
    lab.say(f"| {proof.source}: {total} goals proven: {names}" if names else f"| {proof.source}: no alarm in {total} statements of {proof.program}")


def check_mistake(lab, proof, mistake, folder):
    text = (ROOT / proof.source).read_text(encoding="utf-8")
    check(text.count(mistake.old) == 1, f"{proof.source} has not one place that says: {mistake.old}")
    changed = folder / proof.source
    changed.parent.mkdir(parents=True)
    changed.write_text(text.replace(mistake.old, mistake.new), encoding="utf-8")
    left, _ = open_goals(proof, folder, folder, mistake)
    found = left if proof.functions else [alarm for alarm in left if mistake.open in alarm]
    check(found, f"{proof.source}: not found: '{mistake.new}' for '{mistake.old}'; open: {left}; see {folder}/frama-c.log")
    lab.say(f"| {proof.source}: found '{mistake.new}' for '{mistake.old}'")


@case
def descriptor_chains(lab):
    """The guest's virtqueues: from any content of its memory, chains of bounded length inside its RAM."""
    functions = ("virtqueue_enable", "chain_add", "indirect_check", "chain_walk")
    prove(lab, Proof("hv/relay/queue.c", "relay.h", [
        Mistake("if (inside)", "if (0)", "@ensures", "indirect_check"),
        Mistake("index >= entries", "index > entries", "@requires", "chain_walk"),
        Mistake("steps++ == entries", "steps == entries", "@variant", "chain_walk", seldom=True),
        Mistake("(size + 1u) * sizeof(u16)", "size * sizeof(u16)", "@ensures", "virtqueue_enable", seldom=True),
        Mistake("chain->count == RING_MAX_SEGMENTS", "chain->count > RING_MAX_SEGMENTS", "@ensures", "chain_add", seldom=True),
        Mistake("vm_ram(vm, GPA(desc->addr), desc->len) == NULL", "vm_ram(vm, GPA(desc->addr), 1) == NULL", "inside", "chain_add",
                seldom=True),
        Mistake("!add_u32(chain->readable_bytes + chain->writable_bytes, desc->len, &total)", "(total = 0) != 0", "unsigned_overflow",
                "chain_add", seldom=True),
    ], functions, options=("-warn-unsigned-overflow",)),
        # Without -wp-rte: Eva looks at the accesses.
        Proof("hv/relay/queue.c", "relay.h", [
            Mistake("out->count = out->readable = 0;", "out->count = 0;", "@requires", "virtqueue_next"),
        ], ("virtqueue_next",), options=("-wp-no-rte",)))


@case
def rings(lab):
    """Every access to the guest's rings and descriptors, byte by byte."""
    prove(lab, Proof("hv/relay/queue.c", "relay.h", [
        Mistake("(at + 8))->v", "(at + 9))->v", "out of bounds"),
        Mistake("vq->used_idx & (vq->size - 1)", "vq->used_idx & vq->size", "out of bounds"),
        Mistake("avail->ring[vq->size]", "avail->ring[vq->size + 1]", "out of bounds"),
    ], program="tests/proof/rings.c", options=("-eva-precision", "4", "-warn-unsigned-overflow", "-eva-use-spec", "chain_walk")))


@case
def completions(lab):
    """What a driver VM says that it did: read in bounds, believed only when it is in flight and possible."""
    prove(lab, Proof("hv/relay/complete.c", "relay.h", [
        Mistake("consumed - queue->consumed > queue->produced - queue->consumed", "consumed > queue->produced", "@ensures",
                "ring_take_consumed", seldom=True),
        Mistake("segment->length < left ? segment->length : left", "left", "@requires", "write_error", seldom=True),
        Mistake("!queue->vq.enabled || ", "", "@requires", "relay_publish", seldom=True),
    ], ("violation", "ring_take_consumed", "relay_publish", "write_error")),
        Proof("hv/relay/complete.c", "builtins.h", [
            Mistake("tag >= RING_TAGS", "tag > RING_TAGS", "out of bounds"),
            Mistake(" || !log->slot[tag].in_flight", "", "not_in_flight"),
            Mistake("length > slot->chain.writable_bytes", "length > slot->chain.writable_bytes + 1", "too_long"),
            Mistake("!relay->device.resetting", "true", "out of bounds"),
            Mistake("    inflight_remove(log, (u8)tag);\n", "", "taken"),
            Mistake("% RING_COMPLETIONS", "% (RING_COMPLETIONS + 1)", "out of bounds"),
        ], program="tests/proof/complete.c", options=("-eva-slevel", "4", "-eva-plevel", "1000", "-eva-context-depth", "0")))


@case
def in_flight_log(lab):
    """The log's order stays a permutation, submission order is kept."""
    prove(lab, Proof("hv/relay/inflight.c", "relay.h", [
        Mistake("log->order[tag] = (u8)tag;", "log->order[tag] = 0;", "@invariant", "inflight_init"),
        Mistake("log->count == RING_TAGS ?", "log->count > RING_TAGS ?", "index_bound", "inflight_draft"),
        Mistake("log->order[log->count++]", "log->order[++log->count]", "index_bound", "inflight_add"),
        Mistake("log->order[log->count] = tag;", "log->order[at] = tag;", "@assert", "inflight_remove"),
    ], ("inflight_init", "inflight_draft", "inflight_add", "inflight_remove")))


@case
def checked_arithmetic(lab):
    functions = ("add_u64", "mul_u64", "add_u32", "range_inside", "ranges_overlap")
    prove(lab, Proof("shared/lib/checked.h", "builtins.h", [
        Mistake("u64 sum;\n    if (", "u64 sum;\n    if (0 & ", "@ensures", "add_u64", seldom=True),
        Mistake("u64 product;\n    if (", "u64 product;\n    if (0 & ", "@ensures", "mul_u64", seldom=True),
        Mistake("u32 sum;\n    if (", "u32 sum;\n    if (0 & ", "@ensures", "add_u32", seldom=True),
        Mistake("at - base <= size && ", "", "@ensures", "range_inside", seldom=True),
        Mistake("a_len > b - a", "a_len >= b - a", "@ensures", "ranges_overlap", seldom=True),
    ], functions, "tests/proof/checked.c"))


@case
def instruction_decoder(lab):
    prove(lab, Proof("hv/exit/decode.c", "builtins.h", [
        Mistake("cursor->at < cursor->available", "cursor->at <= cursor->available", "out of bounds"),
        Mistake("cursor->at < INSTRUCTION_MAX", "cursor->at <= INSTRUCTION_MAX", "out of bounds"),
        Mistake("width == 8 ? value : ", "", "shift"),
        Mistake("reg - 4", "reg + 13", "assert"),
    ], program="tests/proof/decode.c"))


# That read_at() is true only when it has filled its target is seen by reading it.
FILLED = r"|accessing uninitialized left-value|precondition 'initialization"


@case
def elf_files(lab):
    prove(lab, Proof("shared/lib/elf.c", "elf.h", [
        Mistake("!range_inside(offset, size, 0, reader->size)", "offset > reader->size", "@requires", "read_at"),
    ], ("read_at",)), Proof("shared/lib/elf.c", "builtins.h", [
        Mistake("out->count == ELF_MAX_SEGMENTS", "out->count > ELF_MAX_SEGMENTS", "out of bounds"),
        Mistake("&note, sizeof(note)", "&note, sizeof(note) + 1", "read_at: precondition"),
    ], program="tests/proof/elf.c", assumed=NOT_FOR_EVA + FILLED))


if __name__ == "__main__":
    main()
