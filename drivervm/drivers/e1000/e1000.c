/*
 * Intel's gigabit controllers 82540EM (PCI) and 82574L (PCI Express). They have one register model; the differences are
 * in `kinds`. Reads top to bottom as chapter 14 of the manual does: reset, address, filter, receive, transmit,
 * interrupt.
 *
 * The whole way is gone at each start and each reset by the guest, with bus mastering off until our own rings are in
 * place: whatever a predecessor's rings pointed to is beyond the device's reach until it has forgotten them. The
 * reset bit alone would not do: QEMU's models clear the bit and keep their registers.
 */
#include "drivervm/drivers/e1000/e1000.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"

#define VENDOR_INTEL 0x8086u
#define REGISTERS_BAR 0u
#define RESET_US 10u       /* 13.4.1: no access for a microsecond */
#define EEPROM_US 20000u   /* 14.3: it is read once by the controller itself after a reset */
#define INTERRUPT_GAP 195u /* 13.4.18: units of 256 ns: 50 us between interrupts; the first one comes at once */

static const struct kind {
    u16 device;
    u8 eeprom_address, eeprom_done; /* bits of EERD */
    const char *name;
} kinds[] = {
    {0x100e, 8, 4, "82540EM"},
    {0x10d3, 2, 1, "82574L"},
};

static struct {
    u64 registers;
    const struct kind *kind;
    struct e1000_memory *memory;
    u8 address[NET_ADDRESS];
    bool listening; /* interrupts are on */
} e1000;

#define CAUSES_RECEIVE (CAUSE_RXT0 | CAUSE_RXO)

static u32 reg_read(u32 offset)
{
    return mmio_read32(e1000.registers + offset);
}

static void reg_write(u32 offset, u32 value)
{
    mmio_write32(e1000.registers + offset, value);
}

/* 14.3. Receiver and transmitter end first, so that no frame is cut in two; causes are masked before and after. */
static status_t device_reset(void)
{
    reg_write(E1000_IMC, ~0u);
    reg_write(E1000_RCTL, 0);
    reg_write(E1000_TCTL, 0);
    reg_write(E1000_CTRL, reg_read(E1000_CTRL) | CTRL_RST);
    spin_us(RESET_US);
    if (!mmio_wait(e1000.registers + E1000_CTRL, CTRL_RST, 0, EEPROM_US))
        return ERR_TIMEOUT;
    reg_write(E1000_IMC, ~0u);
    reg_write(E1000_ICR, reg_read(E1000_ICR));
    return OK;
}

/* 5.3.1: ask for the word, then wait for it. */
static status_t eeprom_read(u32 word, u16 *value)
{
    u32 done = 1u << e1000.kind->eeprom_done;

    reg_write(E1000_EERD, word << e1000.kind->eeprom_address | EERD_START);
    if (!mmio_wait(e1000.registers + E1000_EERD, done, done, EEPROM_US))
        return ERR_TIMEOUT;
    *value = (u16)EERD_DATA(reg_read(E1000_EERD));
    return OK;
}

/* 5.6.1: the first three words. The address registers may be a predecessor's. */
static status_t address_read(void)
{
    status_t status = OK;

    for (u32 word = 0; word < NET_ADDRESS / 2 && status == OK; word++) {
        u16 value = 0;
        status = eeprom_read(word, &value);
        e1000.address[2 * word] = (u8)value;
        e1000.address[2 * word + 1] = (u8)(value >> 8);
    }
    return status;
}

/* 13.5.2; address NULL: none. */
static void set_address(u32 pair, const u8 *address)
{
    u32 low = 0, high = 0;

    if (address) {
        low = (u32)address[0] | (u32)address[1] << 8 | (u32)address[2] << 16 | (u32)address[3] << 24;
        high = (u32)address[4] | (u32)address[5] << 8 | RAH_VALID;
    }
    reg_write(E1000_RAL + 8 * pair, low);
    reg_write(E1000_RAL + 8 * pair + 4, high);
}

/* 13.5: exact addresses, a hash table for multicast, and two bits that open wide. */
static void set_filter(const struct net_filter *filter)
{
    u32 table[MULTICAST_WORDS] = {0};
    u32 control = RCTL_EN | RCTL_BAM | RCTL_SECRC;

    _Static_assert(NET_UNICAST < ADDRESS_PAIRS, "one is our own");
    set_address(0, e1000.address);
    for (u32 i = 0; i < ADDRESS_PAIRS - 1; i++)
        set_address(i + 1, i < filter->unicasts ? filter->unicast[i] : NULL);
    for (u32 i = 0; i < filter->multicasts; i++) {
        u32 hash = filter_hash(filter->multicast[i]);
        table[hash / 32] |= 1u << hash % 32;
    }
    for (u32 i = 0; i < MULTICAST_WORDS; i++)
        reg_write(E1000_MTA + 4 * i, table[i]);
    if (filter->promiscuous)
        control |= RCTL_UPE | RCTL_MPE;
    if (filter->all_multicast)
        control |= RCTL_MPE;
    reg_write(E1000_RCTL, control);
}

