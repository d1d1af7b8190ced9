/*
 * Inside the manifest's parser: slices of the caller's text, and what a key is. manifest.c cuts lines and sections,
 * manifest_keys.c turns values into fields, manifest_order.c makes an order out of names. The text is untrusted and not
 * terminated: only [at, at + length) of a slice may be read.
 */
#pragma once

#include "shared/abi/manifest.h"

struct slice {
    const char *at;
    size_t length;
};

static inline bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static inline struct slice slice_from(struct slice slice, size_t start)
{
    return (struct slice){slice.at + start, slice.length - start};
}

static inline struct slice slice_until(struct slice slice, size_t end)
{
    return (struct slice){slice.at, end};
}

/* Without the blanks at both ends. */
struct slice slice_trim(struct slice slice);
/* The position of c, or the slice's length. */
size_t slice_find(struct slice slice, char c);
bool slice_equals(struct slice slice, const char *text);
/* The first word of a list whose words are parted by blanks, commas or both, cut off from *list; empty: none left. */
struct slice slice_take_word(struct slice *list);

/* Where a key may stand. */
enum { IN_HYPERVISOR = 1, IN_DRIVER = 2, IN_GUEST = 4, IN_VM = IN_DRIVER | IN_GUEST };

struct key {
    const char *name;
    u32 where;    /* IN_ bits */
    u32 required; /* IN_ bits of the kinds that cannot do without it */
    /* Writes the field when the value obeys the key's rules; false when it does not. */
    bool (*parse)(const struct key *key, struct slice value, void *field);
    size_t offset; /* of the field in struct manifest or struct manifest_vm */
    size_t size;
    u64 low;
    u64 high;
    u64 initial;             /* what the field holds when the key is absent */
    const char *choice[4];   /* of parse_choice: the first stands for low, the second for low + 1, ... */
    const char *expectation; /* completes "'key' must be ..." */
    bool raw;                /* the value is the whole rest of the line, comment signs included */
};

/* clang-format off */
enum key_id {
    KEY_CONTROL, KEY_EXIT_PORT, KEY_KIND, KEY_IMAGE, KEY_MEMORY, KEY_DEVICE, KEY_GRANTS, KEY_GRANT_PAGES, KEY_DMA,
    KEY_HEARTBEAT, KEY_MISSES, KEY_DEADLINE, KEY_RESTART, KEY_BACKOFF, KEY_LIMIT, KEY_WINDOW, KEY_GIVE_UP,
    KEY_AFTER, KEY_NEEDS, KEY_ESCALATE, KEY_FALLBACK, KEY_REJUVENATE, KEY_SPARE, KEY_CMDLINE, KEY_GUEST_CONTROL,
    KEY_COUNT
};
/* clang-format on */

extern const struct key manifest_keys[KEY_COUNT];

/* Writes the field of `key` in a section's structure. */
void manifest_store(const struct key *key, void *field, u64 value);
/* 1..15 of [a-z0-9_-], a letter first. */
bool manifest_is_vm_name(struct slice name);

/* The words of `after` or `needs` of one VM, as the text has them; they may name VMs that stand below. */
struct manifest_list {
    struct slice words;
    u32 line; /* 0: absent */
};

/*
 * Fill vm[].after and vm[].needs, closed under "and what that one waits for": each name must be another driver VM's,
 * and nobody may wait for himself in the end. Errors: ERR_FORMAT with *error.
 */
NODISCARD status_t manifest_order(struct manifest *out, const struct manifest_list after[MANIFEST_MAX_VMS],
                                  const struct manifest_list needs[MANIFEST_MAX_VMS], struct manifest_error *error);
