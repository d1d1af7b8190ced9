/* SOURCES: hv/arch/x86/svm/check.c */
/* The VMCB checker: our start states pass; each rule, broken once, is named. */
#include "hv/arch/x86/svm/check.h"

#include "hv/arch/x86/cpu/registers.h"
#include "tests/unit/random.h"
#include "tests/unit/unit.h"

#include <string.h>

/* As svm_create() and the resets leave it: 64-bit flat with paging (a driver VM), or 32-bit flat without (the guest).
 */
static struct svm_vmcb start_state(bool long_mode)
{
    struct svm_vmcb vmcb = {
        .intercept = {[SVM_EXIT_VMRUN / 32] = 1u << SVM_EXIT_VMRUN % 32},
        .iopm = 0x10000,
        .msrpm = 0x13000,
        .asid = 1,
        .nested_control = SVM_NESTED_PAGING,
        .nested_cr3 = 0x20000,
        .cs = {.selector = 8, .attributes = long_mode ? 0xa9b : 0xc9b, .limit = 0xffffffff},
        .cr0 = CR0_PE | CR0_ET | CR0_NE | (long_mode ? CR0_PG | CR0_WP : 0),
        .cr3 = long_mode ? 0x1000 : 0,
        .cr4 = long_mode ? CR4_PAE : 0,
        .efer = EFER_SVME | (long_mode ? EFER_LME | EFER_LMA | EFER_NXE : 0),
        .dr6 = 0xffff0ff0,
        .dr7 = 0x400,
        .rflags = RFLAGS_FIXED,
        .pat = 0x0007040600070406ull,
    };
    return vmcb;
}

static void start_states_pass(void **state)
{
    for (u32 long_mode = 0; long_mode < 2; long_mode++) {
        struct svm_vmcb vmcb = start_state(long_mode);
        assert_null(svm_check(&vmcb));
    }
}

