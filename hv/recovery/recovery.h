/*
 * The way of a fault: detect -> decide -> quiesce -> reset -> restart -> replay, a file each, one fault_record through
 * all.
 *
 * Detectors (detect_*.c and the places that call recovery_report) only report. The stages run on the driver VM's own
 * CPU, from the run loop, under the hv lock: recovery_run(). Its vCPU is never in guest mode then.
 */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

struct driver;
struct injected_fault;
struct iommu_fault;

/* What the detectors see, and its name for people. */
#define FAULT_LIST(X)                                                                                                  \
    X(FAULT_NONE, "none")                                                                                              \
    X(FAULT_EXCEPTION, "exception")             /* triple fault, or the driver's exception handler said so */          \
    X(FAULT_UNEXPECTED_EXIT, "unexpected-exit") /* port or MSR not its own, CR write, invalid state */                 \
    X(FAULT_NESTED_PAGE, "nested-page")         /* touched guest-physical memory that it does not own */               \
    X(FAULT_DMA, "dma")                         /* VT-d recorded an access of its device outside the domain */         \
    X(FAULT_INTERRUPT, "interrupt")             /* VT-d recorded a forged interrupt, or an interrupt storm */          \
    X(FAULT_HEARTBEAT, "heartbeat")             /* ran without progress for heartbeat * misses */                      \
    X(FAULT_DEADLINE, "deadline")               /* a request stayed in flight for longer than the manifest allows */   \
    X(FAULT_COMPLETION_RING, "completion-ring") /* indices that jump, a tag not in flight, an impossible length */     \
    X(FAULT_DECLARED, "declared")               /* the driver's own `fault` hypercall (assert, device) */              \
    X(FAULT_OFFER, "offer")       /* no offer in time after a start, or one that differs from the first */             \
    X(FAULT_PLANNED, "planned")   /* rejuvenation, or what it needs was restarted */                                   \
    X(FAULT_OPERATOR, "operator") /* `restart VM`, `stop VM`, `start VM` */

#define FAULT_ENUM(kind, name) kind,
enum fault_kind { FAULT_LIST(FAULT_ENUM) FAULT_KINDS };
#undef FAULT_ENUM
extern const char *const fault_kind_name[FAULT_KINDS];

/* SUPERSEDED: a new fault came before the replay was done. */
enum fault_outcome { FAULT_OPEN, FAULT_RECOVERED, FAULT_GAVE_UP, FAULT_SUPERSEDED, FAULT_STOPPED };
extern const char *const fault_outcome_name[]; /* "open" "recovered" "gave-up" "superseded" "stopped" */
/* `detail` of FAULT_OPERATOR. */
enum fault_order { ORDER_RESTART, ORDER_STOP };

struct fault_record { /* times are TSC; 0: did not happen */
    u32 sequence;     /* per machine, from 1 */
    u32 vm;           /* vm->id */
    u32 generation;   /* of the driver that failed */
    enum fault_kind kind;
    enum fault_outcome outcome;
    u64 detail, address; /* RIP or code; faulting address; by kind */
    char text[80];       /* one line for people */
    char injected[16];   /* fault name when the injector had armed one, else "" (for reports only; no stage reads it) */
    u64 t_injected;
    u64 t_detect, t_decide, t_quiesce, t_reset, t_restart; /* when the stage began */
    u64 t_quiesce_end;                                     /* a pause (back-off) may lie between this and t_reset */
    u64 t_reset_end;
    u64 t_offer;            /* the new driver's offer arrived */
    u64 t_replay;           /* the log is back in its rings */
    u64 t_first_completion; /* the guest got the first completion after that */
    u8 reset_kind;          /* enum pci_reset_kind */
    u32 replayed;
};

struct rate { /* events in the window that began at this TSC */
    u64 start;
    u32 count;
};
/* One more event now: at most `limit` in 100 ms? */
bool rate_allows(struct rate *rate, u32 limit);

struct inject_flip {
    u64 address, bytes; /* as the VM sees it; 1 to 8 */
    u64 mask;           /* of the bits that change */
};

#define RECOVERY_HISTORY 512u /* records kept, per machine */

struct recovery {                /* in struct driver */
    bool pending;                /* a report waits for recovery_run() */
    struct fault_record current; /* the newest; sequence != 0: open, not in the history yet */
    u64 restart_at;              /* WAITING: TSC */
    u64 window_start;            /* TSC of the first restart that the policy counts */
    u32 restarts_in_window;
    bool escalated;            /* its step before giving up is used */
    bool wakes_dependents;     /* its next offer restarts those that need it */
    bool trial;                /* a new image has not completed its first recovery yet */
    u32 faults_total, crashes; /* reported first in their generation; of these, nobody's order */
    u32 reports_later;         /* reports that came after the first one of their generation */
    u64 last_progress;         /* heartbeat detector: the counters at the last look, */
    u64 last_run;              /* ... the vCPU's run_ticks then, */
    u64 silent;                /* ... and for how long of these nothing has changed; before the offer: of all time */
    u64 last_look, lost;       /* TSC of the last tick; of all time, what passed while the machine did not run us */
    u32 heartbeat_misses;      /* in a row, now */
    u64 storm_start;           /* interrupt-storm detector: its window began then (TSC), with these counts */
    u64 storm_interrupts, storm_completions;
    struct rate log_rate; /* of the `log` hypercall: a flood must not push faults out of the event log */
    /* The injector. */
    const struct injected_fault *inject_armed; /* NULL: none */
    u64 inject_time;                           /* TSC of the injection; 0: not yet */
    u64 inject_calls;                          /* driver->hypercalls at the last entry that was looked at */
    const char *inject_name;                   /* what was armed last; "": nothing */
    struct inject_flip at_start;               /* for the successor's first entry; bytes 0: none */
    char interrupts_fault;                     /* 'l'ose, 'f'orge or 'h'old, */
    u64 interrupts_left;                       /* ... so many still, or until this TSC; 0: over */
};

