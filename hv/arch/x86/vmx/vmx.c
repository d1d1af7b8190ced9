/*
 * The VMX back end: what a CPU needs, the VMCS of a vCPU, entry and injection (SDM 3C chapters 23 to 31). A VMCS is
 * only ever loaded on its vCPU's own CPU, so none has to be carried from one to another (24.11.1).
 */
#include "hv/arch/x86/vmx/vmx.h"

#include "hv/arch/x86/cpu/registers.h"
#include "hv/core/cpu.h"
#include "hv/core/hypervisor.h"
#include "shared/abi/hypercall.h"
#include "shared/lib/string.h"

#define CPUID_VMX (1u << 5) /* leaf 1 ECX */
#define REVISION(basic) ((u32)(basic)&0x7fffffff)
#define SINGLE_CONTEXT 1ul /* of INVEPT and INVVPID */
#define ALL_CONTEXTS 2ul
#define IO_BITMAP_FRAMES 2u /* ports 0 to 7fff, 8000 to ffff (24.6.4) */
#define STAY_US 10000u
#define SHADOW (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS)

struct vmx_capabilities vmx_capabilities;
struct vmx_controls vmx_controls;
hpa_t vmx_closed_map;
static struct page_format ept_format;
static struct vcpu *loaded[CPU_MAX]; /* whose VMCS is current and whose registers are in the CPU */

u64 vmcs_read(enum vmcs_field field)
{
    u64 value = 0;

    __asm__ volatile("vmread %1, %0" : "+r"(value) : "r"((u64)field) : "cc");
    return value;
}

void vmcs_write(enum vmcs_field field, u64 value)
{
    __asm__ volatile("vmwrite %1, %0" ::"r"((u64)field), "r"(value) : "cc");
}

/* VMXON, VMCLEAR, VMPTRLD: an instruction with the address of a page. Ours are right, so a refusal is our own bug. */
#define VMX_REGION(instruction, hpa)                                                                                   \
    do {                                                                                                               \
        bool failed;                                                                                                   \
        __asm__ volatile(instruction " %1" : "=@ccbe"(failed) : "m"((hpa).v) : "memory");                              \
        if (failed)                                                                                                    \
            panic(instruction " refuses the page at %lx", (hpa).v);                                                    \
    } while (0)

/* 28.3.3: forget what was derived from a table, or what a VPID tags. Sizes and types were checked. */
#define VMX_INVALIDATE(instruction, type, context)                                                                     \
    do {                                                                                                               \
        const u64 descriptor[2] = {context, 0};                                                                        \
        __asm__ volatile(instruction " %0, %1" ::"m"(descriptor), "r"(type) : "cc", "memory");                         \
    } while (0)

static void read_capabilities(struct vmx_capabilities *caps)
{
    u64 *msr = caps->msr;
    u32 leaf[4];

    caps->feature_control = msr_read(MSR_FEATURE_CONTROL);
    for (u32 i = CAP_BASIC; i <= CAP_VMCS_ENUM; i++)
        msr[i] = msr_read(MSR_VMX_BASIC + i);
    if (msr[CAP_PRIMARY] >> 32 & PRIMARY_SECONDARY)
        msr[CAP_SECONDARY] = msr_read(MSR_VMX_BASIC + CAP_SECONDARY);
    if (msr[CAP_SECONDARY] >> 32 & (SECONDARY_EPT | SECONDARY_VPID))
        msr[CAP_EPT_VPID] = msr_read(MSR_VMX_BASIC + CAP_EPT_VPID);
    for (u32 i = CAP_TRUE_PIN; i <= CAP_TRUE_ENTRY && msr[CAP_BASIC] >> 55 & 1; i++)
        msr[i] = msr_read(MSR_VMX_BASIC + i);
    cpuid(0x80000008, 0, leaf);
    caps->physical_bits = leaf[0] & 0xff;
}

static const char *vmx_missing(void)
{
    const struct vmx_capabilities first = vmx_capabilities;
    u32 leaf[4];

    cpuid(1, 0, leaf);
    if (!(leaf[2] & CPUID_VMX))
        return "no Intel VT-x (CPUID 1h ECX bit 5)";
    read_capabilities(&vmx_capabilities);
    if (first.msr[CAP_BASIC] && memcmp(first.msr, vmx_capabilities.msr, sizeof(first.msr)) != 0)
        return "Intel VT-x unlike that of the first CPU (IA32_VMX_BASIC and the MSRs after it)";
    return vmx_controls_compute(&vmx_capabilities, &vmx_controls);
}

