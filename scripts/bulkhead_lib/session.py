"""`run`: one machine, with its console for a person or commands for a script."""

import os
import pathlib
import subprocess
import sys
import termios
import threading
import time

from . import accel, bochs, build, devices, hardware, machine, network, paths, qemu
from .ui import Failure, Progress, say, warn

# What the emulator's exit code means for ours.
EXIT_CODES = {qemu.POWERED_OFF: 0, qemu.BOOT_ERROR: 1, qemu.PANIC: 2, 0: 0}


def run(arguments):
    kind = choose_accel(arguments.accel)
    folder = paths.instance(arguments.name)
    # What the flags say is looked at before the build, which takes its time.
    options = machine_options(arguments, folder, kind)
    found = hardware.choose(arguments, kind)
    given, scratch = hardware.images(arguments, folder, found)
    manifest = choose_manifest(arguments, found)
    with network.plug(arguments, devices.nics(found or [])) as net:
        build.build(arguments.preset, verbose=arguments.verbose)
        instance = machine.Instance(folder)
        # Before a disk is touched: a running instance of that name may be using it.
        instance.take()
        try:
            hardware.make_scratch(scratch, arguments.keep)
            hardware.plug_in(options, found, given + scratch, net, arguments.disk_snapshot)
            keep_manifest(arguments, folder, manifest)
            if arguments.commands is not None:
                for line in net.ways:
                    say(line)
                instance.release()
                return _run_commands(arguments, options, manifest)
            for line in hardware.describe(found, given, scratch) + net.notes + net.ways:
                say(line)
            return _run_interactive(arguments, options, manifest, instance)
        finally:
            instance.release()
            machine.remove_instance(folder, arguments.keep)


def choose_manifest(arguments, found):
    """The user's manifest, or one that fits the machine's devices."""
    if arguments.manifest or found is None:
        return read_manifest(arguments.manifest or paths.IDE_MANIFEST)
    return devices.manifest_for(read_manifest(None), found)


def keep_manifest(arguments, folder, text):
    """Leave the manifest where a person can read it, and take it for a start."""
    path = folder / "manifest.ini"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    if arguments.verbose:
        say(f"manifest: {path}")


def read_manifest(path):
    path = pathlib.Path(path) if path else paths.DEFAULT_MANIFEST
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise Failure(f"{path}: {error.strerror.lower()}") from error


def choose_accel(wanted):
    try:
        kind, why = accel.choose(wanted)
    except ValueError as error:
        raise Failure(str(error)) from None
    say(f"accelerator: {kind.upper()} ({why})")
    return kind


def machine_options(arguments, folder, kind):
    if arguments.icount and kind != "tcg":
        raise Failure("--icount needs --accel tcg")
    if kind == "bochs" and arguments.machine == "q35":
        raise Failure("Bochs has no q35 machine, its only one is like QEMU's `pc`")
    if kind != "bochs" and arguments.model:
        raise Failure("--model is for --accel bochs; QEMU's CPU follows from its accelerator")
    if arguments.cpus < 1 or arguments.memory < 64:
        raise Failure("at least one CPU and 64 MiB of memory are needed")
    return qemu.Options(folder=folder, accel=kind, machine=arguments.machine or "q35",
                        model=arguments.model or bochs.DEFAULT_MODEL, cpus=arguments.cpus, memory=arguments.memory,
                        iommu=not arguments.no_iommu, icount=arguments.icount, gdb=arguments.gdb,
                        extra=list(arguments.qemu_arg))


# ---- for a person ----


