"""scripts/bulkhead: its parts by themselves, and `run` as a user types it."""

import contextlib
import fnmatch
import functools
import glob
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

from harness import Lab, case, check, main, sha256_file
from bulkhead_lib import accel, bochs, bochs_bridge, control, devices, doctor, faultlog, guest_output, loc, network, paths, qemu, session, ui
from bulkhead_lib.bench import figures, picture, recovery, replace, report, soak, storm
from bulkhead_lib.console import ConsoleFilter
from bulkhead_lib.machine import die_with_parent, strip_echo
from bulkhead_lib.ui import Failure
from host_network import host_run, served_file

LABEL = "scripts"
TIMEOUT = 900
BOOT_SECONDS = 120
BENCH_SECONDS = 180


def equal(got, expected):
    check(got == expected, f"got {got!r}, expected {expected!r}")


@case
def console_streams(lab):
    """Log lines are cut out of the guest's text, however the stream is cut into pieces."""
    stream = ('\x1b[2J\x1b[01;01H[uefi] a file\r\nguest one\r\n[hv   1.0] between lines\r\n'
              'json {"a":\n\r[hv   2.0] in a line\r\n1}\r\nprice [h] 5\r\n[status 0]\r\nguestos> ')
    text = 'guest one\njson {"a":1}\nprice [h] 5\n[status 0]\nguestos> '
    log = ["[uefi] a file", "[hv   1.0] between lines", "[hv   2.0] in a line"]
    for _ in range(500):
        console, out, rest = ConsoleFilter(), "", stream
        while rest:
            size = lab.random.randrange(1, 12)
            out += console.feed(rest[:size])
            rest = rest[size:]
        # The last line feed may begin a log line, as long as more may come.
        equal(out + console.finish(), text)
        equal(console.log, log)


@case
def control_lines(lab):
    equal(control.parse_line('vm name=blk0 n=12 s="two words" e="" h=0x1f neg=-3'),
          ("vm", {"name": "blk0", "n": 12, "s": "two words", "e": "", "h": "0x1f", "neg": -3}))
    # A number in quotes is text: a message may be one.
    equal(control.parse_line('event text="7"'), ("event", {"text": "7"}))


@case
def commands_and_echo(lab):
    equal(session.split_commands('stat; echo "a;b" ;; sha256 /dev/vda;'), ["stat", 'echo "a;b"', "sha256 /dev/vda"])
    equal(strip_echo("stat\nuptime 1\n", "stat"), "uptime 1\n")
    equal(strip_echo("uptime 1\n", "stat"), "uptime 1\n")


@case
def json_in_output(lab):
    equal(guest_output.find_json('progress {"n":1}\njson {"n":\n2,"in":{"m":3}}\ndone'), {"n": 2, "in": {"m": 3}})
    try:
        guest_output.find_json("nothing {here")
    except Failure:
        return
    raise AssertionError("JSON was found where there is none")


@case
def accelerator_choice(lab):
    equal(accel.choose("auto", ({"svm"}, ""))[0], "kvm")
    equal(accel.choose("auto", ({"vmx"}, ""))[0], "kvm")
    equal(accel.choose("auto", (set(), "why")), ("tcg", "why"))
    equal(accel.choose("tcg", ({"svm"}, ""))[0], "tcg")
    equal(accel.choose("bochs", ({"vmx"}, ""))[0], "bochs")
    try:
        accel.choose("kvm", (set(), "no nesting"))
    except ValueError as refusal:
        check("no nesting" in str(refusal), "the reason is missing")
        return
    raise AssertionError("--accel kvm was accepted without nested virtualization")


def options(lab, **fields):
    return qemu.Options(folder=lab.folder, disk=lab.disk(), **fields)


def qemu_line(lab, **fields):
    return " ".join(qemu.command(options(lab, **fields)))


@case
def qemu_machines(lab):
    """What the machine types and accelerators make of QEMU's command line."""
    tcg, kvm, pc = qemu_line(lab), qemu_line(lab, accel="kvm"), qemu_line(lab, machine="pc")
    check("-machine q35 -accel tcg" in tcg and "intel-iommu,intremap=on" in tcg, tcg)
    check("-machine q35,kernel-irqchip=split -accel kvm -cpu host" in kvm and "intel-iommu,intremap=on" in kvm, kvm)
    check("-machine pc " in pc and "intel-iommu" not in pc and "bus=ide.0,unit=0" in pc, pc)


def keys_of(text):
    """{section: {key: value}} of a manifest, comments away."""
    found, section = {}, None
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            section = found.setdefault(line, {})
        elif line:
            key, _, value = line.partition("=")
            section[key.strip()] = value.strip()
    return found


