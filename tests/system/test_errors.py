"""Without a net: what is missing or wrong gives one clear line, with file and line where there is one, and nothing runs."""

from harness import case, check, driver, guest, line_of, main, manifest

LABEL = "errors"
TIMEOUT = 420


def refused(lab, text, *expected, **keywords):
    """Boots text and expects one `bulkhead: ` line that holds each of these strings, and nothing started."""
    with lab.machine(text, **keywords) as machine:
        errors = machine.ends_with_error()
        for part in expected:
            check(part in errors[0], f"the error says {errors[0]!r}, {part!r} was expected in it")
        check("guestos" not in machine.text.replace(errors[0], ""), "the guest printed something")
    return errors[0]


@case
def unknown_key(lab):
    text = manifest(driver(devise="pci:00:1f.2"), guest())
    refused(lab, text, f"manifest.ini:{line_of(text, 'devise')}:", "devise", "[vm blk0]")


@case
def duplicate_device(lab):
    text = manifest(driver("blk0"), driver("blk1"), guest())
    second = max(n for n, line in enumerate(text.splitlines(), 1) if line.startswith("device"))
    refused(lab, text, f"manifest.ini:{second}:", "device")


@case
def memory_that_does_not_add_up(lab):
    text = manifest(driver(), guest(memory="2G"))
    refused(lab, text, f"manifest.ini:{line_of(text, 'memory = 2G')}:", "does not add up")


@case
def guest_larger_than_its_machine(lab):
    text = manifest(driver(), guest(memory="3200M"))
    refused(lab, text, f"manifest.ini:{line_of(text, 'memory = 3200M')}:", "at most 3072M", memory=5120)


@case
def guest_image_that_does_not_fit(lab):
    # The smallest memory that a manifest allows is more than the image needs: the image is made to claim more.
    image = bytearray(lab.image("guestos.elf"))
    grow_segment(image, 100 << 20)
    text = manifest(driver(), guest(memory="16M"))
    refused(lab, text, f"manifest.ini:{line_of(text, 'memory = 16M')}:", "guestos.elf", "does not fit",
            replace={"guestos.elf": bytes(image)})


def grow_segment(image, size):
    """Raise p_memsz of the program's last PT_LOAD (ELF64: e_phoff at 32, e_phentsize at 54, e_phnum at 56)."""
    table = int.from_bytes(image[32:40], "little")
    entry = int.from_bytes(image[54:56], "little")
    loads = [at for at in (table + i * entry for i in range(int.from_bytes(image[56:58], "little")))
             if int.from_bytes(image[at:at + 4], "little") == 1]
    at = max(loads, key=lambda header: int.from_bytes(image[header + 24:header + 32], "little"))
    image[at + 40:at + 48] = size.to_bytes(8, "little")


@case
def truncated_driver_image(lab):
    image = lab.image("ahci.elf")
    refused(lab, manifest(), "\\bulkhead\\ahci.elf", "truncated", replace={"ahci.elf": image[:96]})


@case
def missing_driver_image(lab):
    refused(lab, manifest(driver(image="nothere.elf"), guest()), "\\bulkhead\\nothere.elf", "not found")


@case
def missing_manifest(lab):
    refused(lab, manifest(), "\\bulkhead\\manifest.ini", "not found", replace={"manifest.ini": None})


@case
def damaged_hypervisor_image(lab):
    refused(lab, manifest(), "\\bulkhead\\hv.elf", replace={"hv.elf": b"MZ" + bytes(4096)})


@case
def absent_device(lab):
    text = manifest(driver(device="pci:00:1e.0"), guest())
    refused(lab, text, f"manifest.ini:{line_of(text, 'device')}", "00:1e.0")


@case
def no_iommu(lab):
    text = manifest()
    refused(lab, text, f"manifest.ini:{line_of(text, 'device')}:", "no IOMMU", "blk0", iommu=False)


@case
def no_iommu_but_allowed(lab):
    """With dma = unprotected the machine works without an IOMMU, and says what is missing wherever one looks."""
    with lab.machine(manifest(driver(dma="unprotected"), guest()), iommu=False) as machine:
        machine.boot()
        check(any("WITHOUT protection" in line for line in machine.log()), "the boot log does not warn")
        check("unprotected" in " ".join(machine.control.raw("status")), "`status` does not say `unprotected`")
        machine.run("blk read 0 2048 qd 8")


@case
def virtio_past_the_iommu(lab):
    """QEMU's VirtIO devices use host addresses unless told otherwise; a legacy interface knows nothing else."""
    for model in ("virtio-blk-pci,disable-legacy=on", "virtio-blk-pci,disable-modern=on,disable-legacy=off"):
        text = manifest(driver(image="virtio_blk.elf", device="pci:00:10.0"), guest())
        refused(lab, text, f"manifest.ini:{line_of(text, 'device')}:", "pci:00:10.0", "iommu_platform=on",
                devices=[f"{model},drive=past,addr=10.0,romfile="],
                extra=["-drive", "if=none,id=past,driver=null-co,read-zeroes=on"])


@case
def driver_that_keeps_dying(lab):
    """Past the policy's limit the device answers with I/O errors, and the guest lives."""
    text = manifest(driver(limit="5", window="60s", give_up="errors"), guest())
    with lab.machine(text) as machine:
        machine.boot()
        outcomes = [machine.inject("blk0", "crash").outcome for _ in range(6)]
        check(outcomes == ["recovered"] * 5 + ["gave-up"], f"outcomes of six crashes in a row: {outcomes}")
        output, status = machine.command("blk read 0 128", 60)
        check(status != 0, f"reading a dead disk succeeded: {output}")
        machine.run("stat", 20)
        machine.power_off()


if __name__ == "__main__":
    main()
