"""
Something done once on the way into a function. The injector puts a few instructions into memory that the driver does not use,
and a jump to them over the function's first bytes; they put those back first, then do what is to be done, then enter.
"""

import struct

from . import Plan, image, memory, register

STUB = 0x8000  # between the start tables and the image (DRIVER_LOAD_ADDRESS)
REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)), "rip", "rflags")
RSP, RIP, RFLAGS = 4, 16, 17
# What POPF changes besides the arithmetic flags (SDM 2B POPF): trap, interrupt, direction, nested task, alignment check.
FLAGS = (0x100, 0x200, 0x400, 0x4000, 0x40000)
PUSH_RAX, POP_RAX = b"\x50", b"\x58"


def _mov(number, value):
    """MOV r64, imm64."""
    return bytes((0x49 if number >= 8 else 0x48, 0xb8 | number & 7)) + struct.pack("<Q", value % (1 << 64))


def _jump(at, target):
    return b"\xe9" + struct.pack("<i", target - at - 5)


def hook(vm, control, function, code, leave=None):
    """Commands: `code` (of at most 200 bytes) is run once before the function's first instruction. leave: instead of it."""
    first = memory.read(control, vm, function.address, 8)
    # MOV moffs64, RAX changes no flag.
    stub = PUSH_RAX + _mov(0, int.from_bytes(first, "little")) + b"\x48\xa3" + struct.pack("<Q", function.address) + POP_RAX + code
    stub += leave if leave is not None else _jump(STUB + len(stub), function.address)
    stub += bytes(-len(stub) % 8)
    patched = _jump(function.address, STUB) + first[5:]
    return memory.lines(memory.write(control, vm, STUB, stub)) + memory.flips(vm, function.address, first, patched)


def _hot(rng, vm, control, images):
    return rng.choice([f for f in image.of(vm, control, images).hot if f.size >= 8])


def _xor(number, mask):
    """The register, whichever it is, with these bits flipped; all others as they were."""
    if number == RSP:
        return b"\x48\x8d\xa4\x24" + struct.pack("<i", mask % (1 << 16) * 8 + 8)  # LEA RSP, [RSP + disp32]
    if number == RFLAGS:
        return b"\x9c\x81\x34\x24" + struct.pack("<I", mask) + b"\x9d"  # PUSHF; XOR DWORD [RSP], imm32; POPF
    helper = 1 if number == 0 else 0
    xor = bytes((0x49 if number >= 8 else 0x48, 0x31, 0xc0 | helper << 3 | number & 7))
    return bytes((0x50 | helper,)) + _mov(helper, mask) + xor + bytes((0x58 | helper,))


@register("register", "a register is changed, at the entry of a function", corrupts=True)
def _register(rng, vm, control, images):
    function = _hot(rng, vm, control, images)
    number = rng.randrange(len(REGISTERS))
    mask = rng.choice(FLAGS) if number == RFLAGS else 1 << rng.randrange(64) if rng.random() < 0.7 else rng.getrandbits(64) | 1
    text = f"register {REGISTERS[number]}, mask 0x{mask:x}, at {function.name}"
    if number == RIP:
        away = _mov(0, function.address ^ mask) + b"\xff\xe0"  # JMP RAX
        return Plan(hook(vm, control, function, b"", away), text, wait=False)
    return Plan(hook(vm, control, function, _xor(number, mask)), text, wait=False)


@register("hypercall-fuzz", "a hypercall with a random number and arguments that nobody would pass", corrupts=True)
def _hypercall(rng, vm, control, images):
    function = _hot(rng, vm, control, images)
    backend = control.rows("status", "hypervisor")[0]["backend"]
    odd = (0, 1, 4, 96, 97, 200, 4096, 4097, (1 << 64) - 1, 1 << 63, 0x10000, memory.ram_size(control, vm) - 4, memory.INFO, memory.STASH,
           memory.RINGS, 0x1000000000)
    number = rng.choice((rng.randrange(1, 10), rng.randrange(16), rng.getrandbits(64)))
    arguments = [rng.choice((rng.choice(odd), rng.getrandbits(rng.randrange(1, 65)))) for _ in range(4)]
    call = b"\x0f\x01\xd9" if backend == "svm" else b"\x0f\x01\xc1"  # VMMCALL, VMCALL
    loads = b"".join(_mov(r, value) for r, value in zip((0, 7, 6, 2, 10), (number, *arguments)))  # RAX, RDI, RSI, RDX, R10
    code = b"\x50\x57\x56\x52\x41\x52" + loads + call + b"\x41\x5a\x5a\x5e\x5f\x58"
    text = f"hypercall {number}({', '.join(f'0x{value:x}' for value in arguments)}) at {function.name}"
    return Plan(hook(vm, control, function, code), text, wait=False)


@register("device-register", "a register of the device gets a random value", corrupts=True)
def _device(rng, vm, control, images):
    function = _hot(rng, vm, control, images)
    in_memory, ports = memory.bars(control, vm)
    value = rng.choice((0, 0xffffffff, 1 << rng.randrange(32), rng.getrandbits(32)))
    base, size = rng.choice(in_memory + ports)
    offset = rng.randrange(min(size, rng.choice((0x100, 0x1000, 0x8000)))) & ~3
    if (base, size) in in_memory:
        code = PUSH_RAX + _mov(0, base + offset) + b"\xc7\x00" + struct.pack("<I", value) + POP_RAX  # MOV [RAX], imm32
        return Plan(hook(vm, control, function, code), f"device: 0x{value:x} to 0x{base + offset:x} at {function.name}", wait=False)
    # MOV EDX, port; MOV EAX, imm32; OUT DX, AL
    offset = rng.randrange(size)
    code = b"\x50\x52\xba" + struct.pack("<I", base + offset) + b"\xb8" + struct.pack("<I", value) + b"\xee\x5a\x58"
    return Plan(hook(vm, control, function, code), f"device: 0x{value & 0xff:x} to port 0x{base + offset:x} at {function.name}", wait=False)


@register("time-out", "the driver works, but its completions stay with it")
def _time_out(_rng, vm, control, images):
    driver = image.of(vm, control, images)
    address = driver.find("ring_complete")
    return Plan(memory.flips(vm, address, driver.read(address, 1), b"\xc3"), "completions are withheld: RET at ring_complete", wait=False)
