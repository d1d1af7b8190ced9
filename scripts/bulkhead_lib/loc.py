"""Lines of code of hv/, by folder: lines that hold something besides comments and blanks."""

import pathlib

from . import paths
from .ui import print_json, table, warn

SUFFIXES = {".c", ".h", ".S", ".lds", ".ld"}


def strip_comments(text, assembly):
    """The text with comments replaced by nothing; line feeds stay. Knows strings, character constants, # in assembly."""
    out, i, state = [], 0, "code"
    while i < len(text):
        two = text[i:i + 2]
        char = text[i]
        if state == "code":
            if two == "/*":
                state, i = "block", i + 2
                continue
            if two == "//" or (assembly and char == "#" and _starts_line_comment(text, i)):
                state = "line"
            elif char in "\"'":
                state = char
                out.append(char)
            else:
                out.append(char)
        elif state == "block":
            if two == "*/":
                state, i = "code", i + 2
                continue
            if char == "\n":
                out.append(char)
        elif state == "line":
            if char == "\n":
                state = "code"
                out.append(char)
        else:  # inside a string or a character constant, which ends at its quote or, when broken, with the line
            out.append(char)
            if char == "\\" and i + 1 < len(text):
                out.append(text[i + 1])
                i += 2
                continue
            if char in (state, "\n"):
                state = "code"
        i += 1
    return "".join(out)


def _starts_line_comment(text, at):
    """In GNU as on x86 a '#' comments; but '#include', '#define', ... at the start of a line are for the preprocessor."""
    before = text[text.rfind("\n", 0, at) + 1:at]
    return bool(before.strip()) or not text[at + 1:at + 2].isalpha()


def count_file(path):
    text = path.read_text(encoding="utf-8", errors="replace")
    return sum(1 for line in strip_comments(text, path.suffix == ".S").split("\n") if line.strip())


def count(root):
    """{folder below root: (files, lines)}; arch/x86/* stay apart, since each is a part of its own."""
    result = {}
    root = pathlib.Path(root)
    for path in sorted(root.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file():
            folder = str(path.parent.relative_to(root))
            files, lines = result.get(folder, (0, 0))
            result[folder] = (files + 1, lines + count_file(path))
    return result


def run(arguments):
    folders = count(paths.ROOT / "hv")
    total = sum(lines for _, lines in folders.values())
    if arguments.json:
        print_json({"folders": {name: {"files": f, "lines": n} for name, (f, n) in folders.items()},
                    "total": total, "limit": arguments.limit})
    else:
        rows = [{"folder": "hv" if name == "." else f"hv/{name}", "files": f, "lines": n}
                for name, (f, n) in folders.items()]
        rows.append({"folder": "total", "files": sum(f for f, _ in folders.values()), "lines": total})
        table(rows)
        print(f"limit: {arguments.limit}")
    if total > arguments.limit:
        warn(f"hv/ has {total} lines of code, the limit is {arguments.limit}")
        return 1
    return 0
