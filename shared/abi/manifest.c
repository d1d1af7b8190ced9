/*
 * The manifest's parser: lines are cut into slices of the caller's text, every key is a row of one table. Values that
 * depend on the section's kind, which may stand below them, are checked when the section ends.
 */
#include "shared/abi/manifest.h"
#include "shared/lib/checked.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

const char *const manifest_dma_name[] = {"isolated", "unprotected", "none"};

struct slice {
    const char *at;
    size_t length;
};

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
    const char *choice[3];   /* of parse_choice: the first stands for low, the second for low + 1, ... */
    const char *expectation; /* completes "'key' must be ..." */
    bool raw;                /* the value is the whole rest of the line, comment signs included */
};

/* clang-format off */
enum key_id {
    KEY_CONTROL, KEY_EXIT_PORT, KEY_KIND, KEY_IMAGE, KEY_MEMORY, KEY_DEVICE, KEY_GRANTS, KEY_GRANT_PAGES, KEY_DMA,
    KEY_HEARTBEAT, KEY_MISSES, KEY_DEADLINE, KEY_RESTART, KEY_BACKOFF, KEY_LIMIT, KEY_WINDOW, KEY_GIVE_UP,
    KEY_CMDLINE, KEY_COUNT
};
/* clang-format on */

struct parser {
    struct slice rest; /* the text that is not read yet */
    u32 line;          /* of what is being read */
    struct manifest *out;
    struct manifest_error *error;
    u32 section;             /* 0 before the first, IN_HYPERVISOR or IN_VM */
    u32 section_line;        /* where it began */
    u32 hypervisor_line;     /* 0 until there was one */
    struct manifest_vm *vm;  /* of an IN_VM section */
    u32 key_line[KEY_COUNT]; /* in this section; 0: absent */
};

/* ---- errors ---- */

#define QUOTE_SIZE 32u

struct quote {
    char text[QUOTE_SIZE];
};

/* A piece of the untrusted text made fit for a message: printable and short. */
static struct quote quote(struct slice slice)
{
    struct quote quote = {0};
    size_t shown = slice.length < QUOTE_SIZE ? slice.length : QUOTE_SIZE - 4;

    for (size_t i = 0; i < shown; i++)
        quote.text[i] = slice.at[i] >= ' ' && slice.at[i] <= '~' ? slice.at[i] : '?';
    if (shown < slice.length)
        memcpy(quote.text + shown, "...", 3);
    return quote;
}

static status_t PRINTF_LIKE(3, 4) fail(struct parser *parser, u32 line, const char *fmt, ...)
{
    va_list args;

    parser->error->line = line;
    va_start(args, fmt);
    bh_vsnprintf(parser->error->message, sizeof(parser->error->message), fmt, args);
    va_end(args);
    return ERR_FORMAT;
}

/* ---- slices ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_within(char c, char low, char high)
{
    return c >= low && c <= high;
}

static struct slice slice_from(struct slice slice, size_t start)
{
    return (struct slice){slice.at + start, slice.length - start};
}

static struct slice slice_until(struct slice slice, size_t end)
{
    return (struct slice){slice.at, end};
}

static struct slice slice_trim(struct slice slice)
{
    while (slice.length > 0 && is_blank(slice.at[0]))
        slice = slice_from(slice, 1);
    while (slice.length > 0 && is_blank(slice.at[slice.length - 1]))
        slice.length--;
    return slice;
}

/* The position of c, or the slice's length. */
static size_t slice_find(struct slice slice, char c)
{
    size_t i = 0;
    while (i < slice.length && slice.at[i] != c)
        i++;
    return i;
}

static bool slice_equals(struct slice slice, const char *text)
{
    return slice.length == strlen(text) && memcmp(slice.at, text, slice.length) == 0;
}

