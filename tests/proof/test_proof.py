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
TIMEOUT = 600

FRAMA_C = ["frama-c", "-c11", "-machdep", "gcc_x86_64"]
WP = ["-wp", "-wp-rte", "-wp-model", "Typed+Cast", "-wp-prover", "z3,cvc4", "-wp-par", "1", "-wp-cache", "none", "-wp-split",
      "-wp-simplify-forall", "-wp-simplify-is-cint"]
EVA = ["-eva", "-eva-precision", "4", "-eva-warn-key", "loop-unroll:partial=active"]
# For each goal and prover. On a quiet machine no goal that is proven takes longer than 3 s.
PROOF_SECONDS, MUTANT_SECONDS = 60, 4
# The contracts' postconditions are WP's.
NOT_FOR_EVA = re.compile(r"function \w+: postcondition got status unknown")


@dataclasses.dataclass
class Mistake:
    old: str  # what the source says
    new: str
    open: str  # a part of the goal's name, or of the alarm, that must be open then
    function: str = ""  # WP looks at this one only


@dataclasses.dataclass
class Proof:
    source: str  # the file that is proven, and may be changed
    header: str  # of tests/proof, included before it
    mistakes: list
    functions: tuple = ()  # WP: of the source
    program: str = ""  # what is compiled, when it is not the source itself: it includes the source
    options: tuple = ()


def open_goals(proof, folder, source_root, function="", seconds=PROOF_SECONDS):
    """(what is not proven, how much was to be proven). Leaves a log."""
    folder.mkdir(exist_ok=True)
    method = EVA
    if proof.functions:
        method = [*WP, "-wp-timeout", str(seconds), "-wp-fct", function or ",".join(proof.functions)]
    includes = f"-cpp-extra-args=-I{source_root} -I{ROOT} -include tests/proof/{proof.header}"
    command = [*FRAMA_C, includes, *method, *proof.options, str(ROOT / proof.program if proof.program else source_root / proof.source)]
    done = subprocess.run(command, cwd=folder, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "WHY3CONFIG": str(folder.parent / "why3.conf")})
    (folder / "frama-c.log").write_text(f"{command}\n{done.stdout}", encoding="utf-8")
    check(done.returncode == 0, f"Frama-C ended with {done.returncode}: {done.stdout[-600:]}")
    return (wp_verdict if proof.functions else eva_verdict)(done.stdout)


def wp_verdict(text):
    count = re.search(r"^\[wp\] Proved goals: +(\d+) / (\d+)$", text, re.MULTILINE)
    check(count and int(count[2]), f"WP ended without a verdict: {text[-600:]}")
    left = re.findall(r"^\[wp\] \[[^\]]+\] Goal (\S+)(?! : Valid)(?:\s|$)", text, re.MULTILINE)
    check(len(left) == int(count[2]) - int(count[1]), f"WP counts {count[0]}, and names as open {left}")
    return left, int(count[2])


def eva_verdict(text):
    summary = re.search(r"(\d+) functions analyzed .*?(\d+) statements reached", text, re.DOTALL)
    check(summary, f"Eva ended without a verdict: {text[-600:]}")
    # A message goes on in indented lines.
    messages = re.findall(r"^\[eva:(?:alarm|loop-unroll[\w:-]*)\] .*\n(?:  .*\n)*", text, re.MULTILINE)
    left = [" ".join(message.split()) for message in messages if not NOT_FOR_EVA.search(message)]
    if re.search(r"end of function main:\n +NON TERMINATING", text):
        left.append("main() does not get to its end")
    return left, int(summary[2])


