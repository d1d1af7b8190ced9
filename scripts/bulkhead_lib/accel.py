"""Which accelerator: nested KVM where the guest would really get VMX or SVM, else TCG."""

import ctypes
import fcntl
import os
import struct

KVM_GET_API_VERSION = 0xAE00
KVM_API_VERSION = 12
KVM_GET_SUPPORTED_CPUID = 0xC008AE05
CPUID_ENTRIES = 256
CPUID_1_ECX_VMX = 1 << 5
CPUID_80000001_ECX_SVM = 1 << 2

# The hypervisor's CPU back ends.
BACK_ENDS = {"svm", "vmx"}


def _open(device):
    """(file descriptor, "") or (None, why KVM cannot be used)."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, f"there is no {device}"
    except OSError as error:
        return None, f"{device} is not usable ({error.strerror.lower()})"
    try:
        if fcntl.ioctl(fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION:
            return fd, ""
        problem = f"{device} speaks an unknown KVM interface"
    except OSError as error:
        problem = f"{device} does not work ({error.strerror.lower()})"
    os.close(fd)
    return None, problem


def kvm_problem(device="/dev/kvm"):
    """Why KVM cannot be used at all here, nested or not; empty when it can."""
    fd, problem = _open(device)
    if fd is not None:
        os.close(fd)
    return problem


def nested_support(device="/dev/kvm"):
    """What a KVM guest on this host would be offered: (set of "vmx", "svm", reason when it is empty)."""
    fd, problem = _open(device)
    if fd is None:
        return set(), problem
    try:
        # The strongest check: what KVM itself says it can offer, whatever the host's flags and module parameters are.
        found = _features(fd)
    except OSError as error:
        return set(), f"{device} does not work ({error.strerror.lower()})"
    finally:
        os.close(fd)
    return found, "" if found else "KVM offers its guests neither VMX nor SVM here (no nested virtualization)"


def _features(fd):
    # struct kvm_cpuid2 {u32 nent, padding; struct kvm_cpuid_entry2 {u32 function, index, flags, eax..edx, padding[3]}[]}
    buffer = ctypes.create_string_buffer(8 + 40 * CPUID_ENTRIES)
    struct.pack_into("II", buffer, 0, CPUID_ENTRIES, 0)
    fcntl.ioctl(fd, KVM_GET_SUPPORTED_CPUID, buffer)
    count = struct.unpack_from("I", buffer, 0)[0]
    found = set()
    for i in range(count):
        function, _, _, _, _, ecx, _ = struct.unpack_from("7I", buffer, 8 + 40 * i)
        if function == 1 and ecx & CPUID_1_ECX_VMX:
            found.add("vmx")
        if function == 0x80000001 and ecx & CPUID_80000001_ECX_SVM:
            found.add("svm")
    return found


def choose(wanted, support=None):
    """The decision: (accelerator, one sentence why). wanted: auto, kvm, tcg or bochs. Raises ValueError when kvm cannot work."""
    if wanted in ("tcg", "bochs"):
        return wanted, "asked for"
    found, reason = support if support is not None else nested_support()
    if found & BACK_ENDS:
        return "kvm", f"KVM offers its guests {'/'.join(sorted(found & BACK_ENDS)).upper()}"
    if wanted == "kvm":
        raise ValueError(f"--accel kvm: {reason}")
    return "tcg", reason
