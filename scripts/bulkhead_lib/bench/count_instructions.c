/*
 * A plugin for QEMU's TCG: counts the instructions that the machine executes, in a file that others can read meanwhile.
 * Argument: counter=PATH, a file that holds struct counters. For one CPU: it is added to without a lock.
 *
 * Who executed them follows from the virtual address, since no two of the images are linked to the same: drivers below
 * 2 MiB, guestos from there on, the hypervisor in the upper half. A block of translated code is counted as it is
 * entered, so one that is left half-way counts whole. An idle CPU executes nothing.
 *
 * Declared here is what of QEMU's interface is used (its docs/devel/tcg-plugins.rst), as Debian packages no header of
 * it.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARGUMENT "counter="
#define GUEST_BASE 0x200000u
#define UPPER_HALF (1ull << 63)

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, enum qemu_plugin_op op, void *counter,
                                              uint64_t add);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                           void (*callback)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb));
int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv);

int qemu_plugin_version = 1;

/* The same order as in instructions.py. */
struct counters {
    uint64_t hypervisor, driver, guest;
};
static struct counters *executed;

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    uint64_t address = qemu_plugin_tb_vaddr(tb);
    uint64_t *counter = address >= UPPER_HALF   ? &executed->hypervisor
                        : address >= GUEST_BASE ? &executed->guest
                                                : &executed->driver;

    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, counter, qemu_plugin_tb_n_insns(tb));
}

/* Not 0: QEMU refuses to start. */
int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], ARGUMENT, strlen(ARGUMENT)) != 0)
        return 1;
    int file = open(argv[0] + strlen(ARGUMENT), O_RDWR | O_CLOEXEC);
    if (file < 0)
        return 1;
    executed = mmap(NULL, sizeof(*executed), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (executed == MAP_FAILED)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
