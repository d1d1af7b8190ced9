"""The Debian packages that the project uses, and their installation."""

import os
import shutil
import subprocess

from .ui import Failure, say

# The one list: package, the purposes that need it (a command has a set of them), and what it is for.
PACKAGES = {
    "gcc": ("build", "compiles everything"),
    "libc6-dev": ("build", "C library headers for the host tools"),
    "binutils": ("build symbols", "assembler, linker, objcopy; nm and addr2line name places in a driver"),
    "cmake": ("build", "the build"),
    "ninja-build": ("build", "the build"),
    "dpkg-dev": ("build", "unpacks lwIP's source package"),
    "gnu-efi": ("build", "start-up code and headers of the UEFI loader"),
    "qemu-system-x86": ("run", "the machine"),
    "qemu-utils": ("run", "qemu-img: looks at qcow2 disks"),
    "ovmf": ("run", "UEFI firmware of the machine"),
    "bochs": ("bochs", "the machine with an Intel CPU that has VT-x"),
    "bochs-term": ("bochs", "the screen of Bochs that needs neither X nor a network port"),
    "vgabios": ("bochs", "the graphics card's BIOS, without which Bochs does not start"),
    "libcmocka-dev": ("test", "unit tests"),
    "libcapstone-dev": ("test", "disassembler that the instruction decoder is compared with"),
    "clang": ("test", "libFuzzer targets"),
    "libclang-rt-14-dev": ("test", "libFuzzer and the sanitizers' runtime"),
    "iperf3": ("test bench-net", "the peer of the guest's TCP throughput tests"),
    "curl": ("test", "the peer of the guest's HTTP server"),
    "iproute2": ("test netns", "addresses of the TAP devices of a network namespace"),
    "python3-matplotlib": ("picture test", "draws what `bench --svg` and campaigns found"),
    "parallel": ("test", "runs the shards of a campaign"),
    "spin": ("test", "checks the model of the relay's protocol"),
    "python3-capstone": ("test inject", "decodes the drivers' instructions, for faults that change some"),
    # Together 960 MB installed, most of it the OCaml compiler on which Frama-C's packages depend.
    "frama-c-base": ("proof", "proves functions that read untrusted memory"),
    "why3": ("proof", "hands Frama-C's goals to the provers"),
    "z3": ("proof", "a prover"),
    "cvc4": ("proof", "another, which finds what z3 does not"),
    "gdb": ("gdb test", "the debugger; opens the cores of driver VMs"),
}


def needed(purposes):
    return [name for name, (purpose, _) in PACKAGES.items() if not set(purpose.split()).isdisjoint(purposes)]


def missing(names):
    """Those of `names` that dpkg does not report as installed."""
    if shutil.which("dpkg-query") is None:
        raise Failure("this is not a Debian system (no dpkg-query); install by hand: " + " ".join(names), 3)
    query = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Abbrev}\n", *names],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    installed = {line.split()[0] for line in query.stdout.splitlines() if line.split()[1:2] == ["ii"]}
    return [name for name in names if name not in installed]


def ensure(purposes, no_install):
    """Install what the commands of these purposes lack; says what and why. no_install: list it and stop."""
    lacking = missing(needed(purposes))
    if not lacking:
        return
    say(f"{len(lacking)} Debian package{'s are' if len(lacking) > 1 else ' is'} missing:")
    for name in lacking:
        say(f"  {name:18} {PACKAGES[name][1]}")
    command = ["apt-get", "install", "-y", "--no-install-recommends", *lacking]
    if no_install:
        raise Failure("nothing was installed (--no-install); to install: " + " ".join(command), 3)
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            raise Failure("not root and no sudo here; run as root: " + " ".join(command), 3)
        command = ["sudo", *command]
    _install(command, lacking)


def _install(command, lacking):
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    prefix = command[:1] if command[0] == "sudo" else []
    # Package lists may be absent (a fresh image) or too old (a version that the mirror no longer has).
    if not _candidates(lacking):
        _apt(prefix + ["apt-get", "update"], environment)
    say("installing: " + " ".join(command))
    if _apt(command, environment) != 0:
        _apt(prefix + ["apt-get", "update"], environment)
        if _apt(command, environment) != 0:
            raise Failure("apt-get could not install: " + " ".join(lacking), 3)


def _candidates(names):
    policy = subprocess.run(["apt-cache", "policy", *names], stdout=subprocess.PIPE, text=True, check=False,
                            env=dict(os.environ, LC_ALL="C"))
    return policy.stdout.count("Candidate: ") - policy.stdout.count("Candidate: (none)") == len(names)


def _apt(command, environment):
    # apt's own chatter goes to stderr: stdout may be read by a program.
    return subprocess.run(command, env=environment, stdout=2, check=False).returncode
