/* The manifest's values: each key is a row of one table, with the function that turns its text into a field. */
#include "shared/abi/manifest_parse.h"
#include "shared/lib/checked.h"
#include "shared/lib/string.h"

const char *const manifest_dma_name[] = {"isolated", "unprotected", "none"};
const char *const manifest_escalate_name[] = {"none", "dependents", "image"};

/* ---- slices ---- */

static bool is_within(char c, char low, char high)
{
    return c >= low && c <= high;
}

struct slice slice_trim(struct slice slice)
{
    while (slice.length > 0 && is_blank(slice.at[0]))
        slice = slice_from(slice, 1);
    while (slice.length > 0 && is_blank(slice.at[slice.length - 1]))
        slice.length--;
    return slice;
}

size_t slice_find(struct slice slice, char c)
{
    size_t i = 0;
    while (i < slice.length && slice.at[i] != c)
        i++;
    return i;
}

bool slice_equals(struct slice slice, const char *text)
{
    return slice.length == strlen(text) && memcmp(slice.at, text, slice.length) == 0;
}

struct slice slice_take_word(struct slice *list)
{
    size_t start = 0, end;

    if (list->length == 0)
        return *list; /* of a key that does not stand there, too: no text, no address to add to */
    while (start < list->length && (is_blank(list->at[start]) || list->at[start] == ','))
        start++;
    for (end = start; end < list->length && !is_blank(list->at[end]) && list->at[end] != ',';)
        end++;
    struct slice word = slice_from(slice_until(*list, end), start);
    *list = slice_from(*list, end);
    return word;
}

static bool slice_to_u64(struct slice slice, u64 *out)
{
    char text[24]; /* longer than any number of 64 bits that has no superfluous zeros */

    if (slice.length >= sizeof(text))
        return false;
    memcpy(text, slice.at, slice.length);
    text[slice.length] = '\0';
    return str_to_u64(text, out);
}

static bool slice_to_hex(struct slice slice, u32 *out)
{
    u64 value;
    char text[2 + 8 + 1] = "0x";

    if (slice.length == 0 || slice.length > 8)
        return false;
    memcpy(text + 2, slice.at, slice.length);
    if (!str_to_u64(text, &value))
        return false;
    *out = (u32)value;
    return true;
}

bool manifest_is_vm_name(struct slice name)
{
    if (name.length == 0 || name.length >= MANIFEST_NAME_SIZE || !is_within(name.at[0], 'a', 'z'))
        return false;
    for (size_t i = 1; i < name.length; i++) {
        char c = name.at[i];
        if (!is_within(c, 'a', 'z') && !is_within(c, '0', '9') && c != '_' && c != '-')
            return false;
    }
    return true;
}

/* ---- values ---- */

void manifest_store(const struct key *key, void *field, u64 value)
{
    memcpy(field, &value, key->size); /* little-endian: the low bytes come first */
}

static bool store_in_range(const struct key *key, void *field, u64 value)
{
    if (value < key->low || value > key->high)
        return false;
    manifest_store(key, field, value);
    return true;
}

static bool parse_choice(const struct key *key, struct slice value, void *field)
{
    for (u32 i = 0; i < ARRAY_SIZE(key->choice) && key->choice[i] != NULL; i++) {
        if (slice_equals(value, key->choice[i])) {
            manifest_store(key, field, key->low + i);
            return true;
        }
    }
    return false;
}

static bool parse_number(const struct key *key, struct slice value, void *field)
{
    u64 number;
    return slice_to_u64(value, &number) && store_in_range(key, field, number);
}

static bool parse_size(const struct key *key, struct slice value, void *field)
{
    static const struct slice units = {"KMG", 3}; /* 2^10, 2^20, 2^30 */
    size_t unit = slice_find(units, value.at[value.length - 1]);
    u64 number;

    if (unit < units.length)
        value.length--;
    return slice_to_u64(value, &number) && mul_u64(number, unit < units.length ? KIB(1) << 10 * unit : 1, &number) &&
           store_in_range(key, field, number);
}

static bool parse_time(const struct key *key, struct slice value, void *field)
{
    static const struct {
        const char *name;
        u64 us;
    } units[] = {{"us", 1}, {"ms", 1000}, {"s", 1000000}, {"m", 60000000}, {"h", 3600000000}};
    size_t digits = 0;
    u64 number;

    while (digits < value.length && is_within(value.at[digits], '0', '9'))
        digits++;
    if (!slice_to_u64(slice_until(value, digits), &number))
        return false;
    if (digits == value.length) /* only zero is the same in every unit */
        return number == 0 && store_in_range(key, field, number);
    for (u32 i = 0; i < ARRAY_SIZE(units); i++) {
        if (slice_equals(slice_from(value, digits), units[i].name))
            return mul_u64(number, units[i].us, &number) && store_in_range(key, field, number);
    }
    return false;
}

