/* What a VMCS holds from the start: controls, the host's state, start states of the guest; and its registers. */
#include "hv/arch/x86/cpu/interrupts.h"
#include "hv/arch/x86/cpu/registers.h"
#include "hv/arch/x86/vmx/vmx.h"
#include "hv/core/hypervisor.h"

/* Access rights (24.4.1, table 24-2) */
#define ACCESS_CODE64 0xa09bu
#define ACCESS_CODE32 0xc09bu
#define ACCESS_DATA 0xc093u
#define ACCESS_TSS 0x8bu   /* busy, as an entry demands */
#define DR6_SET 0x10000ull /* RTM: 0 says that it happened; the exit qualification says it the other way round */
#define DR6_REPORTED 0x1600full
#define DR7_GD (1ull << 13)
#define VECTORS_INTERCEPTED                                                                                            \
    (1u << 1 | 1u << 17) /* #DB, #AC: their delivery can loop without end (as APM 2 15.12 tells) */

/* The segment registers in the order of their fields, from ES on */
#define SEGMENT(field, n) ((enum vmcs_field)((field) + 2 * (n)))
enum { ES, CS, SS, DS, FS, GS, LDTR, TR, SEGMENTS };

/* Fields that start as 0, or stay so: nothing has a value after VMCLEAR (24.11.3). An IDT of limit 0: an exception
 * before the guest has an own one ends in a shutdown. */
static const u16 zeros[] = {
    VMCS_PAGE_FAULT_MASK,     VMCS_PAGE_FAULT_MATCH,     VMCS_CR3_TARGET_COUNT,    VMCS_EXIT_MSR_STORE_COUNT,
    VMCS_EXIT_MSR_LOAD_COUNT, VMCS_ENTRY_MSR_LOAD_COUNT, VMCS_HOST_FS_BASE,        VMCS_HOST_SYSENTER_CS,
    VMCS_HOST_SYSENTER_ESP,   VMCS_HOST_SYSENTER_EIP,    VMCS_GUEST_IDTR_BASE,     VMCS_GUEST_IDTR_LIMIT,
    VMCS_ENTRY_EVENT,         VMCS_GUEST_ACTIVITY,       VMCS_GUEST_PENDING_DEBUG, VMCS_GUEST_DEBUGCTL,
};

/* ---- fields that never change ---- */

/* What an exit loads (27.5). It sets the limits of GDT and IDT to ffff and that of the TSS to 67h: beyond our tables
 * nothing is ever selected, since vectors end at 255, and the TSS is as long (interrupts.c). */
static void write_host_state(void)
{
    struct descriptor_pointer gdt, idt;

    __asm__ volatile("sgdt %0; sidt %1" : "=m"(gdt), "=m"(idt));
    vmcs_write(VMCS_HOST_CR0, cr0_read());
    vmcs_write(VMCS_HOST_CR3, cr3_read());
    vmcs_write(VMCS_HOST_CR4, cr4_read());
    for (u32 n = ES; n <= GS; n++)
        vmcs_write(SEGMENT(VMCS_HOST_ES_SELECTOR, n), n == CS ? CODE_SELECTOR : n < FS ? DATA_SELECTOR : 0);
    vmcs_write(VMCS_HOST_TR_SELECTOR, TSS_SELECTOR);
    vmcs_write(VMCS_HOST_GS_BASE, msr_read(MSR_GS_BASE));
    vmcs_write(VMCS_HOST_TR_BASE, cpu_tss_base(this_cpu()));
    vmcs_write(VMCS_HOST_GDTR_BASE, gdt.base);
    vmcs_write(VMCS_HOST_IDTR_BASE, idt.base);
    vmcs_write(VMCS_HOST_PAT, msr_read(MSR_PAT));
    vmcs_write(VMCS_HOST_EFER, msr_read(MSR_EFER));
    vmcs_write(VMCS_HOST_RIP, (u64)vmx_exit_entry);
}

