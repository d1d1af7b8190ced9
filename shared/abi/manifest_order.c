/* Who starts after whom: the lists of names become sets of VMs, closed, and without a circle. */
#include "shared/abi/manifest_parse.h"
#include "shared/lib/printf.h"
#include "shared/lib/string.h"

static status_t PRINTF_LIKE(3, 4) fail(struct manifest_error *error, u32 line, const char *fmt, ...)
{
    error->line = line;
    BH_FORMAT(error->message, sizeof(error->message), fmt);
    return ERR_FORMAT;
}

/* The bit of a driver VM in a set; 0: none has that name. */
static u32 find_driver(const struct manifest *out, struct slice name)
{
    for (u32 i = 0; i < out->vm_count; i++)
        if (out->vm[i].kind == MANIFEST_DRIVER && slice_equals(name, out->vm[i].name))
            return 1u << i;
    return 0;
}

static status_t read_list(const struct manifest *out, struct manifest_list list, u32 *set, struct manifest_error *error)
{
    char name[MANIFEST_NAME_SIZE] = "";

    for (struct slice word; (word = slice_take_word(&list.words)).length > 0;) {
        u32 bit = find_driver(out, word);
        memcpy(name, word.at, word.length); /* parse_names() has seen that it is no longer than a name */
        name[word.length] = '\0';
        if (bit == 0)
            return fail(error, list.line, "there is no driver VM '%s'", name);
        *set |= bit;
    }
    return OK;
}

/* Warshall's transitive closure, in place: who waits for k waits for all that k waits for. */
static void close_sets(struct manifest *out)
{
    for (u32 k = 0; k < out->vm_count; k++)
        for (u32 i = 0; i < out->vm_count; i++) {
            if (out->vm[i].after >> k & 1)
                out->vm[i].after |= out->vm[k].after;
            if (out->vm[i].needs >> k & 1)
                out->vm[i].needs |= out->vm[k].needs;
        }
}

/* In closed sets a circle is a VM that waits for itself; its partner is one that it waits for, and that waits for it.
 */
static status_t check_circles(const struct manifest *out, const struct manifest_list after[],
                              const struct manifest_list needs[], struct manifest_error *error)
{
    for (u32 i = 0; i < out->vm_count; i++) {
        u32 line = after[i].line != 0 ? after[i].line : needs[i].line, partner = i;

        if (!(out->vm[i].after >> i & 1))
            continue;
        for (u32 k = 0; k < out->vm_count; k++)
            if (k != i && out->vm[i].after >> k & 1 && out->vm[k].after >> i & 1)
                partner = k;
        if (partner == i)
            return fail(error, line, "[vm %s] waits for itself", out->vm[i].name);
        return fail(error, line, "[vm %s] and [vm %s] wait for each other", out->vm[i].name, out->vm[partner].name);
    }
    return OK;
}

status_t manifest_order(struct manifest *out, const struct manifest_list after[MANIFEST_MAX_VMS],
                        const struct manifest_list needs[MANIFEST_MAX_VMS], struct manifest_error *error)
{
    status_t status = OK;

    for (u32 i = 0; i < out->vm_count && status == OK; i++) {
        status = read_list(out, needs[i], &out->vm[i].needs, error);
        if (status == OK)
            status = read_list(out, after[i], &out->vm[i].after, error);
        out->vm[i].after |= out->vm[i].needs;
    }
    if (status == OK) {
        close_sets(out);
        status = check_circles(out, after, needs, error);
    }
    return status;
}
