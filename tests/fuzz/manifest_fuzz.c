/* Any bytes give a manifest within the limits of its header, or an error with a message; twice the same. */
#include <stdlib.h>
#include <string.h>

#include "shared/abi/manifest.h"

#define CHECK(cond)                                                                                                    \
    do {                                                                                                               \
        if (!(cond))                                                                                                   \
            abort();                                                                                                   \
    } while (0)

static void check_range(u64 value, u64 low, u64 high)
{
    CHECK(value >= low && value <= high);
}

static void check_driver(const struct manifest_vm *vm)
{
    CHECK(vm->device.kind == MANIFEST_DEVICE_PCI || vm->device.kind == MANIFEST_DEVICE_CLASS);
    CHECK((vm->device.class_code & ~vm->device.class_mask) == 0);
    CHECK(vm->line_device > 0 && vm->memory % PAGE_SIZE == 0);
    check_range(vm->memory, KIB(512), MIB(64));
    check_range(vm->grant_pages, 256, 1048576);
    check_range(vm->heartbeat_us, 1000, 10000000);
    check_range(vm->misses, 1, 100);
    check_range(vm->deadline_us, 10000, 600000000);
    check_range(vm->backoff_us, 0, 10000000);
    check_range(vm->limit, 1, 1000);
    check_range(vm->window_us, 1000, 3600000000);
    CHECK(vm->cmdline[0] == '\0');
}

static void check_guest(const struct manifest_vm *vm)
{
    CHECK(vm->device.kind == MANIFEST_DEVICE_NONE && vm->memory % MIB(2) == 0);
    check_range(vm->memory, MIB(16), GIB(64));
    CHECK(memchr(vm->cmdline, '\0', sizeof(vm->cmdline)) != NULL);
}

static void check_manifest(const struct manifest *manifest)
{
    u32 guests = 0;

    check_range(manifest->vm_count, 1, MANIFEST_MAX_VMS);
    for (u32 i = 0; i < manifest->vm_count; i++) {
        const struct manifest_vm *vm = &manifest->vm[i];
        CHECK(vm->name[0] >= 'a' && vm->name[0] <= 'z' && memchr(vm->name, '\0', sizeof(vm->name)) != NULL);
        CHECK(vm->image[0] != '\0' && memchr(vm->image, '\0', sizeof(vm->image)) != NULL);
        CHECK(strpbrk(vm->image, "/\\:") == NULL);
        CHECK(vm->line > 0 && vm->line_image > vm->line && vm->line_memory > vm->line);
        CHECK(vm->kind == MANIFEST_DRIVER || vm->kind == MANIFEST_GUEST);
        if (vm->kind == MANIFEST_DRIVER)
            check_driver(vm);
        else
            check_guest(vm);
        guests += vm->kind == MANIFEST_GUEST;
        for (u32 j = 0; j < i; j++)
            CHECK(strcmp(vm->name, manifest->vm[j].name) != 0);
    }
    CHECK(guests == 1);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static struct manifest first, second;
    struct manifest_error error, again;

    memset(&first, 0xff, sizeof(first));
    status_t status = manifest_parse((const char *)data, size, &first, &error);
    if (status == OK)
        check_manifest(&first);
    else
        CHECK(error.message[0] != '\0' && memchr(error.message, '\0', sizeof(error.message)) != NULL);
    /* Nothing of what the outputs held before may shine through. */
    CHECK(manifest_parse((const char *)data, size, &second, &again) == status);
    CHECK(memcmp(&first, &second, sizeof(first)) == 0 && memcmp(&error, &again, sizeof(error)) == 0);
    return 0;
}