void vmx_write_fixed_fields(struct vcpu *vcpu)
{
    const struct vmx_vcpu *vmx = vmx_of(vcpu);
    const struct vmx_controls *controls = &vmx_controls;
    hpa_t ports = vcpu->port_map ? ptr_to_hpa(vcpu->port_map) : vmx_closed_map;

    write_host_state();
    vmcs_write(VMCS_PIN_CONTROLS, controls->pin);
    vmcs_write(VMCS_SECONDARY_CONTROLS, controls->secondary);
    vmcs_write(VMCS_EXIT_CONTROLS, controls->exit);
    vmcs_write(VMCS_EXCEPTION_BITMAP, VECTORS_INTERCEPTED);
    vmcs_write(VMCS_VPID, vmx->vpid);
    vmcs_write(VMCS_EPT_POINTER, vcpu->vm->npt.root.v | controls->ept_pointer);
    vmcs_write(VMCS_MSR_BITMAP, vmx_closed_map.v);
    vmcs_write(VMCS_IO_BITMAP_A, ports.v);
    vmcs_write(VMCS_IO_BITMAP_B, ports.v + PAGE_SIZE);
    /*
     * A driver VM has no business with control registers. Of the guest's CR0 those bits exit that VMX fixes, and CD and
     * NW: an exit would leave them to us (27.5.1). Of CR4 those exit that it may not set, so a write that exits is #GP.
     */
    bool driver = vcpu->vm->driver;
    vmcs_write(VMCS_CR0_MASK, driver ? ~0ull : controls->cr0_set | CR0_CD | CR0_NW);
    vmcs_write(VMCS_CR4_MASK, driver ? ~0ull : ~(vcpu_cr4_allowed() & controls->cr4_allowed) | controls->cr4_set);
}

/* ---- start states ---- */

static void write_segment(u32 n, u16 selector, u32 access, u32 limit)
{
    vmcs_write(SEGMENT(VMCS_GUEST_ES_SELECTOR, n), selector);
    vmcs_write(SEGMENT(VMCS_GUEST_ES_ACCESS, n), access);
    vmcs_write(SEGMENT(VMCS_GUEST_ES_LIMIT, n), limit);
    vmcs_write(SEGMENT(VMCS_GUEST_ES_BASE, n), 0);
}

static void write_segments(const struct vcpu_start *start)
{
    for (u32 n = ES; n <= GS; n++)
        write_segment(n, 0x10, ACCESS_DATA, 0xffffffff);
    write_segment(CS, 0x08, start->long64 ? ACCESS_CODE64 : ACCESS_CODE32, 0xffffffff);
    write_segment(LDTR, 0, ACCESS_UNUSABLE, 0);
    write_segment(TR, 0, ACCESS_TSS, 0xffff);
    vmcs_write(VMCS_GUEST_GDTR_BASE, start->gdt);
    vmcs_write(VMCS_GUEST_GDTR_LIMIT, start->long64 ? 23 : 0);
}

void vmx_write_start_state(struct vcpu *vcpu)
{
    struct vmx_vcpu *vmx = vmx_of(vcpu);
    const struct vcpu_start *start = &vmx->start;
    u64 cr0 = CR0_PE | CR0_ET | CR0_NE | (start->long64 ? CR0_WP | CR0_PG : 0);

    for (u32 i = 0; i < ARRAY_SIZE(zeros); i++)
        vmcs_write(zeros[i], 0);
    write_segments(start);
    for (enum guest_register reg = GUEST_STAR; reg < GUEST_REGISTERS; reg++)
        vmx_write(vcpu, reg, 0);
    vmcs_write(VMCS_CR0_SHADOW, cr0);
    vmcs_write(VMCS_CR4_SHADOW, start->long64 ? CR4_PAE : 0);
    vmx_write(vcpu, GUEST_CR0, cr0);
    vmx_write(vcpu, GUEST_CR3, start->cr3);
    vmx_write(vcpu, GUEST_CR4, start->long64 ? CR4_PAE : 0);
    vmx_write(vcpu, GUEST_EFER, start->long64 ? EFER_LME | EFER_LMA | EFER_NXE : 0);
    vmx_write(vcpu, GUEST_PAT, PAT_RESET);
    /* From here on exits keep this bit as LMA is (A.6: MISC bit 5 comes with unrestricted guests). */
    vmcs_write(VMCS_ENTRY_CONTROLS, vmx_controls.entry | (start->long64 ? ENTRY_CONTROL_GUEST_64 : 0));
    vmcs_write(VMCS_GUEST_DR7, DR7_RESET);
    vmcs_write(VMCS_LINK_POINTER, ~0ull);
    cr2_write(0);
    if (!vcpu->vm->driver) /* DR0 to DR3 and DR6 are the guest's alone: a driver VM's MOV DR exits */
        dr6_write(DR6_RESET);
}

