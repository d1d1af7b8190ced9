/*
 * The manifest's parser: lines are cut into slices of the caller's text, every key is a row of one table
 * (manifest_keys.c). Values that depend on the section's kind, which may stand below them, are checked when the section
 * ends; what depends on other sections, at the end of the text.
 */
#include "shared/abi/manifest_parse.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

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
    struct manifest_list after[MANIFEST_MAX_VMS], needs[MANIFEST_MAX_VMS];
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
    parser->error->line = line;
    BH_FORMAT(parser->error->message, sizeof(parser->error->message), fmt);
    return ERR_FORMAT;
}

/* ---- the end of a section ---- */

static status_t check_keys(struct parser *parser, u32 kind)
{
    struct manifest_vm *vm = parser->vm;

    for (u32 i = 0; i < KEY_COUNT; i++) {
        const struct key *key = &manifest_keys[i];
        if (parser->key_line[i] != 0 && !(key->where & kind))
            return fail(parser, parser->key_line[i], "key '%s' does not belong to a %s", key->name,
                        kind == IN_GUEST ? "guest" : "driver");
        if (parser->key_line[i] == 0 && (key->required & kind))
            return fail(parser, parser->section_line, "[vm %s] has no '%s'", vm->name, key->name);
        if (parser->key_line[i] == 0 && (key->where & kind) && key->initial != 0)
            manifest_store(key, (u8 *)vm + key->offset, key->initial);
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

/* `fail` and `stop` are other words for give_up; then there is no step before it. */
static status_t check_escalation(struct parser *parser, struct manifest_vm *vm)
{
    u32 line = parser->key_line[KEY_ESCALATE];
    bool image = vm->escalate == MANIFEST_ESCALATE_IMAGE;

    if (image && vm->line_fallback == 0)
        return fail(parser, line, "'escalate = image' needs a 'fallback' image");
    if (!image && vm->line_fallback != 0)
        return fail(parser, vm->line_fallback, "'fallback' is for 'escalate = image'");
    if (vm->escalate < MANIFEST_ESCALATE_FAIL)
        return OK;
    if (parser->key_line[KEY_GIVE_UP] != 0)
        return fail(parser, line, "'escalate = fail' and 'stop' say what 'give_up' says: one of them");
    vm->give_up = vm->escalate == MANIFEST_ESCALATE_FAIL ? MANIFEST_GIVE_UP_ERRORS : MANIFEST_GIVE_UP_STOP;
    vm->escalate = MANIFEST_ESCALATE_NONE;
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
    vm->line_fallback = parser->key_line[KEY_FALLBACK];
    status_t status = check_keys(parser, vm->kind == MANIFEST_GUEST ? IN_GUEST : IN_DRIVER);
    if (status == OK)
        status = check_memory(parser, vm);
    if (status == OK)
        status = check_unique(parser, vm);
    if (status == OK)
        status = check_escalation(parser, vm);
    return status;
}

/* ---- lines ---- */

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

static status_t begin_vm(struct parser *parser, struct slice name)
{
    struct manifest *out = parser->out;

    if (!manifest_is_vm_name(name))
        return fail(parser, parser->line, "'%s' is no VM name: 1..15 of [a-z0-9_-], a letter first", quote(name).text);
    for (u32 i = 0; i < out->vm_count; i++) {
        if (slice_equals(name, out->vm[i].name))
            return fail(parser, parser->line, "[vm %s] again (first in line %u)", out->vm[i].name, out->vm[i].line);
    }
    if (out->vm_count == MANIFEST_MAX_VMS)
        return fail(parser, parser->line, "more than %u VMs", MANIFEST_MAX_VMS);
    parser->section = IN_VM;
    parser->vm = &out->vm[out->vm_count];
    parser->vm->index = out->vm_count++;
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

/* A key of the same name may stand in sections of both sorts. */
static status_t find_key(struct parser *parser, struct slice name, const struct key **out)
{
    bool elsewhere = false;

    for (u32 i = 0; i < KEY_COUNT; i++) {
        if (!slice_equals(name, manifest_keys[i].name))
            continue;
        elsewhere = true;
        if (!(manifest_keys[i].where & parser->section))
            continue;
        if (parser->key_line[i] != 0)
            return fail(parser, parser->line, "key '%s' again (first in line %u)", manifest_keys[i].name,
                        parser->key_line[i]);
        parser->key_line[i] = parser->line;
        *out = &manifest_keys[i];
        return OK;
    }
    return fail(parser, parser->line, elsewhere ? "key '%s' does not belong in %s" : "unknown key '%s' in %s",
                quote(name).text, section_title(parser).text);
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
    if (key == &manifest_keys[KEY_AFTER])
        parser->after[parser->vm->index] = (struct manifest_list){value, parser->line};
    if (key == &manifest_keys[KEY_NEEDS])
        parser->needs[parser->vm->index] = (struct manifest_list){value, parser->line};
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
    if (status == OK)
        status = manifest_order(out, parser.after, parser.needs, error);
    if (status != OK)
        memset(out, 0, sizeof(*out));
    return status;
}
