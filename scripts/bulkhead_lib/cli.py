"""Arguments and dispatch: one row a subcommand."""

import argparse
import signal
import sys

from . import devices, faultclass, network, packages
from .ui import Failure, warn

EXAMPLES = """\
examples:
  scripts/bulkhead run                        boot to the guest's prompt; Ctrl-A X ends, Ctrl-A H helps
  scripts/bulkhead run --disk my.qcow2        the same with your own disk image
  scripts/bulkhead run --disks ahci,nvme --nics e1000e,virtio-net
                                              two disks and two network cards, a driver VM for each
  scripts/bulkhead run --forward 8080:80      127.0.0.1:8080 leads to the guest's port 80
  scripts/bulkhead run --exec 'stat; sha256 /dev/vda'
  scripts/bulkhead inject blk0 crash          in a second terminal: kill the disk's driver, watch it come back
  scripts/bulkhead inject blk0 text-condition invert a condition in its code instead; inject --list names all classes of faults
  scripts/bulkhead status                     VMs, devices, isolation, restarts
  scripts/bulkhead run --accel bochs          the same on an emulated Intel CPU with VT-x, without an IOMMU
  scripts/bulkhead doctor                     what this host can do
  scripts/bulkhead test -L faults             one group of tests; without -L: all
  scripts/bulkhead campaign --faults 300      300 faults under a verifying load; then: scripts/bulkhead report
  scripts/bulkhead check manifests/default.ini
"""


def parser():
    top = argparse.ArgumentParser(prog="scripts/bulkhead", epilog=EXAMPLES,
                                  formatter_class=argparse.RawDescriptionHelpFormatter,
                                  description="Bulkhead: a hypervisor that keeps each device driver in a VM of its own.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--no-install", action="store_true", help="list missing Debian packages and stop (exit 3)")
    common.add_argument("-v", "--verbose", action="store_true", help="show more: build steps, hypervisor log lines")
    running = argparse.ArgumentParser(add_help=False)
    running.add_argument("--name", default="default", help="which running instance (default: %(default)s)")
    json = argparse.ArgumentParser(add_help=False)
    json.add_argument("--json", action="store_true", help="print JSON instead of tables")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def add(name, help_text, *parents):
        return commands.add_parser(name, help=help_text, description=help_text, parents=[common, *parents])

    _add_run(add("run", "build, boot, and give you the guest's console", _machine_arguments(("auto", "kvm", "tcg", "bochs")), running))
    _add_test(add("test", "run the tests; the last line says how many passed and failed"))
    inject = add("inject", "make a driver VM fail, and show its recovery", running, json)
    inject.add_argument("vm", metavar="VM", nargs="?")
    inject.add_argument("fault", metavar="CLASS", nargs="?", choices=list(faultclass.CLASSES), help="crash, hang, ...: see --list")
    inject.add_argument("--list", action="store_true", help="name the classes of faults, a line each")
    inject.add_argument("--seed", type=int, help="of what is random in a class (default: a new one, printed)")
    inject.add_argument("--no-wait", action="store_true", help="do not wait for the recovery")
    add("status", "VMs, devices, isolation, restarts of a running instance", running, json)
    add("stats", "counters of a running instance", running, json)
    events = add("events", "the event log of a running instance", running, json)
    events.add_argument("since", nargs="?", type=int, default=1, metavar="SEQ", help="from this sequence number on")
    add("faults", "past faults of a running instance, with the time that each stage took", running, json)
    for order, effect in (("restart", "start it anew"), ("stop", "end it: its device is silent, requests wait"), ("start", "start it after `stop`, or when it was given up on")):
        add(order, f"a driver VM: {effect}", running).add_argument("vm", metavar="VM")
    replace = add("replace", "give a driver VM that serves the guest another image; when that one fails, the old one comes back", running, json)
    replace.add_argument("vm", metavar="VM")
    replace.add_argument("image", metavar="FILE", help="an ELF file of at most 160 KiB, e.g. build/release/images/ahci.elf")
    check = add("check", "check a manifest with the machine's own parser", json)
    check.add_argument("manifest", metavar="MANIFEST")
    _add_bench(add("bench", "measure disks or network cards through their driver VMs, beside the same guest without a hypervisor", _machine_arguments(("auto", "kvm", "tcg")), json))
    _add_campaign(add("campaign", "inject many faults while a verifying load runs, and write down how each ended; the same command goes on after an interruption", json))
    _add_report(add("report", "a page with pictures of a campaign, and a trace for Perfetto of it or of a running instance", running))
    loc = add("loc", "count the hypervisor's lines of code, without comments and blanks", json)
    loc.add_argument("--limit", type=int, default=10000, help="exit 1 above this many lines (default: %(default)s)")
    add("doctor", "say what this host can do, what is missing, and which accelerator `auto` picks", json)
    gdb = add("gdb", "a debugger on a running instance, with the symbols of a VM's image (or of `hv`)", running)
    gdb.add_argument("vm", metavar="VM")
    gdb.add_argument("--port", type=int, default=1234, help="of QEMU's gdbstub on localhost (default: %(default)s)")
    core = add("core", "what a driver VM's last fault has left: a core for gdb, the image with its symbols, and a report in words", running, json)
    core.add_argument("vm", metavar="VM")
    core.add_argument("-o", "--output", metavar="FILE", help="the core; image and report lie beside it (default: VM-FAULT.core in the instance's folder)")
    core.add_argument("--backtrace", action="store_true", help="print gdb's backtrace")
    core.add_argument("--gdb", action="store_true", help="then open it in gdb")
    netns = add("netns", "run a program of the host in the network namespace of an instance (run --net netns); without one: a shell", running)
    netns.add_argument("program", nargs=argparse.REMAINDER, metavar="COMMAND", help="and its arguments, e.g. iperf3 -c 10.77.0.2")
    commands.add_parser("help", help="this text")
    return top


