/*
 * The control port (COM2, off unless the manifest says `control = com2`; the main guest's own, off unless its section
 * says `control = read` or `yes`) and the event log.
 *
 * A line in, lines out, last line "ok" or "error TEXT"; `help` lists the commands. A line of an answer is `kind
 * key=value key="text with spaces"`; times are microseconds since boot, and a duration whose ends did not both happen
 * is left out. Lines in are at most 255 bytes; longer ones are refused whole. Polled from the 1 ms tick of CPU 0; the
 * answer is buffered and leaves tick by tick, as much as the UART takes in a quarter of a millisecond. The next command
 * is read after that. The guest's port looks at its queues every four milliseconds only, takes one command a line, and
 * tells so few lines of a list at once that a guest that asks without end costs the others next to nothing.
 */
#pragma once

#include "shared/abi/manifest.h"
#include "shared/lib/types.h"

/* LOG: the hypervisor's log line, DRIVER_LOG: a line of a driver VM */
#define EVENT_LIST(X)                                                                                                  \
    X(EVENT_LOG, "log")                                                                                                \
    X(EVENT_DRIVER_LOG, "driver-log")                                                                                  \
    X(EVENT_START, "start")                                                                                            \
    X(EVENT_OFFER, "offer")                                                                                            \
    X(EVENT_FAULT, "fault")                                                                                            \
    X(EVENT_DECIDE, "decide")                                                                                          \
    X(EVENT_QUIESCE, "quiesce")                                                                                        \
    X(EVENT_RESET, "reset")                                                                                            \
    X(EVENT_RESTART, "restart")                                                                                        \
    X(EVENT_REPLAY, "replay")                                                                                          \
    X(EVENT_RECOVERED, "recovered")                                                                                    \
    X(EVENT_GAVE_UP, "gave-up")                                                                                        \
    X(EVENT_STOPPED, "stopped")                                                                                        \
    X(EVENT_IOMMU_FAULT, "iommu-fault")                                                                                \
    X(EVENT_BROKEN_DEVICE, "broken-device")                                                                            \
    X(EVENT_INJECT, "inject")                                                                                          \
    X(EVENT_GUEST, "guest")

#define EVENT_ENUM(kind, name) kind,
enum event_kind { EVENT_LIST(EVENT_ENUM) EVENT_KINDS };
#undef EVENT_ENUM
extern const char *const event_kind_name[EVENT_KINDS];

struct event {
    u64 sequence; /* from 1 */
    u64 tsc;
    u32 vm; /* vm->id, or EVENT_NO_VM */
    u32 kind;
    char text[96];
};
#define EVENT_NO_VM 0xffffffffu
#define EVENT_LOG_SIZE 2048u /* the newest are kept */

/* Append; truncates. Any time after boot's first lines; no allocation. */
void event_add(enum event_kind kind, u32 vm, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The event with this sequence number; NULL when it is gone or not there yet. */
const struct event *event_get(u64 sequence);
u64 event_last(void);

/* Switch the operator's port on; the main guest's, once the guest is there. */
void control_init(void);
void control_init_guest(void);
/* The guest's port begins anew: what was under way was for the driver before. */
void control_reset_guest(void);
/* From CPU 0's tick: take input, run complete lines, push buffered output. True: there was input from the operator, and
 * more may follow soon. */
bool control_poll(void);
/* Pure part, for tests: run one command line, which is cut into its words, answer through put(). Who asks: the guest
 * with what its section allows, or (MANIFEST_CONTROL_NO) the operator, who may do everything. */
void control_execute(char *line, enum manifest_control who, void (*put)(const char *text));
