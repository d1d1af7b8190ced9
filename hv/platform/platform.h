/*
 * What the main guest sees beside its memory and its VirtIO devices; docs/PLATFORM.md tells it to guest authors.
 *
 *   platform.c creation, restart, power, dispatch            msr.c     which MSRs there are
 *   lapic.c   x2APIC by MSR, timer                           ioapic.c  one, at 0xFEC00000
 *   pv_eoi.c  end of interrupt by memory                     clock.c   kvm-clock
 *   uart.c    16550 at 0x3F8, IRQ 4                          cpuid.c   CPUID filter, facade of KVM
 *   acpi.c    hardware-reduced tables in guest memory        pvh.c     start of an ELF64 guest
 *   pci_bus.c configuration by 0xCF8/0xCFC
 * Context: hv lock held. One vCPU.
 */
#pragma once

#include "hv/core/vm.h"

#define PLATFORM_RAM_MAX GIB(3)
#define PLATFORM_LAPIC_BASE 0xfee00000ull
#define PLATFORM_IOAPIC_BASE 0xfec00000ull
#define PLATFORM_MMIO_BASE 0xe0000000ull /* MSI-X BARs from here; guest RAM ends below (at most 3 GiB) */
#define PLATFORM_UART_PORT 0x3f8u
#define PLATFORM_UART_IRQ 4u
#define PLATFORM_SLEEP_PORT 0x604u /* FADT SLEEP_CONTROL_REG: SLP_EN | SLP_TYP << 2 */
#define PLATFORM_SLEEP_STATUS_PORT 0x605u
#define PLATFORM_RESET_PORT 0x606u /* FADT RESET_REG, value 1 */
#define PLATFORM_BAR_PORTS 0xc000u /* I/O BARs of VirtIO devices from here */

struct platform;

/*
 * Create the platform for the main guest, load its image, write ACPI tables and the PVH start info, set the vCPU's
 * start state. Errors name what does not fit in *why (static text). The image is untrusted; it must stay where it is,
 * restarts load it again. vm->name, config, ram, ram_size and the vCPU are set before; the vCPU's scheduling state is
 * left alone.
 */
NODISCARD status_t platform_create(struct vm *vm, const void *image, u64 image_size, const char **why);

/*
 * Reset of the guest (its own request): stops the vCPU and resets the devices at once. platform_tick() does the rest
 * when no request is in flight any more: memory wiped, image loaded again, vCPU at its start state, runnable.
 */
void platform_restart(struct vm *vm);
/* Every millisecond, on any CPU: goes on with a restart. Cheap when there is none. */
void platform_tick(struct vm *vm);

/* Port access; every port exits. Reads of what does not exist give all ones, writes are dropped. *value in and out,
 * zero-extended. */
void platform_port(struct vm *vm, u16 port, u8 width, bool write, u32 *value);

/* Access to guest-physical memory that is not RAM. False: nothing lives there. */
bool platform_memory(struct vm *vm, gpa_t address, u8 width, bool write, u64 *value);

/* RDMSR/WRMSR. False: inject #GP(0). */
bool platform_msr(struct vm *vm, u32 index, bool write, u64 *value);

/* CPUID as every guest sees it; host values are filtered here. */
void platform_cpuid(u32 leaf, u32 subleaf, u32 out[4]); /* eax ebx ecx edx */

/* A message-signalled interrupt that a device of the guest's sends (address 0xFEExxxxx, data as SDM 3A 10.11). Wakes or
 * kicks the vCPU. */
void platform_message(struct vm *vm, u64 address, u32 data);

/* The highest vector that the vCPU could take now (TPR/PPR respected), or -1. */
int platform_pending_vector(struct vm *vm);
/* The vCPU takes it now: IRR -> ISR (and the PV EOI bit when that applies). */
void platform_accept_vector(struct vm *vm, u8 vector);
/* An NMI that the guest has sent itself waits; the vCPU takes it now. */
bool platform_nmi_pending(const struct vm *vm);
void platform_accept_nmi(struct vm *vm);
/* Right after each exit of the guest: collect a PV EOI. Cheap. */
void platform_after_exit(struct vm *vm);

/* TSC when the guest's timer wants to fire; ~0 when not armed. */
u64 platform_timer_deadline(struct vm *vm);
/* The time is `now`: fire what is due. Wakes the vCPU. */
void platform_timer_expire(struct vm *vm, u64 now);

/* A character arrived on the physical console. False: no room now, keep it. */
bool platform_console_input(struct vm *vm, u8 byte);

/* Counters for `stats`. */
struct platform_stats {
    u64 interrupts, timer_interrupts, eoi_exits, pv_eois, console_in, console_out;
};
struct platform_stats platform_stats(const struct vm *vm);