/* On any CPU: the VMCS may be another one's current one, so what is to be written waits for vmx_use(). */
void vmx_reset(struct vcpu *vcpu, const struct vcpu_start *start)
{
    struct vmx_vcpu *vmx = vmx_of(vcpu);

    vmx->start = *start;
    vmx->starts = true;
    vmx->windows = vmx->interruptibility = 0;
    vcpu_reset(vcpu, start->entry);
}

/* ---- registers ---- */

/* 0: not in the VMCS but in the CPU */
static const u16 fields[GUEST_REGISTERS] = {
    [GUEST_CR0] = VMCS_GUEST_CR0,
    [GUEST_CR3] = VMCS_GUEST_CR3,
    [GUEST_CR4] = VMCS_GUEST_CR4,
    [GUEST_EFER] = VMCS_GUEST_EFER,
    [GUEST_PAT] = VMCS_GUEST_PAT,
    [GUEST_FS_BASE] = VMCS_GUEST_FS_BASE,
    [GUEST_GS_BASE] = VMCS_GUEST_GS_BASE,
    [GUEST_SYSENTER_CS] = VMCS_GUEST_SYSENTER_CS,
    [GUEST_SYSENTER_ESP] = VMCS_GUEST_SYSENTER_ESP,
    [GUEST_SYSENTER_EIP] = VMCS_GUEST_SYSENTER_EIP,
};
static const u32 switched_msrs[VMX_SWITCHED] = {MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SFMASK, MSR_KERNEL_GS_BASE};
#define SWITCHED(reg) ((reg)-GUEST_STAR)

u64 vmx_read(struct vcpu *vcpu, enum guest_register reg)
{
    struct vmx_vcpu *vmx = vmx_use(vcpu);

    if (reg == GUEST_KERNEL_GS_BASE) /* SWAPGS changes it without an exit */
        vmx->switched[SWITCHED(reg)] = msr_read(MSR_KERNEL_GS_BASE);
    return fields[reg] ? vmcs_read(fields[reg]) : vmx->switched[SWITCHED(reg)];
}

void vmx_write(struct vcpu *vcpu, enum guest_register reg, u64 value)
{
    struct vmx_vcpu *vmx = vmx_use(vcpu);

    if (reg == GUEST_CR0)
        value |= vmx_controls.cr0_set;
    else if (reg == GUEST_CR4)
        value = (value & vmx_controls.cr4_allowed) | vmx_controls.cr4_set;
    if (fields[reg]) {
        vmcs_write(fields[reg], value);
        return;
    }
    vmx->switched[SWITCHED(reg)] = value;
    msr_write(switched_msrs[SWITCHED(reg)], value);
}

/* All but KERNEL_GS_BASE and CR2 change by vmx_write() only. from: whose they are now, or NULL. */
void vmx_switch_registers(struct vmx_vcpu *from, struct vmx_vcpu *to)
{
    if (from) {
        from->switched[SWITCHED(GUEST_KERNEL_GS_BASE)] = msr_read(MSR_KERNEL_GS_BASE);
        from->cr2 = cr2_read();
    }
    for (u32 i = 0; i < VMX_SWITCHED; i++)
        if (!from || from->switched[i] != to->switched[i])
            msr_write(switched_msrs[i], to->switched[i]);
    cr2_write(to->cr2);
}

void vmx_debug_exception(struct vcpu *vcpu, u64 qualification)
{
    if (vcpu->vm->driver)
        return;
    dr6_write((dr6_read() & ~0xfull) | ((qualification ^ DR6_SET) & DR6_REPORTED));
    vmcs_write(VMCS_GUEST_DR7, vmcs_read(VMCS_GUEST_DR7) & ~DR7_GD);
}
