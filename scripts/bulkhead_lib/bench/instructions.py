"""Counting what a machine executes, by a plugin in QEMU: repeatable where time is not."""

import pathlib
import struct
import subprocess

from .. import paths
from ..ui import Failure

SOURCE = pathlib.Path(__file__).with_name("count_instructions.c")
COUNTERS = ("hypervisor instructions", "driver instructions", "guest instructions")
FORMAT = "=3Q"


def build():
    """Compile the plugin if it is not up to date; its path."""
    plugin = paths.BUILD / "bench" / "count_instructions.so"
    if not plugin.exists() or plugin.stat().st_mtime < SOURCE.stat().st_mtime:
        plugin.parent.mkdir(parents=True, exist_ok=True)
        command = ["gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(plugin), str(SOURCE)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"the counting plugin does not compile: {done.stdout.strip()[-500:]}")
    return plugin


def arguments(folder):
    """QEMU's arguments for a machine in this folder; its counters start at zero."""
    file = folder / "instructions"
    file.write_bytes(bytes(struct.calcsize(FORMAT)))
    return ["-plugin", ",".join(text.replace(",", ",,") for text in (str(build()), f"counter={file}"))]


def read(folder):
    return dict(zip(COUNTERS, struct.unpack(FORMAT, (folder / "instructions").read_bytes())))
