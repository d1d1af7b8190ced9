"""What only Intel's network cards can be. The suite that all network drivers pass is in test_net.py."""

import dataclasses

from harness import case, main
from net_suite import E1000E, faults_during_transfers

LABEL = "net"
TIMEOUT = 120


@case
def e1000e_on_the_root_bus(lab):
    """Without a port of its own nothing resets it but its next driver."""
    faults_during_transfers(lab, dataclasses.replace(E1000E, reset="driver", root_bus=True))


if __name__ == "__main__":
    main()
