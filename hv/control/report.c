/* The long answers of the control port: status, stats, events, faults. */
#include "hv/arch/x86/vendor.h"
#include "hv/control/answer.h"
#include "hv/control/control.h"
#include "hv/core/cpu.h"
#include "hv/core/driver.h"
#include "hv/core/hypervisor.h"
#include "hv/platform/platform.h"
#include "hv/relay/relay.h"
#include "shared/lib/printf.h"

static const char *const outcome_name[] = {
    [FAULT_OPEN] = "open",
    [FAULT_RECOVERED] = "recovered",
    [FAULT_GAVE_UP] = "gave-up",
    [FAULT_SUPERSEDED] = "superseded",
};

static const char *vm_name(u32 id)
{
    return id < vm_count ? vms[id]->name : "-";
}

/* Its newest record that has ended; NULL. */
static const struct fault_record *last_fault(const struct vm *vm)
{
    for (u32 i = recovery_history_count(); i > 0; i--) {
        const struct fault_record *record = recovery_history(i - 1);
        if (record->vm == vm->id)
            return record;
    }
    return NULL;
}

static void status_driver(const struct driver *driver)
{
    const struct recovery *recovery = &driver->recovery;
    const struct manifest_vm *config = driver->config;
    const struct fault_record *fault = last_fault(driver->vm);
    u16 bdf = driver->pci->bdf;
    char text[112], device[8];

    (void)bh_snprintf(device, sizeof(device), "%02x:%02x.%x", bdf >> 8, bdf >> 3 & 31, bdf & 7);
    (void)bh_snprintf(text, sizeof(text), "%s%s%s", fault != NULL ? fault_kind_name[fault->kind] : "none",
                      fault != NULL ? ": " : "", fault != NULL ? fault->text : "");
    answer_word("device", device);
    answer_text("isolation", driver->isolation);
    answer_word("dma", config->dma_unprotected ? "unprotected" : "isolated");
    answer_number("generation", driver->generation);
    answer_number("restarts", recovery->restarts_total);
    answer_number("faults", recovery->faults_total);
    answer_number("in_flight", relay_in_flight(driver->relay));
    answer_number("image_size", driver->image_size);
    answer_word("reset", pci_reset_name[pci_reset_kind(driver->pci)]);
    answer_word("grants", config->grants == MANIFEST_GRANTS_STRICT ? "strict" : "sticky");
    answer_number("heartbeat_us", config->heartbeat_us);
    answer_number("heartbeat_misses", recovery->heartbeat_misses);
    answer_text("last_fault", text);
}

static const char *guest_state(const struct vm *vm)
{
    return vm->failed != NULL ? "failed" : "running";
}

void report_status(void)
{
    answer_begin("hypervisor");
    answer_number("uptime_us", time_us());
    answer_number("cpus", cpu_count);
    answer_word("backend", vcpu_vendor_name());
    answer_text("iommu", iommu_present() ? iommu_description() : "none");
    answer_word("canary", inject_canary_intact() ? "ok" : "BROKEN");
    answer_number("frames_free", frames_free_count());
    answer_number("frames_total", frames_total_count());
    answer_end();

    for (u32 i = 0; i < vm_count; i++) {
        const struct vm *vm = vms[i];
        answer_begin("vm");
        answer_word("name", vm->name);
        answer_word("kind", vm->driver != NULL ? "driver" : "guest");
        answer_word("state", vm->driver != NULL ? driver_state_name[vm->driver->state] : guest_state(vm));
        answer_number("cpu", vm->vcpu.cpu);
        answer_number("memory", vm->ram_size);
        if (vm->driver != NULL)
            status_driver(vm->driver);
        else if (vm->failed != NULL)
            answer_text("failed", vm->failed);
        answer_end();
    }
}

static void stats_driver(const struct driver *driver)
{
    struct relay_stats stats;

    relay_stats(driver->relay, &stats);
    answer_number("hypercalls", driver->hypercalls);
    answer_number("device_interrupts", driver->device_interrupts);
    answer_number("requests", stats.requests);
    answer_number("completions", stats.completions);
    answer_number("in_flight", stats.in_flight);
    answer_number("bytes_read", stats.bytes_read);
    answer_number("bytes_written", stats.bytes_written);
    answer_number("kicks", stats.kicks);
    answer_number("interrupts", stats.interrupts);
    answer_number("errors_answered", stats.errors_answered);
    answer_number("broken", stats.broken);
    answer_number("grants_new", stats.grants_new);
    answer_number("grants_hit", stats.grants_hit);
    answer_number("grants_evicted", stats.grants_evicted);
    answer_number("grants_revoked", stats.grants_revoked);
    answer_number("granted_pages", stats.granted_pages);
    answer_number("replayed", stats.replayed);
    answer_number("reports_later", driver->recovery.reports_later);
    if (driver->domain != NULL) {
        answer_number("iommu_maps", driver->domain->maps);
        answer_number("iommu_unmaps", driver->domain->unmaps);
        answer_number("iommu_flushes", driver->domain->flushes);
    }
}