#define BREAK(text, statement)                                                                                         \
    do {                                                                                                               \
        struct svm_vmcb v = start_state(true);                                                                         \
        statement;                                                                                                     \
        const char *fault = svm_check(&v);                                                                             \
        assert_non_null(fault);                                                                                        \
        if (strncmp(fault, text, strlen(text)) != 0)                                                                   \
            fail_msg("%s: says \"%s\", not \"%s\"", #statement, fault, text);                                          \
    } while (0)
#define KEEP(statement)                                                                                                \
    do {                                                                                                               \
        struct svm_vmcb v = start_state(true);                                                                         \
        statement;                                                                                                     \
        const char *fault = svm_check(&v);                                                                             \
        if (fault)                                                                                                     \
            fail_msg("%s: says \"%s\"", #statement, fault);                                                            \
    } while (0)

static void each_rule_of_the_state_is_named(void **state)
{
    BREAK("efer: SVME", v.efer &= ~EFER_SVME);
    BREAK("efer: reserved", v.efer |= 1ull << 16);
    BREAK("efer: reserved", v.efer |= 1ull << 40);
    BREAK("cr0: NW", v.cr0 |= CR0_NW);
    KEEP(v.cr0 |= CR0_CD);
    KEEP(v.cr0 |= CR0_CD | CR0_NW);
    BREAK("cr0: 32", v.cr0 |= 1ull << 32);
    BREAK("cr3: ", v.cr3 |= 1ull << 52);
    BREAK("cr4: reserved", v.cr4 |= 1u << 15);
    BREAK("cr4: reserved", v.cr4 |= 1ull << 33);
    KEEP(v.cr4 |= CR4_SMEP | CR4_SMAP | CR4_UMIP | CR4_FSGSBASE | CR4_OSFXSR);
    BREAK("dr6: ", v.dr6 |= 1ull << 32);
    BREAK("dr7: ", v.dr7 |= 1ull << 63);
    BREAK("cr4: long mode", v.cr4 &= ~CR4_PAE);
    BREAK("cr0: long mode", v.cr0 &= ~CR0_PE);
    BREAK("cs: ", v.cs.attributes |= 1u << 10);
    KEEP(v.cs.attributes = 0xc9b); /* compatibility mode */
    KEEP((v.cr0 &= ~CR0_PG, v.cr4 &= ~CR4_PAE, v.efer &= ~EFER_LMA));
}

static void each_rule_of_the_controls_is_named(void **state)
{
    BREAK("intercept: VMRUN", v.intercept[4] = 0xfffffffe);
    BREAK("iopm: ", v.iopm = (1ull << 52) - 0x2000);
    KEEP(v.iopm = (1ull << 52) - 0x3000);
    BREAK("iopm: ", v.iopm = ~0xfffull);
    BREAK("iopm: ", v.iopm += 0x800);
    BREAK("msrpm: ", v.msrpm = (1ull << 52) - 0x1000);
    KEEP(v.msrpm = (1ull << 52) - 0x2000);
    BREAK("asid: ", v.asid = 0);
    BREAK("tlb_control: ", v.tlb_control = 2);
    KEEP(v.tlb_control = SVM_TLB_FLUSH_ALL);
    BREAK("nested_cr3: ", v.nested_cr3 |= 1ull << 52);
    BREAK("nested_cr3: ", v.nested_cr3 |= 0x10);
    BREAK("pat: ", v.pat = 0x0007040600070402ull);
    BREAK("pat: ", v.pat |= 8ull << 56);
    KEEP((v.pat = 0x0000000000000102ull, v.nested_control = 0));
}

static void events(void **state)
{
    const u32 valid = EVENT_VALID;

    BREAK("event: reserved type", v.event = valid | 1 << 8);
    for (u32 type = 5; type < 8; type++)
        BREAK("event: reserved type", v.event = valid | type << 8);
    BREAK("event: a vector", v.event = valid | EVENT_TYPE_EXCEPTION | 2);
    BREAK("event: a vector", v.event = valid | EVENT_TYPE_EXCEPTION | 32);
    BREAK("event: a vector", v.event = valid | EVENT_TYPE_EXCEPTION | 255);
    BREAK("event: a vector", v.event = valid | EVENT_TYPE_EXCEPTION | 15);
    BREAK("event: reserved bits", v.event = valid | 0x40 | 1 << 12);
    KEEP(v.event = valid | 0x40);
    KEEP(v.event = valid | 2 << 8 | 2);
    KEEP(v.event = valid | 4 << 8 | 0x80);
    KEEP(v.event = valid | EVENT_TYPE_EXCEPTION | EVENT_HAS_ERROR | 13);
    KEEP(v.event = 0x7fffffff); /* not valid: not looked at */
}

/* Every bit that is reserved in whatever else the VMCB holds is found, and no flip of any bit does harm. */
static void single_flips(void **state)
{
    struct random random = random_start("svm_check");

    for (u32 round = 0; round < 20000; round++) {
        struct svm_vmcb vmcb = start_state(random_one_in(&random, 2));
        u64 bit = random_below(&random, sizeof(vmcb) * 8);
        ((u8 *)&vmcb)[bit / 8] ^= (u8)(1u << bit % 8);
        const char *fault = svm_check(&vmcb);
        assert_true(fault == NULL || strstr(fault, "(APM 2 ") != NULL);
    }
    for (u32 bit = 32; bit < 64; bit++) {
        BREAK("cr0: 32", v.cr0 |= 1ull << bit);
        BREAK("cr4: reserved", v.cr4 |= 1ull << bit);
        BREAK("efer: reserved", v.efer |= 1ull << bit);
        BREAK("dr6: ", v.dr6 |= 1ull << bit);
        BREAK("dr7: ", v.dr7 |= 1ull << bit);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(start_states_pass),
        cmocka_unit_test(each_rule_of_the_state_is_named),
        cmocka_unit_test(each_rule_of_the_controls_is_named),
        cmocka_unit_test(events),
        cmocka_unit_test(single_flips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
