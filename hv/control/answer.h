/*
 * Lines of an answer, internal to hv/control: `kind key=value key="text with spaces"`. Built piece by piece into the
 * put() of control_execute(). Context: hv lock held; one answer at a time.
 */
#pragma once

#include "shared/lib/types.h"

void answer_begin(const char *kind);
void answer_number(const char *key, u64 value);
/* Addresses and codes: 0x... */
void answer_hex(const char *key, u64 value);
/* A word that needs no quotes; of our own making. */
void answer_word(const char *key, const char *value);
/* Any text, quoted; quotes, backslashes and unprintable bytes in it are replaced. */
void answer_text(const char *key, const char *value);
void answer_end(void);
/* Microseconds since boot of a TSC stamp; 0 stays 0. */
void answer_stamp(const char *key, u64 tsc);
/* From one stamp to another in microseconds; nothing when one of them did not happen. */
void answer_duration(const char *key, u64 from, u64 to);

/* report.c: the long answers. */
void report_status(void);
void report_stats(void);
/* Events, or faults, from this sequence number on. With raw set events carry TSC stamps. */
void report_events(u64 from, bool raw);
void report_faults(u64 from);
