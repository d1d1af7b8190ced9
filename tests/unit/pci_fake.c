#include "tests/unit/pci_fake.h"

#include <string.h>

#include "hv/arch/x86/paging/paging.h"

static struct fake_function functions[PCI_MAX_DEVICES + 8];
static u32 count;
u32 fake_msix_page[1024];

u64 tsc_now(void)
{
    return tsc_from_us(fake_time_us++);
}

void *paging_map_device(hpa_t at, u64 size)
{
    assert_true((at.v & PAGE_MASK) == 0 && size == PAGE_SIZE);
    return fake_msix_page;
}

u64 paging_physical_end(void)
{
    return FAKE_PHYSICAL_END;
}

void fake_pci_clear(void)
{
    memset(functions, 0, sizeof(functions));
    memset(fake_msix_page, 0, sizeof(fake_msix_page));
    count = 0;
}

void fake_pci_put(struct fake_function *f, u32 offset, u32 width, u32 value)
{
    memcpy(f->space + offset, &value, width);
}

u32 fake_pci_get(const struct fake_function *f, u32 offset, u32 width)
{
    u32 value = 0;

    memcpy(&value, f->space + offset, width);
    return value;
}

struct fake_function *fake_pci_add(u16 bdf, u32 class_code)
{
    struct fake_function *f = &functions[count++];

    assert_true(count <= ARRAY_SIZE(functions));
    f->bdf = bdf;
    fake_pci_put(f, PCI_VENDOR, 4, 0x11e81234);
    fake_pci_put(f, PCI_REVISION, 4, class_code << 8);
    fake_pci_put(f, PCI_COMMAND, 2, 0x0107);
    f->writable[PCI_COMMAND] = 0x47;
    f->writable[PCI_COMMAND + 1] = 0x05;
    f->clears[PCI_STATUS + 1] = 0xf9;
    return f;
}

struct fake_function *fake_pci_add_bridge(u16 bdf, u8 secondary_bus)
{
    struct fake_function *f = fake_pci_add(bdf, 0x060400);

    fake_pci_put(f, PCI_HEADER_TYPE, 1, 1);
    fake_pci_put(f, PCI_SECONDARY_BUS, 1, secondary_bus);
    f->writable[PCI_BRIDGE_CONTROL] = 0x40;
    return f;
}

void fake_pci_bar(struct fake_function *f, u32 index, u64 address, u64 size, u32 type)
{
    u32 offset = PCI_BAR0 + index * 4;
    u64 writable = ~(size - 1);

    fake_pci_put(f, offset, 4, (u32)address | type);
    memcpy(f->writable + offset, &writable, 4);
    if (type & PCI_BAR_WIDE) {
        fake_pci_put(f, offset + 4, 4, (u32)(address >> 32));
        memcpy(f->writable + offset + 4, (u8 *)&writable + 4, 4);
    }
}

void fake_pci_capability(struct fake_function *f, u8 id, u8 offset, u32 size, bool open)
{
    fake_pci_put(f, offset, 2, id | fake_pci_get(f, PCI_CAPABILITIES, 1) << 8);
    fake_pci_put(f, PCI_CAPABILITIES, 1, offset);
    fake_pci_put(f, PCI_STATUS, 2, PCI_STATUS_CAPABILITIES);
    if (open)
        memset(f->writable + offset + 2, 0xff, size);
}

void fake_pci_power_on(struct fake_function *f)
{
    for (u32 i = 0; i < PCI_CONFIG_SIZE; i++)
        f->power_on[i] = f->space[i] & ~f->writable[i];
}

static void reset(struct fake_function *f)
{
    /* A function that still masters the bus must not be reset. */
    assert_false(fake_pci_get(f, PCI_COMMAND, 2) & PCI_COMMAND_MASTER);
    memcpy(f->space, f->power_on, sizeof(f->space));
    f->resets++;
    f->silent = f->silent_after_reset;
}

static struct fake_function *find(u16 bdf)
{
    for (u32 i = 0; i < count; i++)
        if (functions[i].bdf == bdf)
            return &functions[i];
    return NULL;
}

void pci_map_bus(hpa_t ecam, u8 bus)
{
    (void)ecam, (void)bus;
}

u32 pci_read(const struct pci_device *dev, u32 offset, u32 width)
{
    struct fake_function *f = find(dev->bdf);
    u32 value = ~0u;

    assert_true(offset % width == 0 && offset + width <= PCI_CONFIG_SIZE);
    if (f != NULL && offset == PCI_VENDOR && f->silent > 0) {
        f->silent -= f->silent != ~0u;
        f = NULL;
    }
    if (f != NULL && f->window && offset == f->window)
        value = f->window_access(f, false, 0);
    else if (f != NULL)
        value = fake_pci_get(f, offset, width);
    return width == 4 ? value : value & ((1u << width * 8) - 1);
}

static void check_probe(const struct fake_function *f, u32 offset, u32 value)
{
    u32 bars = f->space[PCI_HEADER_TYPE] == 1 ? 2 : 6;

    if (value == ~0u && offset >= PCI_BAR0 && offset < PCI_BAR0 + bars * 4)
        assert_false(fake_pci_get(f, PCI_COMMAND, 2) & (PCI_COMMAND_IO | PCI_COMMAND_MEMORY));
}

void pci_write(const struct pci_device *dev, u32 offset, u32 width, u32 value)
{
    struct fake_function *f = find(dev->bdf);
    u32 bridge_control = 0;

    assert_true(offset % width == 0 && offset + width <= PCI_CONFIG_SIZE);
    if (f == NULL)
        return;
    if (f->window && offset == f->window)
        (void)f->window_access(f, true, value);
    check_probe(f, offset, value);
    if (f->space[PCI_HEADER_TYPE] == 1)
        bridge_control = fake_pci_get(f, PCI_BRIDGE_CONTROL, 2);
    for (u32 i = 0; i < width; i++) {
        u8 byte = (u8)(value >> i * 8), *at = &f->space[offset + i];
        *at = (u8)((*at & ~f->writable[offset + i]) | (byte & f->writable[offset + i]));
        *at &= (u8) ~(byte & f->clears[offset + i]);
    }
    if (f->express && offset == f->express + EXPRESS_DEVICE_CONTROL && (value & EXPRESS_CONTROL_FLR))
        reset(f);
    if (f->space[PCI_HEADER_TYPE] != 1 ||
        !(fake_pci_get(f, PCI_BRIDGE_CONTROL, 2) & ~bridge_control & PCI_BRIDGE_RESET))
        return;
    for (u32 i = 0; i < count; i++)
        if (functions[i].bdf >> 8 == f->space[PCI_SECONDARY_BUS])
            reset(&functions[i]);
}
