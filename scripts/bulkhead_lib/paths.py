"""Where things are. Everything that is made lies under build/, which git ignores."""

import hashlib
import os
import pathlib
import stat
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD", ROOT / "build"))
RUN = BUILD / "run"
TEST_LOGS = BUILD / "test-logs"
DEFAULT_MANIFEST = ROOT / "manifests" / "default.ini"
IDE_MANIFEST = ROOT / "manifests" / "bochs.ini"

# sockaddr_un holds 108 bytes; a clone may lie deeper than that.
SOCKET_PATH_MAX = 100


def images(preset):
    return BUILD / preset / "images"


def instance(name):
    return RUN / name


def socket_path(folder, name):
    """The path of a UNIX socket of an instance: in its folder, or where that is too long, in a private folder in /tmp."""
    path = pathlib.Path(folder) / name
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
        return path
    digest = hashlib.sha1(os.fsencode(pathlib.Path(folder).resolve())).hexdigest()[:12]
    private = pathlib.Path(tempfile.gettempdir()) / f"bulkhead-{os.getuid()}-{digest}"
    private.mkdir(mode=0o700, exist_ok=True)
    info = private.lstat()
    # Somebody else's folder of that name must not receive our sockets.
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise OSError(f"{private} belongs to somebody else")
    return private / name
