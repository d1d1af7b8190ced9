/*
 * What the hypervisor's machine-near files do, for tests of its pure logic: physical memory is an arena of the heap,
 * time stands still until it is moved, panic is something that a test can expect. Every fake is a weak symbol: a test
 * that links or defines the real one gets that.
 */
#pragma once

#include <setjmp.h>
#include <stdio.h>

#include "hv/core/frames.h"
#include "hv/core/hypervisor.h"

/*
 * Give the machine [base, base + size) as RAM, filled with 0xa5 (fresh memory is not zero); both page multiples.
 * hpa_to_ptr() of anything else ends the test. fake_memory_destroy() lets the leak checker see what is left.
 */
void fake_memory_create(u64 base, u64 size);
void fake_memory_destroy(void);
/* The whole arena as the free memory of frames_init(), which is called. */
void fake_frames_create(u64 base, u64 size);

/* Microseconds for time_us(); tsc_now() follows with tsc_khz. */
extern u64 fake_time_us;

/* The last line that hv_log() got. Lines are printed only when BULKHEAD_LOG is set. */
extern char fake_log_line[256];
extern u32 fake_log_count;

/* Used by the macro below only. */
extern jmp_buf *fake_panic_target;
extern char fake_panic_text[256];

/* True when `statement` ends in panic(); its text is then in fake_panic_text. Not nestable. */
#define PANICS(statement)                                                                                              \
    ({                                                                                                                 \
        jmp_buf fake_panic_here;                                                                                       \
        bool fake_panicked = true;                                                                                     \
        if (setjmp(fake_panic_here) == 0) {                                                                            \
            fake_panic_target = &fake_panic_here;                                                                      \
            statement;                                                                                                 \
            fake_panic_target = NULL;                                                                                  \
            fake_panicked = false;                                                                                     \
        }                                                                                                              \
        fake_panicked;                                                                                                 \
    })
