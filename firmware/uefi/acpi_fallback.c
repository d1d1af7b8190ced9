/*
 * Firmware without ACPI tables (OVMF gets its tables from QEMU, and Bochs has none for it): find what a PC with a PIIX4
 * has, and make tables of it.
 */
#include "firmware/uefi/acpi_build.h"
#include "firmware/uefi/loader.h"
#include "shared/pci/ports.h"
#include "shared/pci/registers.h"
#include "shared/x86/apic.h"
#include "shared/x86/registers.h"

/* UEFI PI 1.7 volume 2, 13.4; the functions behind these two are not called. */
struct processor_information {
    UINT64 id; /* APIC id */
    UINT32 flags;
    UINT32 location[3];
    UINT32 extended[6];
};
#define PROCESSOR_ENABLED 2u

struct mp_services {
    EFI_STATUS(EFIAPI *get_count)(struct mp_services *this, UINTN *count, UINTN *enabled);
    EFI_STATUS(EFIAPI *get_information)(struct mp_services *this, UINTN number, struct processor_information *out);
};

#define IOAPIC_BASE 0xfec00000u
#define PIIX4_POWER 0x71138086u /* 82371AB (290562) 7: power management function */
#define PIIX4_PMBA 0x40u
#define PIIX4_PMREGMISC 0x80u
#define PMREGMISC_ENABLE 1u
#define PM_TIMER_OFFSET 8u

static u32 config_read(u16 devfn, u32 offset)
{
    return io_in32(pci_port_select(devfn, offset));
}

/* 0: no PIIX4, or its registers are switched off. */
static u16 pm_timer_find(void)
{
    for (u16 devfn = 0; devfn < 256; devfn++) {
        if (config_read(devfn, PCI_VENDOR) != PIIX4_POWER || !(config_read(devfn, PIIX4_PMREGMISC) & PMREGMISC_ENABLE))
            continue;
        u32 base = config_read(devfn, PIIX4_PMBA) & 0xffc0;
        return base ? (u16)(base + PM_TIMER_OFFSET) : 0;
    }
    return 0;
}

static void cpus_find(struct acpi_machine *machine)
{
    EFI_GUID guid = {0x3fdda605, 0xa76e, 0x4f46, {0xad, 0x29, 0x12, 0xf4, 0x53, 0x1b, 0x3d, 0x08}};
    struct processor_information information;
    struct mp_services *services;
    UINTN count = 0, enabled;

    if (loader_boot_services()->LocateProtocol(&guid, NULL, (void **)&services) == EFI_SUCCESS &&
        services->get_count(services, &count, &enabled) != EFI_SUCCESS)
        count = 0;
    for (UINTN i = 0; i < count && machine->cpu_count < ACPI_BUILD_CPUS; i++)
        if (services->get_information(services, i, &information) == EFI_SUCCESS &&
            (information.flags & PROCESSOR_ENABLED) && information.id < 0xff)
            machine->cpu_apic_id[machine->cpu_count++] = (u8)information.id;
    if (machine->cpu_count == 0) { /* this one there is: CPUID 1, EBX 31:24 */
        u32 leaf[4];
        cpuid(1, 0, leaf);
        machine->cpu_apic_id[machine->cpu_count++] = (u8)(leaf[1] >> 24);
    }
}

static u32 ioapic_read(u32 reg)
{
    mmio_write((volatile void *)(u64)(IOAPIC_BASE + IOAPIC_SELECT), 4, reg);
    return mmio_read((volatile void *)(u64)(IOAPIC_BASE + IOAPIC_WINDOW), 4);
}

/* The one place where a PC has it; what is not there reads as all ones or zeros (82093AA 3.2). */
static void ioapic_find(struct acpi_machine *machine)
{
    u8 version = (u8)ioapic_read(IOAPIC_VERSION);

    if (version == 0 || version == 0xff)
        return;
    machine->ioapic_id = ioapic_read(IOAPIC_ID) >> 24 & 0xf;
    machine->ioapic_address = IOAPIC_BASE;
}

u64 loader_acpi_make(void)
{
    struct acpi_machine machine = {0};
    u8 *memory = loader_pages_alloc(ACPI_BUILD_SIZE, GIB(4), "ACPI tables");

    cpus_find(&machine);
    ioapic_find(&machine);
    machine.pm_timer_port = pm_timer_find();
    acpi_build(memory, (u64)memory, &machine);
    loader_say("[uefi] the firmware has no ACPI tables: made some for %u CPU%s, IOAPIC at 0x%x, PM timer at port 0x%x",
               machine.cpu_count, machine.cpu_count > 1 ? "s" : "", machine.ioapic_address, machine.pm_timer_port);
    return (u64)memory;
}