def _machine_arguments(accels):
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--accel", choices=accels, default="auto", help="auto: nested KVM where it works, else emulation by QEMU (default)"
                         + ("; bochs: VT-x or SVM under strict checks, no IOMMU, slow" if "bochs" in accels else ""))
    machine.add_argument("--memory", type=int, default=1024, metavar="MIB", help="of the machine (default: %(default)s)")
    machine.add_argument("--cpus", type=int, default=2, metavar="N", help="(default: %(default)s)")
    machine.add_argument("--icount", action="store_true",
                         help="TCG counts instructions: repeatable figures, one host thread")
    machine.add_argument("--no-iommu", action="store_true", help="a machine without VT-d")
    machine.add_argument("--qemu-arg", action="append", default=[], metavar="ARG",
                         help="one more argument for QEMU (repeat it for more)")
    return machine


def _names(text):
    """A list with commas; `none` is the empty one."""
    return [] if text == "none" else text.split(",")


def _add_run(run):
    run.add_argument("--machine", choices=("q35", "pc"), help="of QEMU: q35 (default) has PCI Express and VT-d; pc has neither, and an IDE disk")
    run.add_argument("--model", metavar="CPU", help="of Bochs, with --accel bochs: corei7_skylake_x (default), tigerlake, ryzen, ...")
    run.add_argument("--disk", metavar="IMAGE", action="append", default=[],
                     help="raw or qcow2, for the first disk (repeat it for the next ones; default: scratch disks of 256 MiB)")
    run.add_argument("--disk-snapshot", action="store_true", help="leave the images as they are: writes are forgotten")
    run.add_argument("--disks", metavar="D,D", type=_names, help=f"which disks: {', '.join(devices.names('blk'))} (default: ahci), or none")
    run.add_argument("--nics", metavar="N,N", type=_names, help=f"which network cards: {', '.join(devices.names('net'))} (default: e1000e), or none")
    run.add_argument("--net", choices=network.KINDS, help="user: QEMU's user network, no privileges (default); netns: a network namespace, for throughput, made and removed by "
                          "this command, not connected to the host's network; tap: your TAP devices; none: nobody at the other end")
    run.add_argument("--tap", metavar="NAME", action="append", default=[], help="with --net tap: a TAP device that exists, one for each card")
    run.add_argument("--forward", metavar="[NIC:]HOST:GUEST", action="append", default=[],
                     help="with --net user: TCP port HOST of 127.0.0.1 leads to the guest's port GUEST; 0 takes a free one; net1:0:80 is the second card's")
    run.add_argument("--manifest", metavar="FILE", help="which VMs there are, as it is (default: manifests/default.ini with a driver VM for each device; "
                          "bochs.ini where the disk is an IDE one)")
    run.add_argument("--preset", choices=("debug", "release"), default="release", help="(default: %(default)s)")
    run.add_argument("--exec", metavar="'CMD; CMD'", dest="commands",
                     help="type these at the guest's prompt, print what they print, power off; "
                          "the exit code is the last one's status")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="with --exec: limit for each command")
    run.add_argument("--keep", action="store_true", help="keep the instance's scratch disk, and start from a kept one")
    run.add_argument("--gdb", nargs="?", type=int, const=1234, metavar="PORT",
                     help="wait for a debugger on this port of localhost (default: 1234)")


