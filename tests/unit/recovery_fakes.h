/*
 * A machine around the recovery stages, for their tests: one driver VM "blk0" with its device, a guest, and fakes of
 * relay, PCI, IOMMU and scheduler that write down the order in which they are called, and hold the first invariant of
 * recovery at each call: a device without a live owner is blocked and has bus mastering off. One test program includes
 * this once.
 */
#pragma once

#include "hv/arch/x86/cpu/ioapic.h"
#include "hv/control/control.h"
#include "hv/core/driver.h"
#include "hv/exit/hypercall.h"
#include "hv/recovery/stages.h"
#include "hv/relay/relay.h"
#include "shared/lib/string.h"
#include "tests/unit/fakes.h"
#include "tests/unit/unit.h"

#define FAKE_RAM MIB(62)
#define FAKE_RAM_SIZE MIB(1)
#define FAKE_CANARY MIB(64)
#define FAKE_EVENTS (MIB(64) + 0x1000)
#define FAKE_STASH (MIB(64) + 0x2000)
#define FAKE_INFO (MIB(64) + 0x3000)
#define FAKE_GUEST_SIZE MIB(16)
#define FAKE_BDF 0x00fa

static char fake_calls[2048]; /* "stop close ..." */
static bool fake_bus_master, fake_blocked, fake_message, fake_iommu;
static u32 fake_in_flight, fake_patient; /* of these, such that may wait for ever */
static u64 fake_oldest, fake_completions, fake_last_completion;
static bool fake_offered;     /* the guest: it has put a request into its ring that only relay_forward() finds */
static bool fake_granted_low; /* the first 16 guest pages are granted */
static status_t fake_offer_status, fake_load_status;
static enum pci_reset_kind fake_reset;
static u32 fake_max_length;
static bool fake_has_work, fake_arm_finds_work;
static u32 fake_complete_calls, fake_rearmed;
static void (*fake_on_drain)(void (*each)(const struct iommu_fault *fault));
static bool fake_complete_reports; /* relay_complete() sees what it is given as a violation */

static struct pci_device fake_pci;
static struct manifest_vm fake_config;
static struct vm fake_vm, fake_guest;
static struct driver fake_driver;
static u8 fake_crash[FAKE_RAM_SIZE + PAGE_SIZE], fake_kept[FAKE_RAM_SIZE / PAGE_SIZE];
static u64 fake_pristine[PAGE_SIZE / sizeof(u64)]; /* each page of RAM as a generation finds it */
static struct ring_completion_page fake_completion_pages[RING_MAX_QUEUES];
static struct {
    struct ring_request_page page;
    union ring_cell cell[RING_CELLS];
} fake_request_rings[RING_MAX_QUEUES];

struct driver *drivers[VM_MAX] = {&fake_driver};
u32 driver_count = 1;
const char *const driver_interrupt_name[] = {"polled", "MSI", "INTx"};
const char *const pci_reset_name[] = {"none", "flr", "bus", "driver"};

static void fake_call(const char *name)
{
    size_t used = strlen(fake_calls);
    snprintf(fake_calls + used, sizeof(fake_calls) - used, "%s%s", used > 0 ? " " : "", name);
}

static void fake_assert_contained(void)
{
    assert_false(fake_bus_master);
    assert_true(fake_blocked || !fake_iommu);
}

void vcpu_wake(struct vcpu *vcpu)
{
    if (vcpu->state == VCPU_BLOCKED)
        vcpu->state = VCPU_RUNNABLE;
}
void vcpu_kick(struct vcpu *vcpu)
{
}
static u32 fake_shootdowns;
void vcpu_shootdown(struct vcpu *vcpu)
{
    fake_shootdowns++;
}
void vcpu_block(struct vcpu *vcpu)
{
    vcpu->state = VCPU_BLOCKED;
}
void vcpu_stop(struct vcpu *vcpu)
{
    fake_call("stop");
    vcpu->state = VCPU_STOPPED;
}
/* Identity, as a driver VM starts; half of the address space is not mapped. */
status_t vcpu_translate(struct vcpu *vcpu, u64 va, gpa_t *out)
{
    if (va >> 47)
        return ERR_NOT_FOUND;
    *out = GPA(va);
    return OK;
}

