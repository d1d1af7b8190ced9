"""The control port inside the main guest: a virtio-console that the manifest allows, the commands `drvctl` of guestos."""

import re
import time

from block_suite import endless_load, finish_load
from harness import case, check, check_load, driver, faultlog, guest, main, manifest
from bulkhead_lib.control import ControlError

LABEL = "supervisor"
TIMEOUT = 120
CONSOLE = "1af4:1043"


@case
def what_it_shows(lab):
    with lab.machine(manifest(driver(), guest(control="yes"))) as machine:
        machine.boot()
        print(machine.run("drvctl help"))
        print(machine.run("drvctl status"))
        print(machine.run("drvctl status blk0"))
        print(machine.run("drvctl stats"))
        print(machine.run("drvctl events"))
        print(machine.run("drvctl restart blk0"))
        print(machine.run("drvctl faults"))
        print(machine.run("drvctl raw faults"))
        print(machine.run("drvctl restart main", status=1))
        print(machine.run("drvctl raw inject blk0 crash", status=1))


if __name__ == "__main__":
    main()
