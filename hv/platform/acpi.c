/*
 * ACPI tables for a hardware-reduced machine (ACPI 6.4 4.1): RSDP, XSDT, FADT, MADT, DSDT, one behind the other from
 * ACPI_AREA. With HW_REDUCED_ACPI the guest looks for no PIC, no PIT, no PM timer and no SCI.
 *
 * All of it is constant but for the checksums. A designator [n] is an offset as the specification counts it.
 */
#include "hv/platform/state.h"
#include "shared/lib/string.h"

#define LE16(x) (u8)(x), (u8)((x) >> 8)
#define LE32(x) LE16(x), LE16((x) >> 16)
#define LE64(x) LE32((u64)(x)), LE32((u64)(x) >> 32)
#define IO_REGISTER(port) 1, 8, 0, 1, LE64(port) /* 5.2.3.2: generic address of a byte port */

#define TABLE_CHECKSUM 9u
/* 5.2.6: signature, length, revision, checksum, OEM id and table id, OEM revision, creator and its revision */
#define HEADER(a, b, c, d, table, revision)                                                                            \
    a, b, c, d, LE32(sizeof(tables.table)), revision, 0, 'B', 'L', 'K', 'H', 'D', ' ', 'B', 'U', 'L', 'K', 'H', 'E',   \
        'A', 'D', LE32(1), 'B', 'L', 'K', 'H', LE32(1)
#define AT(table) (ACPI_AREA + offsetof(struct acpi_tables, table))

#define MMIO_LAST 0xfebfffffull
#define IO_LAST 0xffffu

/* 5.2.9, table 5.10: WBINVD, no fixed power and sleep buttons, reset register, hardware-reduced */
#define FADT_FLAGS (1u | 1u << 4 | 1u << 5 | 1u << 10 | 1u << 20)
#define FADT_BOOT_ARCH (1u << 2 | 1u << 5) /* no VGA, no RTC; 8042 and legacy devices: bits clear */

/*
 * The DSDT is chapter 20's code for, in the order of its source:
 *
 *   Name (_S5, Package (2) { 5, 0 })
 *   Device (_SB.PCI0) { PNP0A03: bus 0, its configuration ports, windows for I/O and memory BARs }
 *   Device (_SB.COM1) { PNP0501: ports 0x3F8..0x3FF, interrupt 4, edge, active high }
 */
// clang-format off
static struct acpi_tables {
    u8 rsdp[36], xsdt[52], fadt[276], madt[64], dsdt[210];
} tables = {
    .rsdp = { /* 5.2.5.3 */
        'R', 'S', 'D', ' ', 'P', 'T', 'R', ' ', 0, 'B', 'L', 'K', 'H', 'D', ' ', 2, LE32(0), LE32(36), LE64(AT(xsdt)),
    },
    .xsdt = {HEADER('X', 'S', 'D', 'T', xsdt, 1), LE64(AT(fadt)), LE64(AT(madt))},
    .fadt = { /* 5.2.9; hardware-reduced machines leave most of it zero */
        HEADER('F', 'A', 'C', 'P', fadt, 6),
        [109] = LE16(FADT_BOOT_ARCH),
        [112] = LE32(FADT_FLAGS),
        [116] = IO_REGISTER(PLATFORM_RESET_PORT), 1,
        [131] = 4, /* minor version */
        [140] = LE64(AT(dsdt)),
        [244] = IO_REGISTER(PLATFORM_SLEEP_PORT), IO_REGISTER(PLATFORM_SLEEP_STATUS_PORT),
        [268] = 'B', 'U', 'L', 'K', 'H', 'E', 'A', 'D', /* hypervisor vendor */
    },
    .madt = { /* 5.2.12; no dual 8259s, no overrides: interrupt n is pin n */
        HEADER('A', 'P', 'I', 'C', madt, 5), LE32(PLATFORM_LAPIC_BASE), LE32(0),
        0, 8, 0, 0, LE32(1),                              /* local APIC 0, enabled (type 0 serves x2APIC IDs below 255 too) */
        1, 12, 0, 0, LE32(PLATFORM_IOAPIC_BASE), LE32(0), /* IOAPIC 0 */
    },
    .dsdt = {
        HEADER('D', 'S', 'D', 'T', dsdt, 2),
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
    },
};
// clang-format on

/* Makes the bytes add up to zero, also when they did so before. */
static void set_checksum(u8 *table, u32 length, u32 at)
{
    u8 sum = 0;
    for (u32 i = 0; i < length; i++)
        sum += table[i];
    table[at] -= sum;
}

void acpi_write(void *area)
{
    set_checksum(tables.rsdp, 20, 8); /* the first checksum covers ACPI 1.0's part */
    set_checksum(tables.rsdp, sizeof(tables.rsdp), 32);
    set_checksum(tables.xsdt, sizeof(tables.xsdt), TABLE_CHECKSUM);
    set_checksum(tables.fadt, sizeof(tables.fadt), TABLE_CHECKSUM);
    set_checksum(tables.madt, sizeof(tables.madt), TABLE_CHECKSUM);
    set_checksum(tables.dsdt, sizeof(tables.dsdt), TABLE_CHECKSUM);
    memcpy(area, &tables, sizeof(tables));
}
