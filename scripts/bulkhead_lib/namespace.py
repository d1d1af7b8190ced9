"""
TAP devices, and a network namespace of its own for them, held by a process.

The process (hold(), started by network.py with unshare) makes a TAP device for each card, hands their descriptors to whoever
started it and waits for that one's end. The namespace has no name and the devices are not persistent: they exist as long as
somebody holds them open or lives there, and the kernel removes them with the last of these, however it ends. There is nothing
to clean up.

No other device but the loopback is in there, so that nothing gets out. Imports nothing of the package: it is a program, too.
"""

import array
import errno
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys

TUN = "/dev/net/tun"
# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x0100, 0x1000, 0x4000

REFUSALS = {errno.EBUSY: "another program uses it", errno.EPERM: "it belongs to another user", errno.EINVAL: "that is no TAP device"}
ADVICE = {
    errno.EPERM: "not permitted here; a container needs --device /dev/net/tun",
    errno.ENOENT: "there is no such device; load the module `tun` (a container needs --device /dev/net/tun)",
    errno.EACCES: "permission denied; only root, or who may open it, can use TAP devices",
}


def open_tap(name):
    """
    A descriptor of the TAP device of this name in the network namespace that we are in; the device is made when there is none.
    RuntimeError with a sentence when that is impossible.
    """
    try:
        descriptor = os.open(TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise RuntimeError(f"{TUN}: {ADVICE.get(error.errno, error.strerror.lower())}") from None
    try:
        try:
            _attach(descriptor, name, 0)
        except OSError as error:
            # Also the answer to a device that was made for several queues.
            if error.errno != errno.EINVAL:
                raise
            _attach(descriptor, name, IFF_MULTI_QUEUE)
    except OSError as error:
        os.close(descriptor)
        raise RuntimeError(REFUSALS.get(error.errno, f"{TUN}: {error.strerror.lower()}")) from None
    return descriptor


def _attach(descriptor, name, flags):
    # Each frame with a virtio-net header before it: QEMU then leaves checksums and segmentation to Linux.
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags))


def send(channel, text, descriptors=()):
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([text.encode()], ancillary)


def ip(*arguments):
    if shutil.which("ip") is None:
        raise RuntimeError("the program `ip` is missing (package iproute2)")
    done = subprocess.run(["ip", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stdout.strip() or done.returncode}")


def hold(channel, addresses):
    """In the new namespace: a TAP device for each NAME=ADDRESS/PREFIX, then the other end's last breath."""
    try:
        ip("link", "set", "lo", "up")
        descriptors = []
        for name, _, address in (text.partition("=") for text in addresses):
            descriptors.append(open_tap(name))
            ip("address", "add", address, "dev", name)
            ip("link", "set", name, "up")
    except (OSError, RuntimeError) as error:
        send(channel, str(error))
        return 1
    send(channel, "ok", descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    while channel.recv(1):
        pass
    return 0


if __name__ == "__main__":
    # The terminal's Ctrl-C is for the one who started us, and for the guest.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(hold(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]))
