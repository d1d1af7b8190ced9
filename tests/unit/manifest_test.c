/* The manifest: every key with its borders, every error with its line, and damaged texts. */
#include "tests/unit/random.h"

#include "shared/abi/manifest.h"

#define GUEST "[vm main]\nkind = guest\nimage = guestos.elf\nmemory = 256M\n"
#define DRIVER "[vm blk0]\nkind = driver\nimage = ahci.elf\ndevice = pci:00:1f.2\nmemory = 1M\n"

static struct manifest manifest;
static struct manifest_error error;

/* From a block of exactly that size: the parser is not given a terminator, and the sanitizer sees if it looks for one.
 */
static status_t parse_bytes(const char *text, size_t size)
{
    char *copy = malloc(size > 0 ? size : 1);

    memcpy(copy, text, size);
    memset(&manifest, 0x5a, sizeof(manifest));
    memset(&error, 0x5a, sizeof(error));
    status_t status = manifest_parse(copy, size, &manifest, &error);
    free(copy);
    return status;
}

static void expect_good(const char *text)
{
    if (parse_bytes(text, strlen(text)) != OK)
        fail_msg("line %u: %s\n%s", error.line, error.message, text);
}

static void expect_error(const char *text, u32 line, const char *message)
{
    static const struct manifest zeroed;

    assert_int_equal(parse_bytes(text, strlen(text)), ERR_FORMAT);
    assert_string_equal(error.message, message);
    assert_int_equal(error.line, line);
    assert_memory_equal(&manifest, &zeroed, sizeof(manifest));
}

static void a_whole_manifest_is_read(void **state)
{
    expect_good("# a machine\n"
                "[hypervisor]\n"
                "control = com2\n"
                "exit_port = 0xf4 ; QEMU\n"
                "\n"
                "[vm blk0]\n"
                "kind = driver\n"
                "image = ahci.elf\n"
                "device = pci:80:1f.7\n"
                "memory = 1M\n"
                "grants = strict\ngrant_pages = 4096\ndma = unprotected\nheartbeat = 15ms\nmisses = 7\n"
                "deadline = 3s\nrestart = never\nbackoff = 250us\nlimit = 9\nwindow = 2m\ngive_up = stop\n"
                "[ vm\tnet_0-x ]\n"
                "device = class:010601\nmemory = 2M\nimage = e1000.elf\nkind = driver\n" GUEST
                "cmdline =  a=b  c # d ; e \n");
    assert_true(manifest.control);
    assert_int_equal(manifest.exit_port, 0xf4);
    assert_int_equal(manifest.vm_count, 3);

    const struct manifest_vm *vm = &manifest.vm[0];
    assert_string_equal(vm->name, "blk0");
    assert_int_equal(vm->kind, MANIFEST_DRIVER);
    assert_string_equal(vm->image, "ahci.elf");
    assert_int_equal(vm->device.kind, MANIFEST_DEVICE_PCI);
    assert_int_equal(vm->device.bdf, 0x80ff);
    assert_int_equal(vm->memory, MIB(1));
    assert_int_equal(vm->grants, MANIFEST_GRANTS_STRICT);
    assert_int_equal(vm->grant_pages, 4096);
    assert_int_equal(vm->dma, MANIFEST_DMA_UNPROTECTED);
    assert_int_equal(vm->heartbeat_us, 15000);
    assert_int_equal(vm->misses, 7);
    assert_int_equal(vm->deadline_us, 3000000);
    assert_false(vm->restart);
    assert_int_equal(vm->backoff_us, 250);
    assert_int_equal(vm->limit, 9);
    assert_int_equal(vm->window_us, 120000000);
    assert_int_equal(vm->give_up, MANIFEST_GIVE_UP_STOP);
    assert_int_equal(vm->line, 6);
    assert_int_equal(vm->line_image, 8);
    assert_int_equal(vm->line_device, 9);
    assert_int_equal(vm->line_memory, 10);

    assert_string_equal(manifest.vm[1].name, "net_0-x");
    assert_int_equal(manifest.vm[1].device.kind, MANIFEST_DEVICE_CLASS);
    assert_int_equal(manifest.vm[1].device.class_code, 0x010601);
    assert_int_equal(manifest.vm[1].device.class_mask, 0xffffff);
    assert_int_equal(manifest.vm[1].line, 22);
    assert_int_equal(manifest.vm[2].kind, MANIFEST_GUEST);
    assert_int_equal(manifest.vm[2].memory, MIB(256));
    assert_string_equal(manifest.vm[2].cmdline, "a=b  c # d ; e");
    assert_int_equal(manifest.vm[2].line_device, 0);
}

