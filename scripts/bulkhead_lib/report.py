"""`report`: one page that tells what a campaign came to, with its pictures inside; or a trace of a run."""

import collections
import html
import json
import pathlib
import time

from . import report_figures as figures
from . import telemetry, trace
from .campaign import FOLDER
from .campaign_plan import BROKEN, OUTCOMES
from .campaign_store import Store
from .campaign_worker import POLICY
from .ui import Failure, percentile, say

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; }
p { margin: .4rem 0; } .small { color: #555; font-size: .9rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.tile { border: 1px solid #ddd; border-radius: 6px; padding: .5rem .9rem; min-width: 7rem; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; } .bad b { color: #b00; }
svg { max-width: 100%; height: auto; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; } th { text-align: left; border-bottom: 2px solid #bbb; }
th, td { padding: .2rem .6rem; vertical-align: top; } td { border-bottom: 1px solid #eee; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } code { font-size: .85rem; overflow-wrap: anywhere; }
"""
LIST_MAX = 400  # numbers of faults without effect that are named for each class
TABLE_MAX = 1500  # rows of the table of faults that were not recovered; the page is to stay one that a browser likes


def run(arguments):
    if arguments.trace and arguments.seconds:
        count = trace.watch(telemetry.connect(arguments), arguments.seconds).write(pathlib.Path(arguments.trace))
        say(f"{arguments.trace}: {count} events; open it in ui.perfetto.dev")
        return 0
    path = pathlib.Path(arguments.db) if arguments.db else max(FOLDER.glob("*.db"), key=lambda file: file.stat().st_mtime, default=None)
    if path is None:
        raise Failure("no campaign has run here; name its results")
    with Store.existing(path) as store:
        if arguments.trace:
            machine, found = trace.of_campaign(store, arguments.machine)
            if machine is None:
                raise Failure(f"{path} holds no fault record" + (f" of machine {arguments.machine}" if arguments.machine else ""))
            say(f"{arguments.trace}: machine {machine}, {found.write(pathlib.Path(arguments.trace))} events; open it in ui.perfetto.dev")
        if arguments.output or not arguments.trace:
            out = pathlib.Path(arguments.output or path.with_suffix(".html"))
            text = page(store)
            out.write_text(text, encoding="utf-8")
            say(f"{out}: {len(text.encode()) >> 10} KiB")
    return 0


# ---- pieces of HTML ----

def element(name, content, **attributes):
    """One element; content is HTML already."""
    given = "".join(f' {key.rstrip("_")}="{html.escape(str(value))}"' for key, value in attributes.items())
    return f"<{name}{given}>{content}</{name}>"


def table(rows):
    """Dictionaries as a table; numbers to the right, None as a dash."""
    if not rows:
        return ""
    keys = list(rows[0])
    numeric = {key: all(row[key] is None or isinstance(row[key], (int, float)) for row in rows) for key in keys}
    head = "".join(element("th", html.escape(key), **({"class_": "n"} if numeric[key] else {})) for key in keys)
    body = []
    for row in rows:
        cells = [element("td", cell(row[key]), **({"class_": "n"} if numeric[key] else {})) for key in keys]
        body.append(element("tr", "".join(cells)))
    return element("div", element("table", element("thead", element("tr", head)) + element("tbody", "\n".join(body))), class_="scroll")


def cell(value):
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else html.escape(str(value))


def section(title, text, *content):
    """Without content there is nothing to tell, and no section."""
    shown = [part for part in content if part]
    return "\n".join([element("h2", html.escape(title)), element("p", text, class_="small"), *shown]) if shown else ""


# ---- the page ----

def page(store):
    rows = store.rows()
    if not rows:
        raise Failure(f"{store.path} holds no fault yet")
    spec = store.spec()
    recovered = [row for row in rows if row["outcome"] == "recovered"]
    body = [
        element("h1", "Fault campaign"),
        element("p", html.escape(conditions(spec, rows)), class_="small"),
        tiles(rows),
        section("How the faults ended", "For each class of faults and driver VM. Hatched red would break the promise that the guest sees a short stall "
                "and nothing else.", figures.outcomes(rows), element("details", element("summary", "What the outcomes mean") + meanings(rows))),
        section("Who noticed", "The detector that opened the first fault record, in % of the class's faults; <i>none</i>: no detector saw anything within "
                "the time that a fault is given.", figures.detectors(rows)),
        section("Recovery", "From the injection to the first completion that the guest got, and the stages of it, over all faults that were recovered. "
                f"Wall time of a machine that may have had other work. What only the deadline of {POLICY['deadline']} notices makes the hump beyond it.",
                figures.distribution(recovered, "first_completion_us", "recovery", "fault to first completion"), figures.stages(recovered),
                element("details", element("summary", "The same for each class, in µs") + per_class(recovered))),
        section("The stall that the guest saw", "Disk: the guest's own clock, the longest time without a completion while requests were in flight. Network "
                "card: the longest gap between two bytes at the peer of a TCP transfer from the guest.", *stalls(rows)),
        section("Throughput through a crash", "Bytes that the device moved, sampled from outside every 10 ms, around the faults that were watched for "
                "it and recovered.", *throughputs(store, rows)),
        section("Faults that were not recovered", "Every one that had an effect. <code>campaign --replay ID</code> repeats it.", not_recovered(rows)),
        section("Faults without effect", "Nothing was noticed and nothing was wrong; the driver VM was replaced afterwards, so that no "
                "hidden damage could be taken for a later fault's.", without_effect(rows)),
    ]
    head = element("meta", "", charset="utf-8").replace("></meta>", "/>") + element("title", "Bulkhead: fault campaign") + element("style", STYLE)
    return f'<!DOCTYPE html>\n<html lang="en">\n{element("head", head)}\n{element("body", chr(10).join(filter(None, body)))}\n</html>\n'


def conditions(spec, rows):
    machines = len({row["machine"] for row in rows})
    start, end = min(row["started"] for row in rows), max(row["started"] + row["seconds"] for row in rows)
    devices = ", ".join(f"{device.vm}: {device.model}" for device in spec.layout())
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(start))
    keys = f"; {', '.join(spec.keys)}" if spec.keys else ""
    return (f"Seed {spec.seed}; {devices}; {spec.preset} build on {spec.accel.upper()}{keys}. {len(rows):,} of {spec.faults:,} faults on {machines:,} "
            f"booted machine{'s' if machines != 1 else ''}, from {when} UTC, {(end - start) / 60:.0f} minutes: "
            f"{len(rows) / max(end - start, 1e-3):.1f} faults a second.")


def tiles(rows):
    manifested = [row for row in rows if row["manifested"]]
    counts = collections.Counter(row["outcome"] for row in rows)
    broken = sum(counts[kind] for kind in BROKEN)
    times = [row["first_completion_us"] for row in rows if row["outcome"] == "recovered" and row["first_completion_us"] is not None]
    stall = [row["stall_us"] for row in rows if row["stall_us"] is not None]
    shown = [("faults", f"{len(rows):,}"), ("had an effect", f"{len(manifested):,}"), ("recovered", f"{counts['recovered']:,}"),
             ("broke the promise", f"{broken:,}"), ("p99 to first completion", figures.ms_text(percentile(times, 99)) if times else "–"),
             ("p99 stall of the guest", figures.ms_text(percentile(stall, 99)) if stall else "–")]
    return element("div", "".join(element("div", element("b", value) + html.escape(name),
                                          class_="tile bad" if name.startswith("broke") and broken else "tile") for name, value in shown), class_="tiles")


MEANINGS = {
    "recovered": "noticed; the driver came back, every byte had its expected value, no request failed, the image holds what was acknowledged",
    "not-manifested": "no detector saw it and nothing went wrong", "gave-up-by-policy": "the policy of the manifest said so; the guest lives",
    "wrong-data": "the fault made a liar of the driver: wrong data, or frames that nobody understands, which nothing outside can tell; the check saw them",
    "io-error": "the same driver reported that a request had failed, or answered with nonsense; or its card's connection broke", "not-injected": "the injector found no place for it",
    "emulator-died": "the emulator was killed by a signal, or its main loop spins without end: a bug of its device model",
    "failed-request": "a request failed although the fault cannot have made the driver say so",
    "lost": "an acknowledged write is missing or data read were wrong after a fault that cannot cause it",
    "protocol": "a rule of the virtqueue was broken", "stuck": "something did not come to an end",
    "canary": "a page of the hypervisor was overwritten", "guest-crash": "the guest ended", "hv-crash": "the hypervisor ended",
    "worker-error": "the campaign itself failed",
}


def meanings(rows):
    return table([{"outcome": kind, "faults": sum(row["outcome"] == kind for row in rows), "breaks the promise": "yes" if OUTCOMES[kind] else "",
                   "meaning": MEANINGS[kind]} for kind in OUTCOMES])


def per_class(rows):
    found = []
    for name in sorted({figures.label(row) for row in rows}):
        mine = [row for row in rows if figures.label(row) == name]
        line = {"class": name, "faults": len(mine)}
        for text, column in (("first completion", "first_completion_us"), ("stall", "stall_us")):
            values = [row[column] for row in mine if row[column] is not None]
            line.update({f"{text} p50": percentile(values, 50), "p99" if text != "stall" else "p99 ": percentile(values, 99),
                         "max" if text != "stall" else "max ": max(values, default=None)})
        found.append(line)
    return table(found)


def stalls(rows):
    return [figures.distribution([row for row in rows if row["vm"].startswith(role) and row["manifested"]], "stall_us", f"stall-{role}",
                                 f"stall with a fault of the {what}'s driver") for role, what in (("blk", "disk"), ("net", "network card"))]


def throughputs(store, rows):
    vms = {row["id"]: row["vm"] for row in rows if row["outcome"] == "recovered"}
    series = store.throughput()
    return [figures.throughput([samples for fault, samples in series.items() if vms.get(fault, "").startswith(role)], what, f"throughput-{role}")
            for role, what in (("blk", "disk"), ("net", "network card"))]


def not_recovered(rows):
    chosen = [row for row in rows if row["outcome"] not in ("recovered", "not-manifested", "not-injected")]
    # The gravest first, whatever their number.
    chosen.sort(key=lambda row: (row["outcome"] not in BROKEN, row["id"]))
    if not chosen:
        return element("p", "There is none.")
    shown = table([{"id": row["id"], "outcome": row["outcome"], "vm": row["vm"], "class": row["class"], "place": row["place"] or "",
                    "detector": row["detector"] or "none", "what": _said(row)} for row in chosen[:TABLE_MAX]])
    return shown + (element("p", f"{len(chosen) - TABLE_MAX:,} more are in the results' file.") if len(chosen) > TABLE_MAX else "")


def _said(row):
    said = json.loads(row["load"] or "{}").get("said") or []
    return "; ".join(filter(None, [row["detail"], *said[:1]]))[:200]


def without_effect(rows):
    found = []
    for name in sorted({figures.label(row) for row in rows}):
        for kind in ("not-manifested", "not-injected"):
            mine = [row for row in rows if figures.label(row) == name and row["outcome"] == kind]
            if mine:
                numbers = " ".join(str(row["id"]) for row in mine[:LIST_MAX]) + (" …" if len(mine) > LIST_MAX else "")
                found.append({"class": name, "outcome": kind, "faults": len(mine), "why": mine[0]["detail"] if kind == "not-injected" else "", "ids": numbers})
    return element("details", element("summary", f"{sum(line['faults'] for line in found):,} faults") + table(found)) if found else ""
