/*
 * The runtime's services as tests of drivers give them: identity, clock, memory, configuration space, and a way to
 * expect a fault. A test of a class adds a guest, a model of a device answers.
 */
#pragma once

#include "drivervm/runtime/io.h"
#include "drivervm/runtime/runtime.h"
#include "tests/unit/random.h"

#include <sys/wait.h>
#include <unistd.h>

static struct driver_info info;
static struct driver_events events;
const struct driver_info *driver_info = &info;
const struct driver_events *driver_events = &events;
struct ring driver_rings[RING_MAX_QUEUES];
static u8 stash[DRIVER_STASH_SIZE];
void *driver_stash = stash;
u8 image_end[MIB(16)] __attribute__((aligned(4096))); /* the VM's RAM, which all starts in this program share */
static u64 now_us;
static u32 pci_command_register;
static u32 pci_command_ever; /* bits that were ever set */

u64 tsc_read(void)
{
    return now_us++; /* tsc_khz is 1000: each look at the clock takes a microsecond */
}

/* For a model that knows more than what every driver needs; NULL: nothing else is called for. */
static i64 (*more_hypercalls)(enum hypercall call, u64 a, u64 b, u64 c);

i64 hypercall(enum hypercall call, u64 a, u64 b, u64 c)
{
    switch (call) {
    case HYPERCALL_LOG:
        assert_true(b > 0 && b <= 200);
        if (getenv("BULKHEAD_LOG"))
            printf("  | %.*s\n", (int)b, (const char *)a);
        return 0;
    case HYPERCALL_STASH:
        info.stash_length = (u32)a;
        return 0;
    case HYPERCALL_PCI_READ:
        if (a != PCI_COMMAND && more_hypercalls)
            return more_hypercalls(call, a, b, c);
        assert_int_equal(a, PCI_COMMAND);
        assert_int_equal(b, 2);
        return pci_command_register;
    case HYPERCALL_PCI_WRITE:
        assert_int_equal(a, PCI_COMMAND);
        pci_command_register = (u32)c;
        pci_command_ever |= (u32)c;
        return 0;
    default:
        if (more_hypercalls)
            return more_hypercalls(call, a, b, c);
        fail_msg("hypercall %d", call);
        return 0;
    }
}

/* Tests that expect a fault run in a child, whose exit code says which. */
#define EXIT_FAULT 40
static bool faults_allowed;

void driver_fault(enum driver_fault_code code, u64 detail)
{
    if (faults_allowed)
        _exit(EXIT_FAULT + (int)code);
    fail_msg("driver_fault(%d, %llx)", code, (unsigned long long)detail);
    abort();
}

/* Run in a child, where driver_fault() is the expected end. Returns the code of the fault, 0 when there was none. */
static inline int fault_of(void (*body)(void))
{
    int status;

    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        faults_allowed = true;
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status) ? WEXITSTATUS(status) - EXIT_FAULT : 0;
}
