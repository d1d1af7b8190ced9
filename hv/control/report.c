/* The long answers of the control port: status, stats, events, faults. */
#include "hv/arch/x86/vendor.h"
#include "hv/control/answer.h"
#include "hv/control/control.h"
#include "hv/core/cpu.h"
#include "hv/core/driver.h"
#include "hv/core/hypervisor.h"
#include "hv/core/machine.h"
#include "hv/platform/platform.h"
#include "hv/relay/relay.h"
#include "shared/lib/printf.h"

#define CORE_PAGES 64u /* that one command looks at */

static const char *vm_name(u32 id)
{
    return id < vm_count ? vms[id]->name : "-";
}

static void status_driver(const struct driver *driver)
{
    const struct manifest_vm *config = driver->config;
    const struct fault_record *fault = &driver->recovery.current; /* the newest, under way or over */
    char text[112] = "none";

    answer(" device=" BDF_FORMAT, BDF_PARTS(driver->pci->bdf));
    answer_text("isolation", driver->isolation);
    answer(" dma=%s interrupts=%s generation=%u restarts=%u faults=%u in_flight=%u", manifest_dma_name[config->dma],
           driver_interrupt_name[driver->interrupt], driver->generation, driver->generation,
           driver->recovery.faults_total, relay_in_flight(driver->relay));
    answer(" crashes=%u restarts_in_window=%u limit=%u uptime_us=%lu", driver->recovery.crashes,
           driver->recovery.restarts_in_window, config->limit,
           driver->state == DRIVER_RUNNING ? tsc_to_us(tsc_now() - driver->started) : 0);
    answer(" reset=%s grants=%s heartbeat_us=%lu heartbeat_misses=%u", pci_reset_name[pci_reset_kind(driver->pci)],
           config->grants == MANIFEST_GRANTS_STRICT ? "strict" : "sticky", (u64)config->heartbeat_us,
           driver->recovery.heartbeat_misses);
    answer(" image=%s overhead=%lu image_bytes=%lu start_us=%lu start_run_us=%lu device_wait_us=%u spare=%s",
           driver->image.origin, ((driver->frames + driver_table_frames(driver)) << 12) - driver->vm->ram_size,
           driver->image.bytes, driver->start_us, driver->start_run_us, driver->device_wait_us,
           driver_spare_state(driver));
    if (fault->kind != FAULT_NONE)
        (void)bh_snprintf(text, sizeof(text), "%s: %s", fault_kind_name[fault->kind], fault->text);
    answer_text("last_fault", text);
}

static void status_vm(const struct vm *vm)
{
    const char *state = vm->driver != NULL ? recovery_state(vm->driver) : vm->failed ? "failed" : "running";

    answer("vm name=%s kind=%s state=%s cpu=%u memory=%lu", vm->name, vm->driver != NULL ? "driver" : "guest", state,
           vm->vcpu.cpu, vm->ram_size);
    if (vm->driver != NULL)
        status_driver(vm->driver);
    else if (vm->failed != NULL)
        answer_text("failed", vm->failed);
    answer("\n");
}

void report_status(void)
{
    answer("hypervisor uptime_us=%lu cpus=%u backend=%s", time_us(), cpu_count, vendor->name);
    answer_text("iommu", iommu_present() ? iommu_description() : "none");
    answer(" canary=%s frames_free=%lu frames_total=%lu events=%lu\n", inject_canary_intact() ? "ok" : "BROKEN",
           frames_free_count, frames_total_count, event_last());
    for (u32 i = 0; i < vm_count; i++)
        status_vm(vms[i]);
}

static void stats_driver(const struct driver *driver)
{
    const struct iommu_domain *domain = driver->domain;
    const struct relay_stats stats = relay_stats(driver->relay);

    answer(" hypercalls=%lu device_interrupts=%lu requests=%lu completions=%lu in_flight=%u", driver->hypercalls,
           driver->device_interrupts, stats.requests, stats.completions, stats.in_flight);
    answer(" bytes_read=%lu bytes_written=%lu kicks=%lu interrupts=%lu errors_answered=%lu broken=%lu",
           stats.bytes_read, stats.bytes_written, stats.kicks, stats.interrupts, stats.errors_answered, stats.broken);
    answer(" grants_new=%lu grants_hit=%lu grants_evicted=%lu grants_revoked=%lu granted_pages=%lu", stats.grants_new,
           stats.grants_hit, stats.grants_evicted, stats.grants_revoked, stats.granted_pages);
    answer(" replayed=%lu reports_later=%u", stats.replayed, driver->recovery.reports_later);
    if (domain != NULL)
        answer(" iommu_maps=%lu iommu_unmaps=%lu iommu_flushes=%lu", domain->maps, domain->unmaps, domain->flushes);
}

