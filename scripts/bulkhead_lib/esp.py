"""The EFI system partition of one instance: a folder that QEMU serves as a FAT file system."""

import pathlib
import re
import shutil

from .ui import Failure

IMAGE_KEY = re.compile(r"^\s*(?:image|fallback)\s*=\s*([^\s#;]+)", re.MULTILINE)
LOADER = "BOOTX64.EFI"
HYPERVISOR = "hv.elf"
CHECKED = "hv-checked.elf"  # the same with the oracle and the checks of entries; where hv.elf has them, it is not built


def manifest_images(text):
    """The file names that a manifest mentions. Only to know what to copy: the loader's parser judges the text."""
    return sorted(set(IMAGE_KEY.findall(text)))


def checked(images):
    """What assemble() has to replace for a machine that checks itself: all tests and campaigns, but no measurement."""
    image = images / CHECKED
    return {HYPERVISOR: image.read_bytes()} if image.is_file() else {}


def assemble(folder, images, manifest_text, replace=None):
    """
    Make folder anew: loader, hypervisor, the manifest, and each image it names that exists in `images`. What does not
    exist is left out: the loader says so with its name. replace: {file name: bytes or None}, for tests; None removes.
    """
    folder = pathlib.Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "EFI" / "BOOT").mkdir(parents=True)
    payload = folder / "bulkhead"
    payload.mkdir()
    loader = images / LOADER
    if not loader.exists():
        raise Failure(f"{loader} was not built")
    shutil.copy(loader, folder / "EFI" / "BOOT" / LOADER)
    for name in [HYPERVISOR] + manifest_images(manifest_text):
        source = images / name
        # No separators: a manifest must not make this copy files from elsewhere.
        if "/" not in name and source.is_file():
            shutil.copy(source, payload / name)
    (payload / "manifest.ini").write_bytes(manifest_text.encode("utf-8", "surrogateescape"))
    for name, data in (replace or {}).items():
        if data is None:
            (payload / name).unlink(missing_ok=True)
        else:
            (payload / name).write_bytes(data)