def _add_test(test):
    test.add_argument("-L", "--label", action="append", metavar="LABEL",
                      help="only this group (repeat it for more): unit, fuzz, boot, blk, faults, containment, errors, hostile, vmx, ...")
    test.add_argument("--list", action="store_true", help="print groups and tests, run nothing")
    test.add_argument("--seed", type=int, help="of everything random (default: a new one, printed)")
    test.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto")
    test.add_argument("--time-limit", type=float, default=60, metavar="MINUTES",
                      help="what has not run by then counts as failed (default: %(default)s)")


def _add_bench(bench):
    bench.set_defaults(cpus=None)
    bench.add_argument("what", choices=("blk", "net", "recovery", "storm", "replace", "soak"),
                       help="blk, net: beside the same guest without a hypervisor; recovery: stage by stage; storm: throughput while a disk's driver is killed again and "
                       "again; replace: its image is; soak: full load, and nothing may be restarted. The last three check every byte, and end with 1 if anything was wrong")
    bench.add_argument("--device", default="all", metavar="LIST", help="between commas; blk: ahci,nvme,virtio-blk; net: e1000,e1000e,virtio-net; recovery, storm: those of blk and "
                       "ata-pio; replace: a disk (default: ahci); soak: any (default: all)")
    bench.add_argument("--seconds", type=int, help="of each measurement (default: 2), of the storm (60; as much undisturbed)")
    bench.add_argument("--every", default="100ms", metavar="TIME", help="of `bench storm`: between two kills (default: %(default)s)")
    bench.add_argument("--spare", action="store_true", help="of `bench storm`: the driver VM has one that stands by")
    bench.add_argument("--crashes", type=int, default=1000, help="of each device, without and with a spare; only `bench recovery` (default: %(default)s)")
    bench.add_argument("--times", type=int, default=100, help="of `bench replace` (default: %(default)s)")
    bench.add_argument("--minutes", type=float, default=10, help="of `bench soak` (default: %(default)s)")
    bench.add_argument("--host-load", type=int, default=0, metavar="N", help="of `bench soak`: so many busy programs on the host beside it (default: %(default)s)")
    bench.add_argument("--rounds", type=int, default=3, help="both sides measured by turns so many times (default: %(default)s)")
    bench.add_argument("--net", choices=("user", "netns"), default="user",
                       help="of `bench net`: QEMU's user network (default), or Linux in a network namespace, which is quicker")
    bench.add_argument("--name", default="bench", help="what the names of its instances begin with (default: %(default)s)")
    bench.add_argument("--svg", metavar="FILE", help="draw the ratios, too")
    bench.add_argument("--grants", choices=("sticky", "strict", "both"), default="sticky", help="(default: %(default)s)")


