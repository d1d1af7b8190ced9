"""
What only QEMU's virtio-blk and virtio-net can be as physical devices, and what their drivers do with it. The suites that all
drivers pass are in test_blk.py, test_faults.py and test_net.py.
"""

import contextlib
import ctypes
import os
import subprocess
import time

from block_suite import VIRTIO_BLK, VM, blocks_of_4_kib_work, disk_machine, power_off, write_and_compare
from driver_suite import driver_said, undisturbed
from harness import MIB, case, check, main
from host_network import ADDRESS, counters, fetch_from_host, host_run, served_file
from net_suite import BACKEND as NET_BACKEND
from net_suite import VIRTIO_NET, VM as NET_VM
from net_suite import answers, free_port, net_machine, transfers, user_network
from bulkhead_lib.pattern import SECTOR

LABEL = "virtio"
TIMEOUT = 300
BULK = 20 * MIB


# ---- the disk ----

def use_disk(lab, properties, interrupts, indirect, port):
    image = lab.disk(16 * MIB)
    with disk_machine(lab, VIRTIO_BLK, image, properties=properties) as machine:
        machine.boot()
        check(machine.status("vm", VM)["interrupts"] == interrupts, f"the interrupts are others than {interrupts}")
        for words, expected in (("indirect, event", indirect), ("among ports: notify", port)):
            check(driver_said(machine, words) == expected, f"{'not a' if expected else 'a'} word of {words!r}")
        write_and_compare(lab, machine, image, 777, 8 * MIB // SECTOR)
        power_off(machine)


@case
def a_device_that_offers_little(lab):
    """No indirect descriptors, no event index, a small queue."""
    use_disk(lab, ",indirect_desc=off,event_idx=off,queue-size=32,discard=off,write-zeroes=off", "MSI", indirect=False, port=False)


@case
def line_and_port(lab):
    """Without MSI-X it has a line, which goes through the IOAPIC and the remapping table; it is notified through a port."""
    use_disk(lab, ",vectors=0,modern-pio-notify=on", "INTx", indirect=True, port=True)


@case
def blocks_of_4_kib(lab):
    image = lab.disk(16 * MIB)
    with disk_machine(lab, VIRTIO_BLK, image, properties=",logical_block_size=4096,physical_block_size=4096") as machine:
        blocks_of_4_kib_work(lab, machine, image)


@case
def a_device_past_the_iommu(lab):
    """
    Without ACCESS_PLATFORM its DMA is not translated. Who allows that is not told of an IOMMU that holds it; the driver will
    not have it all the same, and says why.
    """
    with disk_machine(lab, VIRTIO_BLK, lab.disk(16 * MIB), alter=lambda text: text.replace("iommu_platform=on,", ""),
                      dma="unprotected", limit="2") as machine:
        machine.boot()
        machine.expect_log("WARNING: blk0: UNPROTECTED DMA", 1)
        check(machine.status("vm", "blk0")["isolation"] == "UNPROTECTED DMA", "`status` says otherwise")
        check(driver_said(machine, "ACCESS_PLATFORM"), "the log does not say why")
        deadline = time.monotonic() + 20
        while machine.status("vm", "blk0")["state"] != "failed":
            check(time.monotonic() < deadline, f"it was not given up: {machine.status('vm', 'blk0')}")


# ---- the network ----

def use_network(lab, properties, interrupts):
    port = free_port()
    with net_machine(lab, VIRTIO_NET, user_network([(port, 80)]), properties) as machine:
        machine.boot()
        check(machine.status("vm", NET_VM)["interrupts"] == interrupts, f"the interrupts are others than {interrupts}")
        machine.run(ADDRESS)
        answers(machine)
        transfers(lab, machine, port)
        undisturbed(machine, NET_VM)


@case
def network_of_a_device_that_offers_little(lab):
    use_network(lab, ",indirect_desc=off,event_idx=off,ctrl_vq=off,status=off", "MSI")


@case
def network_without_messages(lab):
    use_network(lab, ",vectors=0", "INTx")


CLONE_NEWNET = 0x40000000
TAP_SETUP = ("ip link set lo up && ip tuntap add dev tap0 mode tap && ip addr add 10.9.0.1/24 dev tap0 && "
             "ip link set tap0 up")


@contextlib.contextmanager
def tap_network():
    """A network namespace of its own for what is started meanwhile, with a TAP device; its address is 10.9.0.1. False: we may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        allowed = libc.unshare(CLONE_NEWNET) == 0
        yield allowed and subprocess.run(["sh", "-c", TAP_SETUP], capture_output=True, check=False).returncode == 0
    finally:
        check(libc.setns(before, CLONE_NEWNET) == 0, "the way back out of the network namespace is closed")
        os.close(before)


@case
def offloads(lab):
    """A TAP device offers what QEMU's user network does not: checksums and TCP segmentation in the device. Linux is the peer."""
    with tap_network() as allowed:
        if not allowed:
            lab.say("| offloads: nothing was tested, TAP devices need privileges that are not there")
            return
        with net_machine(lab, VIRTIO_NET, f"tap,id={NET_BACKEND},ifname=tap0,script=no,downscript=no") as machine:
            machine.boot()
            machine.run("ifconfig 10.9.0.2/24 10.9.0.1")
            machine.run("ping 10.9.0.1 2")
            check(driver_said(machine, "checksums, cuts segments, filter"), "the device offers less")
            machine.run("http serve 80")
            before = counters(machine)
            data = host_run("curl", "-sS", "http://10.9.0.2/20M")
            after = counters(machine)
            check(data == served_file(BULK), "the file arrived otherwise")
            frames = after["tx_frames"] - before["tx_frames"]
            check(frames < BULK / 1460 / 4, f"{frames} frames for {BULK} bytes: the device did not cut the segments")
            fetch_from_host(lab, machine, data)
            counters(machine)


if __name__ == "__main__":
    main()
