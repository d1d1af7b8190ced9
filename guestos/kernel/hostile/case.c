/* One instruction, run in every way that makes it hard for who emulates it. */
#include "guestos/kernel/hostile/case.h"

#include "shared/lib/printf.h"
#include "shared/lib/string.h"

#define WRONG_SIZE 160u
#define MOV_SS_SIZE 8u

static const u16 null_selector;

const char *case_wrong(const char *format, ...)
{
    static char text[WRONG_SIZE];

    BH_FORMAT(text, sizeof(text), format);
    return text;
}

u32 case_run_once(const u8 *code, u32 length, struct attempt *a)
{
    a->code = attempt_place(ATTEMPT_CODE, code, length);
    return attempt_run(a);
}

static struct attempt start(const struct cpu_case *c)
{
    return (struct attempt){
        .rax = c->rax, .rcx = c->rcx, .rdx = c->rdx, .rflags = c->flags & CASE_INTERRUPTS ? ATTEMPT_RFLAGS_IF : 0};
}

/* Outcome, and for an exception its place: at the instruction, or right behind it when it is a trap. */
static const char *judge(const struct cpu_case *c, const struct attempt *a, u64 allowed, u64 at, const char *way)
{
    bool placed = a->outcome == ATTEMPT_ENDED || a->rip == at || a->rip == at + c->length || c->flags & CASE_ONE_WAY;

    if (placed && (allowed >> a->outcome & 1))
        return NULL;
    return case_wrong("%s: %s, rip 0x%llx, the code is at 0x%llx", way, attempt_name(a->outcome),
                      (unsigned long long)a->rip, (unsigned long long)at);
}

static const char *run_plain(const struct cpu_case *c)
{
    struct attempt a = start(c);

    a.code = attempt_place(ATTEMPT_CODE, c->code, c->length);
    attempt_run(&a);
    return judge(c, &a, c->allowed, a.code, "plain");
}

/* MOV SS holds off interrupts and debug traps until the next instruction has ended (SDM 3A 6.8.3). */
static const char *run_in_shadow(const struct cpu_case *c)
{
    struct attempt a = start(c);
    u32 selector = (u32)(u64)&null_selector; /* the kernel lies below 2 GiB */
    u64 at = ATTEMPT_CODE + MOV_SS_SIZE - 1;

    memcpy((void *)ATTEMPT_CODE, "\x8e\x14\x25", 3); /* mov selector, %ss */
    memcpy((void *)(ATTEMPT_CODE + 3), &selector, sizeof(selector));
    attempt_place(at, c->code, c->length);
    a.code = ATTEMPT_CODE;
    attempt_run(&a);
    return judge(c, &a, c->allowed, at, "after MOV SS");
}

static const char *run_stepped(const struct cpu_case *c)
{
    struct attempt a = start(c);

    a.code = attempt_place(ATTEMPT_CODE, c->code, c->length);
    a.rflags |= ATTEMPT_RFLAGS_TF;
    a.watch = a.code + c->length;
    attempt_run(&a);
    const char *wrong = judge(c, &a, c->allowed, a.code, "stepped");
    if (wrong == NULL && a.outcome == ATTEMPT_ENDED && !a.watched && !(c->flags & CASE_UNSTEPPED))
        return "stepped: no trap behind it";
    return wrong;
}

/* Its last byte is the last of a page, and the next page is absent: who reads further than it must finds nothing. */
static const char *run_at_page_end(const struct cpu_case *c)
{
    struct attempt a = start(c);

    a.code = attempt_place(ATTEMPT_CODE_END - c->length, c->code, c->length);
    attempt_run(&a);
    if (a.outcome == FAULT_PF && a.rip == ATTEMPT_CODE_END && a.cr2 == ATTEMPT_CODE_END)
        a.outcome = ATTEMPT_ENDED;
    return judge(c, &a, c->allowed, a.code, "at a page's end");
}

static const char *run_in_ring_3(const struct cpu_case *c)
{
    struct attempt a = start(c);
    u64 allowed = (c->flags & CASE_USER ? c->allowed : c->allowed & ~ENDS) | GP | UD | PF;

    a.user = true;
    a.code = attempt_place(ATTEMPT_USER, c->code, c->length);
    a.end = a.code + c->length;
    attempt_run(&a);
    return judge(c, &a, allowed, a.code, "in ring 3");
}

const char *case_run_code(const struct cpu_case *c)
{
    static const char *(*const ways[])(const struct cpu_case *) = {run_plain, run_in_shadow, run_stepped,
                                                                   run_at_page_end, run_in_ring_3};
    u32 count = c->flags & CASE_ONE_WAY ? 1 : ARRAY_SIZE(ways);
    const char *wrong = NULL;

    for (u32 i = 0; i < count && wrong == NULL; i++)
        wrong = ways[i](c);
    return wrong;
}
