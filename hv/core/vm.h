/*
 * A VM: one contiguous range of host memory as its RAM from guest-physical 0, a nested page table, and one vCPU.
 * Driver VMs have a struct driver beside it (core/driver.h), the main guest a struct platform (platform/platform.h).
 *
 * Lifetime: made at boot from the manifest, never freed. Context: hv lock held.
 */
#pragma once

#include "hv/core/page_table.h"
#include "hv/core/vcpu.h"
#include "shared/abi/manifest.h"

#define VM_MAX MANIFEST_MAX_VMS

struct driver;
struct platform;

struct vm {
    u32 id; /* index in vms[] and the VM's number in events */
    const char *name;
    const struct manifest_vm *config;
    hpa_t ram; /* 2 MiB aligned */
    u64 ram_size;
    struct page_table npt;
    struct vcpu vcpu;
    struct driver *driver;     /* NULL for the main guest */
    struct platform *platform; /* NULL for a driver VM */
    const char *failed;        /* NULL, or why the VM was ended for good */
};

extern struct vm *vms[VM_MAX];
extern u32 vm_count;
extern struct vm *main_guest; /* set before any driver VM starts */

/* The hypervisor's pointer to [gpa, gpa+len) of the VM's RAM; NULL when any byte lies outside. len may be 0. */
void *vm_ram(const struct vm *vm, gpa_t gpa, u64 len);

/* Copy from or to the VM's RAM. ERR_RANGE when any byte lies outside; then nothing was copied. */
NODISCARD status_t vm_read(const struct vm *vm, gpa_t gpa, void *out, u64 len);
NODISCARD status_t vm_write(const struct vm *vm, gpa_t gpa, const void *data, u64 len);

/* By name; NULL when there is none. */
struct vm *vm_find(const char *name);

/*
 * The VM cannot go on: the main guest is stopped for good with this reason (static text), a driver VM is reported to
 * recovery as an unexpected exit. The hypervisor and all other VMs go on.
 */
void vm_fail(struct vm *vm, const char *reason, u64 detail);