static void what_is_absent_has_its_default(void **state)
{
    expect_good(DRIVER GUEST);
    const struct manifest_vm *vm = &manifest.vm[0];

    assert_int_equal(manifest.vm[0].control, MANIFEST_CONTROL_NO);
    assert_false(manifest.control);
    assert_int_equal(manifest.exit_port, 0);
    assert_int_equal(vm->grants, MANIFEST_GRANTS_STICKY);
    assert_int_equal(vm->grant_pages, 16384);
    assert_int_equal(vm->dma, MANIFEST_DMA_ISOLATED);
    assert_int_equal(vm->heartbeat_us, 20000);
    assert_int_equal(vm->misses, 3);
    assert_int_equal(vm->deadline_us, 5000000);
    assert_true(vm->restart);
    assert_int_equal(vm->backoff_us, 0);
    assert_int_equal(vm->limit, 5);
    assert_int_equal(vm->window_us, 10000000);
    assert_int_equal(vm->give_up, MANIFEST_GIVE_UP_ERRORS);
    assert_string_equal(manifest.vm[1].cmdline, "");
    assert_int_equal(manifest.vm[1].heartbeat_us, 0); /* not of a guest */
}

/* ---- values: the field's number for good ones, the message for bad ones ---- */

#define BAD UINT64_MAX

static const struct value_case {
    const char *key, *value;
    u64 number; /* BAD: refused */
    size_t offset;
    size_t size;
} value_cases[] = {
#define CASE(key, member, value, number)                                                                               \
    {                                                                                                                  \
        key, value, number, offsetof(struct manifest_vm, member), sizeof(((struct manifest_vm *)0)->member)            \
    }
    CASE("grants", grants, "sticky", 0),
    CASE("grants", grants, "strict", 1),
    CASE("grants", grants, "Strict", BAD),
    CASE("grant_pages", grant_pages, "256", 256),
    CASE("grant_pages", grant_pages, "0x100000", 1048576),
    CASE("grant_pages", grant_pages, "255", BAD),
    CASE("grant_pages", grant_pages, "1048577", BAD),
    CASE("grant_pages", grant_pages, "4294967552", BAD), /* 256 in 32 bits */
    CASE("grant_pages", grant_pages, "1K", BAD),
    CASE("dma", dma, "isolated", MANIFEST_DMA_ISOLATED),
    CASE("dma", dma, "unprotected", MANIFEST_DMA_UNPROTECTED),
    CASE("dma", dma, "none", MANIFEST_DMA_NONE),
    CASE("dma", dma, "yes", BAD),
    CASE("heartbeat", heartbeat_us, "1ms", 1000),
    CASE("heartbeat", heartbeat_us, "10s", 10000000),
    CASE("heartbeat", heartbeat_us, "999us", BAD),
    CASE("heartbeat", heartbeat_us, "10001ms", BAD),
    CASE("heartbeat", heartbeat_us, "5000", BAD), /* no unit */
    CASE("heartbeat", heartbeat_us, "0", BAD),
    CASE("heartbeat", heartbeat_us, "ms", BAD),
    CASE("heartbeat", heartbeat_us, "5 ms", BAD),
    CASE("heartbeat", heartbeat_us, "5msec", BAD),
    CASE("heartbeat", heartbeat_us, "-5ms", BAD),
    CASE("heartbeat", heartbeat_us, "18446744073709557ms", BAD), /* 5384 us in 64 bits */
    CASE("misses", misses, "1", 1),
    CASE("misses", misses, "100", 100),
    CASE("misses", misses, "0", BAD),
    CASE("misses", misses, "101", BAD),
    CASE("deadline", deadline_us, "10ms", 10000),
    CASE("deadline", deadline_us, "10m", 600000000),
    CASE("deadline", deadline_us, "9999us", BAD),
    CASE("deadline", deadline_us, "601s", BAD),
    CASE("restart", restart, "always", 1),
    CASE("restart", restart, "never", 0),
    CASE("restart", restart, "1", BAD),
    CASE("backoff", backoff_us, "0", 0),
    CASE("backoff", backoff_us, "0ms", 0),
    CASE("backoff", backoff_us, "10s", 10000000),
    CASE("backoff", backoff_us, "10000001us", BAD),
    CASE("limit", limit, "1", 1),
    CASE("limit", limit, "1000", 1000),
    CASE("limit", limit, "0", BAD),
    CASE("limit", limit, "1001", BAD),
    CASE("window", window_us, "1ms", 1000),
    CASE("window", window_us, "1h", 3600000000),
    CASE("window", window_us, "999us", BAD),
    CASE("window", window_us, "3601s", BAD),
    CASE("rejuvenate", rejuvenate_us, "1s", 1000000),
    CASE("rejuvenate", rejuvenate_us, "720h", 2592000000000),
    CASE("rejuvenate", rejuvenate_us, "999ms", BAD),
    CASE("rejuvenate", rejuvenate_us, "721h", BAD),
    CASE("spare", spare, "yes", true),
    CASE("spare", spare, "no", false),
    CASE("spare", spare, "maybe", BAD),
    CASE("give_up", give_up, "errors", 0),
    CASE("give_up", give_up, "stop", 1),
    CASE("give_up", give_up, "never", BAD),
};

