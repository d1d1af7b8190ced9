/*
 * The stages among themselves; nobody outside hv/recovery includes this. recovery.c runs them in this order, each one
 * stamps nothing itself: the sequence in recovery_run() does. Context: hv lock held, the driver VM's vCPU not in guest
 * mode.
 */
#pragma once

#include "hv/core/driver.h"

/* detect.c: the record in `current`, which recovery_report() has opened, goes into the history. */
void record_close(struct driver *driver, enum fault_outcome outcome);

/* decide.c: what the manifest says about the fault in `current`; counts its restart in the window. */
struct recovery_decision {
    bool restart, stop;  /* neither: give up */
    bool back, fallback; /* restart with the image before, or with the fallback */
    u64 delay;           /* TSC ticks to wait before the restart */
    const char *why;
};
/* Is the window in which the policy counts restarts still open? */
bool recovery_window_open(const struct manifest_vm *config, const struct recovery *recovery, u64 now);
struct recovery_decision recovery_decide(const struct manifest_vm *config, struct recovery *recovery, u64 now);

/* quiesce.c: nothing of the driver VM or its device acts or reaches memory any more when this returns. */
void recovery_quiesce(struct driver *driver);
/* reset_device.c: the device forgets what the old driver told it. */
void recovery_reset_device(struct driver *driver);
/* restart.c: the next generation runs from the pristine image. */
void recovery_restart_vm(struct driver *driver);

/* detect_progress.c: the detectors of time start anew. */
void progress_reset(struct driver *driver);
/* inject.c: forget what was armed or applied; flip what was to be flipped in the successor, when it is about to start.
 */
void inject_clear(struct driver *driver);
