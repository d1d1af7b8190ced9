/*
 * manifest_check [--json] FILE: what the machine would make of a manifest, by the machine's own parser. Prints the VMs
 * and ends with 0, or "FILE:LINE: message" on stderr and ends with 1; 2 for a wrong command line.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/abi/manifest.h"

/* One byte more than is allowed, so that the parser itself sees that a file is too large. */
static char text[MANIFEST_MAX_SIZE + 1];
static struct manifest manifest;

static const char *kind_name(const struct manifest_vm *vm)
{
    return vm->kind == MANIFEST_GUEST ? "guest" : "driver";
}

/* The device in the manifest's own words. */
static void format_device(char *out, size_t size, const struct manifest_device *device)
{
    switch (device->kind) {
    case MANIFEST_DEVICE_PCI:
        snprintf(out, size, "pci:%02x:%02x.%x", device->bdf >> 8, device->bdf >> 3 & 31, device->bdf & 7);
        break;
    case MANIFEST_DEVICE_CLASS:
        if (device->class_mask == 0xffffff)
            snprintf(out, size, "class:%06" PRIx32, device->class_code);
        else
            snprintf(out, size, "class:%04" PRIx32, device->class_code >> 8);
        break;
    default:
        snprintf(out, size, "none");
    }
}

static void print_summary(void)
{
    printf("control port %s, exit port 0x%x, %" PRIu32 " VMs\n", manifest.control ? "com2" : "off", manifest.exit_port,
           manifest.vm_count);
    for (u32 i = 0; i < manifest.vm_count; i++) {
        const struct manifest_vm *vm = &manifest.vm[i];
        char device[32];

        format_device(device, sizeof(device), &vm->device);
        printf("%-15s %-6s %-20s %" PRIu64 " KiB", vm->name, kind_name(vm), vm->image, vm->memory >> 10);
        if (vm->kind == MANIFEST_DRIVER)
            printf("  %s, grants %s, dma %s, restart %s", device,
                   vm->grants == MANIFEST_GRANTS_STRICT ? "strict" : "sticky", manifest_dma_name[vm->dma],
                   vm->restart ? "always" : "never");
        putchar('\n');
    }
}

/* The parser lets only ASCII without control characters but the tab into strings. */
static void print_json_string(const char *name, const char *value)
{
    printf("\"%s\": \"", name);
    for (; *value != '\0'; value++) {
        if (*value == '\t')
            fputs("\\t", stdout);
        else if (*value == '"' || *value == '\\')
            printf("\\%c", *value);
        else
            putchar(*value);
    }
    putchar('"');
}

static void print_json_driver(const struct manifest_vm *vm)
{
    char device[32];

    format_device(device, sizeof(device), &vm->device);
    printf(", \"device\": \"%s\", \"grants\": \"%s\", \"grant_pages\": %" PRIu32 ", \"dma\": \"%s\"", device,
           vm->grants == MANIFEST_GRANTS_STRICT ? "strict" : "sticky", vm->grant_pages, manifest_dma_name[vm->dma]);
    printf(", \"heartbeat_us\": %" PRIu64 ", \"misses\": %" PRIu32 ", \"deadline_us\": %" PRIu64, vm->heartbeat_us,
           vm->misses, vm->deadline_us);
    printf(", \"restart\": %s, \"backoff_us\": %" PRIu64 ", \"limit\": %" PRIu32 ", \"window_us\": %" PRIu64,
           vm->restart ? "true" : "false", vm->backoff_us, vm->limit, vm->window_us);
    printf(", \"escalate\": \"%s\", \"fallback\": \"%s\", \"rejuvenate_us\": %" PRIu64 ", \"spare\": %s",
           manifest_escalate_name[vm->escalate], vm->fallback, vm->rejuvenate_us, vm->spare ? "true" : "false");
    printf(", \"after\": %" PRIu32 ", \"needs\": %" PRIu32, vm->after, vm->needs);
    printf(", \"give_up\": \"%s\", \"line_device\": %" PRIu32, vm->give_up == MANIFEST_GIVE_UP_STOP ? "stop" : "errors",
           vm->line_device);
}

static void print_json(void)
{
    printf("{\"control\": %s, \"exit_port\": %u, \"vms\": [", manifest.control ? "true" : "false", manifest.exit_port);
    for (u32 i = 0; i < manifest.vm_count; i++) {
        const struct manifest_vm *vm = &manifest.vm[i];

        printf("%s{", i > 0 ? ", " : "");
        print_json_string("name", vm->name);
        printf(", \"kind\": \"%s\", ", kind_name(vm));
        print_json_string("image", vm->image);
        printf(", \"memory\": %" PRIu64 ", \"line\": %" PRIu32 ", \"line_image\": %" PRIu32
               ", \"line_memory\": %" PRIu32,
               vm->memory, vm->line, vm->line_image, vm->line_memory);
        if (vm->kind == MANIFEST_DRIVER) {
            print_json_driver(vm);
        } else {
            fputs(", ", stdout);
            print_json_string("cmdline", vm->cmdline);
        }
        putchar('}');
    }
    puts("]}");
}

static bool read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");

    if (file == NULL)
        return false;
    *size = fread(text, 1, sizeof(text), file);
    bool good = !ferror(file);
    fclose(file);
    return good;
}

int main(int argc, char **argv)
{
    bool json = argc == 3 && strcmp(argv[1], "--json") == 0;
    struct manifest_error error;
    size_t size;

    if (argc != 2 && !json) {
        fprintf(stderr, "usage: manifest_check [--json] FILE\n");
        return 2;
    }
    const char *path = argv[argc - 1];
    if (!read_file(path, &size)) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    if (manifest_parse(text, size, &manifest, &error) != OK) {
        if (error.line > 0)
            fprintf(stderr, "%s:%" PRIu32 ": %s\n", path, error.line, error.message);
        else
            fprintf(stderr, "%s: %s\n", path, error.message);
        return 1;
    }
    if (json)
        print_json();
    else
        print_summary();
    return 0;
}
