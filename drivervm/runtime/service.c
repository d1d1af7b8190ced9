/* The runtime's services to drivers: log, clock, configuration space, memory. */
#include "drivervm/runtime/io.h"
#include "drivervm/runtime/runtime.h"
#include "shared/lib/checked.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define LOG_LINE 200
#define STACK_RESERVE KIB(32) /* below ram_size; nothing here recurses, the deepest frame is a log line */

extern u8 image_end[]; /* driver.ld */

static u64 dma_next;
static u64 device_waited; /* TSC ticks */

void log_line(const char *format, ...)
{
    char line[LOG_LINE + 1];
    va_list args;

    va_start(args, format);
    int length = bh_vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (length > LOG_LINE)
        length = LOG_LINE;
    if (length > 0)
        hypercall(HYPERCALL_LOG, (u64)line, (u64)length, 0);
}

u64 deadline_after(u64 us)
{
    return tsc_read() + us * driver_info->tsc_khz / 1000;
}

bool deadline_passed(u64 deadline)
{
    return (i64)(tsc_read() - deadline) >= 0;
}

u64 microseconds_since(u64 tsc)
{
    return (tsc_read() - tsc) * 1000 / driver_info->tsc_khz;
}

struct device_wait device_wait_begin(u64 timeout_us)
{
    return (struct device_wait){.left = timeout_us * driver_info->tsc_khz / 1000, .last = tsc_read()};
}

bool device_wait_more(struct device_wait *wait)
{
    u64 now = tsc_read(), passed = now - wait->last;

    device_waited += passed;
    wait->last = now;
    if (wait->late)
        return false;
    if (passed > driver_info->tsc_khz) /* a millisecond */
        passed = driver_info->tsc_khz;
    wait->late = passed >= wait->left;
    wait->left -= passed;
    ring_heartbeat(&driver_rings[0]);
    return true;
}

u64 device_waited_us(void)
{
    return device_waited * 1000 / driver_info->tsc_khz;
}

void spin_us(u64 us)
{
    struct device_wait wait = device_wait_begin(us);

    while (!wait.late && device_wait_more(&wait))
        ;
}

bool mmio_wait(u64 address, u32 mask, u32 wanted, u64 timeout_us)
{
    for (struct device_wait wait = device_wait_begin(timeout_us); (mmio_read32(address) & mask) != wanted;)
        if (!device_wait_more(&wait))
            return false;
    return true;
}

status_t pci_read(u32 offset, u32 width, u32 *value)
{
    i64 result = hypercall(HYPERCALL_PCI_READ, offset, width, 0);

    if (result < 0)
        return (status_t)-result;
    *value = (u32)result;
    return OK;
}

status_t pci_write(u32 offset, u32 width, u32 value)
{
    i64 result = hypercall(HYPERCALL_PCI_WRITE, offset, width, value);

    return result < 0 ? (status_t)-result : OK;
}

status_t pci_command(u32 set, u32 clear)
{
    u32 value = 0;
    status_t status = pci_read(PCI_COMMAND, 2, &value);

    return status == OK ? pci_write(PCI_COMMAND, 2, (value & ~clear) | set) : status;
}

status_t stash_save(const void *data, u32 length)
{
    DRIVER_CHECK(length <= DRIVER_STASH_SIZE);
    memcpy(driver_stash, data, length);
    i64 result = hypercall(HYPERCALL_STASH, length, 0, 0);

    return result < 0 ? (status_t)-result : OK;
}

bool stash_load(void *data, u32 length)
{
    if (driver_info->stash_length != length || length > DRIVER_STASH_SIZE)
        return false;
    memcpy(data, driver_stash, length);
    return true;
}

static u64 dma_end(void)
{
    return driver_info->ram_size - STACK_RESERVE;
}

u64 dma_address(u64 address)
{
    return address + (address < driver_info->ram_size ? driver_info->dma_ram_offset : driver_info->dma_window_offset);
}

void *dma_alloc(u64 size, u64 alignment)
{
    if (dma_next == 0)
        dma_next = (u64)image_end;
    u64 at = (dma_next + alignment - 1) & ~(alignment - 1);

    if (!range_inside(at, size, 0, dma_end()))
        return NULL;
    dma_next = at + size;
    return (void *)at; /* zero: the hypervisor hands over clean RAM, and nothing here is used twice */
}

u64 dma_available(void)
{
    u64 next = dma_next ? dma_next : (u64)image_end;

    return next < dma_end() ? dma_end() - next : 0;
}
