/* Attempts by the CPU: memory that is not this VM's, interrupts for others. Each of them should end it. */
#include "drivervm/drivers/rogue/rogue.h"
#include "drivervm/runtime/io.h"
#include "shared/x86/registers.h"

#define HYPERVISOR MIB(64) /* or whoever has this host memory: it is not ours */
#define POISON 0x5a5a5a5a5a5a5a5aull
#define UNHANDED (DRIVER_WINDOW_BASE + MIB(200)) /* of the guest's memory, in no request */
#define APIC_ICR_LOW 0xfee00300ull               /* SDM 3A 10.6.1 */
#define MSR_X2APIC_ICR 0x830u                    /* SDM 3A 10.12.9 */
#define NMI_TO_ALL 0x000c4400u                   /* delivery NMI, all but self */

static void load(u64 address)
{
    rogue_say("READ %llx", (unsigned long long)*(const volatile u64 *)address);
}

static void store(u64 address)
{
    *(volatile u64 *)address = POISON;
    rogue_say("WROTE, then read %llx", (unsigned long long)*(const volatile u64 *)address);
}

static void load_behind_ram(void)
{
    load(driver_info->ram_size);
}

static void store_behind_ram(void)
{
    store(driver_info->ram_size + MIB(1));
}

static void load_far(void)
{
    load(GIB(4));
}

static void store_hypervisor(void)
{
    store(HYPERVISOR);
}

static void fetch_outside(void)
{
    ((void (*)(void))HYPERVISOR)();
    rogue_say("RAN");
}

static void load_guest(void)
{
    load(UNHANDED);
}

static void store_guest(void)
{
    store(UNHANDED);
}

static void store_request_ring(void)
{
    store((u64)driver_rings[0].cells);
}

static void store_info(void)
{
    store(DRIVER_INFO_ADDRESS);
}

static void store_events(void)
{
    store(DRIVER_EVENTS_ADDRESS);
}

/* The table of 1 GiB pages that we were started with: it lies below our image (shared/abi/hypercall.h). */
static u64 *start_table(void)
{
    for (u64 page = PAGE_SIZE; page < DRIVER_LOAD_ADDRESS; page += PAGE_SIZE)
        if ((((u64 *)page)[1] & ~PAGE_MASK) == GIB(1))
            return (u64 *)page;
    return NULL;
}

/* It is ours to write, and leads to the same nested table: an alias of foreign memory is no way around. */
static void own_tables(void)
{
    u64 *table = start_table();

    if (table == NULL) {
        rogue_say("NO table");
        return;
    }
    table[5] = table[0]; /* not used so far, so no TLB has it as it was */
    store(GIB(5) + HYPERVISOR);
}

static const struct rogue_attempt memory[] = {
    {"load-behind-ram", "a driver VM reads no memory but its own", load_behind_ram, ROGUE_AFTER_OFFER},
    {"store-behind-ram", "a driver VM writes no memory but its own", store_behind_ram, ROGUE_AFTER_OFFER},
    {"load-far", "a driver VM reads no memory but its own", load_far, ROGUE_AFTER_OFFER},
    {"store-hypervisor", "nobody writes the hypervisor's memory", store_hypervisor, ROGUE_AFTER_OFFER},
    {"own-tables", "a VM's page tables give it no memory", own_tables, ROGUE_AFTER_OFFER},
    {"fetch-outside", "a driver VM runs no code but its own", fetch_outside, ROGUE_AFTER_OFFER},
    {"load-guest", "the guest's pages are out of reach before a request", load_guest, ROGUE_AFTER_OFFER},
    {"store-guest", "the guest's pages are out of reach before a request", store_guest, ROGUE_AFTER_OFFER},
    {"store-request-ring", "what was asked of a driver it cannot rewrite", store_request_ring, ROGUE_AFTER_OFFER},
    {"store-info", "the contract's pages are the hypervisor's", store_info, ROGUE_AFTER_OFFER},
    {"store-events", "the contract's pages are the hypervisor's", store_events, ROGUE_AFTER_OFFER},
};

static void ipi_xapic(void)
{
    *(volatile u32 *)APIC_ICR_LOW = NMI_TO_ALL;
    rogue_say("SENT");
}

static void ipi_x2apic(void)
{
    msr_write(MSR_X2APIC_ICR, NMI_TO_ALL);
    rogue_say("SENT");
}

static void apic_base(void)
{
    msr_write(MSR_APIC_BASE, MIB(1));
    rogue_say("MOVED");
}

static void int_instruction(void)
{
    asm volatile("int $0x40");
    rogue_say("DELIVERED");
}

static void port_out(u16 port, u8 value)
{
    port_write8(port, value);
    rogue_say("WRITTEN");
}

static void port_pic(void)
{
    port_out(0x20, 0x11);
}

static void port_reset(void)
{
    port_out(0xcf9, 6);
}

static void port_config(void)
{
    port_out(0xcf8, 0x80);
}

/* Interrupts off and halted: nothing wakes this CPU but what the hypervisor does. */
static void halt(void)
{
    asm volatile("cli; hlt");
    rogue_say("WOKEN");
}

static void triple_fault(void)
{
    static const struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) nothing = {0, 0};
    asm volatile("lidt %0; ud2" : : "m"(nothing));
}

static const struct rogue_attempt interrupts[] = {
    {"ipi-xapic", "a driver VM interrupts nobody", ipi_xapic, ROGUE_AFTER_OFFER},
    {"ipi-x2apic", "a driver VM interrupts nobody", ipi_x2apic, ROGUE_AFTER_OFFER},
    {"apic-base", "the host's MSRs are out of reach", apic_base, ROGUE_AFTER_OFFER},
    {"int-instruction", "an INT stays in its VM", int_instruction, ROGUE_AFTER_OFFER},
    {"port-pic", "ports are the device's own", port_pic, ROGUE_AFTER_OFFER},
    {"port-reset", "ports are the device's own", port_reset, ROGUE_AFTER_OFFER},
    {"port-config", "configuration space is reached through calls only", port_config, ROGUE_AFTER_OFFER},
    {"halt", "a driver VM's halt stops no CPU of the host", halt, ROGUE_AFTER_OFFER},
    {"triple-fault", "a driver VM's shutdown is its own", triple_fault, ROGUE_AFTER_OFFER},
};

const struct rogue_group rogue_cpu_groups[2] = {ROGUE_GROUP("memory", memory, false),
                                                ROGUE_GROUP("interrupts", interrupts, false)};
