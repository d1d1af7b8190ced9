/* VMs and their memory. */
#include "hv/core/vm.h"

#include "hv/control/control.h"
#include "hv/core/driver.h"
#include "hv/core/hypervisor.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

struct vm *vms[VM_MAX];
u32 vm_count;
struct vm *main_guest;

void *vm_ram(const struct vm *vm, gpa_t gpa, u64 len)
{
    if (!range_inside(gpa.v, len, 0, vm->ram_size))
        return NULL;
    return (u8 *)hpa_to_ptr(vm->ram) + gpa.v;
}

status_t vm_read(const struct vm *vm, gpa_t gpa, void *out, u64 len)
{
    const void *from = vm_ram(vm, gpa, len);

    if (!from)
        return ERR_RANGE;
    memcpy(out, from, len);
    return OK;
}

status_t vm_write(const struct vm *vm, gpa_t gpa, const void *data, u64 len)
{
    void *to = vm_ram(vm, gpa, len);

    if (!to)
        return ERR_RANGE;
    memcpy(to, data, len);
    return OK;
}

struct vm *vm_find(const char *name)
{
    for (u32 i = 0; i < vm_count; i++)
        if (!strcmp(vms[i]->name, name))
            return vms[i];
    return NULL;
}

void vm_fail(struct vm *vm, const char *reason, u64 detail)
{
    if (vm->driver) {
        recovery_report(vm->driver, FAULT_UNEXPECTED_EXIT, detail, vm->vcpu.rip, "%s (%lx) at rip %lx", reason, detail,
                        vm->vcpu.rip);
        return;
    }
    if (vm->failed)
        return;
    vm->failed = reason;
    vcpu_stop(&vm->vcpu);
    hv_log("%s has ended: %s (%lx) at rip %lx", vm->name, reason, detail, vm->vcpu.rip);
    event_add(EVENT_GUEST, vm->id, "ended: %s (%lx)", reason, detail);
}
