"""Builds with the CMake presets: configures once, then lets Ninja find out what is stale."""

import fcntl
import os
import re
import subprocess

from . import paths
from .ui import Failure, Progress, say

STEP = re.compile(r"^\[(\d+)/(\d+)\]")


def build(preset, target=None, verbose=False):
    """Bring build/<preset> up to date; returns its folder. One build of a folder at a time."""
    folder = paths.BUILD / preset
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".bulkhead-lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "build.ninja").exists():
            _run(["cmake", "--preset", preset, "-B", str(folder)], f"configure {preset}", verbose)
        command = ["cmake", "--build", str(folder)] + (["--target", target] if target else [])
        _run(command, f"build {preset}", verbose)
    return folder


def _run(command, title, verbose):
    progress = None
    lines = []
    environment = dict(os.environ, NINJA_STATUS="[%f/%t] ")
    with subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", env=environment) as process:
        for line in process.stdout:
            lines.append(line.rstrip())
            step = STEP.match(line)
            # Nothing to do (Ninja only looks for new files, a line that ends in dots): no chatter.
            if step and progress is None and not line.rstrip().endswith("..."):
                progress = Progress(title)
            if verbose:
                say(lines[-1])
            elif progress and step:
                progress.update(f"{step[1]}/{step[2]}")
    if process.returncode != 0:
        for line in lines[-60:]:
            say(line)
        raise Failure(f"{title} failed: {' '.join(command)}")
    if progress:
        progress.done()
