/* What a refused VM entry prints: why, and the VMCS by the names of its fields, once for each VM. */
/* SOURCES: hv/arch/x86/vmx/explain.c hv/arch/x86/vmx/check.c */
#include "hv/arch/x86/vmx/vmx.h"

#include "hv/core/vm.h"
#include "tests/unit/unit.h"
#include "tests/unit/vmx_world.h"

#include <string.h>

struct vmx_capabilities vmx_capabilities;
struct vmx_controls vmx_controls;
static struct vmcs_snapshot world;
static struct vmx_vcpu vmx;
static struct vm vm = {.name = "blk0"};
static char log_text[16384];
static unsigned log_lines;

u64 vmcs_read(enum vmcs_field field)
{
#define VMCS_CASE(name, encoding)                                                                                      \
    case encoding:                                                                                                     \
        return world.value[VMCS_INDEX_##name];
    switch ((u32)field) {
        VMCS_FIELDS(VMCS_CASE)
    }
    fail();
    return 0;
}

struct vmx_vcpu *vmx_use(struct vcpu *vcpu)
{
    return &vmx;
}

void hv_log(const char *format, ...)
{
    size_t at = strlen(log_text);
    va_list args;

    va_start(args, format);
    vsnprintf(log_text + at, sizeof(log_text) - at, format, args);
    va_end(args);
    strcat(log_text, "\n");
    log_lines++;
}

static int prepare(void **state)
{
    struct world w = start_state(&recorded_skylake, true);

    (void)state;
    vmx_capabilities = w.caps;
    world = w.vmcs;
    vmx = (struct vmx_vcpu){0};
    log_text[0] = '\0';
    log_lines = 0;
    return 0;
}

static void the_line_names_number_and_field(void **state)
{
    struct vcpu vcpu = {.vm = &vm};

    (void)state;
    world.value[VMCS_INDEX_GUEST_TR_ACCESS] = 0x93; /* data, where a busy TSS must be */
    vmx_explain(&vcpu, 0x80000021);                 /* reason 33, entry failed */
    *strchr(log_text, '\n') = '\0';
    assert_non_null(strstr(log_text, "blk0: VM entry refused: 33 (invalid guest state)"));
    assert_non_null(strstr(log_text, "GUEST_TR_ACCESS"));
}

static void a_rule_unknown_here_is_said_to_be(void **state)
{
    struct vcpu vcpu = {.vm = &vm};

    (void)state;
    vmx_explain(&vcpu, 7);
    assert_non_null(
        strstr(log_text, "refused: 7 (invalid control fields), qualification 0; no rule known here is broken"));
    vmx_explain(&vcpu, 12345);
    assert_non_null(strstr(log_text, "refused: 12345 (SDM 3C 30.4)"));
}

static void every_field_is_dumped_by_its_name_once(void **state)
{
    struct vcpu vcpu = {.vm = &vm};
    char wanted[80];

    (void)state;
    for (u32 i = 0; i < VMCS_FIELD_COUNT; i++)
        world.value[i] += i << 20; /* each another value */
    vmx_explain(&vcpu, 7);
#define VMCS_DUMPED(name, encoding)                                                                                    \
    snprintf(wanted, sizeof(wanted), " " #name "=%lx", world.value[VMCS_INDEX_##name]);                                \
    assert_non_null(strstr(log_text, wanted));
    VMCS_FIELDS(VMCS_DUMPED)
    unsigned lines = log_lines;
    vmx_explain(&vcpu, 7);
    assert_int_equal(log_lines, lines + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_line_names_number_and_field, prepare),
        cmocka_unit_test_setup(a_rule_unknown_here_is_said_to_be, prepare),
        cmocka_unit_test_setup(every_field_is_dumped_by_its_name_once, prepare),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
