#include "guestos/kernel/hostile/attempt.h"

#include "guestos/kernel/arch/cpu.h"
#include "guestos/kernel/arch/interrupt.h"
#include "guestos/kernel/mm/frames.h"
#include "guestos/kernel/panic.h"
#include "shared/lib/string.h"

#define IOAPIC_PAGE 0xfec00000ull
#define RET 0xc3u
#define UD2 0x0b0fu

_Static_assert(offsetof(struct attempt, rflags) == 0x38, "attempt_enter.S");

extern const u8 attempt_abort[];
void attempt_enter(struct attempt *a);
void attempt_enter_user(struct attempt *a, u64 stack);
u64 attempt_stack;

static struct attempt *current;
static u64 tally[ATTEMPT_OUTCOMES];

static u64 take_dr6(void)
{
    u64 value;
    __asm__ volatile("mov %%dr6, %0" : "=r"(value));
    __asm__ volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ull)); /* sticky: SDM 3B 17.2.3 */
    return value;
}

static bool in_code(u64 rip)
{
    return (rip >= ATTEMPT_CODE && rip <= ATTEMPT_CODE_END) || PAGE_DOWN(rip) == ATTEMPT_USER;
}

/* A trap on the way: note it and go on. Outside the code stepping ends. */
static bool on_debug(struct interrupt_frame *frame)
{
    u64 dr6 = take_dr6();

    current->traps++;
    current->steps += (dr6 & DR6_SINGLE_STEP) != 0;
    if (frame->rip == current->watch)
        current->watched = true;
    if (!in_code(frame->rip))
        frame->rflags &= ~ATTEMPT_RFLAGS_TF;
    return current->traps < ATTEMPT_TRAPS_MAX;
}

static bool on_exception(struct interrupt_frame *frame)
{
    if (current == NULL)
        return false;
    if (frame->vector == FAULT_DB && on_debug(frame))
        return true;
    if (frame->vector == VECTOR_NMI) /* one may send itself such */
        return true;
    current->outcome = current->user && frame->rip == current->end ? ATTEMPT_ENDED : (u32)frame->vector;
    current->error = frame->error;
    current->rip = frame->rip;
    current->cr2 = cr2_read();
    frame->rip = (u64)attempt_abort;
    frame->cs = INTERRUPT_CODE_SELECTOR;
    frame->rflags = RFLAGS_FIXED;
    frame->rsp = attempt_stack;
    frame->ss = 0;
    return true;
}

void attempt_init(void)
{
    static bool mapped;
    static const struct {
        u64 address, rights;
    } pages[] = {{ATTEMPT_CODE, 0},
                 {ATTEMPT_CODE + PAGE_SIZE, 0},
                 {ATTEMPT_DATA, PAGING_USER},
                 {ATTEMPT_USER, PAGING_USER},
                 {ATTEMPT_USER + PAGE_SIZE, PAGING_USER}};

    for (u32 i = 0; !mapped && i < ARRAY_SIZE(pages); i++) {
        u64 frame = frames_alloc(1, PAGE_SIZE);
        if (frame == 0)
            panic("no memory for attempts");
        paging_set_entry(pages[i].address, frame | pages[i].rights | PAGING_PRESENT_WRITE);
    }
    paging_set_entry(ATTEMPT_DEVICE, IOAPIC_PAGE | PAGING_PRESENT_WRITE);
    mapped = true;
    interrupt_set_exception_handler(on_exception);
}

u64 attempt_place(u64 at, const u8 *code, u32 length)
{
    memcpy((void *)at, code, length);
    if (PAGE_DOWN(at) == ATTEMPT_USER)
        *(u16 *)(at + length) = UD2;
    else if (at + length < ATTEMPT_CODE_END)
        *(u8 *)(at + length) = RET;
    return at;
}

u32 attempt_run(struct attempt *a)
{
    u64 cr0, cr4 = cr4_read();
    struct {
        u16 limit;
        u64 base;
    } __attribute__((packed)) gdt, idt;

    __asm__ volatile("mov %%cr0, %0; sgdt %1; sidt %2" : "=r"(cr0), "=m"(gdt), "=m"(idt));
    a->outcome = ATTEMPT_ENDED;
    a->traps = a->steps = 0;
    a->watched = false;
    current = a;
    if (a->user)
        attempt_enter_user(a, ATTEMPT_USER + 2 * PAGE_SIZE);
    else
        attempt_enter(a);
    current = NULL;
    __asm__ volatile("mov %0, %%cr0; lgdt %1; lidt %2" : : "r"(cr0), "m"(gdt), "m"(idt));
    if (cr4_read() != cr4)
        cr4_write(cr4);
    tally[a->outcome]++;
    return a->outcome;
}

void attempt_tally_clear(void)
{
    memset(tally, 0, sizeof(tally));
}

u64 attempt_tally(u32 outcome)
{
    return tally[outcome];
}

const char *attempt_name(u32 outcome)
{
    static const char *const names[ATTEMPT_OUTCOMES] = {"#DE",
                                                        "#DB",
                                                        "NMI",
                                                        "#BP",
                                                        "#OF",
                                                        "#BR",
                                                        "#UD",
                                                        "#NM",
                                                        "#DF",
                                                        "9",
                                                        "#TS",
                                                        "#NP",
                                                        "#SS",
                                                        "#GP",
                                                        "#PF",
                                                        "15",
                                                        "#MF",
                                                        "#AC",
                                                        "#MC",
                                                        "#XM",
                                                        "#VE",
                                                        "#CP",
                                                        [ATTEMPT_ENDED] = "ended"};

    return outcome < ATTEMPT_OUTCOMES && names[outcome] != NULL ? names[outcome] : "?";
}
