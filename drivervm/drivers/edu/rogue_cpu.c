/*
 * Attempts by the CPU: memory that is not ours, privileged instructions, calls with bad arguments, lies in the rings.
 * Most of them should end the VM. What comes back is logged; where a value could have leaked, so is the value.
 */
#include "drivervm/drivers/edu/rogue.h"
#include "drivervm/runtime/io.h"
#include "shared/lib/string.h"
#include "shared/pci/ports.h"
#include "shared/x86/descriptors.h"
#include "shared/x86/registers.h"

static void survived(u64 value)
{
    rogue_score.survived++;
    log_line("rogue: %u survived, value %llx", rogue_score.next - 1, (unsigned long long)value);
}

/* ---- memory ---- */

static void load(u64 address)
{
    survived(*(const volatile u64 *)address);
}

static void store(u64 address)
{
    *(volatile u64 *)address = 0x5a5a5a5a5a5a5a5aull;
    survived(*(const volatile u64 *)address);
}

static void jump(u64 address)
{
    ((void (*)(void))address)();
    survived(0);
}

static void load_past_ram(u64 offset)
{
    load(driver_info->ram_size + offset);
}

static void store_past_ram(u64 offset)
{
    store(driver_info->ram_size + offset);
}

/* ---- instructions ---- */

static void read_msr(u64 msr)
{
    survived(msr_read((u32)msr));
}

static void write_msr(u64 msr)
{
    msr_write((u32)msr, 0x5a5a5000);
    survived(0);
}

static void port_in(u64 port)
{
    survived(port_read8((u16)port));
}

static void port_out(u64 port_and_value)
{
    port_write8((u16)port_and_value, (u8)(port_and_value >> 16));
    survived(0);
}

static void pci_by_ports(u64 bdf)
{
    survived(io_in32(pci_port_select((u16)bdf, PCI_VENDOR)));
}

static void write_cr0(u64 value)
{
    cr0_write(value);
    survived(value);
}

static void write_cr3(u64 value)
{
    cr3_write(value);
    survived(value);
}

static void write_cr4(u64 value)
{
    cr4_write(value);
    survived(value);
}

static void write_debug(u64 value)
{
    dr7_write(value);
    survived(value);
}

static void set_xcr0(u64 value)
{
    asm volatile("xsetbv" : : "a"((u32)value), "d"(0), "c"(0));
    survived(value);
}

/* One instruction each; the numbers name them. */
enum instruction {
    INT3,
    UD2,
    INT80,
    WBINVD,
    INVD,
    HLT,
    CLI_HLT,
    VMRUN,
    VMLOAD,
    STGI,
    CLGI,
    SKINIT,
    VMXON,
    MONITOR,
    RDPMC
};

static void instruction(u64 which)
{
    static u8 page[4096] __attribute__((aligned(4096)));
    static u64 page_address;

    page_address = (u64)page;
    switch ((enum instruction)which) {
    case INT3:
        asm volatile("int3");
        break;
    case UD2:
        asm volatile("ud2");
        break;
    case INT80:
        asm volatile("int $0x80");
        break;
    case WBINVD:
        asm volatile("wbinvd");
        break;
    case INVD:
        asm volatile("invd");
        break;
    case HLT:
        asm volatile("sti; hlt; cli");
        break;
    case CLI_HLT:
        asm volatile("cli; hlt");
        break;
    case VMRUN:
        asm volatile("vmrun %%rax" : : "a"(page) : "memory");
        break;
    case VMLOAD:
        asm volatile("vmload %%rax" : : "a"(page) : "memory");
        break;
    case STGI:
        asm volatile("stgi");
        break;
    case CLGI:
        asm volatile("clgi");
        break;
    case SKINIT:
        asm volatile(".byte 0x0f, 0x01, 0xde" : : "a"((u32)(u64)page) : "memory"); /* skinit %eax */
        break;
    case VMXON:
        asm volatile("vmxon %0" : : "m"(page_address) : "cc", "memory");
        break;
    case MONITOR:
        asm volatile("monitor; mwait" : : "a"(page), "c"(0), "d"(0));
        break;
    case RDPMC:
        asm volatile("rdpmc" : : "c"(0) : "eax", "edx");
        break;
    }
    survived(0);
}

