/*
 * Faults from outside. The injector plays the part of a broken driver or device: it changes what the driver VM's own
 * code, request ring or completion ring says, right before the VM runs, and tells no detector. Nothing in a driver
 * exists for it.
 */
#include "hv/control/control.h"
#include "hv/core/frames.h"
#include "hv/core/hypervisor.h"
#include "hv/recovery/stages.h"
#include "hv/relay/relay.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

#define CANARY_BYTE 0xc9
/* A driver VM's RAM ends here at the latest (manifest.h), so a page above it is outside each of them. */
#define DRIVER_RAM_MAX MIB(64)
#define WILD_MIN_LENGTH 512u
#define WILD_TRIES 256u
#define COUNT_MAX 10000000u /* interrupts or microseconds */

static hpa_t canary;

void inject_canary_init(void)
{
    /* A multiple of 64 MiB other than zero lies above any driver's RAM; frame 0 is never handed out. */
    if (frames_alloc(1, DRIVER_RAM_MAX, &canary) != OK)
        boot_fail("no frame at a multiple of 64 MiB for the canary page");
    memset(hpa_to_ptr(canary), CANARY_BYTE, PAGE_SIZE);
}

bool inject_canary_intact(void)
{
    const u8 *bytes = hpa_to_ptr(canary);
    bool intact = true;

    for (u64 i = 0; i < PAGE_SIZE; i++)
        intact &= bytes[i] == CANARY_BYTE;
    return intact;
}

static bool write_code(struct vcpu *vcpu, const void *code, u64 length)
{
    gpa_t at;

    return vcpu_translate(vcpu, vcpu->rip, &at) == OK && vm_write(vcpu->vm, at, code, length) == OK;
}

/* MOV moffs64, AL (SDM 2B MOV, opcode A2 with a 64-bit address), aimed at the canary; then it spins in case nobody
 * minds. */
static bool apply_wild_write(struct driver *driver)
{
    u8 code[11] = {0xa2, [9] = 0xeb, [10] = 0xfe};

    memcpy(code + 1, &canary.v, sizeof(canary.v));
    return write_code(&driver->vm->vcpu, code, sizeof(code));
}

/*
 * Where `pages` guest pages begin that are not granted to this driver VM now. From the bottom of guest memory up: that
 * is where kernels live, so no new request grants them before the device gets there. None in reach: beyond the window.
 */
static u64 ungranted_address(const struct driver *driver, u64 pages)
{
    u64 end = main_guest->ram_size / PAGE_SIZE, page = 0, run = 0;

    for (; run < pages && page < end && page < pages + WILD_TRIES; page++)
        run = relay_is_granted(driver->relay, GPA(page * PAGE_SIZE)) ? 0 : run + 1;
    return DRIVER_WINDOW_BASE + (run == pages ? page - pages : end) * PAGE_SIZE;
}

/* An address all of whose `length` bytes the device may not reach: the hypervisor's own, not granted, or beyond the
 * window. */
static u64 wild_address(const struct driver *driver, u32 length)
{
    u64 turn = tsc_now() / 16 % 3;

    if (turn == 0)
        return canary.v;
    return turn == 1 ? ungranted_address(driver, PAGE_UP(length) / PAGE_SIZE)
                     : DRIVER_WINDOW_BASE + main_guest->ram_size;
}

/*
 * The longest segment of the request at `at` that its driver leaves to the device; NULL. The first one is left alone if
 * it is read: a header, which drivers look at themselves. So is all of a request with nothing to write back, such as a
 * frame to be sent: what the device reads elsewhere would go out into the world, and no replay takes that back.
 */
static struct ring_segment_cell *data_segment(union ring_cell *cells, u32 at, struct ring_header_cell header)
{
    struct ring_segment_cell *longest = NULL;

    for (u32 i = header.readable > 0; i < header.segments && header.readable < header.segments; i++) {
        struct ring_segment_cell *segment = &cells[(at + 1 + i) % RING_CELLS].segment;
        if (segment->length >= WILD_MIN_LENGTH && (longest == NULL || segment->length > longest->length))
            longest = segment;
    }
    return longest;
}

