/*
 * ACPI tables for a hardware-reduced machine (ACPI 6.4 4.1): RSDP, XSDT, FADT, MADT, DSDT, at fixed places from
 * ACPI_AREA. With HW_REDUCED_ACPI the guest looks for no PIC, no PIT, no PM timer and no SCI.
 *
 * A table here is its bytes after the header; a designator [n] is an offset as the specification counts it, from the
 * header's start.
 */
#include "hv/platform/state.h"
#include "shared/lib/string.h"

#define LE16(x) (u8)(x), (u8)((x) >> 8)
#define LE32(x) LE16(x), LE16((x) >> 16)
#define LE64(x) LE32((u64)(x)), LE32((u64)(x) >> 32)
#define IO_REGISTER(port) 1, 8, 0, 1, LE64(port) /* 5.2.3.2: generic address of a byte port */
#define HEADER 36u

#define RSDP_AT ACPI_AREA
#define XSDT_AT (ACPI_AREA + 0x40)
#define FADT_AT (ACPI_AREA + 0x80)
#define MADT_AT (ACPI_AREA + 0x200)
#define DSDT_AT (ACPI_AREA + 0x280)

#define MMIO_LAST 0xfebfffffull
#define IO_LAST 0xffffu

/* 5.2.9, table 5.10: WBINVD, no fixed power and sleep buttons, reset register, hardware-reduced */
#define FADT_FLAGS (1u | 1u << 4 | 1u << 5 | 1u << 10 | 1u << 20)
#define FADT_BOOT_ARCH (1u << 2 | 1u << 5) /* no VGA, no RTC; 8042 and legacy devices: bits clear */

// clang-format off
static const u8 rsdp[36] = { /* 5.2.5.3 */
    'R', 'S', 'D', ' ', 'P', 'T', 'R', ' ', 0, 'B', 'L', 'K', 'H', 'D', ' ', 2, LE32(0), LE32(36), LE64(XSDT_AT),
};

static const u8 xsdt[] = {LE64(FADT_AT), LE64(MADT_AT)};

static const u8 fadt[276 - HEADER] = { /* 5.2.9; hardware-reduced machines leave most of it zero */
    [109 - HEADER] = LE16(FADT_BOOT_ARCH),
    [112 - HEADER] = LE32(FADT_FLAGS),
    [116 - HEADER] = IO_REGISTER(PLATFORM_RESET_PORT), 1,
    [131 - HEADER] = 4, /* minor version */
    [140 - HEADER] = LE64(DSDT_AT),
    [244 - HEADER] = IO_REGISTER(PLATFORM_SLEEP_PORT), IO_REGISTER(PLATFORM_SLEEP_STATUS_PORT),
    [268 - HEADER] = 'B', 'U', 'L', 'K', 'H', 'E', 'A', 'D', /* hypervisor vendor */
};

static const u8 madt[] = { /* 5.2.12; no dual 8259s, no overrides: interrupt n is pin n */
    LE32(PLATFORM_LAPIC_BASE), LE32(0),
    0, 8, 0, 0, LE32(1),                                 /* local APIC 0, enabled (type 0 serves x2APIC IDs below 255 too) */
    1, 12, 0, 0, LE32(PLATFORM_IOAPIC_BASE), LE32(0),    /* IOAPIC 0 */
};

/*
 * Chapter 20, in the order of its source:
 *
 *   Name (_S5, Package (2) { 5, 0 })
 *   Device (_SB.PCI0) { PNP0A03: bus 0, its configuration ports, windows for I/O and memory BARs }
 *   Device (_SB.COM1) { PNP0501: ports 0x3F8..0x3FF, interrupt 4, edge, active high }
 */
