"""The parts of scripts/bulkhead. Standard library only, so that a bare Debian's /usr/bin/python3 runs them."""