/* Causes stay from before, those of frames that were found meanwhile, too: only what comes from here on interrupts. */
static void listen(void)
{
    if (!driver_info->interrupts)
        return;
    reg_write(E1000_ICR, CAUSES_RECEIVE);
    reg_write(E1000_IMS, CAUSES_RECEIVE | CAUSE_LSC);
    e1000.listening = true;
}

/* 14.3 and 14.4: link by negotiation, checksums of what comes, nothing held back but by the interrupt throttle. */
static void configure(void)
{
    u32 control = reg_read(E1000_CTRL);

    control &= ~(CTRL_LRST | CTRL_ILOS | CTRL_FRCSPD | CTRL_FRCDPX | CTRL_VME | CTRL_PHY_RST);
    reg_write(E1000_CTRL, control | CTRL_SLU | CTRL_ASDE);
    reg_write(E1000_RXCSUM, RXCSUM_TUOFLD);
    reg_write(E1000_RFCTL, 0); /* 82574 10.2.6.4: descriptors as the 82540EM has them */
    reg_write(E1000_RDTR, 0);
    reg_write(E1000_RADV, 0);
    reg_write(E1000_TIPG, TIPG_COPPER);
    reg_write(E1000_ITR, INTERRUPT_GAP);
}

static status_t restart(const struct net_filter *filter)
{
    status_t status = pci_command(0, PCI_COMMAND_MASTER);

    if (status == OK)
        status = device_reset();
    if (status != OK)
        return status;
    configure();
    rings_start(e1000.registers, e1000.memory);
    status = pci_command(PCI_COMMAND_MASTER, 0);
    if (status != OK)
        return status;
    set_filter(filter);
    reg_write(E1000_TCTL, TCTL_EN | TCTL_PSP | TCTL_CT | TCTL_COLD);
    listen();
    return OK;
}

static const struct kind *find_kind(void)
{
    for (u32 i = 0; i < ARRAY_SIZE(kinds); i++)
        if (driver_info->pci_vendor == VENDOR_INTEL && driver_info->pci_device == kinds[i].device)
            return &kinds[i];
    return NULL;
}

static status_t start(struct net_device *device)
{
    const struct driver_bar *bar = &driver_info->bar[REGISTERS_BAR];
    u64 began = tsc_read();

    e1000.kind = find_kind();
    if (!e1000.kind)
        return ERR_UNSUPPORTED;
    if (bar->kind != DRIVER_BAR_MEMORY || bar->size < E1000_REGISTER_BYTES)
        return ERR_NOT_FOUND;
    e1000.registers = bar->address;
    e1000.memory = dma_alloc(sizeof(*e1000.memory), PAGE_SIZE);
    if (!e1000.memory)
        return ERR_NO_MEMORY;
    status_t status = pci_command(PCI_COMMAND_MEMORY, PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
    if (status == OK)
        status = device_reset();
    if (status == OK)
        status = address_read();
    if (status != OK)
        return status;
    *device = (struct net_device){.sends_checksums = true, .cuts_segments = true, .checks_received = true};
    memcpy(device->address, e1000.address, NET_ADDRESS);
    log_line("e1000: %s, %02x:%02x:%02x:%02x:%02x:%02x, known after %llu us", e1000.kind->name, e1000.address[0],
             e1000.address[1], e1000.address[2], e1000.address[3], e1000.address[4], e1000.address[5],
             (unsigned long long)microseconds_since(began));
    return OK;
}

/* Who is awake looks for himself, until there is nothing to be found any more: an interrupt would only cost an exit. */
static void stop_listening(void)
{
    if (e1000.listening)
        reg_write(E1000_IMC, ~0u);
    e1000.listening = false;
}

static void acknowledge(void)
{
    stop_listening();
    reg_write(E1000_ICR, ~0u);
}

static void flush(void)
{
    if (rings_changed()) {
        stop_listening();
        rings_flush();
    }
}

static bool collect(void)
{
    if (rings_collect())
        return true;
    if (e1000.listening || !driver_info->interrupts)
        return false;
    listen();
    return rings_collect(); /* what came before that raises no interrupt */
}

static bool link_is_up(void)
{
    return reg_read(E1000_STATUS) & STATUS_LU;
}

static void log_statistics(void)
{
    log_line("e1000: %u frames in, %u out; %u with wrong check sequence, %u missed, %u without a buffer",
             reg_read(E1000_TPR), reg_read(E1000_TPT), reg_read(E1000_CRCERRS), reg_read(E1000_MPC),
             reg_read(E1000_RNBC));
}

const struct net_driver net_driver = {.name = "e1000",
                                      .start = start,
                                      .restart = restart,
                                      .set_filter = set_filter,
                                      .send = rings_send,
                                      .receive = rings_receive,
                                      .flush = flush,
                                      .acknowledge = acknowledge,
                                      .collect = collect,
                                      .link_is_up = link_is_up,
                                      .log_statistics = log_statistics};
