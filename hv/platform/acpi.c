/*
 * ACPI tables for a hardware-reduced machine (ACPI 6.4 4.1): RSDP, XSDT, FADT, MADT, DSDT, one packed area at
 * ACPI_AREA. With HW_REDUCED_ACPI the guest looks for no PIC, no PIT, no PM timer and no SCI.
 */
#include "hv/platform/state.h"
#include "shared/lib/string.h"

#define PACKED __attribute__((packed))
#define LE16(x) (u8)(x), (u8)((x) >> 8)
#define LE32(x) (u8)(x), (u8)((x) >> 8), (u8)((x) >> 16), (u8)((x) >> 24)

#define MMIO_LAST 0xfebfffffull
#define IO_LAST 0xffffu

#define FADT_WBINVD 1u
#define FADT_NO_POWER_BUTTON (1u << 4) /* no fixed-hardware one */
#define FADT_NO_SLEEP_BUTTON (1u << 5)
#define FADT_RESET_REGISTER (1u << 10)
#define FADT_HW_REDUCED (1u << 20)
#define FADT_NO_VGA (1u << 2) /* IAPC_BOOT_ARCH */
#define FADT_NO_RTC (1u << 5)

/*
 * The DSDT's code, ACPI 6.4 chapter 20, in the order of its source:
 *
 *   Name (_S5, Package (2) { 5, 0 })
 *   Device (_SB.PCI0) { PNP0A03: bus 0, its configuration ports, windows for I/O and memory BARs }
 *   Device (_SB.COM1) { PNP0501: ports 0x3F8..0x3FF, interrupt 4, edge, active high }
 */
static const u8 dsdt_code[] = {
    0x08,
    '_',
    'S',
    '5',
    '_',
    0x12,
    0x05,
    2,
    0x0a,
    5,
    0x00, /* NameOp, PackageOp of 5 bytes: BytePrefix 5, ZeroOp */

    0x5b,
    0x82,
    0x49,
    0x06,
    0x2e,
    '_',
    'S',
    'B',
    '_',
    'P',
    'C',
    'I',
    '0', /* DeviceOp of 0x69 bytes */
    0x08,
    '_',
    'H',
    'I',
    'D',
    0x0c,
    0x41,
    0xd0,
    0x0a,
    0x03, /* EISA ID PNP0A03 */
    0x08,
    '_',
    'U',
    'I',
    'D',
    0x00, /* 0 */
    0x08,
    '_',
    'C',
    'R',
    'S',
    0x11,
    0x48,
    0x04,
    0x0a,
    0x44, /* BufferOp of 0x48 bytes: 0x44 of data */
    0x88,
    LE16(13),
    2,
    0x0c,
    0x00,
    LE16(0),
    LE16(0),
    LE16(0),
    LE16(0),
    LE16(1), /* bus numbers 0..0 */
    0x47,
    1,
    LE16(0xcf8),
    LE16(0xcf8),
    1,
    8, /* I/O 0xCF8..0xCFF */
    0x88,
    LE16(13),
    1,
    0x0c,
    0x03,
    LE16(0),
    LE16(PLATFORM_BAR_PORTS),
    LE16(IO_LAST),
    LE16(0),
    LE16(IO_LAST - PLATFORM_BAR_PORTS + 1), /* I/O window */
    0x87,
    LE16(23),
    0,
    0x0c,
    0x01,
    LE32(0),
    LE32(PLATFORM_MMIO_BASE),
    LE32(MMIO_LAST),
    LE32(0),
    LE32(MMIO_LAST - PLATFORM_MMIO_BASE + 1), /* memory window, not cacheable, writable */
    0x79,
    0x00, /* end tag */

    0x5b,
    0x82,
    0x36,
    0x2e,
    '_',
    'S',
    'B',
    '_',
    'C',
    'O',
    'M',
    '1', /* DeviceOp of 0x36 bytes */
    0x08,
    '_',
    'H',
    'I',
    'D',
    0x0c,
    0x41,
    0xd0,
    0x05,
    0x01, /* EISA ID PNP0501 */
    0x08,
    '_',
    'U',
    'I',
    'D',
    0x00, /* 0 */
    0x08,
    '_',
    'C',
    'R',
    'S',
    0x11,
    0x16,
    0x0a,
    0x13, /* BufferOp of 0x16 bytes: 0x13 of data */
    0x47,
    1,
    LE16(PLATFORM_UART_PORT),
    LE16(PLATFORM_UART_PORT),
    1,
    8, /* I/O */
    0x89,
    LE16(6),
    0x03,
    1,
    LE32(PLATFORM_UART_IRQ), /* consumer, edge, high, exclusive */
    0x79,
    0x00,
};

struct acpi_header { /* 5.2.6 */
    char signature[4];
    u32 length;
    u8 revision, checksum;
    char oem_id[6], oem_table_id[8];
    u32 oem_revision;
    char creator_id[4];
    u32 creator_revision;
} PACKED;
_Static_assert(sizeof(struct acpi_header) == 36, "5.2.6");

struct acpi_rsdp { /* 5.2.5.3 */
    char signature[8];
    u8 checksum; /* of the first 20 bytes */
    char oem_id[6];
    u8 revision;
    u32 rsdt; /* none */
    u32 length;
    u64 xsdt;
    u8 extended_checksum;
    u8 reserved[3];
} PACKED;
_Static_assert(sizeof(struct acpi_rsdp) == 36, "5.2.5.3");

struct acpi_gas { /* 5.2.3.2 */
    u8 space, bits, offset, access;
    u64 address;
} PACKED;

