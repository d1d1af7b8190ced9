/*
 * The platform's state and what its files call in each other. Only hv/platform includes this.
 *
 * One struct platform, for the one main guest: made at boot, never freed. All of it is changed under the hv lock.
 * Guest-physical addresses in it (PV EOI) were checked against the VM's RAM, whose size never changes, but go through
 * vm_ram() again at each use.
 */
#pragma once

#include "hv/platform/platform.h"
#include "shared/x86/registers.h"

/* Where platform_create() puts what the guest reads at start: above conventional memory, listed as reserved in the
 * memory map. */
#define PVH_AREA 0x9f000ull  /* start info, memory map, command line: one page */
#define ACPI_AREA 0xe0000ull /* RSDP and tables */
#define LOW_RESERVED_END 0x100000ull
#define GUEST_RAM_MIN MIB(2)

struct lapic {    /* SDM 3A 10.12; always in x2APIC mode, its ID is 0 */
    u64 reg[64];  /* by MSR index - 0x800, as the guest reads them; PPR is made when it is read */
    u64 deadline; /* TSC at which the timer fires; 0: not armed */
    bool nmi;     /* one came that the vCPU has not taken */
};

#define IOAPIC_PINS 24u

struct ioapic {
    u32 entry[IOAPIC_PINS][2]; /* redirection table */
    u32 level;                 /* pins that are asserted now */
    u32 select;
};

#define UART_FIFO 16u

struct uart {
    u8 reg[10]; /* as written; the last two are the divisor */
    u8 fifo[UART_FIFO];
    u32 head, tail;        /* counted on for ever: their difference is what it holds */
    bool transmit_pending; /* the transmitter became empty and IIR was not read since */
};

struct platform {
    struct lapic lapic;
    struct ioapic ioapic;
    struct uart uart;
    u64 pv_eoi_msr;      /* as written */
    bool pv_eoi_offered; /* the guest's flag is set: it may end the interrupt without an exit */
    u64 clock_start;     /* TSC at the guest's start: zero of its kvm-clock */
    u32 pci_address;     /* 0xCF8 */
    bool restarting;     /* its vCPU is stopped; memory up to `wiped` is zero */
    u64 wiped;
    const void *image;
    u64 image_size;
    struct platform_stats stats;
};

/* lapic.c; the reset is that of a zeroed one */
#define MSR_X2APIC_LAST 0x8ffu
void lapic_reset(struct lapic *lapic);
bool lapic_msr(struct vm *vm, u32 index, bool write, u64 *value);
/* End the interrupt of the highest priority that is in service. */
void lapic_end_interrupt(struct vm *vm);
/* -1: none. It need not be deliverable now. */
int lapic_highest_request(const struct lapic *lapic);

/* pv_eoi.c: a vector was accepted; what was offered no longer holds. */
void pv_eoi_offer(struct vm *vm);
void pv_eoi_withdraw(struct vm *vm);

/* The guest writes this to one of KVM's MSRs. False: #GP, nothing changed. */
bool clock_set_system_time(struct vm *vm, u64 value);
bool pv_eoi_set(struct vm *vm, u64 value);

void ioapic_reset(struct ioapic *ioapic);
void ioapic_memory(struct ioapic *ioapic, u32 offset, u8 width, bool write, u64 *value);
void ioapic_set_pin(struct vm *vm, u32 pin, bool level);

/* Port handlers: offset from the first port of the range. On a read *value is all ones at first. */
void uart_port(struct vm *vm, u32 offset, u8 width, bool write, u32 *value);
void pci_bus_port(struct vm *vm, u32 offset, u8 width, bool write, u32 *value);

/* cpuid.c: pure; out holds the host's values on entry, zeros when the host has no such leaf. */
void cpuid_filter(u32 leaf, u32 subleaf, u32 out[4]);

/* acpi.c: write the tables to the guest's memory at ACPI_AREA; the RSDP is the first. */
void acpi_write(void *area);

/* pvh.c: copy the image's segments into wiped RAM, write the start info, set the vCPU's start state. */
NODISCARD status_t pvh_load(struct vm *vm, const char **why);
