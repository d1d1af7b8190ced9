"""The parts of scripts/bulkhead that need no machine."""

from harness import Lab, case, check, main, sha256_file
from bulkhead_lib import accel, control, faultlog, guest_output, loc, paths, session, ui
from bulkhead_lib.console import ConsoleFilter
from bulkhead_lib.machine import strip_echo
from bulkhead_lib.ui import Failure

LABEL = "scripts"
TIMEOUT = 60


def equal(got, expected):
    check(got == expected, f"got {got!r}, expected {expected!r}")


@case
def console_streams(lab):
    """Log lines are cut out of the guest's text, however the stream is cut into pieces."""
    stream = ('\x1b[2J\x1b[01;01H[uefi] a file\r\nguest one\r\n[hv   1.0] between lines\r\n'
              'json {"a":\n\r[hv   2.0] in a line\r\n1}\r\nprice [h] 5\r\n[status 0]\r\nguestos> ')
    text = 'guest one\njson {"a":1}\nprice [h] 5\n[status 0]\nguestos> '
    log = ["[uefi] a file", "[hv   1.0] between lines", "[hv   2.0] in a line"]
    for _ in range(500):
        console, out, rest = ConsoleFilter(), "", stream
        while rest:
            size = lab.random.randrange(1, 12)
            out += console.feed(rest[:size])
            rest = rest[size:]
        equal(out, text)
        equal(console.log, log)


@case
def control_lines(lab):
    equal(control.parse_line('vm name=blk0 n=12 s="two words" e="" h=0x1f neg=-3'),
          ("vm", {"name": "blk0", "n": 12, "s": "two words", "e": "", "h": "0x1f", "neg": -3}))
    # A number in quotes is text: a message may be one.
    equal(control.parse_line('event text="7"'), ("event", {"text": "7"}))


@case
def commands_and_echo(lab):
    equal(session.split_commands('stat; echo "a;b" ;; sha256 /dev/vda;'), ["stat", 'echo "a;b"', "sha256 /dev/vda"])
    equal(strip_echo("stat\nuptime 1\n", "stat"), "uptime 1\n")
    equal(strip_echo("uptime 1\n", "stat"), "uptime 1\n")


@case
def json_in_output(lab):
    equal(guest_output.find_json('progress {"n":1}\njson {"n":\n2,"in":{"m":3}}\ndone'), {"n": 2, "in": {"m": 3}})
    try:
        guest_output.find_json("nothing {here")
    except Failure:
        return
    raise AssertionError("JSON was found where there is none")


@case
def accelerator_choice(lab):
    equal(accel.choose("auto", ({"svm"}, ""))[0], "kvm")
    equal(accel.choose("auto", ({"vmx"}, ""))[0], "tcg")
    equal(accel.choose("auto", (set(), "why")), ("tcg", "why"))
    equal(accel.choose("tcg", ({"svm"}, ""))[0], "tcg")
    try:
        accel.choose("kvm", (set(), "no nesting"))
    except ValueError as refusal:
        check("no nesting" in str(refusal), "the reason is missing")
        return
    raise AssertionError("--accel kvm was accepted without nested virtualization")


@case
def lines_of_code(lab):
    code = 'int a; /* c\n c */ int b;\n\n// line\nchar *s = "/* no */"; // yes\nchar q = \'"\'; /* x */\n  \n'
    equal([line.strip() for line in loc.strip_comments(code, False).split("\n") if line.strip()],
          ["int a;", "int b;", 'char *s = "/* no */";', "char q = '\"';"])
    assembly = "#include <x.h>\n# a comment\nmov %eax, %ebx # another\n#if FOO\n"
    equal(sum(1 for line in loc.strip_comments(assembly, True).split("\n") if line.strip()), 3)


@case
def percentiles(lab):
    equal(ui.percentile(list(range(1, 101)), 99), 99)
    equal(ui.percentile([5], 50), 5)
    equal(ui.percentile([], 50), None)
    records = [faultlog.parse({"seq": n, "vm": "blk0", "detect_us": n}) for n in range(1, 5)]
    equal(faultlog.summary(records)[0], {"duration": "detect", "n": 4, "p50": 2, "p99": 4, "max": 4})
    equal(faultlog.summary(records)[1]["max"], None)


@case
def disks_repeat_with_the_seed(lab):
    again = Lab(lab.folder, lab.seed, False)
    equal(sha256_file(lab.disk(1 << 20, 1 << 20)), sha256_file(again.disk(1 << 20, 1 << 20)))


@case
def features_name_their_tests(lab):
    """Each row of docs/FEATURES.md names a test, and each test that it names exists."""
    for line in (paths.ROOT / "docs" / "FEATURES.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 2 or cells[0] in ("feature", "---") or cells[0].startswith("**"):
            continue
        check(cells[1], f"no test for '{cells[0]}'")
        group = ""
        for name in cells[1].split(", "):
            kind, _, rest = name.partition(".")
            if kind in ("unit", "fuzz"):
                suffix = ".c" if kind == "unit" else "_fuzz.c"
                check((paths.ROOT / "tests" / kind / (rest + suffix)).exists(), f"FEATURES.md names {name}: no such test")
                continue
            group, function = name.rpartition("/")[0] or group, name.rpartition("/")[2]
            source = (paths.ROOT / "tests" / "system" / f"test_{group}.py").read_text(encoding="utf-8")
            check(function == "*" or f"\ndef {function}(" in source, f"FEATURES.md names {name}: no such case")


if __name__ == "__main__":
    main()