struct acpi_fadt { /* 5.2.9; what hardware-reduced machines leave zero is skipped */
    struct acpi_header header;
    u8 to_boot_arch[109 - 36];
    u16 boot_arch;
    u8 reserved;
    u32 flags;
    struct acpi_gas reset;
    u8 reset_value;
    u16 arm_boot_arch;
    u8 minor_version;
    u64 x_firmware_control, x_dsdt;
    u8 to_sleep[244 - 148];
    struct acpi_gas sleep_control, sleep_status;
    u64 hypervisor_vendor;
} PACKED;
_Static_assert(sizeof(struct acpi_fadt) == 276, "5.2.9");
_Static_assert(offsetof(struct acpi_fadt, reset) == 116, "5.2.9");
_Static_assert(offsetof(struct acpi_fadt, x_dsdt) == 140, "5.2.9");

struct acpi_madt { /* 5.2.12; identity-mapped interrupts: no source overrides */
    struct acpi_header header;
    u32 lapic_address;
    u32 flags; /* bit 0, dual 8259s, is clear */
    struct {
        u8 type, length, uid, apic_id;
        u32 flags;
    } PACKED lapic;
    struct {
        u8 type, length, id, reserved;
        u32 address, gsi_base;
    } PACKED ioapic;
} PACKED;

struct acpi_tables {
    struct acpi_rsdp rsdp;
    u8 align[28];
    struct {
        struct acpi_header header;
        u64 entry[2];
        u8 align[12];
    } PACKED xsdt;
    struct acpi_fadt fadt;
    u8 align_fadt[12];
    struct acpi_madt madt;
    u8 align_madt[64 - sizeof(struct acpi_madt) % 64];
    struct {
        struct acpi_header header;
        u8 code[sizeof(dsdt_code)];
    } PACKED dsdt;
} PACKED;
_Static_assert(ACPI_AREA + sizeof(struct acpi_tables) <= LOW_RESERVED_END, "fits below 1 MiB");

#define TABLE_ADDRESS(table) (ACPI_AREA + offsetof(struct acpi_tables, table))

/* What is added to the sum of the bytes to make it zero. */
static u8 checksum(const void *data, u64 length)
{
    u8 sum = 0;
    for (u64 i = 0; i < length; i++)
        sum += ((const u8 *)data)[i];
    return (u8)-sum;
}

/* Last: it closes the table with its checksum. */
static void seal(struct acpi_header *header, const char signature[4], u8 revision, u32 length)
{
    memcpy(header->signature, signature, 4);
    header->length = length;
    header->revision = revision;
    memcpy(header->oem_id, "BLKHD ", 6);
    memcpy(header->oem_table_id, "BULKHEAD", 8);
    header->oem_revision = 1;
    memcpy(header->creator_id, "BLKH", 4);
    header->creator_revision = 1;
    header->checksum = checksum(header, length);
}

static struct acpi_gas io_register(u16 port)
{
    return (struct acpi_gas){.space = 1, .bits = 8, .access = 1, .address = port};
}

static void write_fadt(struct acpi_fadt *fadt)
{
    fadt->boot_arch = FADT_NO_VGA | FADT_NO_RTC; /* no 8042 and no legacy devices: bits 0, 1 clear */
    fadt->flags = FADT_WBINVD | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON | FADT_RESET_REGISTER | FADT_HW_REDUCED;
    fadt->reset = io_register(PLATFORM_RESET_PORT);
    fadt->reset_value = 1;
    fadt->minor_version = 4;
    fadt->x_dsdt = TABLE_ADDRESS(dsdt);
    fadt->sleep_control = io_register(PLATFORM_SLEEP_PORT);
    fadt->sleep_status = io_register(PLATFORM_SLEEP_STATUS_PORT);
    memcpy(&fadt->hypervisor_vendor, "BULKHEAD", 8);
    seal(&fadt->header, "FACP", 6, sizeof(*fadt));
}

static void write_madt(struct acpi_madt *madt)
{
    madt->lapic_address = (u32)PLATFORM_LAPIC_BASE;
    madt->lapic.length = sizeof(madt->lapic); /* type 0: also for x2APIC IDs below 255 */
    madt->lapic.flags = 1;                    /* enabled */
    madt->ioapic.type = 1;
    madt->ioapic.length = sizeof(madt->ioapic);
    madt->ioapic.address = (u32)PLATFORM_IOAPIC_BASE;
    seal(&madt->header, "APIC", 5, sizeof(*madt));
}

status_t acpi_write(struct vm *vm, u64 *rsdp)
{
    struct acpi_tables *tables = vm_ram(vm, GPA(ACPI_AREA), sizeof(*tables));
    if (!tables)
        return ERR_RANGE;
    memset(tables, 0, sizeof(*tables));
    memcpy(tables->dsdt.code, dsdt_code, sizeof(dsdt_code));
    seal(&tables->dsdt.header, "DSDT", 2, sizeof(tables->dsdt));
    write_madt(&tables->madt);
    write_fadt(&tables->fadt);
    tables->xsdt.entry[0] = TABLE_ADDRESS(fadt);
    tables->xsdt.entry[1] = TABLE_ADDRESS(madt);
    seal(&tables->xsdt.header, "XSDT", 1, sizeof(tables->xsdt) - sizeof(tables->xsdt.align));

    memcpy(tables->rsdp.signature, "RSD PTR ", 8);
    memcpy(tables->rsdp.oem_id, "BLKHD ", 6);
    tables->rsdp.revision = 2;
    tables->rsdp.length = sizeof(tables->rsdp);
    tables->rsdp.xsdt = TABLE_ADDRESS(xsdt);
    tables->rsdp.checksum = checksum(&tables->rsdp, 20);
    tables->rsdp.extended_checksum = checksum(&tables->rsdp, sizeof(tables->rsdp));
    *rsdp = TABLE_ADDRESS(rsdp);
    return OK;
}
