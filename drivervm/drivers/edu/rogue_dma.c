/* Attempts by the device: DMA to and from everywhere, and interrupt messages of its own making. */
#include "drivervm/drivers/edu/rogue.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"

/* QEMU docs/specs/edu: registers of BAR 0 */
#define EDU_ID 0x00u
#define EDU_ID_MASK 0xffffu
#define EDU_ID_VALUE 0x00edu
#define EDU_DMA_SOURCE 0x80u
#define EDU_DMA_TARGET 0x88u
#define EDU_DMA_COUNT 0x90u
#define EDU_DMA_COMMAND 0x98u
#define EDU_DMA_START 1u
#define EDU_DMA_TO_MEMORY 2u
#define EDU_BUFFER 0x40000u /* 4 KiB inside the device; QEMU aborts when a transfer leaves it */

#define TRANSFER ROGUE_TRANSFER
#define MARKER 0xa5
#define POISON 0x5a
#define DMA_TIMEOUT_US 2000000u
#define DMA_SLEEP_US 5000u

static u64 edu;
static u8 *memory; /* one page of ours */

/* The device takes about 100 ms; sleep meanwhile, with a sign of life now and then. */
static bool edu_dma(u64 source, u64 target, u32 bytes, u32 direction)
{
    u64 deadline = deadline_after(DMA_TIMEOUT_US);

    mmio_write64(edu + EDU_DMA_SOURCE, source);
    mmio_write64(edu + EDU_DMA_TARGET, target);
    mmio_write64(edu + EDU_DMA_COUNT, bytes);
    mmio_write64(edu + EDU_DMA_COMMAND, EDU_DMA_START | direction);
    while (mmio_read32(edu + EDU_DMA_COMMAND) & EDU_DMA_START) {
        if (deadline_passed(deadline))
            return false;
        ring_heartbeat(&driver_rings[0]);
        hypercall(HYPERCALL_WAIT, DMA_SLEEP_US, 0, 0);
    }
    return true;
}

bool rogue_device_reads(u64 address)
{
    return edu_dma(address, EDU_BUFFER, TRANSFER, 0);
}

bool rogue_device_writes(u64 address)
{
    return edu_dma(EDU_BUFFER, address, TRANSFER, EDU_DMA_TO_MEMORY);
}

static bool all_bytes_are(const u8 *bytes, u8 value)
{
    for (u32 i = 0; i < TRANSFER; i++)
        if (__atomic_load_n(&bytes[i], __ATOMIC_RELAXED) != value)
            return false;
    return true;
}

bool rogue_fill_buffer(u8 value)
{
    memset(memory, value, TRANSFER);
    return rogue_device_reads((u64)memory);
}

bool rogue_buffer_holds(u8 value)
{
    memset(memory, (u8)~value, TRANSFER);
    return rogue_device_writes((u64)memory) && all_bytes_are(memory, value);
}

status_t rogue_dma_open(void)
{
    const struct driver_bar *bar = &driver_info->bar[0];

    if (bar->kind != DRIVER_BAR_MEMORY || bar->size < EDU_BUFFER)
        return ERR_NOT_FOUND;
    edu = bar->address;
    status_t status = pci_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
    if (status != OK)
        return status;
    if ((mmio_read32(edu + EDU_ID) & EDU_ID_MASK) != EDU_ID_VALUE)
        return ERR_NOT_FOUND;
    memory = dma_alloc(PAGE_SIZE, PAGE_SIZE);
    if (!memory)
        return ERR_NO_MEMORY;
    /* A predecessor's transfer may still be under way: the device has no reset that would stop it. */
    return mmio_wait(edu + EDU_DMA_COMMAND, EDU_DMA_START, 0, DMA_TIMEOUT_US) ? OK : ERR_TIMEOUT;
}

/* An attempt that fails proves something only if the device works where it may. Once a start: it takes a while. */
static void selfcheck(void)
{
    static bool checked;

    if (checked)
        return;
    checked = true;
    bool works = rogue_fill_buffer(MARKER) && rogue_buffer_holds(MARKER);
    log_line("rogue: selfcheck %s", works ? "ok" : "FAILED");
}

/* Where something may be: loader, hypervisor, other VMs, and every 64 MiB of the first GiB. */
static const u64 targets[] = {MIB(2),
                              MIB(4),
                              MIB(16),
                              MIB(64),
                              MIB(128),
                              MIB(192),
                              MIB(256),
                              MIB(320),
                              MIB(384),
                              MIB(448),
                              MIB(512),
                              MIB(576),
                              MIB(640),
                              MIB(704),
                              MIB(768),
                              MIB(832),
                              MIB(896),
                              MIB(960),
                              0x7e000000 /* ACPI, high firmware memory */,
                              0xfed90000 /* VT-d registers */,
                              0xfec00000 /* IOAPIC */,
                              GIB(4),
                              GIB(4) + MIB(64),
                              DRIVER_INFO_ADDRESS,
                              DRIVER_EVENTS_ADDRESS,
                              DRIVER_RINGS_ADDRESS,
                              DRIVER_WINDOW_BASE,
                              DRIVER_WINDOW_BASE + MIB(1),
                              DRIVER_WINDOW_BASE + MIB(16),
                              DRIVER_WINDOW_BASE + MIB(64)};