def prove(lab, *proofs):
    """Each proof must have nothing open, each mistake in it must."""
    subprocess.run(["why3", "config", "detect"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env={**os.environ, "WHY3CONFIG": str(lab.folder / "why3.conf")})
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        jobs = []
        for number, proof in enumerate(proofs):
            jobs.append(pool.submit(check_proof, lab, proof, lab.folder / f"proof{number}"))
            jobs += [pool.submit(check_mistake, lab, proof, mistake, lab.folder / f"proof{number}-mistake{i}")
                     for i, mistake in enumerate(proof.mistakes)]
        for job in jobs:
            job.result()


def check_proof(lab, proof, folder):
    left, total = open_goals(proof, folder, ROOT)
    check(not left, f"{proof.source}: not proven: {left}; see {folder}")
    names = ", ".join(proof.functions)
    lab.say(f"| {proof.source}: {total} goals proven: {names}" if names else f"| {proof.source}: no alarm in {total} statements of {proof.program}")


def check_mistake(lab, proof, mistake, folder):
    text = (ROOT / proof.source).read_text(encoding="utf-8")
    check(text.count(mistake.old) == 1, f"{proof.source} has not one place that says: {mistake.old}")
    changed = folder / proof.source
    changed.parent.mkdir(parents=True)
    changed.write_text(text.replace(mistake.old, mistake.new), encoding="utf-8")
    left, _ = open_goals(proof, folder, folder, mistake.function, MUTANT_SECONDS)
    check(any(mistake.open in name for name in left), f"{proof.source}: not found: '{mistake.new}' for '{mistake.old}'; open: {left}")
    lab.say(f"| {proof.source}: found '{mistake.new}' for '{mistake.old}'")


@case
def descriptor_chains(lab):
    """The guest's virtqueues: from any content of its memory, chains of bounded length inside its RAM."""
    functions = ("virtqueue_enable", "chain_add", "indirect_check", "chain_walk")
    prove(lab, Proof("hv/relay/queue.c", "relay.h", [
        Mistake("chain->count == RING_MAX_SEGMENTS", "chain->count > RING_MAX_SEGMENTS", "index_bound", "chain_add"),
        Mistake("vm_ram(vm, GPA(desc->addr), desc->len) == NULL", "vm_ram(vm, GPA(desc->addr), 1) == NULL", "ensures", "chain_add"),
        Mistake("!add_u32(chain->readable_bytes + chain->writable_bytes, desc->len, &total)", "(total = 0) != 0", "unsigned_overflow", "chain_add"),
        Mistake("if (inside)", "if (0)", "ensures", "indirect_check"),
        Mistake("index >= entries", "index > entries", "call_descriptor_copy_requires", "chain_walk"),
        Mistake("steps++ == entries", "steps == entries", "loop_variant", "chain_walk"),
        Mistake("(size + 1u) * sizeof(u16)", "size * sizeof(u16)", "ensures", "virtqueue_enable"),
    ], functions, options=("-warn-unsigned-overflow",)),
        # Without -wp-rte: Eva looks at the accesses.
        Proof("hv/relay/queue.c", "relay.h", [
            Mistake("out->count = out->readable = 0;", "out->count = 0;", "call_chain_walk_requires", "virtqueue_next"),
        ], ("virtqueue_next",), options=("-wp-no-rte",)))


@case
def rings(lab):
    """Every access to the guest's rings and descriptors, byte by byte."""
    prove(lab, Proof("hv/relay/queue.c", "relay.h", [
        Mistake("(at + 8))->v", "(at + 9))->v", "mem_access"),
        Mistake("vq->used_idx & (vq->size - 1)", "vq->used_idx & vq->size", "mem_access"),
        Mistake("avail->ring[vq->size]", "avail->ring[vq->size + 1]", "mem_access"),
    ], program="tests/proof/rings.c", options=("-warn-unsigned-overflow", "-eva-use-spec", "chain_walk")))


@case
def completions(lab):
    """What a driver VM says that it did: bounded, in flight, possible."""
    functions = ("violation", "ring_take_consumed", "relay_publish", "write_error", "accept", "complete_queue")
    prove(lab, Proof("hv/relay/complete.c", "relay.h", [
        Mistake("consumed - queue->consumed > queue->produced - queue->consumed", "consumed > queue->produced", "ensures", "ring_take_consumed"),
        Mistake("tag >= RING_TAGS", "tag > RING_TAGS", "index_bound", "accept"),
        Mistake("length > slot->chain.writable_bytes", "length > slot->chain.writable_bytes + 1", "ensures", "accept"),
        Mistake("!relay->device.resetting", "true", "call_virtqueue_fill_requires", "accept"),
        Mistake("    inflight_remove(log, (u8)tag);\n", "", "ensures", "accept"),
        Mistake("> RING_COMPLETIONS)", "> RING_COMPLETIONS + 1)", "loop_invariant", "complete_queue"),
        Mistake("segment->length < left ? segment->length : left", "left", "call_proof_panic_requires", "write_error"),
    ], functions))


@case
def in_flight_log(lab):
    """The log's order stays a permutation, submission order is kept."""
    prove(lab, Proof("hv/relay/inflight.c", "relay.h", [
        Mistake("log->order[log->count++]", "log->order[++log->count]", "", "inflight_add"),
        Mistake("log->order[log->count] = tag;", "log->order[at] = tag;", "assert", "inflight_remove"),
        Mistake("log->count - at)", "log->count - at + 1)", "call_proof_move_down_requires", "inflight_remove"),
    ], ("inflight_init", "inflight_draft", "inflight_add", "inflight_remove")))


@case
def checked_arithmetic(lab):
    functions = ("add_u64", "mul_u64", "add_u32", "range_inside", "ranges_overlap")
    prove(lab, Proof("shared/lib/checked.h", "builtins.h", [
        Mistake("at - base <= size && ", "", "ensures", "range_inside"),
        Mistake("a_len > b - a", "a_len >= b - a", "ensures", "ranges_overlap"),
    ], functions, "tests/proof/checked.c"))


@case
def instruction_decoder(lab):
    prove(lab, Proof("hv/exit/decode.c", "builtins.h", [
        Mistake("cursor->at >= cursor->available", "cursor->at > cursor->available", "mem_access"),
        Mistake("cursor->at == INSTRUCTION_MAX", "cursor->at == INSTRUCTION_MAX + 1", "mem_access"),
        Mistake("width == 8 ? value : ", "", "shift"),
        Mistake("reg - 4", "reg + 13", "assert"),
    ], program="tests/proof/decode.c"))


@case
def elf_files(lab):
    prove(lab, Proof("shared/lib/elf.c", "elf.h", [
        Mistake("!range_inside(offset, size, 0, reader->size)", "offset > reader->size", "requires", "read_at"),
    ], ("read_at",)), Proof("shared/lib/elf.c", "elf.h", [
        Mistake("out->count == ELF_MAX_SEGMENTS", "out->count > ELF_MAX_SEGMENTS", "index_bound"),
        Mistake("(note->desc_size != 4 && note->desc_size != 8)", "note->desc_size > 9", "precondition"),
    ], program="tests/proof/elf.c", options=("-eva-use-spec", "read_at")))


if __name__ == "__main__":
    main()