static bool parse_image(const struct key *key, struct slice value, void *field)
{
    char *name = field;

    if (value.length >= key->size || value.at[0] == '.')
        return false;
    for (size_t i = 0; i < value.length; i++) {
        char c = value.at[i];
        bool letter = is_within(c, 'a', 'z') || is_within(c, 'A', 'Z') || is_within(c, '0', '9');
        if (!letter && c != '.' && c != '_' && c != '-' && c != '+' && c != '~')
            return false;
    }
    memcpy(name, value.at, value.length);
    name[value.length] = '\0';
    return true;
}

/* Names of VMs; which ones there are is known at the end of the text (manifest_order.c). */
static bool parse_names(const struct key *key, struct slice value, void *field)
{
    bool any = false;

    (void)key;
    (void)field;
    for (struct slice word; (word = slice_take_word(&value)).length > 0; any = true)
        if (!manifest_is_vm_name(word))
            return false;
    return any;
}

static bool parse_cmdline(const struct key *key, struct slice value, void *field)
{
    char *cmdline = field;

    if (value.length >= key->size)
        return false;
    for (size_t i = 0; i < value.length; i++) {
        if ((unsigned char)value.at[i] >= 0x80)
            return false;
    }
    memcpy(cmdline, value.at, value.length);
    cmdline[value.length] = '\0';
    return true;
}

/* BB:DD.F, as lspci prints it. */
static bool parse_pci_address(struct slice text, struct manifest_device *device)
{
    u32 bus, slot, function;

    if (text.length != 7 || text.at[2] != ':' || text.at[5] != '.')
        return false;
    if (!slice_to_hex(slice_until(text, 2), &bus) || !slice_to_hex(slice_until(slice_from(text, 3), 2), &slot) ||
        !slice_to_hex(slice_from(text, 6), &function) || slot > 31 || function > 7)
        return false;
    *device = (struct manifest_device){.kind = MANIFEST_DEVICE_PCI, .bdf = (u16)(bus << 8 | slot << 3 | function)};
    return true;
}

/* BBSS or BBSSII: without the interface, any interface will do. */
static bool parse_pci_class(struct slice text, struct manifest_device *device)
{
    bool exact = text.length == 6;
    u32 code;

    if ((text.length != 4 && !exact) || !slice_to_hex(text, &code))
        return false;
    *device = (struct manifest_device){
        .kind = MANIFEST_DEVICE_CLASS,
        .class_code = exact ? code : code << 8,
        .class_mask = exact ? 0xffffff : 0xffff00,
    };
    return true;
}

static bool parse_device(const struct key *key, struct slice value, void *field)
{
    size_t colon = slice_find(value, ':');
    struct slice scheme = slice_until(value, colon);

    (void)key;
    if (colon == value.length)
        return false;
    if (slice_equals(scheme, "pci"))
        return parse_pci_address(slice_from(value, colon + 1), field);
    return slice_equals(scheme, "class") && parse_pci_class(slice_from(value, colon + 1), field);
}

/* ---- the keys ---- */

#define FIELD(type, member) .offset = offsetof(struct type, member), .size = sizeof(((struct type *)0)->member)
#define US_PER_MS 1000ull
#define US_PER_S 1000000ull