@case
def manifests_for_devices(lab):
    """One driver VM for each device, with the keys of default.ini; for default.ini's own devices that is default.ini itself."""
    template = paths.DEFAULT_MANIFEST.read_text(encoding="utf-8")
    equal(keys_of(devices.manifest_for(template, devices.layout(["ahci"], ["e1000e"]))), keys_of(template))
    found = keys_of(devices.manifest_for(template, devices.layout(["ahci", "virtio-blk", "nvme"], ["e1000", "virtio-net", "e1000e"])))
    chosen = {name: (keys["image"], keys["device"]) for name, keys in found.items() if keys.get("kind") == "driver"}
    equal(chosen, {"[vm blk0]": ("ahci.elf", "pci:00:1f.2"), "[vm blk1]": ("virtio_blk.elf", "pci:01:00.0"),
                   "[vm blk2]": ("nvme.elf", "pci:02:00.0"), "[vm net0]": ("e1000.elf", "pci:00:08.0"),
                   "[vm net1]": ("virtio_net.elf", "pci:03:00.0"), "[vm net2]": ("e1000.elf", "pci:04:00.0")})
    equal(found["[vm main]"], keys_of(template)["[vm main]"])
    equal(found["[vm blk2]"] | {"image": "", "device": ""}, keys_of(template)["[vm blk0]"] | {"image": "", "device": ""})
    check("[vm net0]" not in keys_of(devices.manifest_for(template, devices.layout(["nvme"], []))), "a card that is not there")


