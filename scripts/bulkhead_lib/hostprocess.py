"""What a process of the host has used of its CPUs."""

import contextlib
import os
import pathlib


def cpu_us(pid):
    """The CPU time that a process of the host has used, all of its threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000 // os.sysconf("SC_CLK_TCK")


def wait_us(pid):
    """How long the threads that the process has now were ready to run, but had no CPU."""
    total = 0
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            total += int(path.read_text(encoding="ascii").split()[1])
    return total // 1000
