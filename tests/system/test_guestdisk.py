"""guestos' disks by themselves: several of QEMU's virtio-blk devices, no hypervisor."""

import hashlib

from bare import BareMachine
from harness import MIB, case, check, check_load, find_json, main
from bulkhead_lib.pattern import SECTOR, wrong_sectors

LABEL = "blk"
TIMEOUT = 120
SIZE = 64 * MIB
UNDISTURBED = ("io_errors", "protocol", "unknown", "doubled", "missed_interrupts", "resets")


def disk(lab, number, size=SIZE, drive="", device=""):
    """QEMU's arguments for disk `number`, an image of zeroes, and the image's path."""
    path = lab.folder / f"disk{number}.img"
    with open(path, "wb") as file:
        file.truncate(size)
    return ["-drive", f"if=none,id=d{number},format=raw,file={path}{drive}",
            "-device", f"virtio-blk-pci,disable-legacy=on,drive=d{number},serial=disk-{number}{device}"], path


def check_percentiles(figures):
    check(0 < figures["p50_us"] <= figures["p99_us"] <= figures["max_us"], f"impossible percentiles: {figures}")


@case
def two_at_once(lab):
    """A verifying load on two disks at once; each has its own contents, figures and handle."""
    (first, _), (second, path) = disk(lab, 0), disk(lab, 1)
    data = lab.random.randbytes(MIB)
    path.write_bytes(data + bytes(SIZE - MIB))
    with BareMachine(lab, first + second) as machine:
        machine.boot()
        check(hashlib.sha256(data).hexdigest() in machine.run("sha256 /dev/vdb 1M"), "vdb reads as something else")
        check(hashlib.sha256(bytes(MIB)).hexdigest() in machine.run("sha256 /dev/vda 1M"), "vda reads as something else")
        seed = lab.random.randrange(1 << 32)
        both = check_load(*machine.command(f"blk load --disk vda,vdb --seed {seed} --depth 16 --seconds 2 --final --quiet", 120))
        disks = both["disks"]
        check(set(disks) == {"vda", "vdb"}, f"figures of other disks: {set(disks)}")
        for name in ("requests", "completed", "reads", "writes", "flushes", "bytes"):
            check(both[name] == sum(figures[name] for figures in disks.values()), f"{name}: the sum is wrong: {both}")
        check(both["max_stall_us"] == max(figures["max_stall_us"] for figures in disks.values()), f"another stall: {both}")
        for figures in (both, *disks.values()):
            check_percentiles(figures)
            check(figures["requests"] > 200, f"hardly a load: {figures}")
        one = check_load(*machine.command(f"blk load --disk vdb --size 4K --seed {seed} --count 300 --quiet", 60))
        check(set(one["disks"]) == {"vdb"} and one["reads"] > 0, f"a load of vdb alone: {one}")
        machine.run("blk write --disk vdb --seed 7 1000 2000")
        machine.run("blk --disk vdb verify --seed 7 1000 2000")
        machine.run("blk verify --seed 7 1000 2000", status=1)
        machine.run("hostile --disk vdb control desc-loop")
        machine.run("blk bench randread --disk vdb --count 200")
        stat = find_json(machine.run("stat --json"))
        for name in ("requests", "completions", "interrupts", "resets"):
            check(stat[f"blk_{name}"] == sum(entry[name] for entry in stat["disks"].values()), f"{name}: {stat}")
        check(all(stat["disks"]["vda"][name] == 0 for name in UNDISTURBED), f"vda was disturbed: {stat}")
    check(not wrong_sectors(path, 7, 1000, 2000), "the pattern is not on the second disk")