/* Where an address of a request goes wrong on its way to the device's descriptors. */
static bool apply_wild_dma(struct driver *driver)
{
    for (u32 queue = 0; queue < RING_MAX_QUEUES; queue++) {
        struct ring_request_page *page = relay_request_page(driver->relay, queue);
        union ring_cell *cells = (union ring_cell *)(page + 1);
        /* The driver's own word, so bounded; a false one spoils nothing but its own requests: the log is elsewhere. */
        u32 at = __atomic_load_n(&relay_completion_page(driver->relay, queue)->consumed, __ATOMIC_ACQUIRE);

        for (u32 left = page->produced - at; left > 0 && left <= RING_CELLS;) {
            struct ring_header_cell header = cells[at % RING_CELLS].header;
            if (header.segments == 0 || header.segments > RING_MAX_SEGMENTS || header.segments >= left)
                break;
            struct ring_segment_cell *segment = data_segment(cells, at, header);
            if (segment != NULL) {
                segment->address = wild_address(driver, segment->length);
                return true;
            }
            at += header.segments + 1;
            left -= header.segments + 1;
        }
    }
    return false;
}

static void forge_completion(struct driver *driver, u32 queue, u16 tag, u32 length)
{
    struct ring_completion_page *page = relay_completion_page(driver->relay, queue);
    u32 produced = page->produced;

    page->entry[produced % RING_COMPLETIONS] = (struct ring_completion){.tag = tag, .length = length};
    __atomic_store_n(&page->produced, produced + 1, __ATOMIC_RELEASE);
    /* What happens whenever this VM exits; now, so that its own code cannot overwrite the entry before. */
    (void)relay_complete(driver->relay);
}

/* In turns: a tag that is not in flight, and more bytes than the request has room for. */
static bool apply_garbage(struct driver *driver)
{
    static bool wrong_length; /* it is its turn */
    u32 queue = 0, max;
    u16 tag;

    if (!wrong_length) {
        /* With nothing in flight every tag is wrong; else one that no ring has. */
        forge_completion(driver, 0, relay_in_flight(driver->relay) == 0 ? 0 : RING_TAGS + tsc_now() % RING_TAGS, 0);
    } else {
        while (queue < RING_MAX_QUEUES && relay_some_in_flight(driver->relay, queue, &tag, &max) != OK)
            queue++;
        if (queue == RING_MAX_QUEUES)
            return false;
        forge_completion(driver, queue, tag, max + 1);
    }
    wrong_length = !wrong_length;
    return true;
}

static const struct injected_fault {
    const char *name;
    const char *code;                     /* an instruction of two bytes to go on with, or: */
    bool (*apply)(struct driver *driver); /* false: the fitting moment has not come */
    bool needs_request;                   /* that the driver has not read yet */
} faults[] = {
    {"crash", .code = "\x0f\x0b"}, /* UD2 */
    {"hang", .code = "\xeb\xfe"},  /* JMP to itself */
    {"wild-write", .apply = apply_wild_write},
    {"wild-dma", .apply = apply_wild_dma, .needs_request = true},
    {"garbage", .apply = apply_garbage},
};

void inject_clear(struct driver *driver)
{
    struct recovery *recovery = &driver->recovery;
    u64 was;

    recovery->inject_armed = NULL;
    recovery->inject_time = recovery->interrupts_left = 0;
    recovery->inject_name = "";
    /* Refused where nothing was to be flipped, and as long as nothing starts. */
    if (inject_flip(driver, &recovery->at_start, false, &was) == OK)
        recovery->at_start.bytes = 0;
}

status_t inject_arm(struct driver *driver, const char *name)
{
    struct recovery *recovery = &driver->recovery;
    u64 patience = tsc_from_us(driver->config->deadline_us);
    const struct injected_fault *fault = faults;

    while (fault < faults + ARRAY_SIZE(faults) && strcmp(fault->name, name) != 0)
        fault++;
    if (fault == faults + ARRAY_SIZE(faults))
        return ERR_NOT_FOUND;
    if (driver->state != DRIVER_RUNNING || recovery->pending)
        return ERR_STATE;
    /* One at a time; one that nobody noticed for as long as a request may take stands in nobody's way. */
    if (recovery->inject_armed != NULL || (recovery->inject_time != 0 && tsc_now() - recovery->inject_time < patience))
        return ERR_BUSY;

    recovery->inject_armed = fault;
    recovery->inject_time = 0;
    recovery->inject_name = fault->name;
    recovery->inject_calls = driver->hypercalls;
    event_add(EVENT_INJECT, driver->vm->id, "%s armed", name);
    /* An idle driver gets up as for a new request, unless a real one is to be waited for. */
    if (!fault->needs_request)
        driver_signal(driver, DRIVER_EVENT_REQUEST);
    vcpu_kick(&driver->vm->vcpu);
    return OK;
}

