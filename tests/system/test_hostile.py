"""
A hostile guest breaks every rule of VirtIO 1.2 that guestos knows to break (`hostile list`, docs/HOSTILE.md), one after the
other, each on a device that was reset; hypervisor and driver live, and the device obeys again after a reset.
"""

import re

from harness import ROOT, case, check, main

LABEL = "hostile"
TIMEOUT = 240
RULES_LEAST = 71
RULE = re.compile(r"^([a-z0-9-]+) +(.+) \(VirtIO 1\.2 ([0-9.]+): (.+)\)$")


def rules(machine):
    """[(name, what is broken, section, what has to happen)] as the guest lists them."""
    found = [RULE.match(line.strip()) for line in machine.run("hostile list").splitlines()]
    found = [rule.groups() for rule in found if rule]
    check(len(found) >= RULES_LEAST, f"`hostile list` has {len(found)} rules")
    return found


def check_documented(found):
    text = (ROOT / "docs" / "HOSTILE.md").read_text(encoding="utf-8")
    missing = [rule for rule in found if "| `{}` | {} | {} | {} |".format(*rule) not in text]
    check(not missing, f"docs/HOSTILE.md lacks {missing[:3]}")


@case
def all_rules(lab):
    with lab.machine() as machine:
        machine.boot(180)
        found = rules(machine)
        check_documented(found)
        machine.run("canary set 7", 180)
        output, status = machine.command("hostile all", 180)
        answers = dict(re.findall(r"hostile ([a-z0-9-]+): (.+)", output.replace("\r", "")))
        for name, what, section, must in found:
            check(answers.get(name) == "ok", f"{name} ({what}): VirtIO 1.2 {section} has it that {must}, but: {answers.get(name)}")
        check(status == 0, f"`hostile all` ended with {status}: {output.strip()[-300:]}")
        machine.run("blk read 0 2048 qd 8")
        machine.run("canary check 7", 180)
        hypervisor = machine.status("hypervisor")
        blk0 = machine.status("vm", "blk0")
        check(hypervisor["canary"] == "ok", "the hypervisor's canary was overwritten")
        check(blk0["state"] == "running" and blk0["generation"] == 0, f"the guest made the driver VM fail: {blk0}")
        broken = len(machine.events("broken-device"))
        told = sum("DEVICE_NEEDS_RESET" in must and "nothing" not in must for _, _, _, must in found)
        check(broken >= told, f"the device was broken {told} times, but only {broken} events say so")


if __name__ == "__main__":
    main()