@case
def forwards(lab):
    """--forward: which card, which port; a port that is taken, or named twice, is refused, and 0 takes a free one."""
    equal(network.parse_forward("8080:80"), network.Forward("net0", 8080, 80))
    equal(network.parse_forward("net1:0:7"), network.Forward("net1", 0, 7))
    for text in ("80", "0:0", "1:65536", "65536:1", "a:1", "net1:80", "eth0:1:2", "1:2:3"):
        refused(lambda text=text: network.parse_forward(text), "HOST:GUEST")
    cards = devices.layout([], ["e1000e", "virtio-net"])
    plugged = network.user(cards, [network.parse_forward("0:80"), network.parse_forward("net1:0:7")])
    first, second = plugged.facts["forwards"]
    check(first["host"] and second["host"] and first["host"] != second["host"], f"ports: {plugged.facts}")
    equal(plugged.arguments, [
        "-netdev", f"user,id=net0-backend,net=10.0.2.0/24,hostfwd=tcp:127.0.0.1:{first['host']}-:80",
        "-netdev", f"user,id=net1-backend,net=10.0.3.0/24,hostfwd=tcp:127.0.0.1:{second['host']}-:7"])
    refused(lambda: network.user(cards, [network.Forward("net2", 0, 80)]), "the machine has net0, net1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(lambda: network.user(cards, [network.Forward("net0", port, 80)]), "is taken; 0:80")
    refused(lambda: network.user(cards, [network.Forward("net0", port, 80)] * 2), "named twice")


def refused(action, hint):
    try:
        action()
    except Failure as refusal:
        check(hint in str(refusal), f"refused, but not for '{hint}': {refusal}")
        return
    raise AssertionError(f"accepted, although '{hint}'")


def command_line(lab, *arguments):
    return [str(paths.ROOT / "scripts" / "bulkhead"), arguments[0], "--no-install", "--name", f"scripts-{lab.folder.name}", *arguments[1:]]


def bulkhead(lab, *arguments, seconds=BOOT_SECONDS):
    """(exit code, stdout, stderr) of the command with these arguments, in an instance of this case's own."""
    done = subprocess.run(command_line(lab, *arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
                          check=False, preexec_fn=die_with_parent)
    return done.returncode, done.stdout, done.stderr


@case
def run_refuses(lab):
    """What cannot be is said in one line that shows the way out, before anything is built or made."""
    image = str(lab.disk())
    for flags, hint in (("--disks floppy", "there are: ahci, nvme, virtio-blk"), ("--nics e1000e,rtl8139", "there are: e1000, e1000e"),
                        ("--disks ahci,ahci", "take nvme"), (f"--disk {image} --disk {image}", "--disks ahci,nvme"),
                        ("--disk /nowhere.img", "no such disk image"), ("--machine pc --nics e1000", "no network card"),
                        ("--accel bochs --disks nvme", "one IDE disk"), ("--net none --forward 0:80", "--net user"),
                        ("--net tap", "cards: 1, named: 0"), ("--net user --tap t", "--net tap")):
        code, out, err = bulkhead(lab, "run", *flags.split(), "--exec", "stat")
        lines = [line for line in err.splitlines() if line.startswith("bulkhead: ")]
        check(code == 1 and not out and len(lines) == 1 and hint in lines[0], f"`run {flags}` ended with {code}: {out}{err}")


@case
def run_with_devices(lab):
    """Two disks and two network cards, a driver VM for each; the first disk is the user's, unharmed; the gateway answers."""
    disk = lab.disk(8 << 20, 1 << 20)
    before = sha256_file(disk)
    code, out, err = bulkhead(lab, "run", "-v", "--disks", "nvme,ahci", "--nics", "e1000e,e1000", "--disk", str(disk), "--disk-snapshot",
                              "--exec", "blk info; blk write 0 16; ifconfig dhcp; ping 10.0.2.2 2; ifconfig")
    check(code == 0, f"ended with {code}: {out}{err[-600:]}")
    check("16384 sectors" in out and "2 received" in out and "inet 10.0.2.15" in out, f"the guest says: {out}")
    for vm, what in (("blk0", "nvme.elf drives 01:00.0"), ("blk1", "ahci.elf drives 00:1f.2"), ("net0", "e1000.elf drives 02:00.0"),
                     ("net1", "e1000.elf drives 00:08.0")):
        check(re.search(rf"{vm}: {re.escape(what)} .*isolation iommu", err), f"{vm} is not what was asked for: {err[-2000:]}")
    equal(sha256_file(disk), before)
    kept = re.search(r"^manifest: (.*)$", err, re.MULTILINE)
    check(kept and "[vm net1]" in open(kept[1], encoding="utf-8").read(), "the manifest is not where -v says")


@case
def run_forwards_a_port(lab):
    """A free port of the host leads to the guest's HTTP server; SIGTERM ends all of it."""
    with subprocess.Popen(command_line(lab, "run", "--forward", "0:80", "--exec", "ifconfig dhcp; http serve 80; ifconfig; sleep 300"),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          preexec_fn=die_with_parent) as process:
        try:
            port = next(filter(None, (re.search(r"127\.0\.0\.1:(\d+) -> guest port 80$", line) for line in process.stderr)))[1]
            # Twice the interface: by DHCP, and once the server listens.
            for _ in range(2):
                check(any("inet 10.0.2.15" in line for line in process.stdout), "the guest has no address")
            got = host_run("curl", "-sS", f"http://127.0.0.1:{port}/1M")
            check(got == served_file(1 << 20), "what the guest serves arrived otherwise")
            emulator = instance_of(lab).description()["emulator"]
            process.send_signal(signal.SIGTERM)
            equal(process.wait(20), 128 + signal.SIGTERM)
            check(not paths.pathlib.Path(f"/proc/{emulator}").exists(), "QEMU is still there")
        finally:
            process.kill()


def instance_of(lab):
    return session.machine.Instance(paths.instance(f"scripts-{lab.folder.name}"))


def namespace_of(lab, process):
    """(process that holds it, inode of the namespace) of a run that is starting."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        check(process.poll() is None and time.monotonic() < deadline, "no namespace was made")
        try:
            holder = instance_of(lab).description()["namespace"]["pid"]
            return holder, os.stat(f"/proc/{holder}/ns/net").st_ino
        except (Failure, KeyError, OSError):
            time.sleep(0.05)


def users_of(inode):
    """The processes that live in a network namespace."""
    found = []
    for path in glob.glob("/proc/[0-9]*/ns/net"):
        try:
            if os.stat(path).st_ino == inode:
                found.append(path)
        except OSError:
            pass  # it has ended
    return found


def lists_of_host():
    """What a namespace or TAP device could be left over as."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return sorted(line.split(":")[1].strip() for line in links.splitlines()), sorted(glob.glob("/run/netns/*"))


def namespaces_refused():
    """Why no namespace with a TAP device can be made here; "" when it can. Asked of the system's own programs."""
    kind = "-n" if os.geteuid() == 0 else "-rn"
    if subprocess.run(["unshare", kind, "true"], capture_output=True, check=False).returncode != 0:
        return "no network namespace"
    done = subprocess.run(["unshare", kind, "ip", "tuntap", "add", "t", "mode", "tap"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "/dev/net/tun"


@case
def namespace_run(lab):
    """--net netns: programs of the host and the guest talk over it, and nothing of it is left after SIGTERM."""
    refusal = namespaces_refused()
    if refusal:
        lab.say("| namespace_run: no namespaces here, only the refusal is tested")
        code, _, err = bulkhead(lab, "run", "--net", "netns", "--exec", "stat")
        check(code == 1 and f"bulkhead: --net netns: {refusal}" in err, f"ended with {code}: {err}")
        return
    before = lists_of_host()
    commands = "ifconfig 10.77.0.2/24 10.77.0.1; ping 10.77.0.1 2; http serve 80; iperf3 -s"
    with subprocess.Popen(command_line(lab, "run", "--net", "netns", "--exec", commands), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent) as process:
        try:
            inode = namespace_of(lab, process)[1]
            for text in ("2 received", "serving on port 80"):
                check(any(text in line for line in process.stdout), f"the guest does not say '{text}'")
            check(bulkhead(lab, "netns", "--", "curl", "-sS", "http://10.77.0.2/")[1].startswith("guestos"), "no page from the guest")
            host_run(*command_line(lab, "netns", "iperf3", "-c", "10.77.0.2", "-t", "1", "--connect-timeout", "5000"))
            # Nothing leads out of there.
            routes = bulkhead(lab, "netns", "ip", "route")[1].split("\n")
            check(len(routes) == 2 and routes[0].startswith("10.77.0.0/24 dev net0"), f"routes: {routes}")
            equal(bulkhead(lab, "netns", "no-such-program")[0], 1)
            process.send_signal(signal.SIGTERM)
            equal(process.wait(20), 128 + signal.SIGTERM)
            equal(users_of(inode), [])
        finally:
            process.kill()
    equal(lists_of_host(), before)
    code, _, err = bulkhead(lab, "netns", "true")
    check(code == 1 and "is running" in err, f"a namespace of nobody: {err}")


@case
def namespace_always_goes(lab):
    """However a run ends, interrupted or killed, before the guest is up: nobody lives in its namespace afterwards."""
    if namespaces_refused():
        lab.say("| namespace_always_goes: nothing was tested, no namespaces here")
        return
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGKILL):
        with subprocess.Popen(command_line(lab, "run", "--net", "netns", "--nics", "e1000e,e1000", "--exec", "stat"), stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent) as process:
            inode = namespace_of(lab, process)[1]
            check("net1" in bulkhead(lab, "netns", "ip", "-o", "link")[1], "the second card has no device")
            check(users_of(inode), "nobody lives there")
            process.send_signal(number)
            process.wait(20)
            # Who was killed says goodbye to nobody: the kernel then ends its children, a moment later.
            deadline = time.monotonic() + (5 if number == signal.SIGKILL else 0)
            while users_of(inode) and time.monotonic() < deadline:
                time.sleep(0.02)
            equal(users_of(inode), [])


@case
def namespace_without_root(lab):
    """What a user without privileges gets: a user namespace around it, in which the same works."""
    if namespaces_refused() or subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode != 0:
        lab.say("| namespace_without_root: nothing was tested, no user namespaces here")
        return
    with network.Namespace(devices.layout([], ["e1000e", "virtio-net"]), "x", as_user=True) as net:
        holder = net.facts["namespace"]["pid"]
        inode = os.stat(f"/proc/{holder}/ns/net").st_ino
        shown = host_run(*network.inside(net.facts["namespace"], ["ip", "-o", "-4", "address"])).decode()
        check("net0    inet 10.77.0.1/24" in shown and "net1    inet 10.77.1.1/24" in shown, shown)
        equal(len(net.descriptors), 2)
    equal(users_of(inode), [])


TAP_SETUP = ("ip tuntap add bulkhead-tap mode tap && ip address add 10.9.0.1/24 dev bulkhead-tap && ip link set bulkhead-tap up && "
             '"$@" && ip -o link show bulkhead-tap')


@case
def run_on_a_tap(lab):
    """--net tap: a device that exists, and is still there afterwards; one that does not exist is not made."""
    code, _, err = bulkhead(lab, "run", "--tap", "no-such-tap", "--exec", "stat")
    check(code == 1 and "--tap no-such-tap: there is none" in err, f"ended with {code}: {err}")
    if namespaces_refused() or os.geteuid() != 0:
        lab.say("| run_on_a_tap: only the refusal was tested, TAP devices need privileges that are not there")
        return
    code, _, err = bulkhead(lab, "run", "--tap", "lo", "--exec", "stat")
    check(code == 1 and "no TAP device" in err, f"ended with {code}: {err}")
    run = command_line(lab, "run", "--net", "tap", "--tap", "bulkhead-tap", "--exec", "ifconfig 10.9.0.2/24 10.9.0.1; ping 10.9.0.1 2")
    out = host_run("unshare", "-n", "sh", "-c", TAP_SETUP, "sh", *run, seconds=BOOT_SECONDS).decode()
    check("2 received" in out and ": bulkhead-tap:" in out, f"no reply, or no device afterwards: {out}")


class FakeHost:
    """A host that has everything, unless told otherwise."""

    def __init__(self, nested=frozenset(), **lacks):
        self.nested, self.lacks = set(nested), lacks

    def output(self, program, *arguments, text=""):
        if program in self.lacks.get("programs", ()):
            return ""
        if program == bochs.BINARY:
            return "Supported CPU models:\n\nbx_generic\n" + "\n".join(self.lacks.get("models", ("corei7_skylake_x", "ryzen"))) \
                + "\n\n000i[SIM] quit\n  Bochs x86 Emulator 2.7\n"
        if "--version" in arguments:
            return "QEMU emulator version 7.2.22 (Debian)"
        if text:
            return '{"npt": true, "svm": %s}' % ("false" if "svm" in self.lacks else "true")
        return "" if "iommu" in self.lacks else "  intremap=<OnOffAuto>"

    def exists(self, path):
        return str(path) not in self.lacks.get("files", ())

    def cpuinfo(self):
        return "vendor_id\t: GenuineIntel\nflags\t\t: fpu vmx sse\n"

    def namespace_problem(self):
        return self.lacks.get("namespaces", "")

    def kvm_problem(self):
        return "" if self.nested else "there is no /dev/kvm"

    def nested_support(self):
        return self.nested, "" if self.nested else "there is no /dev/kvm"

    def missing(self, names):
        return [name for name in names if name in self.lacks.get("packages", ())]


def diagnosis(*arguments, **lacks):
    """({check: ok}, accelerator)"""
    findings, kind, why = doctor.examine(FakeHost(*arguments, **lacks))
    check(why and all(finding.detail for finding in findings), "a verdict without its reason")
    # "missing" alone helps nobody.
    check(all(finding.ok or finding.advice for finding in findings), f"no advice: {findings}")
    return {finding.check: finding.ok for finding in findings}, kind


@case
def doctor_decides(lab):
    """What `auto` would pick follows from what is there."""
    checks, kind = diagnosis({"vmx"})
    check(all(checks.values()) and kind == "kvm", f"everything is there: {checks}, {kind}")
    checks, kind = diagnosis()
    equal((checks["KVM"], checks["nested KVM"], kind), (False, False, "tcg"))
    # KVM needs no SVM in TCG; without KVM nothing else is left in QEMU.
    equal(diagnosis({"svm"}, svm=False)[1], "kvm")
    equal(diagnosis(svm=False)[1], "bochs")
    equal(diagnosis(programs=("qemu-system-x86_64",))[1], "bochs")
    equal(diagnosis(programs=("qemu-system-x86_64", "bochs"))[1], None)
    equal(diagnosis(programs=("qemu-system-x86_64",), models=("ryzen",))[1], None)
    equal(diagnosis(files=(str(qemu.OVMF_CODE),))[1], "bochs")
    equal(diagnosis(files=(str(qemu.OVMF_CODE), str(bochs.FIRMWARE)))[1], None)
    equal(diagnosis(packages=("gnu-efi",))[1], None)
    equal(diagnosis(packages=("clang",))[1], "tcg")
    checks, kind = diagnosis(namespaces="not permitted")
    equal((checks["network namespaces"], kind), (False, "tcg"))
    check(not diagnosis(iommu=False)[0]["VT-d in QEMU"], "an IOMMU was found where there is none")


@case
def bochs_last_words(lab):
    """How the machine ended, from its console; a guest's text before that ends nothing."""
    text = b"\x1b[2J[uefi] entering the hypervisor at 0xffff\r\n[hv     0.7] main starts: guestos.elf, 256M, CPU 1\r\n" \
        b"guestos> bulkhead: no error\r\nbulkhead: nor this\r\nbulkhead: PANIC:\r\n"
    stories = {
        text: None,
        text + b"[hv  1.0] main: power off\r\nbulkhead: the machine has stopped; it can be switched off\r\n": qemu.POWERED_OFF,
        text + b"bulkhead: boot failed; the machine has stopped\r\n": qemu.BOOT_ERROR,
        text + b"[hv  1.0] panic on CPU 0: why\r\nbulkhead: the machine has stopped after a panic\r\n": qemu.PANIC,
        b'BdsDxe: starting Boot0002 "UEFI" from PciRoot(0x0)/Pci(0x1,0x1)/Ata(Secondary,Master,0x0)\r\n' + text: None,
        b'BdsDxe: starting Boot0001 "UEFI" from PciRoot(0x0)/Pci(0x1,0x1)/Ata(Primary,Master,0x0)\r\n': bochs_bridge.FAILED,
        text + b"echo bulkhead: the machine has stopped after a panic\r\n": None,
    }
    for story, expected in stories.items():
        for _ in range(50):
            words, rest, code = bochs_bridge.LastWords(), story, None
            while rest and code is None:
                size = lab.random.randrange(1, 40)
                code = words.feed(rest[:size])
                rest = rest[size:]
            equal(code, expected)
            check(code is None or not rest, "it ended before the last line did")


@case
def bochs_keys(lab):
    keys = bochs_bridge.Keys()
    equal(keys.feed(b"ls\x03\n"), (b"ls\x03\n", b"", False))
    equal(keys.feed(b"a\x01"), (b"a", b"", False))
    equal(keys.feed(b"\x01b"), (b"\x01b", b"", False))
    out, screen, end = keys.feed(b"\x01h")
    check(not out and b"Ctrl-A X" in screen and not end, "no help")
    equal(keys.feed(b"c\x01xd"), (b"c", b"", True))


@case
def bochs_refuses(lab):
    """What Bochs cannot do is said before it starts, with the way out."""
    qcow2 = lab.folder / "disk.qcow2"
    qcow2.write_bytes(b"QFI\xfb" + bytes(600000))
    tiny = lab.folder / "tiny.img"
    tiny.write_bytes(bytes(4096))
    for fields, hint in (({"model": "pentium9"}, "corei7_skylake_x"), ({"disk": qcow2}, "--disk-snapshot"), ({"disk": tiny}, "bytes"),
                         ({"cpus": 64}, "CPUs"), ({"icount": True}, "QEMU")):
        wanted = options(lab, accel="bochs")
        for name, value in fields.items():
            setattr(wanted, name, value)
        try:
            bochs.command(wanted)
        except Failure as refusal:
            check(hint in str(refusal), f"{fields}: {refusal}")
        else:
            raise AssertionError(f"{fields} was accepted")


@case
def lines_of_code(lab):
    code = 'int a; /* c\n c */ int b;\n\n// line\nchar *s = "/* no */"; // yes\nchar q = \'"\'; /* x */\n  \n'
    equal([line.strip() for line in loc.strip_comments(code, False).split("\n") if line.strip()],
          ["int a;", "int b;", 'char *s = "/* no */";', "char q = '\"';"])
    assembly = "#include <x.h>\n# a comment\nmov %eax, %ebx # another\n#if FOO\n"
    equal(sum(1 for line in loc.strip_comments(assembly, True).split("\n") if line.strip()), 3)


@case
def percentiles(lab):
    equal(ui.percentile(list(range(1, 101)), 99), 99)
    equal(ui.percentile([5], 50), 5)
    equal(ui.percentile([], 50), None)
    records = [faultlog.parse({"seq": n, "vm": "blk0", "detect_us": n}) for n in range(1, 5)]
    equal(faultlog.summary(records)[0], {"duration": "detect", "n": 4, "p50": 2, "p99": 4, "max": 4})
    equal(faultlog.summary(records)[1]["max"], None)


@case
def disks_repeat_with_the_seed(lab):
    again = Lab(lab.folder, lab.seed, False)
    equal(sha256_file(lab.disk(1 << 20, 1 << 20)), sha256_file(again.disk(1 << 20, 1 << 20)))


def run_bench(lab, *arguments):
    """What `bench` prints as JSON, for one device, one round and one second; its shape is checked here."""
    code, out, err = bulkhead(lab, "bench", *arguments, "--seconds", "1", "--rounds", "1", "--json", seconds=BENCH_SECONDS)
    check(code == 0, f"ended with {code}: {out}{err}")
    result = json.loads(out)
    check(len(result["devices"]) == 1 and not result["failed"] and result["rounds"] == 1, f"another run: {result}")
    for workload in result["devices"][0]["workloads"]:
        ours, bare, figure = workload["bulkhead"], workload["bare"], workload["figure"]
        check(ours[figure] > 0 and bare[figure] > 0, f"nothing happened: {workload}")
        equal(workload["samples"], {"bulkhead": [ours[figure]], "bare": [bare[figure]]})
        check(abs(workload["ratio"] - ours[figure] / bare[figure]) < 0.01 * workload["ratio"] + 0.001, f"not the ratio: {workload}")
        check(0 < ours["exits"] < 20 and "exits" not in bare, f"exits: {workload}")
        check(99 < sum(ours["time_percent"].values()) < 101, f"time is missing: {workload}")
    return result


@case
def bench_of_a_disk(lab):
    """Instructions are counted on both sides: more under the hypervisor, and nobody else's without it."""
    result = run_bench(lab, "blk", "--device", "ahci", "--icount")
    equal([workload["figure"] for workload in result["devices"][0]["workloads"]], ["instructions"] * 5)
    for workload in result["devices"][0]["workloads"]:
        ours, bare = workload["bulkhead"]["instructions_by"], workload["bare"]["instructions_by"]
        equal((list(ours), list(bare)), (["hypervisor", "driver", "guest"], ["guest"]))
        check(100 < bare["guest"] < 5000 and 0.5 < ours["guest"] / bare["guest"] < 2, f"not the same guest: {workload}")
        check(200 < ours["hypervisor"] < 50000 and 200 < ours["driver"] < 20000, f"not what a request costs: {workload}")
    one, many = (result["devices"][0]["workloads"][number]["bulkhead"]["exits"] for number in (2, 3))
    check(many < one, f"{many} exits an I/O with 32 in flight, {one} with one")
    # What a person sees of it fits a terminal.
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        report.show(result, True)
    check(max(map(len, shown.getvalue().splitlines())) <= 120 and "write 4 KiB x32" in shown.getvalue(), f"the table is too wide: {shown.getvalue()}")


@case
def bench_of_a_network_card(lab):
    """Rates, against the very device that the driver VM has, and a picture."""
    picture = lab.folder / "ratios.svg"
    result = run_bench(lab, "net", "--device", "virtio-net", "--svg", str(picture))
    check(result["devices"][0]["same_device"], f"not against the same device: {result}")
    equal([workload["figure"] for workload in result["devices"][0]["workloads"]], ["MB/s", "MB/s", "round trips/s"])
    check("<svg" in picture.read_text(encoding="utf-8"), "no picture")


@case
def bench_refuses(lab):
    for flags, hint in (("blk --device floppy", "there are: ahci, nvme, virtio-blk"), ("net --device ahci", "there are: e1000"),
                        ("blk --rounds 0", "at least one round"), ("recovery --device e1000", "there are: ahci"), ("recovery --crashes 0", "at least one crash"),
                        ("storm --device e1000", "there are: ahci"), ("storm --every 0s", "such as 100ms"), ("replace --times 0", "at least one replacement"),
                        ("soak --device floppy", "there are: ahci"), ("soak --icount", "neither --icount"), ("blk --svg /nowhere/a.svg", "no such folder")):
        code, out, err = bulkhead(lab, "bench", *flags.split())
        check(code == 1 and not out and hint in err, f"`bench {flags}` ended with {code}: {out}{err}")


@case
def bench_figures(lab):
    """The arithmetic: costs without the shell's own, medians, ratios within a round."""
    delta = {"main exits_pio": 1100, "blk0 exits_hypercall": 500, "main run_us": 200, "blk0 run_us": 100, "0 idle_us": 600, "0 up_us": 1000,
             figures.CPU: 5000, figures.WAIT: 5000}
    base = {"main exits_pio": 101, "blk0 exits_hypercall": 1, figures.CPU: 0, figures.WAIT: 0}
    cost = figures.costs(delta, 1000, base, 1)
    equal(cost["exits_by"], {"main pio": 1.0, "blk0 hypercall": 0.499})
    equal(cost["time_percent"], {"main": 20.0, "blk0": 10.0, "idle": 60.0, "hypervisor": 10.0})
    equal((cost["cpu_us"], cost["waited_percent"]), (5.01, 50.0))
    entry = figures.compare([{"IOPS": 10}, {"IOPS": 30}, {"IOPS": 80}], [{"IOPS": 100}, {"IOPS": 100}, {"IOPS": 160}], "IOPS")
    equal([entry[key] for key in ("ratio", "ratio_lowest", "ratio_highest", "ratio_of_best")], [0.3, 0.1, 0.5, 0.5])
    equal((entry["bulkhead"]["IOPS"], entry["bare"]["IOPS"]), (30, 100))
    equal(figures.medians([{"a": {"x": 1}}, {"a": {"y": 4}}, {"a": {"x": 3, "y": 2}}]), {"a": {"x": 1, "y": 2}})


@case
def bench_recovery_figures(lab):
    """`bench recovery` without its machines: the stages of a record, the table, the picture."""
    fields = {"detect_us": 200, "t_detect": 1200, "t_decide": 1210, "t_quiesce": 1230, "quiesce_us": 700, "reset_us": 1400,
              "restart_us": 3000, "replay_us": 40, "t_replay": 7000, "t_first_completion": 7500, "first_completion_us": 6500}
    found = recovery.stages(fields, 2900)
    equal(found, {"detect": 200, "decide": 30, "quiesce": 700, "reset": 1400, "restart": 100, "driver's start": 2900, "replay": 40,
                  "first completion": 500, recovery.TOTAL: 6500})
    equal(tuple(found), recovery.STAGES)
    us = {stage: recovery.summary([value * (1 + i) for i in range(4)]) for stage, value in found.items()}
    equal(us["decide"], {"p50": 60, "p99": 120, "max": 120})
    entry = {"device": "nvme", "crashes": 4, "requests_verified": {"without": 10, "with": 20}, "us": {"without": us, "with": us},
             "samples_us": {"without": [1000, 3000], "with": [400, 500]}}
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(io.StringIO()):
        recovery.show([entry], False)
        recovery.draw([entry], str(lab.folder / "recovery.svg"))
    lines = shown.getvalue().splitlines()
    check(max(map(len, lines)) <= 120 and len(lines) > len(recovery.STAGES), f"the table: {lines}")
    check("<svg" in (lab.folder / "recovery.svg").read_text(encoding="utf-8"), "no picture")


@case
def bench_supervised_figures(lab):
    """`bench storm`, `replace` and `soak` without their machines: ratios of phases, tables, pictures."""
    phases = [{"kind": kind, "mb": rate * 5, "seconds": 5, "mb_per_s": rate}
              for kind, rate in (("undisturbed", 40), ("stormed", 30), ("stormed", 10), ("undisturbed", 40))]
    fields = {"seq": 1, "vm": "blk0", "kind": "exception", "outcome": "recovered", "injected": "crash", "first_completion_us": 8000}
    records = [faultlog.parse(fields), faultlog.parse({**fields, "seq": 2, "outcome": "superseded"}), faultlog.parse({**fields, "seq": 3, "injected": "", "outcome": "gave-up"})]
    entry = storm.summary(phases, records)
    equal([entry[key] for key in ("ratio", "ratio_median", "ratio_lowest", "ratio_highest", "recovered", "superseded", "unrecovered", "others")],
          [0.5, 0.5, 0.25, 0.75, 1, 1, 1, [records[2].row()]])
    equal([storm.milliseconds(text) for text in ("100ms", "2s", "50")], [100, 2000, 50])
    rate = {"mb_per_s": 12.5, "iops": 1000.5}
    results = {storm: {"every_ms": 100, "spare": True, "phase_seconds": 5, "devices": [{"device": "virtio-blk", "kills": 600, "refused": 100, "wrong": {}, **entry}]},
               replace: {"times": 3, "devices": [{"device": "virtio-blk", "image_bytes": 22000, "requests": 100000, "wrong": {}, "refused": [], "sent_seconds": [1.5],
                                                  "stalls_us": [900, 20000, 1000], "stall_us": {"p50": 1000, "p99": 20000, "max": 20000}}]},
               soak: {"minutes": 10, "host_load": 2, "cpu_waited_percent": 60, "wrong": {}, "records": [], "steps": [{"blk0": rate}, {"blk0": rate}],
                      "vms": [{"vm": "blk0", "device": "virtio-blk", "misses": 0, "restarts": 0, "faults": 0, "state": "running", **rate}]}}
    for number, (module, result) in enumerate(results.items()):
        path, shown = lab.folder / f"{number}.svg", io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(io.StringIO()):
            module.show(result)
            picture.plot(module.draw, result, str(path))
        widest = max(map(len, shown.getvalue().splitlines()))
        check(widest <= 120 and "virtio-blk" in shown.getvalue(), f"{widest} columns: {shown.getvalue()}")
        check("<svg" in path.read_text(encoding="utf-8"), "no picture")


@case
def features_name_their_tests(lab):
    """Each row of docs/FEATURES.md names a test, and each test that it names exists."""
    for line in (paths.ROOT / "docs" / "FEATURES.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 2 or cells[0] in ("feature", "---") or cells[0].startswith("**"):
            continue
        check(cells[1], f"no test for '{cells[0]}'")
        group = ""
        for name in cells[1].split(", "):
            kind, _, rest = name.partition(".")
            if kind in ("unit", "fuzz"):
                suffix = ".c" if kind == "unit" else "_fuzz.c"
                check((paths.ROOT / "tests" / kind / (rest + suffix)).exists(), f"FEATURES.md names {name}: no such test")
                continue
            first, _, rest = name.partition("/")
            group, wanted = (first, rest) if rest and system_test(first) else (group, name)
            check(system_test(group), f"FEATURES.md names {name}: no such file")
            check(fnmatch.filter(case_names(group), wanted), f"FEATURES.md names {name}: no such case")


def system_test(group):
    return next((paths.ROOT / "tests").glob(f"*/test_{group}.py"), None)


@functools.cache
def case_names(group):
    """What this test file says that its cases are."""
    return subprocess.run([sys.executable, system_test(group), "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()


if __name__ == "__main__":
    main()