/* No exception can be delivered any more: the next one is a triple fault. */
static void triple_fault(u64 limit)
{
    const struct descriptor_pointer nothing = {(u16)limit, 0};
    asm volatile("lidt %0; ud2" : : "m"(nothing));
}

static void bad_gdt(u64 base)
{
    const struct descriptor_pointer garbage = {0xffff, base};
    asm volatile("lgdt %0; mov %1, %%ds" : : "m"(garbage), "r"(0x18) : "memory");
    survived(0);
}

static void bad_stack(u64 address)
{
    asm volatile("mov %0, %%rsp; push %%rax; ud2" : : "r"(address) : "memory");
}

/* No heartbeat, no exit. */
static void spin(u64 unused)
{
    (void)unused;
    for (;;)
        asm volatile("");
}

/* ---- lies ---- */

static void bad_call(u64 number)
{
    rogue_expect_denied("unknown call", hypercall((enum hypercall)number, ~0ull, ~0ull, ~0ull));
}

static void bad_log(u64 address)
{
    rogue_expect_denied("log of memory that is not ours", hypercall(HYPERCALL_LOG, address, 200, 0));
}

static void bad_log_length(u64 length)
{
    rogue_expect_denied("log too long", hypercall(HYPERCALL_LOG, DRIVER_LOAD_ADDRESS, length, 0));
}

static void bad_config(u64 length)
{
    rogue_expect_denied("config", hypercall(HYPERCALL_CONFIG, DRIVER_LOAD_ADDRESS, length, 0));
}

static void bad_stash(u64 length)
{
    rogue_expect_denied("stash", hypercall(HYPERCALL_STASH, length, 0, 0));
}

static void bad_offer_address(u64 address)
{
    rogue_expect_denied("offer from nowhere", hypercall(HYPERCALL_OFFER, address, 0, 0));
}

static void bad_offer(u64 queues)
{
    static struct driver_offer offer;

    memset(&offer, 0xff, sizeof(offer));
    offer.queues = (u32)queues;
    rogue_expect_denied("senseless offer", hypercall(HYPERCALL_OFFER, (u64)&offer, 0, 0));
}

/* Configuration space: offset in the low 16 bits, width above. */
static void bad_pci_write(u64 offset_width)
{
    u32 offset = (u32)offset_width & 0xffff, width = (u32)(offset_width >> 16);

    rogue_expect_denied("configuration write", hypercall(HYPERCALL_PCI_WRITE, offset, width, 0xfee00000));
}

static void bad_pci_read(u64 offset_width)
{
    u32 offset = (u32)offset_width & 0xffff, width = (u32)(offset_width >> 16);

    rogue_expect_denied("configuration read", hypercall(HYPERCALL_PCI_READ, offset, width, 0));
}

/* Find the MSI capability and try to redirect its message (PCI 3.0 6.8.1): control, address, data. */
static void bad_msi(u64 offset)
{
    u32 at = 0, id = 0;

    if (pci_read(PCI_CAPABILITIES, 1, &at) != OK)
        return;
    for (u32 hops = 0; hops < 48 && at >= PCI_HEADER_SIZE; hops++) {
        if (pci_read(at, 2, &id) != OK || (id & 0xff) == PCI_CAP_MSI)
            break;
        at = id >> 8;
    }
    if (at < PCI_HEADER_SIZE || (id & 0xff) != PCI_CAP_MSI) {
        log_line("rogue: %u no MSI capability in sight", rogue_score.next - 1);
        return;
    }
    rogue_expect_denied("MSI write", hypercall(HYPERCALL_PCI_WRITE, at + offset, 2, 0x0031));
}

static void forged_completion(u64 tag)
{
    ring_complete(&driver_rings[0], (u16)tag, 0xffffffff);
    hypercall(HYPERCALL_WAIT, 0, 0, 0);
    survived(tag);
}

