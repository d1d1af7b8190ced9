/*
 * PCI bus 0 by configuration mechanism 1 (PCI Local Bus 3.0 3.2.2.3.2): 00:00.0 is a host bridge, 00:01.0 onwards are
 * the relays' VirtIO devices in slot order, single-function. What is not there reads all ones. BAR accesses go to the
 * relay that claims the address.
 */
#include "hv/platform/state.h"
#include "hv/relay/relay.h"

#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_WRITABLE 0x80fffffcu
#define ADDRESS_BUS(address) ((address) >> 16 & 0xff)
#define ADDRESS_DEVICE(address) ((address) >> 11 & 0x1f)
#define ADDRESS_FUNCTION(address) ((address) >> 8 & 7)
#define DATA_OFFSET 4u /* 0xCFC from 0xCF8 */

/* Vendor and device, command and status, revision and class (host bridge); the rest of the header is zero. */
static const u32 host_bridge[4] = {0x0d578086, 0, 0x06000000, 0};

static u32 host_bridge_read(u32 offset, u8 width)
{
    u32 word = offset / 4 < ARRAY_SIZE(host_bridge) ? host_bridge[offset / 4] : 0;
    u32 mask = width == 4 ? 0xffffffff : (1u << width * 8) - 1;
    return word >> offset % 4 * 8 & mask;
}

/* address names the register to the byte, aligned to width */
static void config_access(u32 address, u8 width, bool write, u32 *value)
{
    u32 offset = address & 0xff;
    u32 device = ADDRESS_DEVICE(address);
    if (!(address & ADDRESS_ENABLE) || ADDRESS_BUS(address) || ADDRESS_FUNCTION(address))
        return;
    if (device == 0) {
        if (!write)
            *value = host_bridge_read(offset, width);
        return;
    }
    struct relay *relay = device - 1 < VM_MAX ? relays[device - 1] : NULL;
    if (!relay)
        return;
    if (write)
        relay_pci_config_write(relay, offset, width, *value);
    else
        *value = relay_pci_config_read(relay, offset, width);
}

void pci_bus_port(struct vm *vm, u32 offset, u8 width, bool write, u32 *value)
{
    u32 *address = &vm->platform->pci_address;
    if (offset >= DATA_OFFSET) {
        /* No access runs over the data register's end: offset + width stays in its four bytes when both are aligned. */
        if (offset % width == 0)
            config_access(*address | (offset - DATA_OFFSET), width, write, value);
        return;
    }
    /* Narrower accesses to the address register are ordinary I/O cycles to ports where nothing is. */
    if (offset != 0 || width != sizeof(u32))
        return;
    if (write)
        *address = *value & ADDRESS_WRITABLE;
    else
        *value = *address;
}

bool pci_bus_claimed_port(u16 port, u8 width, bool write, u32 *value)
{
    u32 offset;
    for (u32 slot = 0; slot < VM_MAX; slot++) {
        if (!relays[slot] || !relay_claims_port(relays[slot], port, &offset))
            continue;
        if (write)
            relay_port_write(relays[slot], offset, width, *value);
        else
            *value = relay_port_read(relays[slot], offset, width);
        return true;
    }
    return false;
}

bool pci_bus_claimed_memory(gpa_t address, u8 width, bool write, u64 *value)
{
    u32 offset;
    for (u32 slot = 0; slot < VM_MAX; slot++) {
        if (!relays[slot] || !relay_claims_memory(relays[slot], address, &offset))
            continue;
        if (write)
            relay_memory_write(relays[slot], offset, width, *value);
        else
            *value = relay_memory_read(relays[slot], offset, width);
        return true;
    }
    return false;
}