static void values_are_checked(void **state)
{
    char text[512];
    char want[120];

    for (u32 i = 0; i < ARRAY_SIZE(value_cases); i++) {
        const struct value_case *c = &value_cases[i];
        u64 got = 0;
        snprintf(text, sizeof(text), DRIVER "%s = %s\n" GUEST, c->key, c->value);
        if (c->number != BAD) {
            expect_good(text);
            memcpy(&got, (const u8 *)&manifest.vm[0] + c->offset, c->size);
            assert_int_equal(got, c->number);
            continue;
        }
        assert_int_equal(parse_bytes(text, strlen(text)), ERR_FORMAT);
        assert_int_equal(error.line, 6);
        snprintf(want, sizeof(want), "'%s' must be ", c->key);
        assert_memory_equal(error.message, want, strlen(want));
        snprintf(want, sizeof(want), ", not '%s'", c->value);
        assert_string_equal(error.message + strlen(error.message) - strlen(want), want);
    }
}

static void memory_has_limits_by_kind(void **state)
{
    static const struct {
        bool guest;
        const char *value;
        u64 bytes; /* 0: refused */
    } cases[] = {
        {false, "512K", KIB(512)},
        {false, "64M", MIB(64)},
        {false, "516K", KIB(516)},
        {false, "1048576", MIB(1)},
        {false, "0x100000", MIB(1)},
        {false, "508K", 0},
        {false, "65537K", 0},
        {false, "513K", 0},
        {false, "1G", 0},
        {false, "1T", 0},
        {false, "1MB", 0},
        {false, "M", 0},
        {false, "17179869185G", 0}, /* 1G in 64 bits */
        {true, "16M", MIB(16)},
        {true, "64G", GIB(64)},
        {true, "18M", MIB(18)},
        {true, "14M", 0},
        {true, "65G", 0},
        {true, "17M", 0},
        {true, "16388K", 0},
    };
    char text[512];

    for (u32 i = 0; i < ARRAY_SIZE(cases); i++) {
        if (cases[i].guest)
            snprintf(text, sizeof(text), "[vm x]\nkind = guest\nimage = i\nmemory = %s\n", cases[i].value);
        else
            snprintf(text, sizeof(text), "[vm x]\nmemory = %s\nkind=driver\nimage=i\ndevice=class:0106\n" GUEST,
                     cases[i].value);
        if (cases[i].bytes > 0) {
            expect_good(text);
            assert_int_equal(manifest.vm[0].memory, cases[i].bytes);
            continue;
        }
        assert_int_equal(parse_bytes(text, strlen(text)), ERR_FORMAT);
        assert_int_equal(error.line, cases[i].guest ? 4 : 2);
        assert_non_null(strstr(error.message, "'memory' must be"));
    }
}