def _run_interactive(arguments, options, manifest, instance):
    options.interactive = True
    command = machine.prepare(options, paths.images(arguments.preset), manifest)
    say(f"log: {options.folder / 'console.log'}\nCtrl-A X ends the machine, Ctrl-A H helps")
    if options.gdb is not None:
        say(f"waiting for a debugger: scripts/bulkhead gdb hv --name {arguments.name} --port {options.gdb}")
    with Terminal(), FirmwareProgress(options):
        process = subprocess.Popen(command, preexec_fn=machine.die_with_parent, pass_fds=options.descriptors)
        try:
            instance.describe(pid=os.getpid(), emulator=process.pid, accel=options.accel,
                              images=paths.images(arguments.preset), gdb=options.gdb, **options.facts)
            stopped = _watch(process, options.folder / "console.log")
        finally:
            # SIGTERM first: the emulator then puts the terminal back itself.
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
            process.wait()
    if stopped:
        return 1
    return _exit_code(process.returncode)


def _watch(process, log):
    """Wait for the emulator's end. True: the loader gave up and went back to the firmware, where nobody wants to be."""
    while True:
        try:
            process.wait(0.25)
            return False
        except subprocess.TimeoutExpired:
            pass
        except KeyboardInterrupt:
            # Only possible while the terminal is not raw yet or is not ours: the guest gets its Ctrl-C otherwise.
            process.terminate()
            raise
        if log.exists() and log.stat().st_size < 65536:
            if machine.BACK_TO_FIRMWARE.encode() in log.read_bytes():
                time.sleep(0.1)
                return True


def _exit_code(code):
    if code not in EXIT_CODES:
        raise Failure(f"the emulator ended with exit code {code}")
    return EXIT_CODES[code]


class FirmwareProgress:
    """Says that a machine in Bochs is busy with its firmware, until that prints something; nothing for QEMU, which is quick."""

    def __init__(self, options):
        self.log = pathlib.Path(options.folder) / "console.log"
        self.bochs = options.accel == "bochs"
        self.model = options.model
        self.done = threading.Event()

    def __enter__(self):
        if self.bochs:
            self.log.unlink(missing_ok=True)
            self.thread = threading.Thread(target=self._show, daemon=True)
            self.thread.start()
        return self

    def _show(self):
        progress = Progress(f"Bochs ({self.model}) starts the firmware, about 10 s")
        while not (self.log.exists() and self.log.stat().st_size):
            progress.update(f"{time.monotonic() - progress.start:.0f} s")
            if self.done.wait(0.2):
                return
        progress.done()

    def __exit__(self, *exc):
        self.done.set()
        if self.bochs:
            self.thread.join()


class Terminal:
    """Puts the terminal back as it was, whichever way the block is left."""

    def __enter__(self):
        self.saved = None
        if sys.stdin.isatty():
            self.saved = termios.tcgetattr(sys.stdin.fileno())
        return self

    def __exit__(self, *exc):
        if self.saved is not None:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, self.saved)


# ---- for a script ----


def split_commands(text):
    """The commands between semicolons; a semicolon inside quotes belongs to its command."""
    commands, current, quote = [], "", ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        if char == ";" and not quote:
            commands.append(current.strip())
            current = ""
        else:
            current += char
    commands.append(current.strip())
    return [command for command in commands if command]


def _run_commands(arguments, options, manifest):
    commands = split_commands(arguments.commands)
    show = say if arguments.verbose else None
    with machine.Machine(options, paths.images(arguments.preset), manifest, on_log=show, on_error=say) as guest:
        try:
            with FirmwareProgress(options):
                guest.shell_start()
            status = 0
            for line in commands:
                output, status = guest.command(line, arguments.timeout or 86400)
                sys.stdout.write(output)
                sys.stdout.flush()
            code = guest.power_off()
        except machine.MachineEnded as ended:
            return _ended_early(guest, ended)
    if code != qemu.POWERED_OFF:
        return _exit_code(code) or 2
    return status


def _ended_early(guest, ended):
    """The machine ended before the commands did: its own line was shown already if it had one."""
    if guest.in_firmware():
        return 1
    code = guest.wait_exit(10) if guest.ended else None
    if code == qemu.POWERED_OFF:
        return 0  # one of the commands was `poweroff`
    if not guest.errors():
        warn(ended)
    return 2 if code == qemu.PANIC else 1
