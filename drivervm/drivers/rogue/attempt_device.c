/* Attempts with the device: DMA to everywhere, messages, traps for the successor, the MSI-X table. */
#include "drivervm/drivers/rogue/rogue.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"

#define POISON 0x5a
#define HYPERVISOR MIB(64)
#define UNHANDED (DRIVER_WINDOW_BASE + MIB(200)) /* of the guest's memory, in no request */
#define VTD_REGISTERS 0xfed90000ull
#define MESSAGE 0xfee00000ull /* to CPU 0, old format; with bit 4: by remapping entry (VT-d 5.1.2) */
#define TRAP_US 250000u       /* the device begins a transfer after 100 ms */

static void dma(u64 address)
{
    if (edu_open())
        edu_write(address, POISON);
}

/* Where it may, to show that the device would do what it is told elsewhere. */
static void dma_own(void)
{
    static u8 page[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

    dma((u64)page);
    rogue_say("own memory %s", page[0] == POISON && page[EDU_TRANSFER - 1] == POISON ? "written" : "NOT written");
}

static void dma_hypervisor(void)
{
    dma(HYPERVISOR);
}

static void dma_behind_ram(void)
{
    dma(driver_info->ram_size);
}

static void dma_guest(void)
{
    dma(UNHANDED);
}

static void dma_rings(void)
{
    dma(DRIVER_RINGS_ADDRESS);
}

static void dma_iommu(void)
{
    dma(VTD_REGISTERS);
}

/* Reading is worse than writing for whoever has secrets. */
static void dma_read(void)
{
    static u8 page[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

    if (!edu_open())
        return;
    edu_start(HYPERVISOR, false, EDU_TRANSFER);
    rogue_say("the device %s", edu_finish() ? "says that it is done" : "is cut off");
    edu_start((u64)page, true, EDU_TRANSFER);
    if (!edu_finish())
        return;
    u8 any = 0;
    for (u32 i = 0; i < EDU_TRANSFER; i++)
        any |= page[i];
    rogue_say("%s", any ? "READ something" : "read zeros");
}

static void message(u64 address, u32 data)
{
    static u32 page[PAGE_SIZE / sizeof(u32)] __attribute__((aligned(PAGE_SIZE)));

    if (!edu_open())
        return;
    page[0] = data;
    edu_start((u64)page, false, sizeof(data));
    bool filled = edu_finish();
    edu_start(address, true, sizeof(data));
    rogue_say("%s", filled && edu_finish() ? "sent" : "the device is cut off");
}

static void message_fixed(void)
{
    message(MESSAGE, 0x0041);
}

static void message_nmi(void)
{
    message(MESSAGE, 0x0400);
}

static void message_remapped(void)
{
    message(MESSAGE | 0x10, 0);
}

/* A table entry that nobody has (VT-d 5.1.4.1). */
static void message_unknown(void)
{
    message(MESSAGE | 0xffff4, 0);
}

static const struct rogue_attempt dmas[] = {
    {"dma-own", "(what a device may do: its driver's memory)", dma_own, ROGUE_AFTER_OFFER},
    {"dma-hypervisor", "nobody writes the hypervisor's memory", dma_hypervisor, ROGUE_AFTER_OFFER},
    {"dma-read", "a device reads no memory but its driver's", dma_read, ROGUE_AFTER_OFFER},
    {"dma-behind-ram", "a device writes no memory but its driver's", dma_behind_ram, ROGUE_AFTER_OFFER},
    {"dma-guest", "the guest's pages are out of reach before a request", dma_guest, ROGUE_AFTER_OFFER},
    {"dma-rings", "rings are between CPUs", dma_rings, ROGUE_AFTER_OFFER},
    {"dma-iommu", "a device programs no IOMMU", dma_iommu, ROGUE_AFTER_OFFER},
    {"message-fixed", "a forged message interrupts no VM", message_fixed, ROGUE_AFTER_OFFER},
    {"message-nmi", "a forged NMI stops nobody", message_nmi, ROGUE_AFTER_OFFER},
    {"message-remapped", "a forged message interrupts no VM", message_remapped, ROGUE_AFTER_OFFER},
    {"message-unknown", "a forged message interrupts no VM", message_unknown, ROGUE_AFTER_OFFER},
};

/* ---- traps: one generation sets them, the next looks what is left ---- */

static u8 trap[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));

static void die(void)
{
    asm volatile("ud2");
}

static void trap_own(void)
{
    if (!edu_open())
        return;
    memset(trap, POISON, sizeof(trap));
    edu_start((u64)trap, false, EDU_TRANSFER); /* the buffer is full of it when the next transfer begins */
    if (edu_finish())
        edu_start((u64)trap, true, EDU_TRANSFER);
    die();
}

static void trap_foreign(void)
{
    if (edu_open())
        edu_start(HYPERVISOR, true, EDU_TRANSFER);
    die();
}

/* What a successor finds before it has asked for bus mastering. */
static void trap_found(void)
{
    u32 command = 0;
    status_t status = pci_read(PCI_COMMAND, 2, &command);
    bool armed = edu_is_busy();

    hypercall(HYPERCALL_WAIT, TRAP_US, 0, 0);
    for (u32 i = 0; i < sizeof(trap); i++)
        if (((volatile u8 *)trap)[i] != 0) {
            rogue_say("the trap WENT OFF");
            return;
        }
    rogue_say("bus master %s, transfer %s, memory clean",
              status == OK && !(command & PCI_COMMAND_MASTER) ? "off" : "ON",
              !armed          ? "not under way"
              : edu_is_busy() ? "under way for ever"
                              : "over");
}

static void trap_interrupts(void)
{
    if (edu_open())
        edu_raise_interrupt(100);
    die();
}

static void interrupts_found(void)
{
    u32 count = 0;

    for (u64 end = deadline_after(TRAP_US); !deadline_passed(end);)
        count += ((u32)hypercall(HYPERCALL_WAIT, 5000, 0, 0) & DRIVER_EVENT_INTERRUPT) != 0;
    rogue_say("%u interrupts", count);
}

static void trap_command(void)
{
    if (!edu_open())
        return;
    i64 result = hypercall(HYPERCALL_PCI_WRITE, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    rogue_say("registers %s: %s", result < 0 ? "NOT off" : "off", edu_is_there() ? "STILL there" : "gone");
    die();
}

static void command_found(void)
{
    rogue_say("registers %s", edu_is_there() ? "answer" : "DO NOT answer");
}

static const struct rogue_attempt traps[] = {
    {"trap-own", "a device without a live owner reaches nothing", trap_own, ROGUE_AFTER_OFFER},
    {"trap-own-found", "a successor's memory is as its image has it", trap_found, ROGUE_BEFORE_OFFER},
    {"trap-foreign", "a device without a live owner reaches nothing", trap_foreign, ROGUE_AFTER_OFFER},
    {"trap-foreign-found", "what a predecessor began is not its successor's fault", trap_found, ROGUE_BEFORE_OFFER},
    {"trap-interrupts", "a successor begins without its predecessor's interrupts", trap_interrupts, ROGUE_AFTER_OFFER},
    {"trap-interrupts-found", "a successor begins without its predecessor's interrupts", interrupts_found,
     ROGUE_AFTER_OFFER},
    {"trap-command", "a device comes back as the hypervisor has found it", trap_command, ROGUE_AFTER_OFFER},
    {"trap-command-found", "a device comes back as the hypervisor has found it", command_found, ROGUE_AFTER_OFFER},
};

/* ---- configuration space and the MSI-X table (PCI 3.0 6.8.2), of any device that has one ---- */

static u32 msix_capability(void)
{
    u32 at = 0, id = 0;

    if (pci_read(PCI_CAPABILITIES, 1, &at) != OK)
        return 0;
    for (u32 hops = 0; hops < 48 && at >= PCI_HEADER_SIZE; hops++, at = id >> 8)
        if (pci_read(at, 2, &id) != OK || (id & 0xff) == PCI_CAP_MSIX)
            return (id & 0xff) == PCI_CAP_MSIX ? at : 0;
    return 0;
}

/* Where the table would be, if the device's BAR were ours as a whole; 0: no such thing. */
static u64 msix_table(void)
{
    u32 at = msix_capability(), where = 0;

    if (at == 0 || pci_read(at + MSIX_TABLE, 4, &where) != OK || (where & 7) >= ARRAY_SIZE(driver_info->bar)) {
        rogue_say("NO table");
        return 0;
    }
    return driver_info->bar[where & 7].address + (where & ~7u);
}

static void msix_load(void)
{
    rogue_say("READ %x", mmio_read32(msix_table()));
}

static void msix_store(void)
{
    u64 table = msix_table();

    mmio_write32(table, MESSAGE);
    rogue_say("WROTE, then read %x", mmio_read32(table));
}

static void config_write(const char *what, u32 offset, u32 width, u32 value)
{
    rogue_call_result(what, hypercall(HYPERCALL_PCI_WRITE, offset, width, value));
}

static void msix_control(void)
{
    u32 at = msix_capability();

    rogue_say("capability at %x", at);
    config_write("control", at + MSIX_CONTROL, 2, MSIX_ENABLE);
    config_write("table", at + MSIX_TABLE, 4, 0);
    config_write("PBA", at + MSIX_PBA, 4, 0);
}

static void config_bars(void)
{
    u32 before[6], after = 0;

    for (u32 i = 0; i < 6; i++)
        if (pci_read(PCI_BAR0 + 4 * i, 4, &before[i]) != OK)
            rogue_say("NOT readable");
    for (u32 i = 0; i < 6; i++)
        config_write("BAR", PCI_BAR0 + 4 * i, 4, (u32)HYPERVISOR);
    config_write("ROM", 0x30, 4, (u32)HYPERVISOR | 1);
    for (u32 i = 0; i < 6; i++)
        if (pci_read(PCI_BAR0 + 4 * i, 4, &after) != OK || after != before[i])
            rogue_say("BAR %u MOVED", i);
}

/* Each offset, of the extended space some, each width: all that may be written is the command register, and of it six
 * bits. */
static void config_everything(void)
{
    u32 accepted = 0;

    for (u32 width = 1; width <= 4; width *= 2)
        for (u32 offset = 0; offset < PCI_CONFIG_SIZE; offset += offset < PCI_STANDARD_SIZE ? 1 : 61)
            if (offset != PCI_COMMAND || width != 2)
                accepted += hypercall(HYPERCALL_PCI_WRITE, offset, width, ~0u) >= 0;
    for (u32 bit = 0; bit < 16; bit++)
        if ((PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE) >> bit & 1)
            continue;
        else
            accepted += hypercall(HYPERCALL_PCI_WRITE, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | 1u << bit) >= 0;
    rogue_say("%s", accepted ? "some ACCEPTED" : "none accepted");
}

static const struct rogue_attempt msix[] = {
    {"msix-load", "a device's messages are the hypervisor's", msix_load, ROGUE_AFTER_OFFER},
    {"msix-store", "a device's messages are the hypervisor's", msix_store, ROGUE_AFTER_OFFER},
    {"msix-control", "a device's messages are the hypervisor's", msix_control, ROGUE_AFTER_OFFER},
    {"config-bars", "a device stays where the hypervisor has put it", config_bars, ROGUE_AFTER_OFFER},
    {"config-everything", "of configuration space a driver writes six bits", config_everything, ROGUE_AFTER_OFFER},
};

const struct rogue_group rogue_device_groups[3] = {ROGUE_GROUP("dma", dmas, false), ROGUE_GROUP("trap", traps, false),
                                                   ROGUE_GROUP("msix", msix, false)};