/*
 * A detector saw something. Only the first report of a generation counts; later ones are counted. Safe from any exit or
 * tick; the stages run later. text: printf for the one line.
 */
void recovery_report(struct driver *driver, enum fault_kind kind, u64 detail, u64 address, const char *fmt, ...)
    PRINTF_LIKE(5, 6);

/* Run the stages that are due for this driver (home CPU's run loop): after a report, when a back-off is over. */
void recovery_run(struct driver *driver);
bool recovery_due(const struct driver *driver, u64 now);

/*
 * The driver VM's offer, copied already: relay_offer() (which replays what is in flight), stamps, state RUNNING.
 * ERR_STATE when it has offered before; else what relay_offer() says. A successor whose offer is refused is reported as
 * FAULT_OFFER.
 */
struct driver_offer;
NODISCARD status_t recovery_offer(struct driver *driver, const struct driver_offer *offer);
/* By the relay after it published completions of a running driver. Only the first one after a recovery does anything.
 */
void recovery_first_completion(struct driver *driver);

/*
 * The operator's `restart VM` (also `start VM`) and `stop VM`. A restart ends a back-off at once; else they are
 * reported as FAULT_OPERATOR, which no limit holds back. ERR_STATE: a recovery is under way, or (stop) it is stopped;
 * ERR_BUSY: another one that runs needs it.
 */
NODISCARD status_t recovery_restart(struct driver *driver);
NODISCARD status_t recovery_stop(struct driver *driver);
/*
 * A new image: loaded, then a restart by the operator. Unless that ends well, the image before comes back by itself.
 * ERR_STATE: a recovery or a trial is under way; else what driver_load() says. *why: for people.
 */
NODISCARD status_t recovery_replace(struct driver *driver, const void *file, u64 size, const char **why);

/*
 * For `status`: "stopped" "starting" "running" "degraded" "recovering" "failed". Degraded: it runs, but the policy has
 * restarted it more than half as often as it may within its window, or it misses heartbeats now. A start after a fault
 * is part of the recovery until the offer, and so is the pause before it.
 */
const char *recovery_state(const struct driver *driver);

/*
 * crash.c: a page of what the generation that failed last has left, at < ram_size, and at ram_size its info page. The
 * address of the page; content: the driver's own.
 */
const u64 *crash_page(const struct driver *driver, u64 at);

/* FNV-1a, 32 bits: of the stash, and of images that an operator sends. */
u32 recovery_checksum(const u8 *data, u64 length);

/* Time-driven detectors for one driver VM: heartbeat, deadline, offer in time, interrupt storm. Every tick (1 ms) of
 * its home CPU. */
void recovery_tick(struct driver *driver, u64 now);

/* The IOMMU recorded this (detect_dma.c): find the owner, report, event. */
void recovery_iommu_fault(const struct iommu_fault *fault);

/* Past faults, oldest first: the i-th of recovery_history_count(); NULL beyond. */
const struct fault_record *recovery_history(u32 i);
u32 recovery_history_count(void);

/* inject.c: arm a fault by name for the VM's next entry ("crash" "hang" "wild-write" "wild-dma" "garbage").
 * ERR_NOT_FOUND, ERR_STATE (not running), ERR_BUSY. */
NODISCARD status_t inject_arm(struct driver *driver, const char *name);
/* Before each entry of a driver VM when inject_armed is set. May leave it armed (the fitting moment has not come). */
void inject_apply(struct driver *driver);
/*
 * What other classes of faults are made of (scripts/bulkhead_lib/faultclass.py). The operands are an operator's: any of
 * them may be nonsense. A change is noted as the injection that a later fault record names.
 *
 * Flip bits of the VM's RAM, stash or rings while it is out of guest mode; *was: what stood there. Or right after the
 * next restart: the last one asked for, *was is 0. ERR_RANGE; ERR_STATE: it does not run.
 */
NODISCARD status_t inject_flip(struct driver *driver, const struct inject_flip *flip, bool at_start, u64 *was);
/* "lose" the next `count` interrupts, "forge" so many, or "hold" back those of so many microseconds. ERR_NOT_FOUND,
 * ERR_RANGE. */
NODISCARD status_t inject_interrupts(struct driver *driver, const char *what, u64 count);
/* Each time round its CPU's loop: did its interrupt come, and is the driver to hear of one? */
bool inject_interrupt(struct driver *driver, bool came);
/* A canary page of the hypervisor that wild writes aim at. False when it was overwritten. */
void inject_canary_init(void);
bool inject_canary_intact(void);
