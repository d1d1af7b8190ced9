"""check and gdb."""

import json
import os
import socket
import subprocess
import time

from . import build, machine, paths, symbols
from .ui import Failure, say


def check(arguments):
    """Prints what the machine would make of the manifest, or FILE:LINE: message; exit 1 when it is refused."""
    folder = build.build("host", target="manifest_check", verbose=arguments.verbose)
    program = folder / "tests" / "tools" / "manifest_check"
    command = [str(program)] + (["--json"] if arguments.json else []) + [arguments.manifest]
    return subprocess.run(command, check=False).returncode


def gdb(arguments):
    folder = paths.instance(arguments.name)
    if not machine.Instance.is_running(folder):
        raise Failure(f"no instance named '{arguments.name}' is running (start one: scripts/bulkhead run)")
    description = machine.Instance(folder).description()
    if description["accel"] == "bochs":
        raise Failure("a debugger needs QEMU: Debian's Bochs has no stub for gdb")
    image = symbols.file_for(folder, arguments.vm)
    port = description.get("gdb") or arguments.port
    if not description.get("gdb"):
        start_gdbstub(folder, port)
    say(f"symbols: {image}\nThe stub shows whatever a CPU runs at that moment: breakpoints go by virtual address, "
        f"`info threads` lists the CPUs, `detach` lets the machine go on.")
    os.execvp("gdb", ["gdb", "-q", str(image), "-ex", "set pagination off", "-ex", "set architecture i386:x86-64",
                      "-ex", f"target remote 127.0.0.1:{port}"])


def start_gdbstub(folder, port):
    reply = qmp(folder, "human-monitor-command", {"command-line": f"gdbserver tcp:127.0.0.1:{port}"})
    if "Could not" in str(reply):
        raise Failure(f"QEMU cannot listen on port {port}: {str(reply).strip()}")


def qmp(folder, command, arguments=None, timeout=10):
    """One QMP command (QEMU's machine protocol: a JSON object a line, after a handshake)."""
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(paths.socket_path(folder, "qmp.sock")))
            stream = connection.makefile("rw", encoding="utf-8")
            stream.readline()
            for name, body in (("qmp_capabilities", None), (command, arguments)):
                request = {"execute": name} if body is None else {"execute": name, "arguments": body}
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                reply = {}
                while "return" not in reply and "error" not in reply:
                    if time.monotonic() > deadline:
                        raise TimeoutError
                    reply = json.loads(stream.readline())
        except (OSError, ValueError) as error:
            raise Failure(f"QEMU does not answer on its QMP socket in {folder}") from error
    if "error" in reply:
        raise Failure(f"QEMU: {reply['error'].get('desc', reply['error'])}")
    return reply["return"]