void report_stats(void)
{
    for (u32 i = 0; i < vm_count; i++) {
        struct vm *vm = vms[i];
        answer("vm name=%s run_us=%lu exits=%lu", vm->name, tsc_to_us(vm->vcpu.run_ticks), vm->vcpu.exits);
        for (u32 kind = 0; kind < EXIT_KINDS; kind++)
            answer(" exits_%s=%lu", exit_kind_name[kind], vm->vcpu.exits_by_kind[kind]);
        if (vm->driver != NULL)
            stats_driver(vm->driver);
        if (vm == main_guest) {
            const struct platform_stats guest = platform_stats(vm);
            answer(" interrupts=%lu timer_interrupts=%lu eoi_exits=%lu pv_eois=%lu console_in=%lu console_out=%lu",
                   guest.interrupts, guest.timer_interrupts, guest.eoi_exits, guest.pv_eois, guest.console_in,
                   guest.console_out);
        }
        answer("\n");
    }
    for (u32 i = 0; i < cpu_count; i++)
        answer("cpu id=%u ticks=%lu idle_us=%lu up_us=%lu\n", i, cpus[i].ticks, tsc_to_us(cpus[i].idle), time_us());
}

/* Microseconds since boot of a TSC stamp; 0 stays 0. */
static u64 us(u64 tsc)
{
    return tsc == 0 ? 0 : tsc_to_us(tsc - machine_start);
}

void report_events(u64 from, u32 most, bool trace)
{
    u64 last = event_last();
    u64 oldest = last < EVENT_LOG_SIZE ? 1 : last - EVENT_LOG_SIZE + 1;

    for (u64 sequence = from > oldest ? from : oldest; sequence <= last && most-- != 0; sequence++) {
        const struct event *event = event_get(sequence);
        answer(trace ? "trace seq=%lu tsc=%lu" : "event seq=%lu us=%lu", sequence, trace ? event->tsc : us(event->tsc));
        answer(" vm=%s kind=%s", vm_name(event->vm), event_kind_name[event->kind]);
        answer_text("text", event->text);
        answer("\n");
    }
}

/* From one stamp to another in microseconds; nothing when one of them did not happen. */
static void duration(const char *key, u64 from, u64 to)
{
    if (from != 0 && to >= from)
        answer(" %s_us=%lu", key, tsc_to_us(to - from));
}

static void report_fault(const struct fault_record *record)
{
    answer("fault seq=%u vm=%s generation=%u kind=%s outcome=%s injected=%s reset=%s replayed=%u", record->sequence,
           vm_name(record->vm), record->generation, fault_kind_name[record->kind], fault_outcome_name[record->outcome],
           record->injected, pci_reset_name[record->reset_kind], record->replayed);
    answer(" detail=0x%lx address=0x%lx t_injected=%lu t_detect=%lu t_decide=%lu t_quiesce=%lu", record->detail,
           record->address, us(record->t_injected), us(record->t_detect), us(record->t_decide), us(record->t_quiesce));
    answer(" t_reset=%lu t_restart=%lu t_offer=%lu t_replay=%lu t_first_completion=%lu", us(record->t_reset),
           us(record->t_restart), us(record->t_offer), us(record->t_replay), us(record->t_first_completion));
    duration("detect", record->t_injected, record->t_detect);
    duration("quiesce", record->t_quiesce, record->t_quiesce_end);
    duration("reset", record->t_reset, record->t_reset_end);
    duration("restart", record->t_restart, record->t_offer);
    duration("replay", record->t_offer, record->t_replay);
    duration("first_completion", record->t_injected != 0 ? record->t_injected : record->t_detect,
             record->t_first_completion);
    answer_text("text", record->text);
    answer("\n");
}

void report_faults(u64 from, u32 most, bool trace)
{
    (void)trace;
    for (u32 i = 0; i < recovery_history_count(); i++)
        if (recovery_history(i)->sequence >= from && recovery_history(i)->sequence - from < most)
            report_fault(recovery_history(i));
}

/* The rows of a page that are not all zero; how many. */
static u32 report_page(const u64 *w, u64 at)
{
    u32 rows = 0;

    for (u64 end = at + PAGE_SIZE; at < end; at += 32, w += 4)
        if ((w[0] | w[1] | w[2] | w[3]) && ++rows)
            answer("memory at=0x%lx words=%lx,%lx,%lx,%lx\n", at, w[0], w[1], w[2], w[3]);
    return rows;
}

/* A page a command at most, and a bounded search for it: the lock is held meanwhile. */
void report_core(const struct driver *driver, u64 at)
{
    const struct vcpu *vcpu = &driver->crash_vcpu;
    u64 last = at + CORE_PAGES * PAGE_SIZE, end = driver->vm->ram_size;

    report_fault(&driver->crash);
    answer("registers rip=0x%lx rflags=0x%lx", vcpu->rip, vcpu->rflags);
    for (u32 i = 0; i < 16; i++)
        answer(" r%u=0x%lx", i, ((const u64 *)&vcpu->regs)[i]);
    answer("\n");
    for (u32 rows = 0; rows == 0 && at < last && at <= end; at += PAGE_SIZE)
        rows = report_page(crash_page(driver, at), at);
    answer("next at=0x%lx end=0x%lx\n", at, end);
}
