"""The guest's seeded test data, as guestos/kernel/shell/pattern.h documents it; written anew, so that both check each other."""

import multiprocessing
import struct

SECTOR = 512
SERVED_BYTES = 262139  # what the guest's HTTP server repeats (guestos/kernel/net/net.h)
WORDS = SECTOR // 8
MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15
PACK = struct.Struct(f"<{WORDS}Q").pack
CHUNK = 4096  # sectors


def mix64(x):
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    return x ^ x >> 31


def sector(seed, number, generation=0):
    """The 512 bytes of one sector."""
    state = mix64(seed ^ mix64((number + (generation << 40)) & MASK)) + STEP
    words = [number, generation]
    for _ in range(2, WORDS):
        state += STEP
        x = state & MASK
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
        words.append(x ^ x >> 31)
    return PACK(*words)


def served():
    """What the guest's HTTP server sends over and over."""
    return b"".join(sector(1, i) for i in range(SERVED_BYTES // SECTOR + 1))[:SERVED_BYTES]


def _check(task):
    path, seed, first, count = task
    with open(path, "rb") as file:
        file.seek(first * SECTOR)
        data = file.read(count * SECTOR)
    return [first + i for i in range(count) if data[i * SECTOR:(i + 1) * SECTOR] != sector(seed, first + i)]


def wrong_sectors(path, seed, first, count):
    """Numbers of the sectors in [first, first + count) of an image that do not hold the pattern."""
    tasks = [(path, seed, at, min(CHUNK, first + count - at)) for at in range(first, first + count, CHUNK)]
    with multiprocessing.Pool() as pool:
        return [number for part in pool.imap(_check, tasks) for number in part]
