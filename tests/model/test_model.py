"""
The relay's protocol, checked exhaustively by Spin: every order of the steps of guest, hypervisor, driver VM and device. The
model is relay.pml; each seeded mistake in it must be found, or the check above it means little.
"""

import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))
from harness import case, check, main  # noqa: E402

LABEL = "model"
TIMEOUT = 900

MODEL = pathlib.Path(__file__).with_name("relay.pml")
MEMORY_MIB = 4000
MUTANTS = dict(re.findall(r"^#define (\w+) (\d+) +/\* \w+\.c:", MODEL.read_text(encoding="utf-8"), re.MULTILINE))


def verify(lab, mutant=0, **bounds):
    """Spin's verdict: (errors, states, the violated assertion)."""
    folder = lab.folder / f"spin-{mutant}"
    folder.mkdir()
    defines = [f"-D{name}={value}" for name, value in {"MUTANT": mutant, **bounds}.items()]
    subprocess.run(["spin", *defines, "-a", str(MODEL)], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["gcc", "-w", "-O0" if mutant else "-O2", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}", "-o", "pan", "pan.c"], cwd=folder, check=True)
    # -n: do not list what was never reached: a mutant's branches are not, and the model's own are covered by the mutants.
    done = subprocess.run(["./pan", "-m1000000", "-n"], cwd=folder, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    (folder / "pan.log").write_text(done.stdout, encoding="utf-8")
    for name in ("pan", "pan.c"):
        (folder / name).unlink()
    # A search that was cut short by depth or memory proves nothing.
    check("too small" not in done.stdout and "out of memory" not in done.stdout, f"the search was cut short: {done.stdout[-300:]}")
    errors = re.search(r"errors: (\d+)", done.stdout)
    states = re.search(r"(\d+) states, stored", done.stdout)
    check(errors and states, f"Spin ended without a verdict: {done.stdout[-300:]}")
    violated = re.search(r"assertion violated (.*?) \(at depth", done.stdout)
    return int(errors[1]), int(states[1]), violated[1].strip() if violated else ""


@case
def promises_hold(lab):
    """Up to two crashes, one lie and one reset by the guest, at any steps: a crash during the recovery from another, too."""
    errors, states, violated = verify(lab, CRASHES=2, LIES=1, RESETS=1)
    check(errors == 0, f"violated: {violated}; the trail lies in {lab.folder}, `spin -t` shows it")
    lab.say(f"| {states} states, all promises hold")


@case
def seeded_mistakes_are_found(lab):
    check(len(MUTANTS) == 9, f"the model names only {sorted(MUTANTS)}")
    for name, number in MUTANTS.items():
        errors, _, violated = verify(lab, int(number), CRASHES=1, LIES=1, RESETS=1)
        check(errors > 0 and violated, f"{name} was not found")
        lab.say(f"| {name}: found, {violated}")


if __name__ == "__main__":
    main()
