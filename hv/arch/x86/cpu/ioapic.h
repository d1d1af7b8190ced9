/*
 * The machine's IOAPICs (82093AA data sheet 3): interrupt lines of devices that send no messages. All entries are
 * masked from boot on; a line is opened for one vector, which is one driver VM's.
 *
 * A level-triggered line interrupts again at each EOI until its device is silent, which only the driver can do: so it
 * is masked in the interrupt's stub, before the EOI, and opened again when the driver waits for the next one. Whatever
 * device or driver do, that is one interrupt for each `wait`.
 *
 * Where interrupts are remapped, an entry names one of the remapping table's (VT-d 5.1.5.1), which has the vector and
 * says whose it is; the vector that the IOAPIC gets all the same tells it which EOI is meant.
 *
 * Context: boot for init and route; hv lock for open; any CPU, interrupts off, for interrupt.
 */
#pragma once

#include "hv/arch/x86/boot/acpi_tables.h"
#include "hv/pci/pci.h"

/* Map the IOAPICs that MADT names and mask every entry. Keeps `acpi`. */
void ioapic_init(const struct acpi_info *acpi);

/*
 * Bind a line to a vector on a CPU; it stays masked. ERR_NOT_FOUND: no IOAPIC has it, or DMAR does not know that one;
 * ERR_BUSY: it is another vector's; ERR_RANGE: APIC id of more than 8 bits; ERR_NO_SPACE: the remapping table is full.
 */
NODISCARD status_t ioapic_route(const struct pci_line *line, u8 vector, u32 apic_id);

/* Open all lines of the vector, or mask them and take their entries away; nothing when they are already. */
void ioapic_open(u32 vector, bool open);

/* From the stub, before the EOI: mask what is level-triggered. */
void ioapic_interrupt(u32 vector);