/* clang-format off */
const struct key manifest_keys[KEY_COUNT] = {
    [KEY_CONTROL] = {"control", IN_HYPERVISOR, 0, parse_choice, FIELD(manifest, control),
        .choice = {"off", "com2"}, .expectation = "off or com2"},
    [KEY_EXIT_PORT] = {"exit_port", IN_HYPERVISOR, 0, parse_number, FIELD(manifest, exit_port),
        .high = 0xffff, .expectation = "an I/O port, 0..0xffff"},
    [KEY_KIND] = {"kind", IN_VM, IN_VM, parse_choice, FIELD(manifest_vm, kind),
        .low = MANIFEST_DRIVER, .choice = {"driver", "guest"}, .expectation = "driver or guest"},
    [KEY_IMAGE] = {"image", IN_VM, IN_VM, parse_image, FIELD(manifest_vm, image),
        .expectation = "a file name, 1..47 of [A-Za-z0-9._+~-]"},
    [KEY_MEMORY] = {"memory", IN_VM, IN_VM, parse_size, FIELD(manifest_vm, memory),
        .low = 1, .high = GIB(64), .expectation = "a size with K, M or G, at most 64G"},
    [KEY_DEVICE] = {"device", IN_DRIVER, IN_DRIVER, parse_device, FIELD(manifest_vm, device),
        .expectation = "pci:BB:DD.F or class:BBSS[II]"},
    [KEY_GRANTS] = {"grants", IN_DRIVER, 0, parse_choice, FIELD(manifest_vm, grants),
        .low = MANIFEST_GRANTS_STICKY, .initial = MANIFEST_GRANTS_STICKY,
        .choice = {"sticky", "strict"}, .expectation = "sticky or strict"},
    [KEY_GRANT_PAGES] = {"grant_pages", IN_DRIVER, 0, parse_number, FIELD(manifest_vm, grant_pages),
        .low = 256, .high = 1048576, .initial = 16384, .expectation = "256..1048576"},
    [KEY_DMA] = {"dma", IN_DRIVER, 0, parse_choice, FIELD(manifest_vm, dma),
        .choice = {"isolated", "unprotected", "none"}, .expectation = "isolated, unprotected or none"},
    [KEY_HEARTBEAT] = {"heartbeat", IN_DRIVER, 0, parse_time, FIELD(manifest_vm, heartbeat_us),
        .low = US_PER_MS, .high = 10 * US_PER_S, .initial = 20 * US_PER_MS, .expectation = "a time, 1ms..10s"},
    [KEY_MISSES] = {"misses", IN_DRIVER, 0, parse_number, FIELD(manifest_vm, misses),
        .low = 1, .high = 100, .initial = 3, .expectation = "1..100"},
    [KEY_DEADLINE] = {"deadline", IN_DRIVER, 0, parse_time, FIELD(manifest_vm, deadline_us),
        .low = 10 * US_PER_MS, .high = 600 * US_PER_S, .initial = 5 * US_PER_S, .expectation = "a time, 10ms..10m"},
    [KEY_RESTART] = {"restart", IN_DRIVER, 0, parse_choice, FIELD(manifest_vm, restart),
        .initial = true, .choice = {"never", "always"}, .expectation = "always or never"},
    [KEY_BACKOFF] = {"backoff", IN_DRIVER, 0, parse_time, FIELD(manifest_vm, backoff_us),
        .high = 10 * US_PER_S, .expectation = "a time, 0..10s"},
    [KEY_LIMIT] = {"limit", IN_DRIVER, 0, parse_number, FIELD(manifest_vm, limit),
        .low = 1, .high = 1000, .initial = 5, .expectation = "1..1000"},
    [KEY_WINDOW] = {"window", IN_DRIVER, 0, parse_time, FIELD(manifest_vm, window_us),
        .low = US_PER_MS, .high = 3600 * US_PER_S, .initial = 10 * US_PER_S, .expectation = "a time, 1ms..1h"},
    [KEY_GIVE_UP] = {"give_up", IN_DRIVER, 0, parse_choice, FIELD(manifest_vm, give_up),
        .low = MANIFEST_GIVE_UP_ERRORS, .initial = MANIFEST_GIVE_UP_ERRORS,
        .choice = {"errors", "stop"}, .expectation = "errors or stop"},
    [KEY_AFTER] = {"after", IN_DRIVER, 0, parse_names, .expectation = "names of driver VMs"},
    [KEY_NEEDS] = {"needs", IN_DRIVER, 0, parse_names, .expectation = "names of driver VMs"},
    [KEY_ESCALATE] = {"escalate", IN_DRIVER, 0, parse_choice, FIELD(manifest_vm, escalate),
        .low = MANIFEST_ESCALATE_DEPENDENTS, .choice = {"dependents", "image", "fail", "stop"},
        .expectation = "dependents, image, fail or stop"},
    [KEY_FALLBACK] = {"fallback", IN_DRIVER, 0, parse_image, FIELD(manifest_vm, fallback),
        .expectation = "a file name, 1..47 of [A-Za-z0-9._+~-]"},
    [KEY_REJUVENATE] = {"rejuvenate", IN_DRIVER, 0, parse_time, FIELD(manifest_vm, rejuvenate_us),
        .low = US_PER_S, .high = 720 * 3600 * US_PER_S, .expectation = "a time, 1s..720h"},
    [KEY_SPARE] = {"spare", IN_DRIVER, 0, parse_choice, FIELD(manifest_vm, spare),
        .choice = {"no", "yes"}, .expectation = "yes or no"},
    [KEY_CMDLINE] = {"cmdline", IN_GUEST, 0, parse_cmdline, FIELD(manifest_vm, cmdline),
        .expectation = "at most 255 ASCII characters", .raw = true},
    [KEY_GUEST_CONTROL] = {"control", IN_GUEST, 0, parse_choice, FIELD(manifest_vm, control),
        .choice = {"no", "yes", "read"}, .expectation = "no, read or yes"},
};
/* clang-format on */