static void jumping_produced(u64 by)
{
    __atomic_fetch_add(&driver_rings[0].completion->produced, (u32)by, __ATOMIC_RELEASE);
    hypercall(HYPERCALL_WAIT, 0, 0, 0);
    survived(by);
}

static void jumping_consumed(u64 by)
{
    __atomic_fetch_add(&driver_rings[0].completion->consumed, (u32)by, __ATOMIC_RELEASE);
    hypercall(HYPERCALL_WAIT, 0, 0, 0);
    survived(by);
}

#define OUT(port, value) ((u64)(value) << 16 | (port))
#define CONFIG(offset, width) ((u64)(width) << 16 | (offset))

struct cpu_attempt {
    const char *what;
    void (*make)(u64 argument);
    u64 argument;
};

static const struct cpu_attempt offer_attempts[] = {
    {"offer from 1G", bad_offer_address, GIB(1)},
    {"offer from the edge", bad_offer_address, ~0ull - 8},
    {"offer of 0 queues", bad_offer, 0},
    {"offer of 5 queues", bad_offer, RING_MAX_QUEUES + 1},
};

static const struct cpu_attempt attempts[] = {
    {"load past RAM", load_past_ram, 0},
    {"load far past RAM", load_past_ram, MIB(1)},
    {"store past RAM", store_past_ram, 0},
    {"store far past RAM", store_past_ram, MIB(64)},
    {"load 512M", load, MIB(512)},
    {"store 64M", store, MIB(64)},
    {"load local APIC", load, 0xfee00020},
    {"store local APIC ICR", store, 0xfee00300},
    {"load IOAPIC", load, 0xfec00000},
    {"load VT-d", load, 0xfed90000},
    {"store VT-d", store, 0xfed90018},
    {"load ECAM at 0xb0000000", load, 0xb0000000},
    {"load ECAM at 0xe0000000", load, 0xe0000000},
    {"store to info", store, DRIVER_INFO_ADDRESS},
    {"store to events", store, DRIVER_EVENTS_ADDRESS},
    {"store to request ring", store, DRIVER_RINGS_ADDRESS},
    {"store to request cells", store, DRIVER_RINGS_ADDRESS + 4096},
    {"load past the rings", load, DRIVER_RINGS_ADDRESS + RING_MAX_QUEUES *DRIVER_RING_STRIDE},
    {"load window, nothing granted", load, DRIVER_WINDOW_BASE},
    {"store window, nothing granted", store, DRIVER_WINDOW_BASE + MIB(16)},
    {"load past the window", load, DRIVER_WINDOW_BASE + GIB(64)},
    {"load beyond the identity map", load, GIB(1024)},
    {"jump to 1G", jump, GIB(1)},
    {"rdmsr EFER", read_msr, 0xc0000080},
    {"rdmsr APIC_BASE", read_msr, 0x1b},
    {"rdmsr VM_HSAVE_PA", read_msr, 0xc0010117},
    {"rdmsr FEATURE_CONTROL", read_msr, 0x3a},
    {"wrmsr EFER", write_msr, 0xc0000080},
    {"wrmsr APIC_BASE", write_msr, 0x1b},
    {"wrmsr VM_HSAVE_PA", write_msr, 0xc0010117},
    {"wrmsr SYSENTER_EIP", write_msr, 0x176},
    {"wrmsr LSTAR", write_msr, 0xc0000082},
    {"wrmsr x2APIC ICR", write_msr, 0x830},
    {"wrmsr TSC", write_msr, 0x10},
    {"wrmsr unknown", write_msr, 0x4b564d00},
    {"in keyboard", port_in, 0x60},
    {"in CMOS", port_in, 0x71},
    {"in serial 1", port_in, 0x3f8},
    {"in serial 2", port_in, 0x2f8},
    {"out serial 1", port_out, OUT(0x3f8, '!')},
    {"out PIC mask", port_out, OUT(0x21, 0)},
    {"out port 92", port_out, OUT(0x92, 1)},
    {"out SMI command", port_out, OUT(0xb2, 0)},
    {"out isa-debug-exit", port_out, OUT(0xf4, 0x55)},
    {"out reset control", port_out, OUT(0xcf9, 6)},
    {"out power management", port_out, OUT(0x604, 0)},
    {"configuration space by ports", pci_by_ports, 0x00f8},
    {"write CR0", write_cr0, 0},
    {"write CR3", write_cr3, GIB(1)},
    {"write CR4, VMXE", write_cr4, 0x2020},
    {"write CR4, reserved", write_cr4, ~0ull},
    {"write DR7", write_debug, 0x2703},
    {"xsetbv", set_xcr0, 0xff},
    {"int3", instruction, INT3},
    {"ud2", instruction, UD2},
    {"int 0x80", instruction, INT80},
    {"wbinvd", instruction, WBINVD},
    {"invd", instruction, INVD},
    {"sti, hlt", instruction, HLT},
    {"cli, hlt", instruction, CLI_HLT},
    {"vmrun", instruction, VMRUN},
    {"vmload", instruction, VMLOAD},
    {"stgi", instruction, STGI},
    {"clgi", instruction, CLGI},
    {"skinit", instruction, SKINIT},
    {"vmxon", instruction, VMXON},
    {"monitor, mwait", instruction, MONITOR},
    {"rdpmc", instruction, RDPMC},
    {"garbage GDT", bad_gdt, GIB(2)},
    {"stack outside", bad_stack, GIB(2)},
    {"triple fault", triple_fault, 0},
    {"spin", spin, 0},
    {"call 0", bad_call, 0},
    {"call after the last", bad_call, HYPERCALL_READY + 1},
    {"call 2^63", bad_call, 1ull << 63},
    {"log from 1G", bad_log, GIB(1)},
    {"log from the top of the address space", bad_log, ~0ull - 3},
    {"log too long", bad_log_length, 4096},
    {"log endless", bad_log_length, ~0ull},
    {"config too long", bad_config, DRIVER_CONFIG_SIZE + 1},
    {"config endless", bad_config, ~0ull},
    {"stash too long", bad_stash, DRIVER_STASH_SIZE + 1},
    {"stash endless", bad_stash, ~0ull},
    {"second offer", bad_offer, 1},
    {"BAR 0", bad_pci_write, CONFIG(0x10, 4)},
    {"BAR 1", bad_pci_write, CONFIG(0x14, 4)},
    {"ROM BAR", bad_pci_write, CONFIG(0x30, 4)},
    {"vendor", bad_pci_write, CONFIG(0x00, 2)},
    {"width 3", bad_pci_write, CONFIG(0x04, 3)},
    {"command across its end", bad_pci_write, CONFIG(0x02, 4)},
    {"offset 0x1000", bad_pci_write, CONFIG(0x1000, 4)},
    {"read offset 0xfffd", bad_pci_read, CONFIG(0xfffd, 4)},
    {"read width 8", bad_pci_read, CONFIG(0x10, 8)},
    {"MSI control", bad_msi, 2},
    {"MSI address", bad_msi, 4},
    {"MSI data", bad_msi, 12},
    {"forged completion", forged_completion, 5},
    {"forged completion, tag out of range", forged_completion, 0xffff},
    {"produced jumps", jumping_produced, 1000},
    {"consumed jumps", jumping_consumed, 77},
};

static void make(const struct cpu_attempt *attempt)
{
    log_line("rogue: %u cpu %s", rogue_score.next - 1, attempt->what);
    attempt->make(attempt->argument);
}

static u32 count(void)
{
    return ARRAY_SIZE(attempts);
}

static void attempt(u32 n)
{
    make(&attempts[n]);
}

static u32 offer_count(void)
{
    return ARRAY_SIZE(offer_attempts);
}

static void offer_attempt(u32 n)
{
    make(&offer_attempts[n]);
}

const struct rogue_group rogue_cpu = {.count = count, .attempt = attempt};
const struct rogue_group rogue_offer = {.count = offer_count, .attempt = offer_attempt};