static void devices_are_checked(void **state)
{
    static const char *const bad[] = {
        "00:1f.2",       "pci",          "pci:",        "pci:0:1f.2", "pci:00:20.0",      "pci:00:1f.8", "pci:00:1f.2x",
        "pci:00-1f.2",   "pci:00:1f:2",  "pci:0g:1f.2", "pci:00:1f.", "class:",           "class:01",    "class:01060",
        "class:0106011", "class:0x0106", "class:01g6",  "usb:0000",   "pci:0000:00:1f.2",
    };
    char text[512];

    for (u32 i = 0; i < ARRAY_SIZE(bad); i++) {
        snprintf(text, sizeof(text), "[vm x]\nkind = driver\nimage = i\nmemory = 1M\ndevice = %s\n" GUEST, bad[i]);
        assert_int_equal(parse_bytes(text, strlen(text)), ERR_FORMAT);
        assert_int_equal(error.line, 5);
        assert_non_null(strstr(error.message, "'device' must be pci:BB:DD.F or class:BBSS[II]"));
    }
    expect_good("[vm x]\nkind = driver\nimage = i\nmemory = 1M\ndevice = class:02fF\n" GUEST);
    assert_int_equal(manifest.vm[0].device.class_code, 0x02ff00);
    assert_int_equal(manifest.vm[0].device.class_mask, 0xffff00);
}

static void strings_have_limits(void **state)
{
    char text[1024];
    char name[64];
    char cmdline[300];

    memset(name, 'a', sizeof(name));
    memset(cmdline, 'x', sizeof(cmdline));
    snprintf(text, sizeof(text), DRIVER "[vm g]\nkind=guest\nmemory=16M\nimage=%.47s\ncmdline=%.255s\n", name, cmdline);
    expect_good(text);
    assert_int_equal(strlen(manifest.vm[1].image), 47);
    assert_int_equal(strlen(manifest.vm[1].cmdline), 255);
    snprintf(text, sizeof(text), "[vm g]\nkind=guest\nmemory=16M\nimage=%.48s\n", name);
    expect_error(text, 4,
                 "'image' must be a file name, 1..47 of [A-Za-z0-9._+~-], not 'aaaaaaaaaaaaaaaaaaaaaaaaaaaa...'");
    snprintf(text, sizeof(text), "[vm g]\nkind=guest\nmemory=16M\nimage=i\ncmdline=%.256s\n", cmdline);
    expect_error(text, 5, "'cmdline' must be at most 255 ASCII characters, not 'xxxxxxxxxxxxxxxxxxxxxxxxxxxx...'");
    expect_error(GUEST "cmdline = na\xc3\xafve\n", 5, "'cmdline' must be at most 255 ASCII characters, not 'na??ve'");
    expect_good(GUEST "cmdline =\n");

    static const char *const bad_images[] = {"a/b", "a\\b", "..", ".hidden", "a b", "c:x", "\xc3\xa4"};
    for (u32 i = 0; i < ARRAY_SIZE(bad_images); i++) {
        snprintf(text, sizeof(text), "[vm g]\nkind=guest\nmemory=16M\nimage=%s\n", bad_images[i]);
        assert_int_equal(parse_bytes(text, strlen(text)), ERR_FORMAT);
        assert_int_equal(error.line, 4);
    }
}