/* Two more, known at run time only: right behind our RAM, and a little further. */
#define EDGES 2u

static u64 target_address(u32 n)
{
    if (n < ARRAY_SIZE(targets))
        return targets[n];
    return n == ARRAY_SIZE(targets) ? driver_info->ram_size : PAGE_UP(driver_info->ram_size) + MIB(1);
}

static void attempt_read(u64 address)
{
    log_line("rogue: %u dma read %llx", rogue_score.next - 1, (unsigned long long)address);
    bool moved = rogue_fill_buffer(MARKER) && rogue_device_reads(address);
    memset(memory, POISON, TRANSFER);
    if (!moved || !rogue_device_writes((u64)memory) || all_bytes_are(memory, POISON)) {
        log_line("rogue: %u no answer: the device is cut off", rogue_score.next - 1);
    } else if (all_bytes_are(memory, 0) || all_bytes_are(memory, MARKER)) {
        log_line("rogue: %u blocked", rogue_score.next - 1); /* zeros, or the device's buffer as it was */
    } else {
        rogue_score.reads_leaked++;
        log_line("rogue: %u LEAKED %02x %02x %02x %02x", rogue_score.next - 1, memory[0], memory[1], memory[2],
                 memory[3]);
    }
}

/* Whether a write did harm is for the owners of the memory to say, by their canaries. */
static void attempt_write(u64 address)
{
    log_line("rogue: %u dma write %llx", rogue_score.next - 1, (unsigned long long)address);
    bool moved = rogue_fill_buffer(POISON) && rogue_device_writes(address);
    log_line("rogue: %u %s", rogue_score.next - 1, moved ? "written" : "no answer: the device is cut off");
}

/*
 * Messages that would be interrupts (SDM 3A 10.11, VT-d 5.1.2): address and data. QEMU 7.2 lets plain messages pass
 * where VT-d 5.1.4 blocks them (the hypervisor leaves GCMD.CFI off), and compares no source id for a message that is
 * not the device's own: so the hypervisor has to survive them here. INIT and SMI are left out, since nothing but the
 * IOMMU can stop them.
 */
static const struct {
    u64 address;
    u32 data;
    const char *what;
} messages[] = {{0xfee00000, 0x0030, "fixed, vector 0x30, CPU 0"},
                {0xfee00000, 0x00ef, "fixed, vector 0xef, CPU 0"},
                {0xfee00000, 0x0400, "NMI, CPU 0"},
                {0xfee01000, 0x0400, "NMI, CPU 1"},
                {0xfee00000, 0x0012, "fixed, vector 0x12, CPU 0"},
                {0xfeeff00c, 0x00f3, "fixed, vector 0xf3, all CPUs"},
                {0xfee01000, 0x0020, "fixed, vector 0x20, CPU 1"},
                {0xfeeff00c, 0x0041, "fixed, vector 0x41, all CPUs"},
                {0xfee00010, 0x0000, "remappable, handle 0"},
                {0xfee00030, 0x0000, "remappable, handle 1"},
                {0xfee00050, 0x0000, "remappable, handle 2"},
                {0xfee000f0, 0x0000, "remappable, handle 7"},
                {0xfee001f8, 0x0001, "remappable, handle 15 + 1"},
                {0xfeeffff4, 0x0000, "remappable, handle 65535"}};

static void attempt_message(u32 n)
{
    log_line("rogue: %u message %s", rogue_score.next - 1, messages[n].what);
    memset(memory, 0, TRANSFER);
    memcpy(memory, &messages[n].data, sizeof(messages[n].data));
    bool moved = rogue_device_reads((u64)memory) && edu_dma(EDU_BUFFER, messages[n].address, 4, EDU_DMA_TO_MEMORY);
    log_line("rogue: %u %s", rogue_score.next - 1, moved ? "sent" : "no answer: the device is cut off");
}

static u32 count(void)
{
    return 2 * (ARRAY_SIZE(targets) + EDGES) + ARRAY_SIZE(messages);
}

/* Reads first: they tell whether a write could hit anything. */
static void attempt(u32 n)
{
    u32 places = ARRAY_SIZE(targets) + EDGES;

    selfcheck();
    if (n < places)
        attempt_read(target_address(n));
    else if (n < 2 * places)
        attempt_write(target_address(n - places));
    else
        attempt_message(n - 2 * places);
}

const struct rogue_group rogue_dma = {.count = count, .attempt = attempt};