struct driver *driver_by_bdf(u16 bdf)
{
    return bdf == FAKE_BDF ? &fake_driver : NULL;
}
const u64 *driver_pristine_page(const struct driver *driver, u64 at)
{
    assert_true(at < FAKE_RAM_SIZE && at % PAGE_SIZE == 0);
    return fake_pristine;
}
void driver_signal(struct driver *driver, u32 events)
{
    struct driver_events *page = hpa_to_ptr(driver->events_page);
    page->pending |= events;
    if (driver->waiting)
        vcpu_wake(&driver->vm->vcpu);
}
void driver_ready(struct driver *driver)
{
    /* What it does: tests/unit/driver_start_test.c */
}
void driver_prepare_spare(struct driver *driver)
{
    assert_int_equal(driver->state, DRIVER_RUNNING);
}
const char *driver_spare_state(const struct driver *driver)
{
    return "none";
}
void driver_start(struct driver *driver)
{
    fake_call("start");
    fake_assert_contained();
    driver->state = DRIVER_STARTING;
    driver->started = tsc_now();
    driver->vm->vcpu.state = VCPU_RUNNABLE;
}
/* As the real one, without an image's bytes. */
status_t driver_load(struct driver *driver, const void *file, u64 size, const char *origin, const char **why)
{
    fake_call("load");
    *why = "damaged";
    if (fake_load_status != OK)
        return fake_load_status;
    driver->other.origin = origin;
    driver->other.entry = size;
    driver_swap_images(driver);
    return OK;
}
status_t driver_enable_dma(struct driver *driver)
{
    fake_call("enable-dma");
    fake_blocked = false;
    fake_bus_master = true;
    return OK;
}

void relay_close(struct relay *relay)
{
    fake_call("close");
}
void relay_revoke_all(struct relay *relay)
{
    fake_call("revoke");
    fake_assert_contained(); /* else the device could still write to pages that the guest gets back */
}
void relay_reset_rings(struct relay *relay)
{
    fake_call("rings");
    fake_assert_contained();
    memset(fake_completion_pages, 0, sizeof(fake_completion_pages));
}
void relay_give_up(struct relay *relay, bool answer)
{
    fake_call(answer ? "give-up-errors" : "give-up-silent");
    fake_assert_contained();
}
status_t relay_offer(struct relay *relay, const struct driver_offer *offer)
{
    fake_call("offer");
    return fake_offer_status;
}
status_t relay_config(struct relay *relay, const u8 *config, u32 length)
{
    fake_call("config");
    return OK;
}
bool relay_forward(struct relay *relay)
{
    fake_call("forward");
    fake_oldest = fake_offered && fake_oldest == ~0ull ? tsc_now() : fake_oldest;
    return false;
}
u32 relay_complete(struct relay *relay)
{
    fake_complete_calls++;
    if (fake_complete_reports)
        recovery_report(&fake_driver, FAULT_COMPLETION_RING, 0, 0, "seen");
    return 0;
}
bool relay_arm_kicks(struct relay *relay)
{
    fake_call("arm");
    return fake_arm_finds_work;
}
void relay_want_kicks(struct relay *relay, bool want)
{
    fake_call(want ? "want" : "suppress");
}
bool relay_driver_has_work(const struct relay *relay)
{
    return fake_has_work;
}
u64 relay_oldest(const struct relay *relay)
{
    return fake_oldest == ~0ull && fake_in_flight > fake_patient ? tsc_now() : fake_oldest;
}
u32 relay_in_flight(const struct relay *relay)
{
    return fake_in_flight;
}
struct relay_stats relay_stats(const struct relay *relay)
{
    return (struct relay_stats){
        .completions = fake_completions, .last_completion = fake_last_completion, .in_flight = fake_in_flight};
}
struct ring_completion_page *relay_completion_page(struct relay *relay, u32 queue)
{
    return &fake_completion_pages[queue];
}
struct ring_request_page *relay_request_page(struct relay *relay, u32 queue)
{
    return &fake_request_rings[queue].page;
}
status_t relay_some_in_flight(struct relay *relay, u32 queue, u16 *tag, u32 *max_length)
{
    if (fake_in_flight == 0 || queue != 1)
        return ERR_NOT_FOUND;
    *tag = 77;
    *max_length = fake_max_length;
    return OK;
}
bool relay_is_granted(const struct relay *relay, gpa_t page)
{
    return fake_granted_low && page.v < 16 * PAGE_SIZE;
}

void pci_set_bus_master(const struct pci_device *dev, bool on)
{
    if (!on && fake_bus_master)
        fake_call("master-off");
    fake_bus_master = on;
}
void driver_interrupt_close(struct driver *driver)
{
    fake_call("message-off");
    fake_message = false;
}
status_t driver_interrupt_open(struct driver *driver)
{
    fake_call("message-on");
    fake_assert_contained();
    fake_message = true;
    return OK;
}
void ioapic_open(u32 vector, bool open)
{
    assert_int_equal(vector, 0x41);
    assert_true(open);
    fake_rearmed++;
}
enum pci_reset_kind pci_reset_device(struct pci_device *dev)
{
    fake_call("reset");
    fake_assert_contained();
    return fake_reset;
}
enum pci_reset_kind pci_reset_kind(const struct pci_device *dev)
{
    return fake_reset;
}
status_t pci_driver_read(const struct pci_device *dev, u32 offset, u32 width, u32 *value)
{
    *value = offset << 16 | 0x8000 | width;
    return offset < 4096 && width <= 4 ? OK : ERR_INVALID;
}
status_t pci_driver_write(const struct pci_device *dev, u32 offset, u32 width, u32 value, bool *bus_master)
{
    if (offset != 4)
        return ERR_DENIED;
    *bus_master = value & 4;
    return OK;
}
bool iommu_present(void)
{
    return fake_iommu;
}
void iommu_block(u16 bdf)
{
    fake_call("block");
    assert_int_equal(bdf, FAKE_BDF);
    fake_blocked = true;
}
bool iommu_is_blocked(u16 bdf)
{
    return fake_blocked;
}
u32 iommu_drain_faults(void (*each)(const struct iommu_fault *fault), bool *overflow)
{
    *overflow = false;
    if (fake_on_drain != NULL)
        fake_on_drain(each);
    return 0;
}
const char *iommu_reason_text(u8 reason)
{
    return "write not allowed";
}
status_t frames_alloc(u64 count, u64 align, hpa_t *out)
{
    *out = HPA(FAKE_CANARY);
    return count == 1 && align == MIB(64) ? OK : ERR_NO_MEMORY;
}