void inject_apply(struct driver *driver)
{
    struct recovery *recovery = &driver->recovery;
    const struct injected_fault *fault = recovery->inject_armed;
    bool after_call = driver->hypercalls != recovery->inject_calls;

    recovery->inject_calls = driver->hypercalls;
    if (recovery->pending || driver->state != DRIVER_RUNNING)
        return;
    /* A driver that a timer tick interrupted may have read its cells already: changing them then would change nothing.
     */
    if (fault->needs_request && !after_call)
        return;
    /* Stamped before: a detector may see it at once. */
    recovery->inject_time = tsc_now();
    if (!(fault->code ? write_code(&driver->vm->vcpu, fault->code, 2) : fault->apply(driver))) {
        recovery->inject_time = 0;
        return;
    }
    recovery->inject_armed = NULL;
    event_add(EVENT_INJECT, driver->vm->id, "%s at rip 0x%lx", fault->name, driver->vm->vcpu.rip);
}

static void note(struct driver *driver, const char *name, u64 a, u64 b)
{
    driver->recovery.inject_time = tsc_now();
    driver->recovery.inject_name = name;
    event_add(EVENT_INJECT, driver->vm->id, "%s 0x%lx 0x%lx", name, a, b);
}

/*
 * Bytes that a broken driver, its device or a memory error may change; NULL. In the request ring and the info page,
 * too: the hypervisor never reads back what it has written there. Nothing of the guest's: a driver reaches that through
 * its window alone.
 */
static u8 *reach(const struct driver *driver, u64 address, u64 bytes)
{
    u64 queue = (address - DRIVER_RINGS_ADDRESS) / DRIVER_RING_STRIDE; /* what lies below wraps, and has none */
    u64 at = (address - DRIVER_RINGS_ADDRESS) % DRIVER_RING_STRIDE;

    if (range_inside(address, bytes, DRIVER_STASH_ADDRESS, DRIVER_STASH_SIZE) ||
        range_inside(address, bytes, DRIVER_INFO_ADDRESS, PAGE_SIZE))
        return (u8 *)hpa_to_ptr(address < DRIVER_STASH_ADDRESS ? driver->info_page : driver->stash_page) +
               address % PAGE_SIZE;
    if (queue >= RING_MAX_QUEUES)
        return vm_ram(driver->vm, GPA(address), bytes);
    if (range_inside(at, bytes, DRIVER_RING_COMPLETION_OFFSET, RING_COMPLETION_BYTES))
        return (u8 *)relay_completion_page(driver->relay, (u32)queue) + at % PAGE_SIZE;
    bool inside = range_inside(at, bytes, 0, RING_REQUEST_BYTES);
    return inside ? (u8 *)relay_request_page(driver->relay, (u32)queue) + at : NULL;
}

status_t inject_flip(struct driver *driver, const struct inject_flip *flip, bool at_start, u64 *was)
{
    u8 *bytes = reach(driver, flip->address, flip->bytes);

    if (!bytes || flip->bytes - 1 >= sizeof(*was))
        return ERR_RANGE;
    *was = 0;
    if (at_start) {
        driver->recovery.at_start = *flip;
        return OK;
    }
    if ((driver->state != DRIVER_RUNNING && driver->state != DRIVER_STARTING) || driver->recovery.pending)
        return ERR_STATE;
    /* Code is not to change under a CPU that runs it (SDM 3A 8.1.3): out, and not in again before the lock is free. */
    vcpu_shootdown(&driver->vm->vcpu);
    memcpy(was, bytes, flip->bytes);
    u64 now = *was ^ flip->mask;
    memcpy(bytes, &now, flip->bytes);
    if (flip->mask) /* else somebody just wants to know */
        note(driver, "flip", flip->address, flip->mask);
    return OK;
}

status_t inject_interrupts(struct driver *driver, const char *what, u64 count)
{
    if (strcmp(what, "lose") != 0 && strcmp(what, "forge") != 0 && strcmp(what, "hold") != 0)
        return ERR_NOT_FOUND;
    if (count - 1 >= COUNT_MAX)
        return ERR_RANGE;
    driver->recovery.interrupts_fault = what[0];
    driver->recovery.interrupts_left = what[0] == 'h' ? tsc_now() + tsc_from_us(count) : count;
    note(driver, "interrupts", (u8)what[0], count);
    return OK;
}

bool inject_interrupt(struct driver *driver, bool came)
{
    u64 *left = &driver->recovery.interrupts_left;
    bool hold = driver->recovery.interrupts_fault == 'h';
    /* After a hold: one for all that came meanwhile. */
    bool forge = hold ? tsc_now() >= *left : driver->recovery.interrupts_fault == 'f';

    if (*left == 0)
        return came;
    *left = !hold ? *left - (forge || came) : forge ? 0 : *left;
    return forge;
}
