/*
 * Lines of an answer, internal to hv/control: `kind key=value key="text with spaces"`. Built piece by piece into the
 * put() of control_execute(). Context: hv lock held; one answer at a time.
 */
#pragma once

#include "shared/lib/types.h"

struct driver;

/* A piece as it stands, at most 255 bytes; a line ends with its newline. %s only for words that need no quotes. */
void answer(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* Any text, quoted; quotes, backslashes and unprintable bytes in it are replaced. */
void answer_text(const char *key, const char *value);

struct vm;
/*
 * upload.c: a driver image in pieces of base64, then the order to run it. NULL, or why not: then nothing
 * has changed but the pieces. words: behind the VM's name.
 */
const char *upload_chunk(struct vm *vm, const char *const words[]);
const char *upload_replace(struct vm *vm, const char *const words[]);

/* report.c: the long answers. */
void report_status(void);
void report_stats(void);
/* Events, the same with TSC stamps, or faults (these in the order of their ends), from this sequence number on. No more
 * than `most`: events that there are still, sequence numbers of faults. */
void report_events(u64 from, u32 most, bool trace);
void report_faults(u64 from, u32 most, bool trace);
/* What the generation that failed last has left (crash_page()): registers, and from this offset on the first page that
 * is not all zero. */
void report_core(const struct driver *driver, u64 at);
