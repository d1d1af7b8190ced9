"""
The serial console as three streams: the guest's text, the hypervisor's and loader's log lines, error lines.

One UART carries them all. Log lines start with "[hv " or "[uefi] " and end with a line feed. When one comes while the guest is
in the middle of a line, the hypervisor breaks that line with LF CR (hv/control/console.c), which no guest prints: such a break is
cut out together with the log line, so that the guest's line is whole again.
"""

import re

LOG_MARKS = ("\n\r[hv ", "[hv ", "[uefi] ")
ESCAPE = re.compile(r"\x1b(?:\[[0-9;?=]*[ -/]*[@-~]|[()][0-9A-B]|[=>78cMDE])")
# An escape sequence whose end has not arrived yet.
ESCAPE_BEGUN = re.compile(r"\x1b(?:\[[0-9;?=]*[ -/]*|[()])?$")
# All but the line of an orderly end, which machines without an exit port print.
ERROR_LINE = re.compile(r"^bulkhead: (?!the machine has stopped; it can be switched off).*", re.MULTILINE)


class ConsoleFilter:
    """Fed with pieces of text, cut anywhere; gives back the guest's part and collects log lines."""

    def __init__(self):
        self.pending = ""
        self.log = []  # whole log lines, in order

    def feed(self, text):
        """The guest's text that is certain by now, with LF as line end."""
        self.pending, hold = self._split_escape(self.pending + text)
        self.pending = ESCAPE.sub("", self.pending)
        out = []
        while (at := self._next_mark()) >= 0:
            out.append(self.pending[:at])
            self.pending = self.pending[at:]
            # From the mark's bracket on: the break before it holds a line feed of its own.
            end = self.pending.find("\n", self.pending.index("["))
            if end < 0:
                break
            self.log.append(self.pending[:end].strip("\r\n"))
            self.pending = self.pending[end + 1:]
        else:
            keep = self._partial_mark()
            out.append(self.pending[:len(self.pending) - keep])
            self.pending = self.pending[len(self.pending) - keep:]
        self.pending += hold
        return "".join(out).replace("\r", "")

    def finish(self):
        """The stream has ended: what was held back because a log line could have begun with it."""
        rest, self.pending = self.pending.replace("\r", ""), ""
        return rest

    @staticmethod
    def _split_escape(text):
        """(text, an escape sequence at its end that is not complete). One that never ends must not hold the stream for ever."""
        begun = ESCAPE_BEGUN.search(text)
        if begun and len(text) - begun.start() < 16:
            return text[:begun.start()], text[begun.start():]
        return text, ""

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
