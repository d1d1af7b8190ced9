"""Which accelerator: nested KVM where the guest would really get VMX or SVM, else TCG."""

import ctypes
import fcntl
import os
import struct

KVM_GET_API_VERSION = 0xAE00
KVM_GET_SUPPORTED_CPUID = 0xC008AE05
CPUID_ENTRIES = 256
CPUID_1_ECX_VMX = 1 << 5
CPUID_80000001_ECX_SVM = 1 << 2

# The hypervisor's CPU back ends that exist. VMX joins this set when it exists.
BACK_ENDS = {"svm"}


def nested_support(device="/dev/kvm"):
    """What a KVM guest on this host would be offered: (set of "vmx", "svm", reason when it is empty)."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return set(), f"there is no {device}"
    except OSError as error:
        return set(), f"{device} is not usable ({error.strerror.lower()})"
    try:
        # The strongest check: what KVM itself says it can offer, whatever the host's flags and module parameters are.
        if fcntl.ioctl(fd, KVM_GET_API_VERSION, 0) != 12:
            return set(), f"{device} speaks an unknown KVM interface"
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
    """The decision: (accelerator, one sentence why). wanted: auto, kvm or tcg. Raises ValueError when kvm cannot work."""
    if wanted == "tcg":
        return "tcg", "asked for"
    found, reason = support if support is not None else nested_support()
    if not found:
        problem = reason
    elif not found & BACK_ENDS:
        problem = f"KVM offers {'/'.join(sorted(found)).upper()}, but this release drives {'/'.join(sorted(BACK_ENDS)).upper()} only"
    else:
        return "kvm", f"KVM offers its guests {'/'.join(sorted(found & BACK_ENDS)).upper()}"
    if wanted == "kvm":
        raise ValueError(f"--accel kvm: {problem}")
    return "tcg", problem
