"""
A campaign's results: one SQLite file, one row a fault, committed before the next fault begins. Whatever ends a campaign, what the
file holds is complete, and the same command goes on from there.
"""

import contextlib
import json
import pathlib
import sqlite3
import threading

from .campaign_plan import Spec
from .ui import Failure

# Columns of a fault, in order: what people ask for in SQL. `record`, `load`, `plan`: JSON with everything else.
COLUMNS = {
    "id": "INTEGER PRIMARY KEY", "seed": "TEXT", "vm": "TEXT", "class": "TEXT", "place": "TEXT", "plan": "TEXT",
    "manifested": "INTEGER", "detector": "TEXT", "detect_us": "INTEGER", "quiesce_us": "INTEGER", "reset_us": "INTEGER",
    "restart_us": "INTEGER", "replay_us": "INTEGER", "first_completion_us": "INTEGER", "stall_us": "INTEGER",
    "replayed": "INTEGER", "recoveries": "INTEGER", "outcome": "TEXT", "detail": "TEXT", "image": "INTEGER",
    "requests": "INTEGER", "bytes": "INTEGER", "worker": "INTEGER", "machine": "TEXT", "started": "REAL", "seconds": "REAL",
    "record": "TEXT", "load": "TEXT",
}
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS campaign (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS fault ({", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())});
CREATE TABLE IF NOT EXISTS throughput (fault INTEGER, ms REAL, bytes INTEGER);
CREATE TABLE IF NOT EXISTS event (machine TEXT, seq INTEGER, us INTEGER, vm TEXT, kind TEXT, text TEXT, PRIMARY KEY (machine, seq));
"""
BUSY_SECONDS = 20


class Store:
    """Thread-safe. Use as a context manager."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.lock = threading.Lock()
        try:
            self.base = sqlite3.connect(self.path, timeout=BUSY_SECONDS, check_same_thread=False)
            self.base.row_factory = sqlite3.Row
            # With a write-ahead log a reader (report) and the campaign do not wait for each other.
            self.base.execute("PRAGMA journal_mode = WAL")
            # What is committed survives whatever ends this program; only the host's own crash could take the last rows.
            self.base.execute("PRAGMA synchronous = NORMAL")
            self.base.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise Failure(f"{path} is not a campaign's results ({error})") from error

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with self.lock:
            self.base.close()

    @classmethod
    def existing(cls, path):
        if not pathlib.Path(path).is_file():
            raise Failure(f"{path}: no such file (scripts/bulkhead campaign makes one)")
        store = cls(path)
        store.spec()
        return store

    # ---- what was asked for ----

    def spec(self):
        row = self.base.execute("SELECT value FROM campaign WHERE name = 'spec'").fetchone()
        if row is None:
            raise Failure(f"{self.path} holds no campaign")
        return Spec.from_dict(json.loads(row[0]))

    def open_for(self, spec):
        """Take the file for this campaign: a new one, or one that was interrupted."""
        with self.lock, self.base:
            self.base.execute("INSERT OR IGNORE INTO campaign VALUES ('spec', ?)", (json.dumps(spec.as_dict()),))
        found = self.spec().as_dict()
        different = [name for name, value in spec.as_dict().items() if json.loads(json.dumps(value)) != json.loads(json.dumps(found[name]))]
        if different:
            what = ", ".join(f"{name} {found[name]}" for name in different)
            raise Failure(f"{self.path} is of another campaign ({what}); name another file with --db")

    # ---- faults ----

    def put(self, row):
        """A new row, or one that is known better now; on disk when this returns."""
        names = ", ".join(f'"{name}"' for name in COLUMNS)
        values = [row.get(name) for name in COLUMNS]
        with self.lock, self.base:
            self.base.execute(f"INSERT OR REPLACE INTO fault ({names}) VALUES ({', '.join('?' * len(values))})", values)

    def done(self):
        """Numbers of the faults that need not be run again. What was never compared with the image has to be."""
        with self.lock:
            return {row[0] for row in self.base.execute("SELECT id FROM fault WHERE image IS NOT NULL")}

    def rows(self, where="1", *values):
        with self.lock:
            return [dict(row) for row in self.base.execute(f"SELECT * FROM fault WHERE {where} ORDER BY id", values)]

    def row(self, number):
        found = self.rows("id = ?", number)
        if not found:
            raise Failure(f"{self.path} has no fault {number}")
        return found[0]

    # ---- what pictures need besides ----

    def put_throughput(self, fault, samples):
        with self.lock, self.base:
            self.base.execute("DELETE FROM throughput WHERE fault = ?", (fault,))
            self.base.executemany("INSERT INTO throughput VALUES (?, ?, ?)", [(fault, *sample) for sample in samples])

    def throughput(self):
        """{fault: [(ms since the fault, bytes so far)]}."""
        found = {}
        with self.lock:
            for fault, ms, count in self.base.execute("SELECT fault, ms, bytes FROM throughput ORDER BY fault, ms"):
                found.setdefault(fault, []).append((ms, count))
        return found

    def put_events(self, machine, events):
        rows = [(machine, event["seq"], event["us"], event["vm"], event["kind"], event.get("text", "")) for event in events]
        with self.lock, self.base:
            self.base.executemany("INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?, ?, ?)", rows)

    def events(self, machine):
        with self.lock:
            return [dict(row) for row in self.base.execute("SELECT * FROM event WHERE machine = ? ORDER BY seq", (machine,))]


def merge(target, sources):
    """The rows of several files of one campaign in one; how many there are then, and how many are still missing."""
    with Store(target) as out:
        for path in sources:
            with Store.existing(path) as part:
                out.open_for(part.spec())
            with contextlib.closing(sqlite3.connect(target, timeout=BUSY_SECONDS)) as base:
                base.execute("ATTACH ? AS part", (str(path),))
                with base:
                    # A fault that was checked against its image is worth more than one that was not.
                    base.execute("INSERT OR REPLACE INTO fault SELECT * FROM part.fault WHERE image IS NOT NULL "
                                 "OR id NOT IN (SELECT id FROM fault)")
                    base.execute("DELETE FROM throughput WHERE fault IN (SELECT fault FROM part.throughput)")
                    base.execute("INSERT INTO throughput SELECT * FROM part.throughput")
                    base.execute("INSERT OR REPLACE INTO event SELECT * FROM part.event")
        return len(out.done()), out.spec().faults - len(out.done())
