/* VMRUN's checks (APM 2 15.5.1), with those of events (15.20) and nested paging (15.25). */
#include "hv/arch/x86/svm/check.h"
#include "hv/arch/x86/cpu/registers.h"

/* The manual's rule, or the text that tells of it. */
#define RULE(holds, text)                                                                                              \
    if (!(holds))                                                                                                      \
    return (text)
/* What is reserved here is what no guest of ours may set (svm_msr, svm_cr4_write); some CPUs know more bits. */
#define EFER_KNOWN (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_SVME)
#define CR4_KNOWN (0x6ffull | CR4_UMIP | CR4_FSGSBASE | CR4_SMEP | CR4_SMAP)
#define CS_LONG (1u << 9)
#define CS_BIG (1u << 10)
#define EXCEPTIONS 0x702f7dfbu /* vectors that are one (8.2): not 2, 9, 15, 20, 22 to 27, 31 */
#define IOPM_SIZE 0x3000u      /* 15.10.1 */
#define MSRPM_SIZE 0x2000u     /* 15.11 */

/* Pages below the 52 bits of a physical address. (VMRUN would round an unaligned one down: never what was meant.) */
static bool pages(u64 address, u64 size)
{
    return address % 4096 == 0 && address <= (1ull << 52) - size;
}

static const char *check_state(const struct svm_vmcb *vmcb)
{
    u64 cr0 = vmcb->cr0, cr4 = vmcb->cr4, efer = vmcb->efer;
    bool long_mode = efer & EFER_LME && cr0 & CR0_PG;

    RULE(efer & EFER_SVME, "efer: SVME must be 1 (APM 2 15.5.1)");
    RULE(!(efer & ~EFER_KNOWN), "efer: reserved bits (APM 2 15.5.1)");
    RULE(cr0 & CR0_CD || !(cr0 & CR0_NW), "cr0: NW without CD (APM 2 15.5.1)");
    RULE(!(cr0 >> 32), "cr0: 32 bits (APM 2 15.5.1)");
    RULE(!(vmcb->cr3 >> 52), "cr3: reserved bits (APM 2 15.5.1)");
    RULE(!(cr4 & ~CR4_KNOWN), "cr4: reserved bits (APM 2 15.5.1)");
    RULE(!(vmcb->dr6 >> 32), "dr6: 32 bits (APM 2 15.5.1)");
    RULE(!(vmcb->dr7 >> 32), "dr7: 32 bits (APM 2 15.5.1)");
    RULE(!long_mode || cr4 & CR4_PAE, "cr4: long mode needs PAE (APM 2 15.5.1)");
    RULE(!long_mode || cr0 & CR0_PE, "cr0: long mode needs protection (APM 2 15.5.1)");
    RULE(!long_mode || (vmcb->cs.attributes & (CS_LONG | CS_BIG)) != (CS_LONG | CS_BIG),
         "cs: 64-bit code has D 0 (APM 2 15.5.1)");
    return NULL;
}

static const char *check_event(u32 event)
{
    u32 type = event & EVENT_TYPE, vector = event & EVENT_VECTOR;

    if (!(event & EVENT_VALID))
        return NULL;
    RULE(type != 1 << 8 && type <= EVENT_TYPE_SOFT_INTERRUPT, "event: reserved type (APM 2 15.20)");
    RULE(type != EVENT_TYPE_EXCEPTION || (vector < 32 && EXCEPTIONS >> vector & 1),
         "event: a vector that is no exception (APM 2 15.20)");
    RULE(!(event & 0x7ffff000), "event: reserved bits (APM 2 15.20)");
    return NULL;
}

const char *svm_check(const struct svm_vmcb *vmcb)
{
    RULE(vmcb->intercept[SVM_EXIT_VMRUN / 32] & 1u << SVM_EXIT_VMRUN % 32, "intercept: VMRUN (APM 2 15.5.1)");
    RULE(pages(vmcb->iopm, IOPM_SIZE), "iopm: beyond the physical addresses (APM 2 15.5.1)");
    RULE(pages(vmcb->msrpm, MSRPM_SIZE), "msrpm: beyond the physical addresses (APM 2 15.5.1)");
    RULE(vmcb->asid != 0, "asid: 0 is the host's (APM 2 15.5.1)");
    RULE(vmcb->tlb_control <= 1 || vmcb->tlb_control == 3 || vmcb->tlb_control == 7,
         "tlb_control: reserved (APM 2 15.16.1)");
    if (vmcb->nested_control & SVM_NESTED_PAGING) {
        RULE(pages(vmcb->nested_cr3, 4096), "nested_cr3: reserved bits (APM 2 15.25.4)");
        RULE(pat_is_valid(vmcb->pat), "pat: memory types (APM 2 15.25.8)");
    }
    return check_event(vmcb->event) ?: check_state(vmcb);
}
