"""
Instructions changed as in the studies of Nooks (Swift et al., SOSP 2003) and MINIX 3 (Herder et al., DSN 2009): errors that
programmers make, put into the driver's machine code while it runs.
"""

from . import Plan, image, memory, register

# Of the mutations: what seldom runs, or at the start only, seldom shows.
SHARES = {"hot": 60, "warm": 25, "functions": 15}
NOP = 0x90
# Condition codes in an opcode's low four bits: those whose neighbour differs by "or equal" (SDM 1 appendix B).
OR_EQUAL = {2: 6, 6: 2, 3: 7, 7: 3, 12: 14, 14: 12, 13: 15, 15: 13}
COMPARES = ("cmp", "test")


def _keys(instruction):
    library = image.capstone().x86
    return [("r", o.size, o.reg) if o.type == library.X86_OP_REG else ("i", o.size, o.imm) if o.type == library.X86_OP_IMM else
            ("m", o.size, o.mem.base, o.mem.index, o.mem.scale, o.mem.disp) for o in instruction.operands]


def _is_branch(instruction):
    return instruction.mnemonic == "call" or instruction.mnemonic.startswith("j")


def _condition_at(instruction):
    """The index of the opcode byte whose low bits are a condition code; None."""
    code = bytes(instruction.bytes)
    at = 1 if 0x40 <= code[0] <= 0x4f else 0
    if at == 0 and 0x70 <= code[0] <= 0x7f:
        return 0
    # Jcc near, SETcc, CMOVcc
    return at + 1 if code[at] == 0x0f and len(code) > at + 1 and code[at + 1] >> 4 in (4, 8, 9) else None


def _one_operand(rng, instruction, wanted):
    """The instruction with one bit changed, so that it is the same but for one operand, which wanted(index, old, new) accepts."""
    if instruction.mnemonic == "nop":
        return None
    old = _keys(instruction)
    for bit in rng.sample(range(8 * instruction.size), 8 * instruction.size):
        code = bytearray(instruction.bytes)
        code[bit // 8] ^= 1 << bit % 8
        other = image.decode(code, instruction.address)
        if not other or (other.size, other.mnemonic) != (instruction.size, instruction.mnemonic):
            continue
        new = _keys(other)
        changed = [i for i, (a, b) in enumerate(zip(old, new)) if a != b]
        # The same kind and size of operand, too.
        if len(new) == len(old) and len(changed) == 1 and old[changed[0]][:2] == new[changed[0]][:2] \
                and wanted(changed[0], old[changed[0]], new[changed[0]]):
            return bytes(code)
    return None


def _register(old, new):
    """Another register, or a memory operand with another base or index."""
    return old[0] == "r" or (old[0] == "m" and old[2:4] != new[2:4])


def _source(rng, listing, i):
    first = 0 if listing[i].mnemonic in (*COMPARES, "push") else 1
    return None if _is_branch(listing[i]) else _one_operand(rng, listing[i], lambda n, old, new: n >= first and _register(old, new))


def _destination(rng, listing, i):
    if _is_branch(listing[i]) or listing[i].mnemonic in (*COMPARES, "push"):
        return None
    return _one_operand(rng, listing[i], lambda n, old, new: n == 0 and _register(old, new))


def _condition(_rng, listing, i):
    at = _condition_at(listing[i])
    if at is None:
        return None
    code = bytearray(listing[i].bytes)
    code[at] ^= 1
    return bytes(code)


def _drop(_rng, listing, i):
    return bytes([NOP] * listing[i].size)


def _immediate(rng, listing, i):
    return None if _is_branch(listing[i]) else _one_operand(rng, listing[i], lambda n, old, new: old[0] == "i")


def _load_store(_rng, listing, i):
    moves = listing[i].mnemonic.startswith("mov") and any(key[0] == "m" for key in _keys(listing[i]))
    return bytes([NOP] * listing[i].size) if moves else None


def _loop_bound(rng, listing, i):
    """Of a loop's last compare and its jump back: the number that is compared with, or whether equal counts."""
    here = listing[i]
    if here.mnemonic == "cmp" and i + 1 < len(listing) and _back(listing[i + 1]) and here.imm_size:
        code = bytearray(here.bytes)
        size = here.imm_size
        bound = int.from_bytes(code[-size:], "little") + rng.choice((-1, 1))
        code[-size:] = (bound % (1 << 8 * size)).to_bytes(size, "little")
        return bytes(code)
    at = _condition_at(here)
    if at is None or not _back(here) or here.bytes[at] & 15 not in OR_EQUAL:
        return None
    code = bytearray(here.bytes)
    code[at] = code[at] & 0xf0 | OR_EQUAL[code[at] & 15]
    return bytes(code)


def _back(instruction):
    return _is_branch(instruction) and _condition_at(instruction) is not None and instruction.operands[0].imm < instruction.address


def _garbage(rng, listing, i):
    return rng.randbytes(listing[i].size)


MUTATIONS = {
    "text-source": ("an instruction reads another register", _source),
    "text-destination": ("an instruction writes another register", _destination),
    "text-condition": ("a condition is inverted", _condition),
    "text-drop": ("an instruction is left out", _drop),
    "text-immediate": ("a bit of a constant in an instruction is flipped", _immediate),
    "text-load-store": ("a load or a store is left out", _load_store),
    "text-loop-bound": ("a loop ends one round too early or too late", _loop_bound),
    "text-garbage": ("random bytes instead of an instruction", _garbage),
}


def mutate(rng, driver, change):
    """(address, old bytes, new bytes) of one mutation, mostly in a function that runs again and again."""
    first, = rng.choices(list(SHARES), list(SHARES.values()))
    # Somewhere else, where there is none for this mutation.
    for group in (first, *SHARES):
        places = [(f, i) for f in getattr(driver, group) for i in range(len(driver.instructions(f)))]
        for function, i in rng.sample(places, len(places)):
            here = driver.instructions(function)[i]
            new = change(rng, driver.instructions(function), i)
            if new and new != bytes(here.bytes):
                return here.address, bytes(here.bytes), new
    raise ValueError(f"{driver.name} has no instruction that this mutation is for")


def _describe(code, address):
    instruction = image.decode(code, address)
    if not instruction:
        return code.hex()
    more = f" (and {len(code) - instruction.size} bytes)" if instruction.size < len(code) and code[0] != NOP else ""
    return f"{instruction.mnemonic} {instruction.op_str}".strip() + more


def _mutation(change):
    def plan(rng, vm, control, images):
        driver = image.of(vm, control, images)
        address, old, new = mutate(rng, driver, change)
        text = f"text: {_describe(old, address)} -> {_describe(new, address)} at {driver.place(address)}"
        return Plan(memory.lines(memory.flips(vm, address, old, new)), text, wait=False)
    return plan


for _name, (_text, _change) in MUTATIONS.items():
    register(_name, _text, corrupts=True)(_mutation(_change))
