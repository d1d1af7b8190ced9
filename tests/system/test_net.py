"""The conformance suite of the network drivers, for each of them: what it is stands in net_suite.py."""

from net_suite import CASES, NICS
from harness import cases_for, main

LABEL = "net"
TIMEOUT = 600

for nic in NICS:
    cases_for(nic, CASES)

if __name__ == "__main__":
    main()