/* A VMXON region or a VMCS (24.2). */
static hpa_t new_region(const char *what)
{
    u32 *region = boot_frames(1, what);

    *region = REVISION(vmx_capabilities.msr[CAP_BASIC]);
    return ptr_to_hpa(region);
}

static void vmx_cpu_init(struct cpu *cpu)
{
    hpa_t region = new_region("a VMXON region");

    (void)cpu;
    if (!vmx_closed_map.v) {
        vmx_closed_map = ptr_to_hpa(permission_map_create(IO_BITMAP_FRAMES));
        ept_format = page_format_ept;
        ept_format.superpages = vmx_controls.ept_superpages;
    }
    if (vmx_controls.feature_control != vmx_capabilities.feature_control) /* a write to a locked one is #GP */
        msr_write(MSR_FEATURE_CONTROL, vmx_controls.feature_control);
    cr0_write(cr0_read() | vmx_controls.cr0_set); /* 23.8 */
    cr4_write(cr4_read() | vmx_controls.cr4_set);
    VMX_REGION("vmxon", region);
    VMX_INVALIDATE("invept", ALL_CONTEXTS, 0); /* 28.3.3.3: what was before VMXON */
    VMX_INVALIDATE("invvpid", ALL_CONTEXTS, 0);
}

static status_t vmx_create(struct vcpu *vcpu)
{
    static struct vmx_vcpu pool[VM_MAX];
    struct vmx_vcpu *vmx = &pool[vcpu->vm->id];

    vcpu->arch = vmx;
    vmx->vmcs = new_region("a VMCS");
    vmx->vpid = (u16)(vcpu->vm->id + 1); /* 0 is the host's */
    if (vcpu->vm->driver)
        vcpu->port_map = permission_map_create(IO_BITMAP_FRAMES); /* 24.6.4 */
    return OK;
}

struct vmx_vcpu *vmx_use(struct vcpu *vcpu)
{
    struct vmx_vcpu *vmx = vmx_of(vcpu);
    struct vcpu **current = &loaded[this_cpu()->id];

    ASSERT_HV(vcpu->cpu == this_cpu()->id);
    if (*current != vcpu) {
        if (!vmx->prepared)
            VMX_REGION("vmclear", vmx->vmcs); /* 24.11.3 */
        VMX_REGION("vmptrld", vmx->vmcs);
        vmx_switch_registers(*current ? vmx_of(*current) : NULL, vmx);
        *current = vcpu;
    }
    if (!vmx->prepared)
        vmx_write_fixed_fields(vcpu);
    vmx->prepared = true;
    if (vmx->starts) {
        vmx->starts = false;
        vmx_write_start_state(vcpu);
    }
    return vmx;
}

/* ---- entry ---- */

static bool vmx_set_deadline(struct vcpu *vcpu, u64 tsc)
{
    vmx_of(vcpu)->deadline = tsc;
    return vmx_controls.preemption_timer;
}

/*
 * Ticks of the preemption timer until the deadline, never too few: one comes when bit timer_shift of the TSC changes
 * (25.5.1). At most STAY_US: in Bochs 2.7 no kick ended a guest on another CPU that spun with IF clear (against 25.2),
 * and whoever stops it waits under the lock.
 */
static u32 timer_ticks(u64 deadline)
{
    u64 now = rdtsc(), latest = now + tsc_from_us(STAY_US), shift = vmx_controls.timer_shift;

    deadline = deadline < latest ? deadline : latest;
    return deadline > now ? (u32)((deadline >> shift) - (now >> shift)) + 1 : 0;
}

