"""What people see: one clear sentence for an error, progress for long work, aligned tables."""

import json
import sys
import time


class Failure(Exception):
    """An error whose text is one clear sentence; the command ends with `code`."""

    def __init__(self, message, code=1):
        super().__init__(message)
        self.code = code


def say(text):
    """A line about what is being done. stderr: stdout belongs to results, so that they can be piped."""
    print(text, file=sys.stderr, flush=True)


def warn(text):
    say(f"bulkhead: {text}")


class Progress:
    """A line that changes in place on a terminal; elsewhere one plain line at the start and one at the end."""

    def __init__(self, title):
        self.title = title
        self.tty = sys.stderr.isatty()
        self.start = time.monotonic()
        self.last = 0.0
        if not self.tty:
            say(f"{title} ...")

    def update(self, text):
        now = time.monotonic()
        # Ten updates a second are enough for eyes, and cheap.
        if self.tty and now - self.last >= 0.1:
            self.last = now
            sys.stderr.write(f"\r\x1b[K{self.title}: {text}"[:200])
            sys.stderr.flush()

    def done(self, text="done"):
        seconds = time.monotonic() - self.start
        lead = "\r\x1b[K" if self.tty else ""
        say(f"{lead}{self.title}: {text} ({seconds:.1f} s)")


def table(rows, columns=None, out=None):
    """Print dictionaries as aligned columns; numbers to the right. columns: names in order, default: as they come."""
    out = out or sys.stdout
    if not rows:
        return
    if columns is None:
        columns = []
        for row in rows:
            columns += [key for key in row if key not in columns]
    cells = [[_cell(row.get(key, "")) for key in columns] for row in rows]
    widths = [max([len(name)] + [len(line[i]) for line in cells]) for i, name in enumerate(columns)]
    numeric = [all(_is_number(row.get(key, "")) for row in rows) for key in columns]
    for line in [columns] + cells:
        parts = [text.rjust(w) if n else text.ljust(w) for text, w, n in zip(line, widths, numeric)]
        print("  ".join(parts).rstrip(), file=out)


def _is_number(value):
    if value in ("", None):
        return True
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _cell(value):
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value)


def print_json(value):
    print(json.dumps(value, indent=2, sort_keys=False))


def percentile(values, percent):
    """The nearest-rank percentile: a value that was really measured. None without values."""
    if not values:
        return None
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]