static void errors_of_sections(void **state)
{
    expect_error("", 0, "there is no [vm NAME] section");
    expect_error("[hypervisor]\ncontrol=off\n", 0, "there is no [vm NAME] section");
    expect_error(DRIVER, 0, "there is no guest: one [vm NAME] must have 'kind = guest'");
    expect_error(GUEST "[vm b]\nkind=guest\nimage=i\nmemory=16M", 5, "[vm b] is a second guest beside [vm main]");
    expect_error(GUEST "[vm main]\n", 5, "[vm main] again (first in line 1)");
    expect_error("[hypervisor]\n[hypervisor]\n", 2, "[hypervisor] again (first in line 1)");
    expect_error("\n[machine]\n", 2, "unknown section [machine]: [hypervisor] or [vm NAME]");
    expect_error("[]\n", 1, "unknown section []: [hypervisor] or [vm NAME]");
    expect_error("[vmx]\n", 1, "unknown section [vmx]: [hypervisor] or [vm NAME]");
    expect_error("[vm]\n", 1, "unknown section [vm]: [hypervisor] or [vm NAME]");
    expect_error("[vm a\n", 1, "a section's '[' without ']' at the end of the line");
    expect_error("[vm a] b\n", 1, "a section's '[' without ']' at the end of the line");
    expect_error("[", 1, "a section's '[' without ']' at the end of the line");
    expect_error("[vm 0a]\n", 1, "'0a' is no VM name: 1..15 of [a-z0-9_-], a letter first");
    expect_error("[vm Blk]\n", 1, "'Blk' is no VM name: 1..15 of [a-z0-9_-], a letter first");
    expect_error("[vm a b]\n", 1, "'a b' is no VM name: 1..15 of [a-z0-9_-], a letter first");
    expect_error("[vm abcdefghijklmnop]\n", 1, "'abcdefghijklmnop' is no VM name: 1..15 of [a-z0-9_-], a letter first");
    expect_good("[vm abcdefghijklmno]\nkind=guest\nimage=i\nmemory=16M\n");
    assert_string_equal(manifest.vm[0].name, "abcdefghijklmno");
}

static void errors_of_keys(void **state)
{
    expect_error(DRIVER "devise = x\n", 6, "unknown key 'devise' in [vm blk0]");
    expect_error("[hypervisor]\nname = x\n", 2, "unknown key 'name' in [hypervisor]");
    expect_error("[hypervisor]\nmemory = 1M\n", 2, "key 'memory' does not belong in [hypervisor]");
    expect_error(GUEST "control = off\n", 5, "'control' must be no, read or yes, not 'off'");
    expect_error(GUEST "control = read\ncontrol = yes\n", 6, "key 'control' again (first in line 5)");
    expect_error(GUEST DRIVER "control = read\n", 10, "key 'control' does not belong to a driver");
    expect_error(GUEST "exit_port = 1\n", 5, "key 'exit_port' does not belong in [vm main]");
    expect_error("[vm main]\ngrants = sticky\nkind=guest\nimage=i\nmemory=16M\n", 2,
                 "key 'grants' does not belong to a guest");
    expect_error(DRIVER "cmdline = x\n" GUEST, 6, "key 'cmdline' does not belong to a driver");
    expect_error(DRIVER "memory = 2M\n", 6, "key 'memory' again (first in line 5)");
    expect_error("[hypervisor]\ncontrol=off\n\ncontrol=com2\n", 4, "key 'control' again (first in line 2)");
    expect_error("[hypervisor]\ncontrol=com1\n", 2, "'control' must be off or com2, not 'com1'");
    expect_error("[hypervisor]\nexit_port=65536\n", 2, "'exit_port' must be an I/O port, 0..0xffff, not '65536'");
    expect_error("[vm a]\nkind = both\n", 2, "'kind' must be driver or guest, not 'both'");
    expect_error("kind = guest\n", 1, "a key before the first [section]");
    expect_error(DRIVER "grants\n", 6, "neither [section] nor key = value");
    expect_error(DRIVER "grants # = sticky\n", 6, "neither [section] nor key = value");
    expect_error(DRIVER "= x\n", 6, "unknown key '' in [vm blk0]");
    expect_error(DRIVER "grants =\n", 6, "key 'grants' has no value");
    expect_error(DRIVER "grants = # sticky\n", 6, "key 'grants' has no value");
    expect_error(DRIVER "a very long key with \x80 bytes in it = x\n", 6,
                 "unknown key 'a very long key with ? bytes...' in [vm blk0]");
}

