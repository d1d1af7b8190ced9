/*
 * The platform's state and what its files call in each other. Only hv/platform includes this.
 *
 * One struct platform, for the one main guest: made at boot, never freed. All of it is changed under the hv lock.
 * Guest-physical addresses in it (PV EOI) were checked against the VM's RAM, whose size never changes, but go through
 * vm_ram() again at each use.
 */
#pragma once

#include "hv/platform/platform.h"

/* Where platform_create() puts what the guest reads at start: above conventional memory, listed as reserved in the
 * memory map. */
#define PVH_AREA 0x9f000ull  /* start info, memory map, command line: one page */
#define ACPI_AREA 0xe0000ull /* RSDP and tables */
#define LOW_RESERVED_END 0x100000ull
#define GUEST_RAM_MIN MIB(2)
#define GUEST_RAM_MAX GIB(3)

struct lapic {       /* SDM 3A 10.12; always in x2APIC mode, its ID is 0 */
    u32 reg[64];     /* by MSR index - 0x800, as the guest reads them; ICR, PPR and current count are made elsewhere */
    u32 esr_pending; /* errors since the guest's last write to ESR */
    u64 icr;
    u64 deadline; /* TSC at which the timer fires; 0: not armed */
};

#define IOAPIC_PINS 24u

struct ioapic {
    u64 entry[IOAPIC_PINS]; /* redirection table */
    u32 level;              /* pins that are asserted now */
    u32 select;
    u32 id;
};

#define UART_FIFO 16u

struct uart {
    u8 reg[8]; /* as written: interrupt enable, FIFO, line and modem control, scratch */
    u8 divisor[2];
    u8 fifo[UART_FIFO];
    u32 head, count;
    bool transmit_pending; /* the transmitter became empty and IIR was not read since */
    bool overrun;
};

struct pv_eoi {
    bool enabled;
    bool offered; /* the guest's flag is set: it may end the interrupt without an exit */
    u64 flag;     /* guest-physical */
};

enum platform_phase {
    PLATFORM_RUNNING,
    PLATFORM_DRAINING, /* the guest asked for a reset: its vCPU is stopped, requests may still reach its memory by DMA
                        */
    PLATFORM_WIPING,   /* memory up to `wiped` is zero */
};

struct platform {
    struct lapic lapic;
    struct ioapic ioapic;
    struct uart uart;
    struct pv_eoi pv_eoi;
    u64 system_time_msr; /* as written */
    u64 wall_clock_msr;
    u64 clock_start; /* TSC at the guest's start: zero of its kvm-clock */
    u32 pci_address; /* 0xCF8 */
    enum platform_phase phase;
    u64 wiped;
    const void *image;
    u64 image_size;
    struct platform_stats stats;
};

/* lapic.c */
void lapic_reset(struct lapic *lapic);
bool lapic_msr(struct vm *vm, u32 index, bool write, u64 *value);
/* Request the vector. False: not accepted (APIC disabled by software, illegal vector). */
bool lapic_raise(struct vm *vm, u8 vector, bool level);
/* End the interrupt of the highest priority that is in service. */
void lapic_end_interrupt(struct vm *vm);
/* Is the vCPU, with its ID 0, addressed? destination as in the x2APIC's ICR. */
bool lapic_is_destination(u32 destination, bool logical);
bool lapic_anything_requested(const struct lapic *lapic);
bool lapic_is_level(const struct lapic *lapic, u8 vector);

/* pv_eoi.c */
bool pv_eoi_msr(struct vm *vm, bool write, u64 *value);
void pv_eoi_offer(struct vm *vm, u8 vector);
void pv_eoi_collect(struct vm *vm);
void pv_eoi_withdraw(struct vm *vm);

/* ioapic.c */
void ioapic_reset(struct ioapic *ioapic);
void ioapic_memory(struct vm *vm, u32 offset, u8 width, bool write, u64 *value);
void ioapic_set_pin(struct vm *vm, u32 pin, bool level);
void ioapic_end_interrupt(struct vm *vm, u8 vector);

/* Port handlers: offset from the first port of the range. On a read *value is all ones at first. */
void uart_port(struct vm *vm, u32 offset, u8 width, bool write, u32 *value);
void power_port(struct vm *vm, u32 offset, u8 width, bool write, u32 *value);
void pci_bus_port(struct vm *vm, u32 offset, u8 width, bool write, u32 *value);

void uart_reset(struct uart *uart);

/* BARs of the relays' devices. False: none claims it. */
bool pci_bus_claimed_port(u16 port, u8 width, bool write, u32 *value);
bool pci_bus_claimed_memory(gpa_t address, u8 width, bool write, u64 *value);

/* clock.c */
void clock_reset(struct platform *platform);
bool clock_msr(struct vm *vm, u32 index, bool write, u64 *value);

/* cpuid.c: pure; out holds the host's values on entry, zeros when the host has no such leaf. */
void cpuid_filter(u32 leaf, u32 subleaf, u32 out[4]);

/* acpi.c: write the tables at ACPI_AREA; the address of the RSDP. ERR_RANGE when RAM ends before. */
NODISCARD status_t acpi_write(struct vm *vm, u64 *rsdp);

/* pvh.c: copy the image's segments into wiped RAM, write the start info, set the vCPU's start state. */
NODISCARD status_t pvh_load(struct vm *vm, const void *image, u64 image_size, u64 rsdp, const char **why);