static const u8 dsdt[] = {
    0x08, '_', 'S', '5', '_', 0x12, 0x05, 2, 0x0a, 5, 0x00, /* NameOp, PackageOp of 5 bytes: BytePrefix 5, ZeroOp */

    0x5b, 0x82, 0x49, 0x06, 0x2e, '_', 'S', 'B', '_', 'P', 'C', 'I', '0', /* DeviceOp of 0x69 bytes */
    0x08, '_', 'H', 'I', 'D', 0x0c, 0x41, 0xd0, 0x0a, 0x03,               /* EISA ID PNP0A03 */
    0x08, '_', 'U', 'I', 'D', 0x00,                                       /* 0 */
    0x08, '_', 'C', 'R', 'S', 0x11, 0x48, 0x04, 0x0a, 0x44,               /* BufferOp of 0x48 bytes: 0x44 of data */
    0x88, LE16(13), 2, 0x0c, 0x00, LE16(0), LE16(0), LE16(0), LE16(0), LE16(1), /* bus numbers 0..0 */
    0x47, 1, LE16(0xcf8), LE16(0xcf8), 1, 8,                                    /* ports 0xCF8..0xCFF */
    0x88, LE16(13), 1, 0x0c, 0x03,                                              /* I/O window */
    LE16(0), LE16(PLATFORM_BAR_PORTS), LE16(IO_LAST), LE16(0), LE16(IO_LAST - PLATFORM_BAR_PORTS + 1),
    0x87, LE16(23), 0, 0x0c, 0x01,                                              /* memory window, not cacheable, writable */
    LE32(0), LE32(PLATFORM_MMIO_BASE), LE32(MMIO_LAST), LE32(0), LE32(MMIO_LAST - PLATFORM_MMIO_BASE + 1),
    0x79, 0x00,                                                                 /* end */

    0x5b, 0x82, 0x36, 0x2e, '_', 'S', 'B', '_', 'C', 'O', 'M', '1',       /* DeviceOp of 0x36 bytes */
    0x08, '_', 'H', 'I', 'D', 0x0c, 0x41, 0xd0, 0x05, 0x01,               /* EISA ID PNP0501 */
    0x08, '_', 'U', 'I', 'D', 0x00,                                       /* 0 */
    0x08, '_', 'C', 'R', 'S', 0x11, 0x16, 0x0a, 0x13,                     /* BufferOp of 0x16 bytes: 0x13 of data */
    0x47, 1, LE16(PLATFORM_UART_PORT), LE16(PLATFORM_UART_PORT), 1, 8,
    0x89, LE16(6), 0x03, 1, LE32(PLATFORM_UART_IRQ),                      /* consumer, edge, high, exclusive */
    0x79, 0x00,
};
// clang-format on

static const struct acpi_table {
    char signature[5];
    u8 revision;
    u64 address;
    const u8 *body;
    u32 size;
} tables[] = {
    {"XSDT", 1, XSDT_AT, xsdt, sizeof(xsdt)},
    {"FACP", 6, FADT_AT, fadt, sizeof(fadt)},
    {"APIC", 5, MADT_AT, madt, sizeof(madt)},
    {"DSDT", 2, DSDT_AT, dsdt, sizeof(dsdt)},
};

_Static_assert(XSDT_AT + HEADER + sizeof(xsdt) <= FADT_AT, "tables do not overlap");
_Static_assert(FADT_AT + HEADER + sizeof(fadt) <= MADT_AT, "tables do not overlap");
_Static_assert(MADT_AT + HEADER + sizeof(madt) <= DSDT_AT, "tables do not overlap");
_Static_assert(DSDT_AT + HEADER + sizeof(dsdt) <= ACPI_AREA + PAGE_SIZE, "the area is one page");

/* What is added to the sum of the bytes to make it zero. */
static u8 checksum(const u8 *data, u32 length)
{
    u8 sum = 0;
    for (u32 i = 0; i < length; i++)
        sum += data[i];
    return (u8)-sum;
}

static void write_table(u8 *to, const struct acpi_table *table)
{
    /* 5.2.6: signature, length, revision, checksum, OEM id and table id, OEM revision, creator and its revision */
    const u8 header[HEADER] = {[9] = 0, 'B', 'L', 'K', 'H',     'D', ' ', 'B', 'U', 'L',    'K',
                               'H',     'E', 'A', 'D', LE32(1), 'B', 'L', 'K', 'H', LE32(1)};
    u32 length = HEADER + table->size;
    memcpy(to, header, HEADER);
    memcpy(to, table->signature, 4);
    memcpy(to + 4, &length, sizeof(length));
    to[8] = table->revision;
    memcpy(to + HEADER, table->body, table->size);
    to[9] = checksum(to, length);
}

status_t acpi_write(struct vm *vm, u64 *rsdp_address)
{
    u8 *area = vm_ram(vm, GPA(ACPI_AREA), PAGE_SIZE);
    if (!area)
        return ERR_RANGE;
    for (u32 i = 0; i < ARRAY_SIZE(tables); i++)
        write_table(area + (tables[i].address - ACPI_AREA), &tables[i]);
    memcpy(area, rsdp, sizeof(rsdp));
    area[8] = checksum(area, 20); /* the first checksum covers ACPI 1.0's part */
    area[32] = checksum(area, sizeof(rsdp));
    *rsdp_address = RSDP_AT;
    return OK;
}