static void errors_of_what_is_missing(void **state)
{
    expect_error("[vm a]\nimage=i\n[vm b]\n", 1, "[vm a] has no 'kind'");
    expect_error("[vm a]", 1, "[vm a] has no 'kind'");
    expect_error("[vm a]\nkind=guest\nimage=i\n", 1, "[vm a] has no 'memory'");
    expect_error("\n[vm a]\nkind=guest\nmemory=16M\n", 2, "[vm a] has no 'image'");
    expect_error("[vm a]\nkind=driver\nimage=i\nmemory=1M\n", 1, "[vm a] has no 'device'");
}

static void one_device_has_one_driver(void **state)
{
    const char *second = "[vm b]\nkind=driver\nimage=i\nmemory=1M\ndevice=%s\n";
    char text[512];

    strcpy(text, DRIVER);
    snprintf(text + strlen(text), 200, second, "pci:00:1f.2");
    strcat(text, GUEST);
    expect_error(text, 10, "[vm blk0] has this device already");
    strcpy(text, DRIVER);
    snprintf(text + strlen(text), 200, second, "pci:00:1f.3");
    strcat(text, GUEST);
    expect_good(text);
    /* A class names the first free device: two of a kind are two devices. */
    char classes[512];
    snprintf(classes, sizeof(classes), second, "class:0106");
    snprintf(classes + strlen(classes), 200, "[vm c]\nkind=driver\nimage=i\nmemory=1M\ndevice=class:0106\n" GUEST);
    expect_good(classes);
}

#define MORE(name) "[vm " name "]\nkind=driver\nimage=i\nmemory=1M\ndevice=class:0106\n"

/* a: 0, b: 1, c: 2; the guest stands between, and names may stand below. */
static void the_order_is_closed(void **state)
{
    expect_good(MORE("a") "after = b ,\tc,\n" GUEST MORE("b") "needs = c\n" MORE("c"));
    assert_int_equal(manifest.vm[0].index, 0);
    assert_int_equal(manifest.vm[3].index, 3);
    assert_int_equal(manifest.vm[0].after, 1u << 2 | 1u << 3);
    assert_int_equal(manifest.vm[0].needs, 0);
    assert_int_equal(manifest.vm[2].after, 1u << 3);
    assert_int_equal(manifest.vm[2].needs, 1u << 3);
    assert_int_equal(manifest.vm[3].after, 0);
    expect_good(MORE("a") "needs = b\n" MORE("b") "after = c\n" MORE("c") GUEST);
    assert_int_equal(manifest.vm[0].after, 1u << 1 | 1u << 2); /* through b */
    assert_int_equal(manifest.vm[0].needs, 1u << 1);
}

static void errors_of_the_order(void **state)
{
    expect_error(MORE("a") "after = b\n" GUEST, 6, "there is no driver VM 'b'");
    expect_error(MORE("a") "needs = main\n" GUEST, 6, "there is no driver VM 'main'");
    expect_error(MORE("a") "after = A\n" GUEST, 6, "'after' must be names of driver VMs, not 'A'");
    expect_error(MORE("a") "after = ,\n" GUEST, 6, "'after' must be names of driver VMs, not ','");
    expect_error(MORE("a") "needs = abcdefghijklmnop\n" GUEST, 6,
                 "'needs' must be names of driver VMs, not 'abcdefghijklmnop'");
    expect_error(MORE("a") "\nafter = a\n" GUEST, 7, "[vm a] waits for itself");
    expect_error(MORE("a") "after = b\n" MORE("b") "needs = a\n" GUEST, 6, "[vm a] and [vm b] wait for each other");
    expect_error(MORE("x") "after = a\n" MORE("a") "after = b\n" MORE("b") "after = c\n" MORE("c") "after = a\n" GUEST,
                 12, "[vm a] and [vm c] wait for each other");
    expect_error(GUEST "after = main\n", 5, "key 'after' does not belong to a guest");
}

