"""`doctor`: what this host can do, a line a check, and which accelerator `--accel auto` picks."""

import dataclasses
import json
import pathlib
import re
import subprocess

from . import accel, bochs, network, packages, qemu
from .ui import Failure, print_json

SECONDS = 20
# QEMU's own description of the CPU that TCG gives a machine.
EXPAND_MAX = "\n".join(json.dumps(line) for line in (
    {"execute": "qmp_capabilities"},
    {"execute": "query-cpu-model-expansion", "arguments": {"type": "full", "model": {"name": "max"}}},
    {"execute": "quit"})) + "\n"
NESTED_ADVICE = ("load the host's module with nesting (kvm_intel or kvm_amd, nested=1); in a cloud machine its owner has to offer it. "
                 "Emulation works without")


class Host:
    """The questions that the checks ask; tests answer them otherwise."""

    @staticmethod
    def output(*command, text=""):
        """What a program prints, "" when it is not there or does not end."""
        try:
            return subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  errors="replace", check=False, timeout=SECONDS).stdout
        except (OSError, subprocess.TimeoutExpired):
            return ""

    @staticmethod
    def exists(path):
        return pathlib.Path(path).exists()

    @staticmethod
    def cpuinfo():
        try:
            return pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    namespace_problem = staticmethod(network.namespace_problem)
    kvm_problem = staticmethod(accel.kvm_problem)
    nested_support = staticmethod(accel.nested_support)

    @staticmethod
    def missing(names):
        return packages.missing(names)


@dataclasses.dataclass
class Finding:
    check: str
    ok: bool
    detail: str
    advice: str = ""


def _install(*purposes):
    return "apt-get install --no-install-recommends " + " ".join(packages.needed(purposes))


def cpu(host):
    text = host.cpuinfo()
    vendor = re.search(r"^vendor_id\s*: (\S+)", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:(.*)", text, re.MULTILINE)
    found = sorted({"vmx", "svm"} & set(flags[1].split() if flags else []))
    return Finding("CPU", bool(found), f"{vendor[1] if vendor else 'unknown'}, virtualization: {', '.join(found) or 'none'}",
                   "" if found else "none is needed to emulate; for KVM, turn it on in the firmware's settings or take another host")


def kvm(host):
    problem = host.kvm_problem()
    advice = "add yourself to the group kvm" if "permission" in problem else "load kvm_intel or kvm_amd" if problem else ""
    return Finding("KVM", not problem, problem or "/dev/kvm works", advice)


def nested(host):
    found, reason = host.nested_support()
    offered = f"guests are offered {'/'.join(sorted(found)).upper()}"
    return Finding("nested KVM", bool(found), offered if found else reason, "" if found else NESTED_ADVICE)


def emulator(host):
    version = re.search(r"version (\S+)", host.output(qemu.BINARY, "--version"))
    return Finding("QEMU", bool(version), version[1] if version else f"{qemu.BINARY} does not start", "" if version else _install("run"))


def iommu(host):
    found = "intremap=" in host.output(qemu.BINARY, "-device", "intel-iommu,help")
    return Finding("VT-d in QEMU", found, "intel-iommu with interrupt remapping" if found else "this QEMU has no intel-iommu",
                   "" if found else _install("run"))


def tcg(host):
    answer = host.output(qemu.BINARY, "-accel", "tcg", "-machine", "q35", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio",
                         text=EXPAND_MAX)
    found = all(re.search(rf'"{name}": true', answer) for name in ("svm", "npt"))
    return Finding("SVM in QEMU TCG", found, "svm and npt" if found else "this QEMU does not emulate SVM with nested paging",
                   "" if found else _install("run"))


def firmware(host):
    lacking = [str(path) for path in (qemu.OVMF_CODE, qemu.OVMF_VARS) if not host.exists(path)]
    return Finding("OVMF for QEMU", not lacking, f"{', '.join(lacking)} missing" if lacking else str(qemu.OVMF_CODE.parent),
                   _install("run") if lacking else "")


def bochs_firmware(host):
    found = host.exists(bochs.FIRMWARE)
    return Finding("OVMF for Bochs", found, str(bochs.FIRMWARE) + ("" if found else " is missing"), "" if found else _install("run"))


def bochs_itself(host):
    output = host.output(bochs.BINARY, "-help", "cpu")
    version = re.search(r"Bochs x86 Emulator (\S+)", output)
    models = set(bochs.parse_models(output))
    lacking = [name for name in (bochs.DEFAULT_MODEL, "ryzen") if name not in models]
    if not version:
        detail = f"{bochs.BINARY} does not start"
    elif not host.exists(bochs.DISPLAY):
        detail, lacking = f"{version[1]}, without {bochs.DISPLAY.name}", ["display"]
    else:
        kinds = {"VMX": bochs.VMX_MODELS, "SVM": bochs.SVM_MODELS}
        detail = version[1] + "".join(f", {kind}: {' '.join(name for name in names if name in models) or 'no model'}"
                                      for kind, names in kinds.items())
    ok = bool(version) and not lacking
    return Finding("Bochs", ok, detail, "" if ok else _install("bochs"))


def namespaces(host):
    problem = host.namespace_problem()
    return Finding("network namespaces", not problem, problem or "`run --net netns` works", "`run --net user` needs none" if problem else "")


def tools(host, name, *purposes):
    try:
        lacking = host.missing(packages.needed(purposes))
    except Failure as failure:
        return Finding(name, False, str(failure))
    return Finding(name, not lacking, f"missing: {' '.join(lacking)}" if lacking else "all installed",
                   "scripts/bulkhead installs what a command needs; or: apt-get install --no-install-recommends " + " ".join(lacking)
                   if lacking else "")


def examine(host):
    """(findings, accelerator that auto picks or None, why)."""
    findings = [cpu(host), kvm(host), nested(host), emulator(host), iommu(host), tcg(host), firmware(host), bochs_itself(host),
                bochs_firmware(host), namespaces(host), tools(host, "packages to build", "build"), tools(host, "packages to test", "test", "proof")]
    ok = {finding.check: finding.ok for finding in findings}
    kind, why = accel.choose("auto", host.nested_support())
    with_qemu = ok["QEMU"] and ok["OVMF for QEMU"] and (kind == "kvm" or ok["SVM in QEMU TCG"])
    if not ok["packages to build"]:
        return findings, None, "the images cannot be built"
    if with_qemu:
        return findings, kind, why
    if ok["Bochs"] and ok["OVMF for Bochs"]:
        return findings, "bochs", "QEMU cannot be used; --accel bochs can"
    return findings, None, "neither QEMU nor Bochs can be used"


def run(arguments):
    findings, kind, why = examine(Host())
    if arguments.json:
        print_json({"checks": [dataclasses.asdict(finding) for finding in findings], "accelerator": kind, "reason": why})
        return 0 if kind else 1
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        print(f"{finding.check:<{width}}  {'ok     ' if finding.ok else 'missing'}  {finding.detail}")
        if finding.advice:
            print(f"{'':<{width}}           -> {finding.advice}")
    verdict = {None: "`run` cannot work", "bochs": "`run --accel bochs` can work"}.get(kind, f"`--accel auto` picks {(kind or '').upper()}")
    print(f"{verdict}: {why}")
    return 0 if kind else 1