static void stats_guest(struct vm *vm)
{
    struct platform_stats stats;

    platform_stats(vm, &stats);
    answer_number("interrupts", stats.interrupts);
    answer_number("timer_interrupts", stats.timer_interrupts);
    answer_number("eoi_exits", stats.eoi_exits);
    answer_number("pv_eois", stats.pv_eois);
    answer_number("console_in", stats.console_in);
    answer_number("console_out", stats.console_out);
}

void report_stats(void)
{
    char key[32];

    for (u32 i = 0; i < vm_count; i++) {
        struct vm *vm = vms[i];
        answer_begin("vm");
        answer_word("name", vm->name);
        answer_number("run_us", tsc_to_us(vm->vcpu.run_ticks));
        answer_number("exits", vm->vcpu.exits);
        for (u32 kind = 0; kind < EXIT_KINDS; kind++) {
            (void)bh_snprintf(key, sizeof(key), "exits_%s", exit_kind_name[kind]);
            answer_number(key, vm->vcpu.exits_by_kind[kind]);
        }
        if (vm->driver != NULL)
            stats_driver(vm->driver);
        else
            stats_guest(vm);
        answer_end();
    }
    for (u32 i = 0; i < cpu_count; i++) {
        answer_begin("cpu");
        answer_number("id", i);
        answer_number("ticks", cpus[i].ticks);
        answer_end();
    }
}

void report_events(u64 from, bool raw)
{
    u64 last = event_last();
    u64 oldest = last < EVENT_LOG_SIZE ? 1 : last - EVENT_LOG_SIZE + 1;

    for (u64 sequence = from > oldest ? from : oldest; sequence <= last; sequence++) {
        const struct event *event = event_get(sequence);
        if (event == NULL)
            continue;
        answer_begin(raw ? "trace" : "event");
        answer_number("seq", event->sequence);
        if (raw)
            answer_number("tsc", event->tsc);
        else
            answer_stamp("us", event->tsc);
        answer_word("vm", vm_name(event->vm));
        answer_word("kind", event_kind_name[event->kind]);
        answer_text("text", event->text);
        answer_end();
    }
}

static void report_fault(const struct fault_record *record)
{
    u64 start = record->t_injected != 0 ? record->t_injected : record->t_detect;

    answer_begin("fault");
    answer_number("seq", record->sequence);
    answer_word("vm", vm_name(record->vm));
    answer_number("generation", record->generation);
    answer_word("kind", fault_kind_name[record->kind]);
    answer_word("outcome", outcome_name[record->outcome]);
    answer_word("injected", record->injected);
    answer_word("reset", pci_reset_name[record->reset_kind]);
    answer_number("replayed", record->replayed);
    answer_hex("detail", record->detail);
    answer_hex("address", record->address);
    answer_stamp("t_injected", record->t_injected);
    answer_stamp("t_detect", record->t_detect);
    answer_stamp("t_decide", record->t_decide);
    answer_stamp("t_quiesce", record->t_quiesce);
    answer_stamp("t_reset", record->t_reset);
    answer_stamp("t_restart", record->t_restart);
    answer_stamp("t_offer", record->t_offer);
    answer_stamp("t_replay", record->t_replay);
    answer_stamp("t_first_completion", record->t_first_completion);
    answer_duration("detect_us", record->t_injected, record->t_detect);
    answer_duration("quiesce_us", record->t_quiesce, record->t_reset);
    answer_duration("reset_us", record->t_reset, record->t_reset_end);
    answer_duration("restart_us", record->t_restart, record->t_offer);
    answer_duration("replay_us", record->t_offer, record->t_replay);
    answer_duration("first_completion_us", start, record->t_first_completion);
    answer_text("text", record->text);
    answer_end();
}

void report_faults(u64 from)
{
    for (u32 i = 0; i < recovery_history_count(); i++) {
        const struct fault_record *record = recovery_history(i);
        if (record->sequence >= from)
            report_fault(record);
    }
}