static void escalation_is_checked(void **state)
{
    expect_good(DRIVER "escalate = image\nfallback = old.elf\nrejuvenate = 1h\n" GUEST);
    assert_int_equal(manifest.vm[0].escalate, MANIFEST_ESCALATE_IMAGE);
    assert_string_equal(manifest.vm[0].fallback, "old.elf");
    assert_int_equal(manifest.vm[0].line_fallback, 7);
    assert_int_equal(manifest.vm[0].rejuvenate_us, 3600000000);
    expect_good(DRIVER "escalate = dependents\ngive_up = stop\n" GUEST);
    assert_int_equal(manifest.vm[0].escalate, MANIFEST_ESCALATE_DEPENDENTS);
    assert_int_equal(manifest.vm[0].give_up, MANIFEST_GIVE_UP_STOP);
    expect_good(DRIVER "escalate = stop\n" GUEST);
    assert_int_equal(manifest.vm[0].escalate, MANIFEST_ESCALATE_NONE);
    assert_int_equal(manifest.vm[0].give_up, MANIFEST_GIVE_UP_STOP);
    expect_good(DRIVER "escalate = fail\n" GUEST);
    assert_int_equal(manifest.vm[0].give_up, MANIFEST_GIVE_UP_ERRORS);
    expect_error(DRIVER "escalate = image\n" GUEST, 6, "'escalate = image' needs a 'fallback' image");
    expect_error(DRIVER "fallback = old.elf\n" GUEST, 6, "'fallback' is for 'escalate = image'");
    expect_error(DRIVER "escalate = stop\ngive_up = stop\n" GUEST, 6,
                 "'escalate = fail' and 'stop' say what 'give_up' says: one of them");
    expect_error(DRIVER "escalate = never\n" GUEST, 6,
                 "'escalate' must be dependents, image, fail or stop, not 'never'");
}

static void the_number_of_vms_is_bounded(void **state)
{
    char text[4096] = GUEST;

    for (u32 i = 1; i <= 16; i++) {
        snprintf(text + strlen(text), 128, "[vm d%u]\nkind=driver\nimage=i\nmemory=1M\ndevice=class:0106\n", i);
        if (i < 16)
            expect_good(text);
    }
    expect_error(text, 4 + 15 * 5 + 1, "more than 16 VMs");
}

static void the_size_of_the_text_is_bounded(void **state)
{
    char *text = malloc(MANIFEST_MAX_SIZE + 1);

    memset(text, '\n', MANIFEST_MAX_SIZE + 1);
    memcpy(text + MANIFEST_MAX_SIZE - strlen(GUEST), GUEST, strlen(GUEST));
    assert_int_equal(parse_bytes(text, MANIFEST_MAX_SIZE), OK);
    assert_int_equal(manifest.vm[0].line, MANIFEST_MAX_SIZE - strlen(GUEST) + 1);
    assert_int_equal(parse_bytes(text, MANIFEST_MAX_SIZE + 1), ERR_RANGE);
    assert_string_equal(error.message, "the text is larger than 65536 bytes");
    assert_int_equal(error.line, 0);
    free(text);
}