def _add_campaign(campaign):
    campaign.add_argument("--faults", type=int, default=300, metavar="N", help="(default: %(default)s)")
    campaign.add_argument("--classes", metavar="C,C", type=_names, help="classes of faults, as --list-classes tells them (default: all)")
    campaign.add_argument("--list-classes", action="store_true", help="name the classes, run nothing")
    campaign.add_argument("--vm", metavar="VM,VM", type=_names, default=["blk0"], help="whose drivers are broken (default: blk0)")
    campaign.add_argument("--seed", type=int, help="of everything random (default: a new one, printed)")
    campaign.add_argument("--jobs", type=int, default=1, metavar="J", help="machines at the same time; each wants two CPUs (default: %(default)s)")
    campaign.add_argument("--shard", metavar="I/N", help="only the I-th of N parts; each has a file of results, for --merge")
    campaign.add_argument("--db", metavar="FILE", help="the results (default: build/campaigns/seed-SEED.db)")
    campaign.add_argument("--merge", metavar="OUT.db", help="put the results of shards, named after it, into one file")
    campaign.add_argument("inputs", nargs="*", metavar="IN.db", help="of --merge")
    campaign.add_argument("--replay", metavar="ID", help="repeat this fault of --db (default: the newest), or of the directory that it left, on a machine of its own")
    campaign.add_argument("--keep", metavar="DIR", help="with --replay: leave events, console and image there")
    campaign.add_argument("--disks", metavar="D,D", type=_names, default=["ahci"], help=f"blk0, blk1, ...: {', '.join(devices.names('blk'))} (default: ahci)")
    campaign.add_argument("--nics", metavar="N,N", type=_names, default=["e1000e"], help=f"net0, net1, ...: {', '.join(devices.names('net'))} (default: e1000e)")
    campaign.add_argument("--key", action="append", default=[], metavar="KEY=VALUE", help="of the driver VMs' sections in the manifest, e.g. spare=yes (repeat it for more)")
    campaign.add_argument("--preset", choices=("debug", "release"), default="release", help="(default: %(default)s)")
    campaign.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto")


def _add_report(report):
    report.add_argument("db", nargs="?", metavar="RESULTS.db", help="of a campaign (default: the newest)")
    report.add_argument("-o", "--output", metavar="FILE", help="the page (default: beside the results)")
    report.add_argument("--trace", metavar="OUT.json", help="Chrome's trace-event format, for ui.perfetto.dev: with --seconds of a running instance, else of the campaign")
    report.add_argument("--machine", metavar="NAME", help="with --trace: of this machine of the campaign (default: the one with the most events)")
    report.add_argument("--seconds", type=float, metavar="S", help="with --trace: watch the instance --name for so long")


def _handlers():
    # Imported late: `help` and `check` need none of the rest.
    from . import bench, campaign, core, debug, doctor, loc, report, session, telemetry, testing
    return {
        "run": (session.run, {"build", "run"}),
        "test": (testing.run, {"build", "run", "test"}),
        "inject": (telemetry.inject, set()),
        "status": (telemetry.status, set()),
        "stats": (telemetry.stats, set()),
        "events": (telemetry.events, set()),
        "faults": (telemetry.faults, set()),
        "restart": (telemetry.order, set()),
        "replace": (telemetry.replace, set()),
        "stop": (telemetry.order, set()),
        "start": (telemetry.order, set()),
        "check": (debug.check, {"build", "test"}),
        "bench": (bench.run, {"build", "run"}),
        "campaign": (campaign.run, {"build", "run"}),
        "report": (report.run, set()),
        "loc": (loc.run, set()),
        "gdb": (debug.gdb, {"gdb"}),
        "core": (core.core, {"gdb", "symbols"}),
        "doctor": (doctor.run, set()),
        "netns": (network.netns, set()),
    }


def main(argv):
    top = parser()
    arguments = top.parse_args(argv)
    if arguments.command in (None, "help"):
        top.print_help()
        return 0
    # A terminating signal unwinds the stack, so that the terminal is restored and QEMU ends with us.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    handler, purposes = _handlers()[arguments.command]
    # Whole machines are tested in Bochs, too; what runs on the host alone needs none.
    boots_tests = arguments.command == "test" and not (arguments.label and set(arguments.label) <= {"unit", "fuzz"})
    if boots_tests or getattr(arguments, "accel", None) == "bochs":
        purposes = purposes | {"bochs"}
    if arguments.command == "test" and (not arguments.label or "proof" in arguments.label):
        purposes = purposes | {"proof"}
    if getattr(arguments, "net", None) == "netns":
        purposes = purposes | {"netns"}
    if arguments.command == "report" and (arguments.output or not arguments.trace):
        purposes = purposes | {"picture"}
    if arguments.command == "bench":
        purposes = purposes | {f"bench-{arguments.what}"} | ({"picture"} if arguments.svg else set())
    try:
        packages.ensure(purposes, arguments.no_install)
        return handler(arguments)
    except Failure as failure:
        warn(failure)
        return failure.code
    except KeyboardInterrupt:
        warn("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone: not an error. Python must not flush into it at exit.
        sys.stderr.close()
        return 141