@case
def four_of_each(lab):
    """Four disks and four network cards, in the order of the bus; what is not there is not found."""
    arguments = ["-m", "96"]
    for number in range(4):
        arguments += disk(lab, number, (number + 1) * MIB)[0]
        arguments += ["-netdev", f"user,id=n{number},net=10.0.{number}.0/24",
                      "-device", f"virtio-net-pci,disable-legacy=on,netdev=n{number},mac=52:54:00:00:00:0{number}"]
    with BareMachine(lab, arguments) as machine:
        machine.boot()
        info = machine.run("blk")
        for number, name in enumerate("abcd"):
            check(f"/dev/vd{name}: " in info and f"{(number + 1) * MIB // SECTOR} sectors" in info, f"not listed: {info}")
            check(f"'disk-{number}'" in machine.run(f"blk id --disk vd{name}"), f"vd{name} is another disk")
            machine.run(f"ifconfig net{number} dhcp")
            machine.run(f"ping 10.0.{number}.2 1")
        cards = find_json(machine.run("ifconfig --json"))["cards"]
        for number in range(4):
            card = cards[f"net{number}"]
            check(card["mac"] == f"52:54:00:00:00:0{number}" and card["address"] == f"10.0.{number}.15", f"another card: {card}")
            check(card["protocol"] == card["unknown"] == card["resets"] == 0, f"broken rules: {card}")
        load = machine.command("blk load --disk vda,vdb,vdc,vdd --seed 1 --depth 8 --seconds 1 --final --quiet", 60)
        check(len(check_load(*load)["disks"]) == 4, "not all disks took part")
        for line in ("blk read 0 1 --disk vde", "sha256 /dev/vde", "ifconfig net4 dhcp", "ping 10.0.0.2 1 --if net4"):
            check("vde" in (output := machine.run(line, status=1)) or "net4" in output, f"`{line}` says something else")


@case
def too_little_memory(lab):
    """An arena that is too small for all cards: it is said which ones are missing, and the others work."""
    arguments = ["-m", "32"]
    for number in range(4):
        arguments += ["-netdev", f"user,id=n{number},net=10.0.{number}.0/24",
                      "-device", f"virtio-net-pci,disable-legacy=on,netdev=n{number}"]
    with BareMachine(lab, arguments) as machine:
        machine.boot()
        output = machine.run("ifconfig")
        check("net0: virtio-net at" in output, f"the first card does not work: {output}")
        check("net3: not usable: the I/O arena is too small" in output, f"the last one has room, or does not say: {output}")
        machine.run("ifconfig net0 dhcp")
        machine.run("ping 10.0.0.2 1")


@case
def discard_and_zero(lab):
    """Ranges that are given back or zeroed, and nothing beside them; a disk that cannot do it is not asked to."""
    (first, path), (second, _) = disk(lab, 0, drive=",discard=unmap"), disk(lab, 1, device=",discard=off,write-zeroes=off")
    with BareMachine(lab, first + second) as machine:
        machine.boot()
        machine.run("blk write --seed 3 0 6000")
        machine.run("blk zero 1000 500")
        machine.run("blk zero 3000 8 --unmap")
        machine.run("blk discard 4096 1024")
        machine.run("blk flush")
        machine.run("blk verify --seed 3 0 1000")
        machine.run("blk verify --seed 3 1500 1500")
        check("beyond" in machine.run(f"blk discard {SIZE // SECTOR} 1", status=1), "beyond the disk")
        for command in ("discard", "zero"):
            check("does not offer it" in machine.run(f"blk {command} --disk vdb 0 8", status=1), f"vdb took {command}")
        stat = find_json(machine.run("stat --json"))
        check(stat["blk_unsupported"] == stat["blk_io_errors"] == 0, f"requests failed: {stat}")
    data = path.read_bytes()
    for first_sector, count in ((1000, 500), (3000, 8)):
        check(not any(data[first_sector * SECTOR:(first_sector + count) * SECTOR]), f"not zero: {first_sector} + {count}")
    for first_sector, count in ((0, 1000), (1500, 1500), (3008, 1088), (5120, 880)):
        check(not wrong_sectors(path, 3, first_sector, count), f"changed: {first_sector} + {count}")
    check(path.stat().st_blocks * 512 < 6000 * SECTOR, "nothing was given back")


if __name__ == "__main__":
    main()