static void white_space_and_line_ends_are_tolerated(void **state)
{
    expect_good(
        "\xef\xbb\xbf\t# comment\r\n\r\n [vm main] ; x\r\n\tkind\t=\tguest\t# c\r\nimage=a.elf\r\n  memory = 16M\r");
    assert_string_equal(manifest.vm[0].image, "a.elf");
    assert_int_equal(manifest.vm[0].line, 3);
    assert_int_equal(manifest.vm[0].line_memory, 6);
    expect_good(GUEST "cmdline = a;b#c\t\r\n");
    assert_string_equal(manifest.vm[0].cmdline, "a;b#c");
    expect_error("\n[hypervisor]#x\n", 2, "a section's '[' without ']' at the end of the line");
}

static void the_guest_has_a_control_port_of_its_own(void **state)
{
    expect_good("[hypervisor]\ncontrol = off\n" GUEST "control = read\n" DRIVER);
    assert_false(manifest.control);
    assert_int_equal(manifest.vm[0].control, MANIFEST_CONTROL_READ);
    expect_good(GUEST "control = yes # orders, too\n[hypervisor]\ncontrol = com2\n");
    assert_true(manifest.control);
    assert_int_equal(manifest.vm[0].control, MANIFEST_CONTROL_YES);
    expect_good(GUEST "control = no\n");
    assert_int_equal(manifest.vm[0].control, MANIFEST_CONTROL_NO);
}

static void other_control_characters_are_no_text(void **state)
{
    expect_error("#\n# \x01\n", 2, "the byte 0x01 is no text");
    expect_error("# a\rb\n", 1, "the byte 0x0d is no text");
    expect_error("\x7f", 1, "the byte 0x7f is no text");
    assert_int_equal(parse_bytes("\n\0", 2), ERR_FORMAT);
    assert_string_equal(error.message, "the byte 0x00 is no text");
    assert_int_equal(error.line, 2);
}

/* Cut and damaged texts: an error with a line of the text, or a manifest within all limits. */
static void damaged_texts_are_survived(void **state)
{
    static const char whole[] =
        "[hypervisor]\nexit_port = 244\n" DRIVER "heartbeat = 5ms\nwindow=1m\n" GUEST "cmdline = x\n";
    struct random random = random_start("manifest");
    u32 lines = 1;

    for (u32 i = 0; i < sizeof(whole); i++)
        lines += whole[i] == '\n';
    for (size_t size = 0; size < sizeof(whole) - 1; size++)
        assert_in_range(parse_bytes(whole, size), OK, ERR_FORMAT);
    for (u32 i = 0; i < 20000; i++) {
        char text[sizeof(whole)];
        memcpy(text, whole, sizeof(whole));
        for (u64 changes = random_between(&random, 1, 4); changes > 0; changes--)
            text[random_below(&random, sizeof(whole) - 1)] = "\n =[]#0a9M:\x80"[random_below(&random, 12)];
        if (parse_bytes(text, sizeof(whole) - 1) == OK) {
            assert_in_range(manifest.vm_count, 1, 2);
            continue;
        }
        assert_in_range(error.line, 0, lines + 4);
        assert_true(error.message[0] != '\0' && strnlen(error.message, sizeof(error.message)) < sizeof(error.message));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_manifest_is_read),
        cmocka_unit_test(what_is_absent_has_its_default),
        cmocka_unit_test(values_are_checked),
        cmocka_unit_test(memory_has_limits_by_kind),
        cmocka_unit_test(devices_are_checked),
        cmocka_unit_test(strings_have_limits),
        cmocka_unit_test(errors_of_sections),
        cmocka_unit_test(errors_of_keys),
        cmocka_unit_test(errors_of_what_is_missing),
        cmocka_unit_test(one_device_has_one_driver),
        cmocka_unit_test(the_order_is_closed),
        cmocka_unit_test(errors_of_the_order),
        cmocka_unit_test(escalation_is_checked),
        cmocka_unit_test(the_number_of_vms_is_bounded),
        cmocka_unit_test(the_size_of_the_text_is_bounded),
        cmocka_unit_test(white_space_and_line_ends_are_tolerated),
        cmocka_unit_test(the_guest_has_a_control_port_of_its_own),
        cmocka_unit_test(other_control_characters_are_no_text),
        cmocka_unit_test(damaged_texts_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
