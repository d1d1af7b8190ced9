#include "drivervm/drivers/virtio/virtio.h"
#include "shared/x86/io.h"

u32 virtio_read(const struct virtio_area *area, u32 offset, u32 width)
{
    return area->ports ? io_in((u16)(area->address + offset), width)
                       : mmio_read((const volatile void *)(area->address + offset), width);
}

void virtio_write(const struct virtio_area *area, u32 offset, u32 width, u32 value)
{
    if (area->ports) {
        io_out((u16)(area->address + offset), width, value);
        return;
    }
    asm volatile("" : : : "memory"); /* what the device will fetch is in RAM before the register tells it to */
    mmio_write((volatile void *)(area->address + offset), width, value);
}