static void write_entry_fields(struct vcpu *vcpu, struct vmx_vcpu *vmx)
{
    vmcs_write(VMCS_GUEST_RIP, vcpu->rip);
    vmcs_write(VMCS_GUEST_RFLAGS, vcpu->rflags);
    vmcs_write(VMCS_GUEST_RSP, vcpu->regs.rsp);
    vmcs_write(VMCS_GUEST_INTERRUPTIBILITY, vmx->interruptibility);
    vmcs_write(VMCS_PRIMARY_CONTROLS,
               vmx_controls.primary | vmx->windows | (vcpu->vm->driver ? PRIMARY_CR3_LOAD | PRIMARY_MOV_DR : 0));
    if (vcpu->event) { /* an exit clears its valid bit (24.8.3) */
        vmcs_write(VMCS_ENTRY_EVENT, vcpu->event);
        vmcs_write(VMCS_ENTRY_EVENT_ERROR, vcpu->event_error);
    }
    /* 26.3.1.5: in a shadow the single-step trap of the instruction before must be pending. A #DB exit took it away. */
    if ((vmx->interruptibility & SHADOW) && (vcpu->rflags & RFLAGS_TF))
        vmcs_write(VMCS_GUEST_PENDING_DEBUG, vmcs_read(VMCS_GUEST_PENDING_DEBUG) | PENDING_DEBUG_BS);
    if (vcpu->flush_tlb) {
        VMX_INVALIDATE("invept", SINGLE_CONTEXT, vcpu->vm->npt.root.v | vmx_controls.ept_pointer);
        VMX_INVALIDATE("invvpid", SINGLE_CONTEXT, vmx->vpid);
    }
    vcpu->flush_tlb = false;
    vmx->windows = 0; /* asked for anew before each entry that needs them */
}

/* An NMI of the machine that came in guest mode is ours from the exit on, and blocks others until an IRET (27.5.5). */
static void take_nmi(u32 reason)
{
    if (reason == REASON_EXCEPTION && (vmcs_read(VMCS_EXIT_EVENT) & EVENT_TYPE) == EVENT_TYPE_NMI)
        __asm__ volatile("int $2" ::: "memory");
}

static void vmx_enter(struct vcpu *vcpu, struct vcpu_exit *exit)
{
    struct vmx_vcpu *vmx = vmx_use(vcpu);
    struct vmcs_snapshot state;

    write_entry_fields(vcpu, vmx);
    *exit = (struct vcpu_exit){.kind = EXIT_INVALID};
    if (CHECK_ENTRIES && vmx_check_current(&state))
        return;
    if (vmx_controls.preemption_timer)
        vmcs_write(VMCS_PREEMPTION_TIMER, timer_ticks(vmx->deadline));
    if (!vmx_run(&vcpu->regs, vmx->launched)) {
        exit->code = vmcs_read(VMCS_INSTRUCTION_ERROR);
        return;
    }

    u32 reason = (u32)vmcs_read(VMCS_EXIT_REASON);
    take_nmi(reason);
    vmx->launched |= !(reason & REASON_ENTRY_FAILED); /* 26.8: else the VMCS is as clear as before */
    vcpu->rip = vmcs_read(VMCS_GUEST_RIP);
    vcpu->rflags = vmcs_read(VMCS_GUEST_RFLAGS);
    vcpu->regs.rsp = vmcs_read(VMCS_GUEST_RSP);
    vmx->interruptibility = (u32)vmcs_read(VMCS_GUEST_INTERRUPTIBILITY);
    vmx_decode_exit(vcpu, exit);
}

/* ---- events ---- */

static bool vmx_can_take(const struct vcpu *vcpu, u32 type)
{
    u32 blocked = vmx_of(vcpu)->interruptibility;

    return !(blocked & SHADOW) &&
           (type == EVENT_TYPE_NMI ? !(blocked & BLOCKED_BY_NMI) : (vcpu->rflags & RFLAGS_IF) != 0);
}

static void vmx_request_window(struct vcpu *vcpu, u32 type)
{
    vmx_of(vcpu)->windows |= type == EVENT_TYPE_NMI ? PRIMARY_NMI_WINDOW : PRIMARY_INTERRUPT_WINDOW;
}

static void vmx_end_instruction(struct vcpu *vcpu, bool trap)
{
    vmx_of(vcpu)->interruptibility &= ~SHADOW;
    if (trap)
        vmx_debug_exception(vcpu, DR6_SINGLE_STEP);
}

const struct vcpu_vendor vcpu_vendor_vmx = {
    .name = "vmx",
    .description = "Intel VT-x with extended page tables",
    .nested_format = &ept_format,
    .hypercall_kind = DRIVER_VMCALL,
    .missing = vmx_missing,
    .cpu_init = vmx_cpu_init,
    .create = vmx_create,
    .reset = vmx_reset,
    .set_deadline = vmx_set_deadline,
    .enter = vmx_enter,
    .explain = vmx_explain,
    .can_take = vmx_can_take,
    .request_window = vmx_request_window,
    .end_instruction = vmx_end_instruction,
    .read = vmx_read,
    .write = vmx_write,
};
