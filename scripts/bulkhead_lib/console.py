"""
The serial console as three streams: the guest's text, the hypervisor's and loader's log lines, error lines.

One UART carries them all. Log lines start with "[hv " or "[uefi] " and end with a line feed; they may come while the guest
is in the middle of a line, so they are cut out of the stream wherever they stand.
"""

import re

LOG_MARKS = ("[hv ", "[uefi] ")
ESCAPE = re.compile(r"\x1b(?:\[[0-9;?=]*[ -/]*[@-~]|[()][0-9A-B]|[=>78cMDE])")
# An escape sequence whose end has not arrived yet.
ESCAPE_BEGUN = re.compile(r"\x1b(?:\[[0-9;?=]*[ -/]*|[()])?$")
ERROR_LINE = re.compile(r"^bulkhead: .*", re.MULTILINE)


class ConsoleFilter:
    """Fed with pieces of text, cut anywhere; gives back the guest's part and collects log lines."""

    def __init__(self):
        self.pending = ""
        self.log = []  # whole log lines, in order

    def feed(self, text):
        """The guest's text that is certain by now."""
        self.pending += text.replace("\r", "")
        begun = ESCAPE_BEGUN.search(self.pending)
        hold = ""
        # An escape that never ends must not hold the stream for ever.
        if begun and len(self.pending) - begun.start() < 16:
            hold = self.pending[begun.start():]
            self.pending = self.pending[:begun.start()]
        self.pending = ESCAPE.sub("", self.pending)
        out = []
        while True:
            at = self._next_mark()
            if at < 0:
                break
            end = self.pending.find("\n", at)
            if end < 0:
                out.append(self.pending[:at])
                self.pending = self.pending[at:]
                self.pending += hold
                return "".join(out)
            out.append(self.pending[:at])
            self.log.append(self.pending[at:end])
            self.pending = self.pending[end + 1:]
        keep = self._partial_mark()
        out.append(self.pending[:len(self.pending) - keep])
        self.pending = self.pending[len(self.pending) - keep:] + hold
        return "".join(out)

    def _next_mark(self):
        found = [at for at in (self.pending.find(mark) for mark in LOG_MARKS) if at >= 0]
        return min(found) if found else -1

    def _partial_mark(self):
        """Length of the tail that may be the beginning of a mark."""
        longest = 0
        for mark in LOG_MARKS:
            for n in range(1, len(mark)):
                if self.pending.endswith(mark[:n]):
                    longest = max(longest, n)
        return longest
