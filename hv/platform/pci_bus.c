/*
 * PCI bus 0 by configuration mechanism 1 (PCI Local Bus 3.0 3.2.2.3.2): 00:00.0 is a host bridge, 00:01.0 onwards are
 * the relays' VirtIO devices in slot order, single-function. What is not there reads all ones.
 */
#include "hv/platform/state.h"
#include "hv/relay/relay.h"
#include "shared/lib/string.h"

#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_WRITABLE 0x80fffffcu
#define ADDRESS_DEVICE(address) ((address) >> 11 & 0x1f)
#define ADDRESS_BUS_FUNCTION 0x00ff0700u /* both always 0 */
#define DATA_OFFSET 4u                   /* 0xCFC from 0xCF8 */

/* Vendor and device (8086:0d57), class 0600; the rest of the header is zero. */
static const u8 host_bridge[256] = {0x86, 0x80, 0x57, 0x0d, [0xb] = 0x06};

/* address names the register to the byte, aligned to width */
static void config_access(u32 address, u8 width, bool write, u32 *value)
{
    u32 offset = address & 0xff, device = ADDRESS_DEVICE(address);
    if (!(address & ADDRESS_ENABLE) || address & ADDRESS_BUS_FUNCTION || device > VM_MAX)
        return;
    struct relay *relay = device ? relays[device - 1] : NULL;
    if (relay)
        relay_pci_config(relay, offset, width, write, value);
    else if (device == 0 && !write)
        memcpy(value, host_bridge + offset, width); /* platform_port() cuts the rest off */
}

void pci_bus_port(struct vm *vm, u32 offset, u8 width, bool write, u32 *value)
{
    u32 *address = &vm->platform->pci_address;
    /* No access runs over the data register's end: offset + width stays in its four bytes when both are aligned. */
    if (offset >= DATA_OFFSET && offset % width == 0)
        config_access(*address | (offset - DATA_OFFSET), width, write, value);
    /* Narrower accesses to the address register are ordinary I/O cycles to ports where nothing is. */
    if (offset != 0 || width != sizeof(u32))
        return;
    if (write)
        *address = *value & ADDRESS_WRITABLE;
    else
        *value = *address;
}
