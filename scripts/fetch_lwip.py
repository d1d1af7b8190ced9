#!/usr/bin/python3
"""
fetch_lwip.py FOLDER: lwIP's source as Debian packages it, unpacked to FOLDER/src, in a form that is the same everywhere.

The build calls this once (cmake/lwip.cmake). apt fetches the source package from wherever this machine gets its Debian
packages; lists and caches are private to FOLDER, so neither root nor a change of the machine's apt set-up is needed. What
came is believed by its SHA-256 alone. Without a network, give a build -DLWIP_SRC=<an unpacked lwIP 2.1.3>.
"""

import fcntl
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys

PACKAGE = "lwip"
VERSION = "2.1.3+dfsg1-2"
SHA256 = {
    "lwip_2.1.3+dfsg1.orig.tar.xz": "0a8276d09fc4e97bbba2f953d74af2388fc2195ea156be9d7589e297a68fde24",
    "lwip_2.1.3+dfsg1-2.debian.tar.xz": "c5a48413d362cc757032cdd58f528f75eb64ee781ca46ca24f010b49b0e62a90",
}
APT = pathlib.Path("/etc/apt")
HINT = "give the build an unpacked lwIP 2.1.3 with -DLWIP_SRC=<folder>"
TIMEOUT = 300
STAMP = "bulkhead-version"  # in src: it is whole


class Failed(Exception):
    """One line for the user."""


def source_entries(one_line, deb822):
    """
    apt's own sources with the type deb-src in place of deb: ([one-line entries], [deb822 stanzas]). one_line, deb822: the texts
    of .list and .sources files.
    """
    lines = [re.sub(r"^deb(-src)?\s", "deb-src ", line.strip()) for text in one_line for line in text.splitlines()
             if re.match(r"deb(-src)?\s", line.strip())]
    stanzas = []
    for text in deb822:
        for stanza in re.split(r"\n[ \t]*\n", "\n".join(row for row in text.splitlines() if not row.startswith("#"))):
            if re.search(r"^Types:", stanza, re.MULTILINE | re.IGNORECASE):
                stanzas.append(re.sub(r"^Types:.*$", "Types: deb-src", stanza.strip("\n"),
                                      flags=re.MULTILINE | re.IGNORECASE))
    return list(dict.fromkeys(lines)), list(dict.fromkeys(stanzas))


def write_sources(folder):
    """The private list of sources; FOLDER/sources."""
    def texts(pattern):
        return [path.read_text(encoding="utf-8") for path in sorted((APT / "sources.list.d").glob(pattern))]
    main_list = APT / "sources.list"
    lines, stanzas = source_entries(([main_list.read_text(encoding="utf-8")] if main_list.exists() else [])
                                    + texts("*.list"), texts("*.sources"))
    if not lines and not stanzas:
        raise Failed(f"apt has no sources here; {HINT}")
    parts = folder / "sources"
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    (parts / "machine.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (parts / "machine.sources").write_text("\n\n".join(stanzas) + "\n", encoding="utf-8")
    return parts


def run(command, cwd, what):
    try:
        done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                              timeout=TIMEOUT)
    except FileNotFoundError:
        raise Failed(f"{command[0]} is missing (Debian package dpkg-dev); {HINT}") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{what} took longer than {TIMEOUT} s; {HINT}") from None
    if done.returncode != 0:
        raise Failed(f"{what} failed (no network?); {HINT}\n{done.stdout.strip()[-1500:]}")


def download(folder):
    parts = write_sources(folder)
    state, cache = folder / "apt-state", folder / "apt-cache"
    for path in (state / "lists" / "partial", cache / "archives" / "partial"):
        path.mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "-q", "-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={parts}",
           "-o", f"Dir::State={state}", "-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Cache={cache}",
           # The folder is ours alone: apt's own user could not write there.
           "-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=2"]
    run([*apt, "update"], folder, "apt-get update")
    run([*apt, "source", "--download-only", f"{PACKAGE}={VERSION}"], folder, f"apt-get source {PACKAGE}={VERSION}")
    for path in (state, cache, parts):
        shutil.rmtree(path, ignore_errors=True)


def is_whole(folder):
    """Whether both archives are there; one with another content is removed and reported."""
    for name, expected in SHA256.items():
        path = folder / name
        if not path.exists():
            return False
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            path.unlink()
            raise Failed(f"{name} has another SHA-256 than expected and was removed; {HINT}")
    return (folder / f"{PACKAGE}_{VERSION}.dsc").exists()


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    # Two builds may share the folder: the second waits, and finds what the first brought.
    with open(folder / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "src" / STAMP
        if not stamp.exists() or stamp.read_text(encoding="ascii") != VERSION:
            fetch(folder)


def fetch(folder):
    if not is_whole(folder):
        print(f"fetching the Debian source package {PACKAGE} {VERSION}", flush=True)
        download(folder)
        if not is_whole(folder):
            raise Failed(f"apt-get source {PACKAGE} brought other files than expected; {HINT}")
    unpacked = folder / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    # --no-check: the archives were verified above, and a signature check would need Debian's developer keyring.
    run(["dpkg-source", "--no-check", "-x", f"{PACKAGE}_{VERSION}.dsc", str(unpacked)], folder, "dpkg-source")
    # Files from the archive are years old; a build compares times.
    for path in (unpacked / "src").rglob("*"):
        path.touch()
    (unpacked / "src" / STAMP).write_text(VERSION, encoding="ascii")
    shutil.rmtree(folder / "src", ignore_errors=True)
    (unpacked / "src").rename(folder / "src")
    shutil.rmtree(unpacked)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(pathlib.Path(sys.argv[1]).resolve())
    except Failed as error:
        sys.exit(f"fetch_lwip: {error}")
