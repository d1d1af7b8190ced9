#include "drivervm/runtime/io.h"

#include "shared/x86/io.h"
#include "shared/x86/registers.h"

u32 mmio_read32(u64 address)
{
    return *(const volatile u32 *)address;
}

void mmio_write32(u64 address, u32 value)
{
    asm volatile("" : : : "memory"); /* what the device will fetch is in RAM before the register tells it to */
    *(volatile u32 *)address = value;
}

void mmio_write64(u64 address, u64 value)
{
    asm volatile("" : : : "memory");
    *(volatile u64 *)address = value;
}

u64 tsc_read(void)
{
    return rdtsc();
}

u8 port_read8(u16 port)
{
    return io_in8(port);
}

void port_write8(u16 port, u8 value)
{
    io_out8(port, value);
}

void port_read32s(u16 port, void *to, u32 count)
{
    u64 left = count;
    asm volatile("rep insl" : "+D"(to), "+c"(left) : "d"(port) : "memory");
}

void port_write32s(u16 port, const void *from, u32 count)
{
    u64 left = count;
    asm volatile("rep outsl" : "+S"(from), "+c"(left) : "d"(port) : "memory");
}

void port_read16s(u16 port, void *to, u32 count)
{
    u64 left = count;
    asm volatile("rep insw" : "+D"(to), "+c"(left) : "d"(port) : "memory");
}

void port_write16s(u16 port, const void *from, u32 count)
{
    u64 left = count;
    asm volatile("rep outsw" : "+S"(from), "+c"(left) : "d"(port) : "memory");
}