/* A driver VM that runs, with a device that may do DMA; ten seconds after boot. */
static int fake_machine(void **state)
{
    fake_memory_create(FAKE_RAM, MIB(3));
    memset(hpa_to_ptr(HPA(FAKE_CANARY)), 0, 0x4000);
    memset(fake_pristine, 0, sizeof(fake_pristine));
    memset(fake_crash, 0, sizeof(fake_crash));
    memset(fake_kept, 0, sizeof(fake_kept));
    fake_time_us = 10000000;
    fake_calls[0] = '\0';
    fake_bus_master = fake_message = fake_iommu = true;
    fake_blocked = fake_granted_low = fake_has_work = fake_arm_finds_work = fake_complete_reports = false;
    fake_in_flight = fake_patient = fake_complete_calls = fake_rearmed = fake_shootdowns = 0;
    fake_oldest = ~0ull;
    fake_offered = false;
    fake_completions = fake_last_completion = 0;
    fake_offer_status = fake_load_status = OK;
    fake_reset = PCI_RESET_FLR;
    fake_max_length = 4097;
    fake_on_drain = NULL;
    memset(fake_completion_pages, 0, sizeof(fake_completion_pages));
    memset(fake_request_rings, 0, sizeof(fake_request_rings));

    fake_pci = (struct pci_device){.bdf = FAKE_BDF};
    fake_config = (struct manifest_vm){.name = "blk0",
                                       .kind = MANIFEST_DRIVER,
                                       .heartbeat_us = 20000,
                                       .misses = 3,
                                       .deadline_us = 500000,
                                       .restart = true,
                                       .limit = 5,
                                       .window_us = 10000000};
    fake_vm = (struct vm){.id = 0,
                          .name = "blk0",
                          .config = &fake_config,
                          .ram = HPA(FAKE_RAM),
                          .ram_size = FAKE_RAM_SIZE,
                          .driver = &fake_driver};
    fake_vm.vcpu = (struct vcpu){.vm = &fake_vm, .state = VCPU_RUNNABLE, .rip = 0x10040};
    fake_guest = (struct vm){.id = 1, .name = "main", .ram_size = FAKE_GUEST_SIZE};
    fake_driver = (struct driver){.vm = &fake_vm,
                                  .config = &fake_config,
                                  .state = DRIVER_RUNNING,
                                  .started = 1,
                                  .image = {.origin = "manifest"},
                                  .next_ram = HPA(FAKE_RAM),
                                  .next_clean = FAKE_RAM_SIZE,
                                  .pci = &fake_pci,
                                  .isolation = "iommu",
                                  .info_page = HPA(FAKE_INFO),
                                  .events_page = HPA(FAKE_EVENTS),
                                  .stash_page = HPA(FAKE_STASH),
                                  .crash_memory = fake_crash,
                                  .crash_kept = fake_kept,
                                  .wait_deadline = ~0ull,
                                  .interrupt = DRIVER_MSI,
                                  .irq_vector = 0x41};
    progress_reset(&fake_driver);
    fake_driver.recovery.last_look = tsc_now();
    vms[0] = &fake_vm;
    vms[1] = &fake_guest;
    vm_count = 2;
    main_guest = &fake_guest;
    return 0;
}

static int fake_machine_end(void **state)
{
    fake_memory_destroy();
    return 0;
}

/* The newest record that has ended. */
__attribute__((unused)) static const struct fault_record *fake_last_record(void)
{
    assert_true(recovery_history_count() > 0);
    return recovery_history(recovery_history_count() - 1);
}

/* How many events of this kind there are after that sequence number. */
__attribute__((unused)) static u32 fake_events_since(u64 sequence, enum event_kind kind)
{
    u32 count = 0;
    while (++sequence <= event_last())
        count += event_get(sequence) != NULL && event_get(sequence)->kind == kind;
    return count;
}