/* A comment begins at a sign that starts the line or follows white space, so that values may contain the sign. */
static struct slice slice_without_comment(struct slice line)
{
    for (size_t i = 0; i < line.length; i++) {
        bool sign = line.at[i] == '#' || line.at[i] == ';';
        if (sign && (i == 0 || is_blank(line.at[i - 1])))
            return slice_until(line, i);
    }
    return line;
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

/* ---- values ---- */

static void store(const struct key *key, void *field, u64 value)
{
    memcpy(field, &value, key->size); /* little-endian: the low bytes come first */
}

static bool store_in_range(const struct key *key, void *field, u64 value)
{
    if (value < key->low || value > key->high)
        return false;
    store(key, field, value);
    return true;
}

static bool parse_choice(const struct key *key, struct slice value, void *field)
{
    for (u32 i = 0; i < ARRAY_SIZE(key->choice) && key->choice[i] != NULL; i++) {
        if (slice_equals(value, key->choice[i])) {
            store(key, field, key->low + i);
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
static const struct key keys[KEY_COUNT] = {
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
    [KEY_CMDLINE] = {"cmdline", IN_GUEST, 0, parse_cmdline, FIELD(manifest_vm, cmdline),
        .expectation = "at most 255 ASCII characters", .raw = true},
};
/* clang-format on */

/* ---- the end of a section ---- */

static status_t check_keys(struct parser *parser, u32 kind)
{
    struct manifest_vm *vm = parser->vm;

    for (u32 i = 0; i < KEY_COUNT; i++) {
        const struct key *key = &keys[i];
        if (parser->key_line[i] != 0 && !(key->where & kind))
            return fail(parser, parser->key_line[i], "key '%s' does not belong to a %s", key->name,
                        kind == IN_GUEST ? "guest" : "driver");
        if (parser->key_line[i] == 0 && (key->required & kind))
            return fail(parser, parser->section_line, "[vm %s] has no '%s'", vm->name, key->name);
        if (parser->key_line[i] == 0 && (key->where & kind) && key->initial != 0)
            store(key, (u8 *)vm + key->offset, key->initial);
    }
    return OK;
}

static status_t check_memory(struct parser *parser, const struct manifest_vm *vm)
{
    static const struct {
        u64 low, high, step;
        const char *text;
    } limits[] = {
        [MANIFEST_DRIVER] = {KIB(512), MIB(64), PAGE_SIZE, "512K..64M for a driver, a multiple of 4K"},
        [MANIFEST_GUEST] = {MIB(16), GIB(64), MIB(2), "16M..64G for a guest, a multiple of 2M"},
    };
    u64 memory = vm->memory;

    if (memory < limits[vm->kind].low || memory > limits[vm->kind].high || memory % limits[vm->kind].step != 0)
        return fail(parser, vm->line_memory, "'memory' must be %s", limits[vm->kind].text);
    return OK;
}

/* What may exist only once: the guest, and a PCI address among the drivers. */
static status_t check_unique(struct parser *parser, const struct manifest_vm *vm)
{
    for (const struct manifest_vm *other = parser->out->vm; other < vm; other++) {
        if (vm->kind == MANIFEST_GUEST && other->kind == MANIFEST_GUEST)
            return fail(parser, vm->line, "[vm %s] is a second guest beside [vm %s]", vm->name, other->name);
        if (vm->device.kind == MANIFEST_DEVICE_PCI && other->device.kind == MANIFEST_DEVICE_PCI &&
            vm->device.bdf == other->device.bdf)
            return fail(parser, vm->line_device, "[vm %s] has this device already", other->name);
    }
    return OK;
}

static status_t end_section(struct parser *parser)
{
    struct manifest_vm *vm = parser->vm;

    if (parser->section != IN_VM)
        return OK;
    if (parser->key_line[KEY_KIND] == 0)
        return fail(parser, parser->section_line, "[vm %s] has no 'kind'", vm->name);
    vm->line = parser->section_line;
    vm->line_image = parser->key_line[KEY_IMAGE];
    vm->line_memory = parser->key_line[KEY_MEMORY];
    vm->line_device = parser->key_line[KEY_DEVICE];
    status_t status = check_keys(parser, vm->kind == MANIFEST_GUEST ? IN_GUEST : IN_DRIVER);
    if (status == OK)
        status = check_memory(parser, vm);
    if (status == OK)
        status = check_unique(parser, vm);
    return status;
}

/* ---- lines ---- */

static bool is_vm_name(struct slice name)
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

static status_t begin_vm(struct parser *parser, struct slice name)
{
    struct manifest *out = parser->out;

    if (!is_vm_name(name))
        return fail(parser, parser->line, "'%s' is no VM name: 1..15 of [a-z0-9_-], a letter first", quote(name).text);
    for (u32 i = 0; i < out->vm_count; i++) {
        if (slice_equals(name, out->vm[i].name))
            return fail(parser, parser->line, "[vm %s] again (first in line %u)", out->vm[i].name, out->vm[i].line);
    }
    if (out->vm_count == MANIFEST_MAX_VMS)
        return fail(parser, parser->line, "more than %u VMs", MANIFEST_MAX_VMS);
    parser->section = IN_VM;
    parser->vm = &out->vm[out->vm_count++];
    memcpy(parser->vm->name, name.at, name.length); /* the rest is zero */
    return OK;
}

/* line: trimmed, without comment, beginning with '['. */
static status_t begin_section(struct parser *parser, struct slice line)
{
    status_t status = end_section(parser);

    if (status != OK)
        return status;
    if (line.at[line.length - 1] != ']')
        return fail(parser, parser->line, "a section's '[' without ']' at the end of the line");
    memset(parser->key_line, 0, sizeof(parser->key_line));
    parser->section_line = parser->line;

    struct slice title = slice_trim((struct slice){line.at + 1, line.length - 2});
    if (title.length > 2 && title.at[0] == 'v' && title.at[1] == 'm' && is_blank(title.at[2]))
        return begin_vm(parser, slice_trim(slice_from(title, 3)));
    if (!slice_equals(title, "hypervisor"))
        return fail(parser, parser->line, "unknown section [%s]: [hypervisor] or [vm NAME]", quote(title).text);
    if (parser->hypervisor_line != 0)
        return fail(parser, parser->line, "[hypervisor] again (first in line %u)", parser->hypervisor_line);
    parser->section = IN_HYPERVISOR;
    parser->hypervisor_line = parser->line;
    return OK;
}

/* The section at hand as the text has it, for messages. */
static struct quote section_title(const struct parser *parser)
{
    struct quote title;

    if (parser->section == IN_HYPERVISOR)
        bh_snprintf(title.text, sizeof(title.text), "[hypervisor]");
    else
        bh_snprintf(title.text, sizeof(title.text), "[vm %s]", parser->vm->name);
    return title;
}

static status_t find_key(struct parser *parser, struct slice name, const struct key **out)
{
    for (u32 i = 0; i < KEY_COUNT; i++) {
        if (!slice_equals(name, keys[i].name))
            continue;
        if (!(keys[i].where & parser->section))
            return fail(parser, parser->line, "key '%s' does not belong in %s", keys[i].name,
                        section_title(parser).text);
        if (parser->key_line[i] != 0)
            return fail(parser, parser->line, "key '%s' again (first in line %u)", keys[i].name, parser->key_line[i]);
        parser->key_line[i] = parser->line;
        *out = &keys[i];
        return OK;
    }
    return fail(parser, parser->line, "unknown key '%s' in %s", quote(name).text, section_title(parser).text);
}

/* line: the whole line with its comment, which only the key can tell from its value. */
static status_t take_assignment(struct parser *parser, struct slice line)
{
    const struct key *key = NULL;
    size_t equals = slice_find(slice_without_comment(line), '=');

    if (equals == slice_without_comment(line).length)
        return fail(parser, parser->line, "neither [section] nor key = value");
    if (parser->section == 0)
        return fail(parser, parser->line, "a key before the first [section]");
    status_t status = find_key(parser, slice_trim(slice_until(line, equals)), &key);
    if (status != OK)
        return status;

    struct slice value = slice_trim(slice_from(key->raw ? line : slice_without_comment(line), equals + 1));
    /* The parse functions look at the first and last character; only a raw key's does without. */
    if (value.length == 0 && !key->raw)
        return fail(parser, parser->line, "key '%s' has no value", key->name);
    u8 *base = parser->section == IN_VM ? (u8 *)parser->vm : (u8 *)parser->out;
    if (!key->parse(key, value, base + key->offset))
        return fail(parser, parser->line, "'%s' must be %s, not '%s'", key->name, key->expectation, quote(value).text);
    return OK;
}

static status_t take_line(struct parser *parser, struct slice line)
{
    for (size_t i = 0; i < line.length; i++) {
        unsigned char c = (unsigned char)line.at[i];
        if ((c < ' ' && c != '\t') || c == 0x7f)
            return fail(parser, parser->line, "the byte 0x%02x is no text", c);
    }
    struct slice content = slice_trim(slice_without_comment(line));
    if (content.length == 0)
        return OK;
    if (content.at[0] == '[')
        return begin_section(parser, content);
    return take_assignment(parser, line);
}

/* The next line without its LF or CR LF. */
static struct slice next_line(struct parser *parser)
{
    size_t end = slice_find(parser->rest, '\n');
    struct slice line = slice_until(parser->rest, end);

    parser->rest = slice_from(parser->rest, end < parser->rest.length ? end + 1 : end);
    parser->line++;
    if (line.length > 0 && line.at[line.length - 1] == '\r')
        line.length--;
    return line;
}

static status_t check_whole(struct parser *parser)
{
    const struct manifest *out = parser->out;

    if (out->vm_count == 0)
        return fail(parser, 0, "there is no [vm NAME] section");
    for (u32 i = 0; i < out->vm_count; i++) {
        if (out->vm[i].kind == MANIFEST_GUEST)
            return OK;
    }
    return fail(parser, 0, "there is no guest: one [vm NAME] must have 'kind = guest'");
}

status_t manifest_parse(const char *text, size_t size, struct manifest *out, struct manifest_error *error)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf"; /* some editors write it in front of UTF-8 */
    struct parser parser = {.rest = {text, size}, .out = out, .error = error};
    status_t status = OK;

    memset(out, 0, sizeof(*out));
    memset(error, 0, sizeof(*error));
    if (size > MANIFEST_MAX_SIZE) {
        (void)fail(&parser, 0, "the text is larger than %u bytes", MANIFEST_MAX_SIZE);
        return ERR_RANGE;
    }
    if (size >= 3 && memcmp(text, byte_order_mark, 3) == 0)
        parser.rest = slice_from(parser.rest, 3);
    while (status == OK && parser.rest.length > 0)
        status = take_line(&parser, next_line(&parser));
    if (status == OK)
        status = end_section(&parser);
    if (status == OK)
        status = check_whole(&parser);
    if (status != OK)
        memset(out, 0, sizeof(*out));
    return status;
}
