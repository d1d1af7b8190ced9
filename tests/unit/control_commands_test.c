/* The commands of the control port and their answers. */
/* SOURCES: hv/recovery/detect.c hv/recovery/detect_progress.c hv/recovery/detect_dma.c hv/recovery/decide.c
   hv/recovery/quiesce.c hv/recovery/reset_device.c hv/recovery/restart.c hv/recovery/replay.c hv/recovery/crash.c
   hv/recovery/recovery.c hv/recovery/inject.c hv/control/events.c hv/control/commands.c hv/control/upload.c
   hv/control/report.c hv/exit/hypercall.c hv/core/vm.c */
/* INCLUDE_FAKES */
#include "hv/arch/x86/vendor.h"
#include "hv/core/cpu.h"
#include "hv/core/machine.h"
#include "hv/platform/platform.h"
#include "tests/unit/random.h"
#include "tests/unit/recovery_fakes.h"

struct cpu cpus[CPU_MAX];
u32 cpu_count = 2;
static const struct vcpu_vendor fake_vendor = {.name = "svm"};
const struct vcpu_vendor *vendor = &fake_vendor;
const char *const exit_kind_name[EXIT_KINDS] = {"k0", "k1", "k2",  "k3",  "k4",  "k5",  "k6", "k7",
                                                "k8", "k9", "k10", "k11", "k12", "k13", "k14"};

u64 machine_start;
u64 frames_free_count = 1000, frames_total_count = 2000;
const char *iommu_description(void)
{
    return "VT-d 1.0 at 0xfed90000";
}
struct platform_stats platform_stats(const struct vm *vm)
{
    return (struct platform_stats){.timer_interrupts = 9};
}

static u32 guest_restarts;
void platform_restart(struct vm *vm)
{
    assert_null(vm->driver);
    guest_restarts++;
}

static char answer[MIB(1)];
static size_t answer_length;

static void put(const char *text)
{
    size_t length = strlen(text);
    assert_true(answer_length + length < sizeof(answer));
    memcpy(answer + answer_length, text, length + 1);
    answer_length += length;
}

static enum manifest_control who; /* asks */

/* Runs a line; every answer ends with one last line "ok" or "error TEXT", and there is no other such line. */
static const char *ask(const char *line)
{
    answer_length = 0;
    answer[0] = '\0';
    char words[2048];
    assert_true(str_copy(words, sizeof(words), line));
    control_execute(words, who, put);
    assert_true(answer_length > 0 && answer[answer_length - 1] == '\n');
    for (char *at = answer; *at != '\0'; at = strchr(at, '\n') + 1) {
        bool last = strchr(at, '\n')[1] == '\0';
        assert_int_equal(last, strncmp(at, "ok\n", 3) == 0 || strncmp(at, "error ", 6) == 0);
    }
    return answer;
}

static void assert_has(const char *text)
{
    if (strstr(answer, text) == NULL)
        fail_msg("'%s' is not in: %s", text, answer);
}

static int machine(void **state)
{
    fake_machine(state);
    inject_canary_init();
    fake_vm.vcpu.exits_by_kind[3] = 33;
    fake_driver.image.bytes = 12345;
    fake_driver.frames = fake_vm.ram_size / PAGE_SIZE + 200;
    fake_vm.npt.frames = 4;
    fake_driver.start_us = 2100;
    fake_driver.start_run_us = 1900;
    fake_driver.device_wait_us = 800;
    fake_driver.started = tsc_from_us(9000000);
    return 0;
}

static void status_tells_machine_and_vms(void **state)
{
    fake_in_flight = 4;
    ask("status");
    assert_has("hypervisor uptime_us=10000000 cpus=2 backend=svm iommu=\"VT-d 1.0 at 0xfed90000\" canary=ok "
               "frames_free=1000 frames_total=2000 events=");
    assert_has(
        "vm name=blk0 kind=driver state=running cpu=0 memory=1048576 device=00:1f.2 isolation=\"iommu\" dma=isolated "
        "interrupts=MSI "
        "generation=0 restarts=0 faults=0 in_flight=4 crashes=0 restarts_in_window=0 limit=5 uptime_us=1000000 "
        "reset=flr grants=sticky heartbeat_us=20000 heartbeat_misses=0 "
        "image=manifest overhead=835584 image_bytes=12345 start_us=2100 start_run_us=1900 device_wait_us=800 "
        "spare=none last_fault=");
    assert_has("vm name=main kind=guest state=running cpu=0 memory=16777216\n");
}

static void status_tells_bad_news(void **state)
{
    ((u8 *)hpa_to_ptr(HPA(FAKE_CANARY)))[8] ^= 1;
    fake_guest.failed = "triple fault";
    fake_iommu = false;
    fake_driver.isolation = "UNPROTECTED DMA";
    fake_config.dma = MANIFEST_DMA_UNPROTECTED;
    ask("status");
    assert_has("canary=BROKEN");
    assert_has("iommu=\"none\"");
    assert_has("isolation=\"UNPROTECTED DMA\" dma=unprotected");
    assert_has("state=failed cpu=0 memory=16777216 failed=\"triple fault\"");
}

static void stats_count(void **state)
{
    fake_completions = 17;
    fake_vm.vcpu.run_ticks = tsc_from_us(250);
    ask("stats");
    assert_has("vm name=blk0 run_us=");
    assert_has(" exits_k3=33 ");
    assert_has(" completions=17 ");
    assert_has("timer_interrupts=9");
    assert_has("cpu id=1 ticks=0 idle_us=0 up_us=");
}

static void events_from_a_number_on(void **state)
{
    char line[64];

    fake_time_us = 77;
    event_add(EVENT_LOG, EVENT_NO_VM, "say \"hi\" \\ \x01\xff");
    event_add(EVENT_START, 0, "second");
    u64 last = event_last();
    snprintf(line, sizeof(line), "events %llu", (unsigned long long)last - 1);
    ask(line);
    assert_has(" us=77 vm=- kind=log text=\"say 'hi' / ??\"\n");
    assert_has(" us=77 vm=blk0 kind=start text=\"second\"\nok\n");
    assert_int_equal(strncmp(answer, "event seq=", 10), 0);
    snprintf(line, sizeof(line), "trace 0x%llx", (unsigned long long)last);
    ask(line);
    assert_has("trace seq=");
    assert_has(" tsc=154000 vm=blk0 kind=start");
    assert_string_equal(ask("events 18446744073709551615"), "ok\n");
    assert_string_equal(ask("events 18446744073709551616"), "error FROM is not a number\n");
    assert_string_equal(ask("faults -1"), "error FROM is not a number\n");
}

static void all_events_fit_the_ports_buffer(void **state)
{
    for (u32 i = 0; i < 2 * EVENT_LOG_SIZE; i++)
        event_add(EVENT_BROKEN_DEVICE, 0, "%0100u", i);
    ask("events");
    assert_true(answer_length < KIB(512));
    u32 lines = 0;
    for (const char *at = answer; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    assert_int_equal(lines, EVENT_LOG_SIZE + 1);
}

static void faults_have_stamps_and_durations(void **state)
{
    static const struct driver_offer offer = {.virtio_type = 2, .queues = 1};
    char line[64];

    assert_string_equal(ask("inject blk0 crash"), "ok\n");
    fake_time_us = 20000000;
    inject_apply(&fake_driver);
    fake_time_us += 15;
    fake_in_flight = 2;
    recovery_report(&fake_driver, FAULT_EXCEPTION, 0x1f, 0x2f, "exception 6");
    recovery_run(&fake_driver);
    fake_time_us += 300;
    assert_int_equal(recovery_offer(&fake_driver, &offer), OK);
    fake_time_us += 85;
    recovery_first_completion(&fake_driver);
    snprintf(line, sizeof(line), "faults %u", fake_last_record()->sequence);
    ask(line);
    assert_has(
        " vm=blk0 generation=0 kind=exception outcome=recovered injected=crash reset=flr replayed=2 detail=0x1f "
        "address=0x2f t_injected=20000000 t_detect=20000015 t_decide=20000015 t_quiesce=20000015 t_reset=20000015 "
        "t_restart=20000015 t_offer=20000315 t_replay=20000315 t_first_completion=20000400 detect_us=15 quiesce_us=0 "
        "reset_us=0 restart_us=300 replay_us=0 first_completion_us=400 text=\"exception 6\"\nok\n");
    ask("status");
    assert_has("last_fault=\"exception: exception 6\"");
}

static void stages_that_did_not_happen_are_zero_or_absent(void **state)
{
    fake_config.restart = false;
    recovery_report(&fake_driver, FAULT_DEADLINE, 0, 0, "late");
    recovery_run(&fake_driver);
    ask("faults");
    const char *line = strrchr(strstr(answer, "outcome=gave-up"), '\n');
    assert_non_null(line);
    assert_has("outcome=gave-up injected= reset=flr");
    assert_has("t_restart=0 t_offer=0 t_replay=0 t_first_completion=0 quiesce_us=0 reset_us=0 text=\"late\"");
}

static void inject_and_restart_say_what_is_wrong(void **state)
{
    assert_string_equal(ask("inject blk1 crash"), "error no such VM\n");
    assert_string_equal(ask("inject main crash"), "error this VM has no driver\n");
    assert_string_equal(ask("restart nobody"), "error no such VM\n");
    assert_string_equal(ask("restart main"), "ok\n");
    assert_int_equal(guest_restarts, 1);
    assert_non_null(strstr(ask("inject blk0 explode"), "error no such fault"));
    assert_string_equal(ask("inject blk0 hang"), "ok\n");
    assert_non_null(strstr(ask("inject blk0 hang"), "error another fault"));
    assert_string_equal(ask("restart blk0"), "ok\n");
    assert_string_equal(ask("restart blk0"), "error a recovery is under way\n");
    assert_int_equal(fake_driver.recovery.current.kind, FAULT_OPERATOR);
    assert_string_equal(ask("inject blk0 crash"), "error the driver VM is not running\n");
}

static void flip_tells_what_stood_there(void **state)
{
    assert_string_equal(ask("flip blk0 0x10000 2 0xff00"), "memory at=0x10000 was=0xa5a5\nok\n");
    assert_string_equal(ask("flip blk0 65536 8 0"), "memory at=0x10000 was=0xa5a5a5a5a5a55aa5\nok\n");
    assert_non_null(strstr(ask("flip blk0 0x900000000 4 1"), "error an operand"));
    assert_string_equal(ask("flip blk0 0x10000 1 1 start"), "memory at=0x10000 was=0x0\nok\n");
    assert_int_equal(fake_driver.recovery.at_start.address, 0x10000);
    fake_driver.state = DRIVER_FAILED;
    assert_string_equal(ask("flip blk0 0x10000 1 1"), "error the driver VM is not running\n");
}

static void commands_of_a_line_stop_at_a_refusal(void **state)
{
    assert_string_equal(ask("inject blk0 crash; inject blk0 lose 3;flip blk0 0x10000 1 0"),
                        "memory at=0x10000 was=0xa5\nok\n");
    assert_true(fake_driver.recovery.inject_armed != NULL);
    assert_int_equal(fake_driver.recovery.interrupts_left, 3);
    assert_string_equal(ask("inject blk0 hold 7; inject nobody crash; inject blk0 lose 5"), "error no such VM\n");
    assert_int_equal(fake_driver.recovery.interrupts_fault, 'h');
    assert_non_null(strstr(ask("tsc;"), "\nerror unknown command"));
    assert_non_null(strstr(ask("tsc; ;restart blk0"), "\nerror unknown command"));
    assert_false(fake_driver.recovery.pending);
}

static void stop_and_start_say_what_is_wrong(void **state)
{
    assert_string_equal(ask("stop main"), "error this VM has no driver\n");
    assert_string_equal(ask("start blk0"), "error it runs already\n");
    assert_string_equal(ask("stop blk0"), "ok\n");
    assert_string_equal(ask("stop blk0"), "error it is stopped, or a recovery is under way\n");
    recovery_run(&fake_driver);
    ask("status");
    assert_has("state=stopped");
    assert_has("crashes=0 restarts_in_window=0 limit=5 uptime_us=0");
    assert_string_equal(ask("stop blk0"), "error it is stopped, or a recovery is under way\n");
    assert_string_equal(ask("start blk0"), "ok\n");
    assert_string_equal(ask("start blk0"), "error a recovery is under way\n");
    recovery_run(&fake_driver);
    ask("faults");
    assert_has("kind=operator outcome=stopped");
}

/* The number behind the last `key=0x` of the answer. */
static u64 last_number(const char *key)
{
    const char *at = NULL;

    for (const char *found = answer; (found = strstr(found, key)) != NULL; found++)
        at = found + strlen(key);
    assert_non_null(at);
    return strtoull(at, NULL, 16);
}

static void core_says_what_is_wrong(void **state)
{
    assert_string_equal(ask("core main 0"), "error this VM has no driver\n");
    assert_string_equal(ask("core blk0 0"), "error this VM has had no fault\n");
    assert_string_equal(ask("core blk7 0"), "error no such VM\n");
    recovery_report(&fake_driver, FAULT_DECLARED, 0, 0, "x");
    recovery_run(&fake_driver);
    static const char *const lines[] = {"core blk0 1",
                                        "core blk0 -4096",
                                        "core blk0 0x102000",
                                        "core blk0 x",
                                        "core blk0 0x101001",
                                        "core blk0 4097",
                                        "core blk0 18446744073709547520"};
    for (u32 i = 0; i < ARRAY_SIZE(lines); i++)
        assert_string_equal(ask(lines[i]), "error FROM is not the address of a page of its memory\n");
    assert_string_equal(ask("core blk0"), "error wrong number of arguments: see help\n");
}

/* A VM that policy gave up on: its memory is its own still, and `core` reads it there. */
static void core_gives_registers_and_memory(void **state)
{
    u64 *ram = hpa_to_ptr(HPA(FAKE_RAM));

    memset(ram, 0, FAKE_RAM_SIZE);
    ram[0x3000 / 8 + 9] = 0xfedcba9876543210;
    ram[0x3000 / 8 + 15] = 7;
    *(u64 *)hpa_to_ptr(HPA(FAKE_INFO)) = 0x1f0;
    fake_config.restart = false;
    fake_vm.vcpu.regs = (struct vcpu_registers){.rax = 0xa, .rsp = 0xff0, .r15 = ~0ull};
    fake_vm.vcpu.rflags = 0x202;
    recovery_report(&fake_driver, FAULT_HEARTBEAT, 0x10040, 0, "stands still");
    recovery_run(&fake_driver);
    assert_int_equal(fake_driver.state, DRIVER_FAILED);

    ask("core blk0 0");
    assert_has(" vm=blk0 generation=0 kind=heartbeat outcome=open ");
    assert_has("registers rip=0x10040 rflags=0x202 r0=0xa r1=0x0 r2=0x0 r3=0x0 r4=0xff0 r5=0x0 ");
    assert_has(" r15=0xffffffffffffffff\nmemory at=0x3040 words=0,fedcba9876543210,0,0\n"
               "memory at=0x3060 words=0,0,0,7\n"
               "next at=0x4000 end=0x100000\nok\n");
    /* No answer takes longer than so many pages, and each goes on where the one before has ended. */
    ask("core blk0 0x4000");
    assert_null(strstr(answer, "memory"));
    assert_int_equal(last_number("next at=0x"), 0x44000);
    u64 at = 0x44000, answers = 0;
    for (char line[40]; at < FAKE_RAM_SIZE; answers++) {
        snprintf(line, sizeof(line), "core blk0 0x%llx", (unsigned long long)at);
        ask(line);
        at = last_number("next at=0x");
    }
    assert_int_equal(answers, 3);
    assert_has("memory at=0x100000 words=1f0,0,0,0\n"); /* behind RAM: the info page */
    assert_int_equal(at, FAKE_RAM_SIZE + PAGE_SIZE);
}

static void core_of_a_full_page_is_one_answer(void **state)
{
    recovery_report(&fake_driver, FAULT_DECLARED, 0, 0, "x");
    recovery_run(&fake_driver);
    /* Restarted: what was kept, and of the rest what is pristine. */
    memset(fake_crash + 0x7000, 0xff, 2 * PAGE_SIZE);
    fake_kept[7] = fake_kept[8] = 1;
    fake_pristine[511] = 0x77;
    ask("core blk0 0x7000");
    assert_int_equal(last_number("next at=0x"), 0x8000);
    assert_true(answer_length > 2 * PAGE_SIZE && answer_length < KIB(16));
    ask("core blk0 0x6000");
    assert_has("memory at=0x6fe0 words=0,0,0,77\nnext at=0x7000 ");
}

/* FNV-1a of the bytes "abc", published with the algorithm. */
static void an_image_comes_in_pieces(void **state)
{
    assert_string_equal(ask("chunk blk0 1 YmM"), "ok\n");
    assert_string_equal(ask("chunk blk0 0 YQ"), "ok\n");
    assert_non_null(strstr(ask("replace blk0 3 0x1a47e90c"), "error size or checksum"));
    assert_string_equal(fake_calls, "");
    fake_load_status = ERR_FORMAT;
    assert_string_equal(ask("replace blk0 3 0x1a47e90b"), "error damaged\n");
    assert_false(fake_driver.recovery.pending);
    fake_load_status = OK;
    assert_string_equal(ask("replace blk0 3 0x1a47e90b"), "ok\n");
    assert_int_equal(fake_driver.image.entry, 3);
    assert_true(fake_driver.recovery.pending && fake_driver.recovery.trial);
    assert_string_equal(ask("replace blk0 3 0x1a47e90b"), "error a recovery is under way\n");
    ask("status");
    assert_has(" image=uploaded ");
}

/* FNV-1a of the bytes 0 to 255: each digit occurs. */
static void every_byte_comes_as_it_is(void **state)
{
    assert_string_equal(
        ask("chunk blk0 0 AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0"
            "+P0BBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn8"),
        "ok\n");
    assert_string_equal(
        ask("chunk blk0 128 gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp+goaKjpKWmp6ipqqusra6vsLGys7S1tre4ubq7v"
            "L2+v8DBwsPExcbHyMnKy8zNzs/Q0dLT1NXW19jZ2tvc3d7f4OHi4+Tl5ufo6err7O3u7/Dx8vP09fb3+Pn6+/z9/v8"),
        "ok\n");
    assert_string_equal(ask("replace blk0 256 0x90a458c5"), "ok\n");
}

static void hostile_pieces_are_refused(void **state)
{
    assert_string_equal(ask("chunk blk0 0 YW-"), "error not base64\n");
    assert_string_equal(ask("chunk blk0 0 YQ=="), "error not base64\n");
    assert_string_equal(ask("chunk blk0 163839 YQ"), "ok\n"); /* the last byte */
    assert_non_null(strstr(ask("chunk blk0 163840 YQ"), "error OFFSET"));
    assert_string_equal(ask("chunk blk0 163840 Y"), "ok\n"); /* no byte */
    assert_non_null(strstr(ask("chunk blk0 163839 YmM"), "error OFFSET"));
    assert_non_null(strstr(ask("chunk blk0 18446744073709551615 YmM"), "error OFFSET"));
    assert_non_null(strstr(ask("chunk blk0 -1 YQ"), "error OFFSET"));
    assert_non_null(strstr(ask("replace blk0 163841 0"), "error size or checksum"));
    assert_non_null(strstr(ask("replace blk0 x 0"), "error size or checksum"));
    assert_non_null(strstr(ask("replace blk0 1 4294967296"), "error size or checksum"));
    assert_string_equal(ask("replace main 1 0"), "error this VM has no driver\n");
    assert_string_equal(ask("chunk nobody 0 YQ"), "error no such VM\n");
    assert_string_equal(fake_calls, "");
}

static void hostile_lines_are_errors(void **state)
{
    static char long_line[2000];
    static const char *const lines[] = {"",
                                        "   ",
                                        "\t",
                                        "STATUS",
                                        "statusx",
                                        "status now",
                                        "inject",
                                        "inject blk0",
                                        "core blk0 0",
                                        "core blk0 0 0",
                                        "restart",
                                        "inject blk0 crash now",
                                        "inject blk0 lose 0",
                                        "inject blk0 lose ten",
                                        "inject blk0 crash 1",
                                        "inject blk0 lose 1 2",
                                        "flip blk0 0x10000 1",
                                        "flip blk0 0x10000 1 0xg",
                                        "flip blk0 0x10000 9 1",
                                        "flip blk0 -1 1 1",
                                        "flip blk0 0x10000 1 1 now",
                                        "flip blk0 0x10000 1 1 start 1",
                                        "flip main 0x10000 1 1",
                                        ";tsc",
                                        ";",
                                        "restart blk0 main",
                                        "events 1 2",
                                        "%s%s%n",
                                        "inject %s %n",
                                        "help me",
                                        "tsc 1",
                                        "a b c d e f g h i j k l m n o p",
                                        "restart \"blk0\""};

    for (u32 i = 0; i < ARRAY_SIZE(lines); i++)
        assert_int_equal(strncmp(ask(lines[i]), "error ", 6), 0);
    memset(long_line, 's', sizeof(long_line) - 1);
    assert_string_equal(ask(long_line), "error unknown command: see help\n");
    memset(long_line, ' ', 250);
    memcpy(long_line + 240, "tsc", 4);
    assert_non_null(strstr(ask(long_line), "khz=2000000"));
    assert_null(fake_driver.recovery.inject_armed);
    assert_false(fake_driver.recovery.pending);
}

static void help_lists_every_command(void **state)
{
    static const char *const names[] = {"help",   "status", "stats",   "events", "trace", "faults",
                                        "inject", "flip",   "restart", "core",   "tsc"};
    ask("help");
    for (u32 i = 0; i < ARRAY_SIZE(names); i++) {
        char text[64];
        snprintf(text, sizeof(text), "command name=%s help=\"", names[i]);
        assert_has(text);
    }
}

static void random_words(void **state)
{
    static const char *const words[] = {"inject", "restart",  "faults", "status", "blk0",    "main",
                                        "crash",  "wild-dma", "",       " ",      "7",       "0xffffffffffffffff",
                                        "\"",     "=",        ";",      "flip",   "0x10000", "start",
                                        "lose",   "help",     "%n",     "core",   "4096"};
    struct random random = random_start("commands");

    for (u32 i = 0; i < 3000; i++) {
        char line[200] = "";
        for (u32 n = (u32)random_below(&random, 7); n > 0; n--) {
            strcat(line, words[random_below(&random, ARRAY_SIZE(words))]);
            if (random_one_in(&random, 2))
                strcat(line, " ");
        }
        ask(line);
    }
}

static u32 count_lines(void)
{
    u32 lines = 0;
    for (const char *at = answer; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    return lines;
}

/* What needs more rights than the manifest gives the guest is refused, and nothing has happened. */
static void the_guest_gives_only_what_it_may(void **state)
{
    static const char *const words[] = {"trace",           "inject blk0 crash", "flip blk0 0x10000 1 0", "core blk0 0",
                                        "chunk blk0 0 00", "replace blk0 1 1",  "trace 7 8 9",           "inject"};
    static const char *const orders[] = {"restart blk0", "stop blk0", "start blk0"};

    u32 restarts = guest_restarts;

    for (who = MANIFEST_CONTROL_YES; who <= MANIFEST_CONTROL_READ; who++) {
        for (u32 i = 0; i < ARRAY_SIZE(words); i++)
            assert_string_equal(ask(words[i]), "error the manifest does not allow this here\n");
        assert_null(strstr(ask("help"), "name=inject"));
        assert_int_equal(strstr(answer, "name=restart") != NULL, who == MANIFEST_CONTROL_YES);
        assert_non_null(strstr(ask("status"), "vm name=blk0"));
        assert_non_null(strstr(ask("stats"), "vm name=blk0"));
        assert_non_null(strstr(ask("restart main"),
                               who == MANIFEST_CONTROL_YES ? "error this VM has no driver" : "error the manifest"));
        assert_non_null(strstr(ask("status;status"), "error unknown command")); /* one command a line */
        assert_non_null(strstr(ask("help;"), "error unknown command"));
    }
    assert_int_equal(guest_restarts, restarts);
    assert_null(fake_driver.recovery.inject_armed);
    who = MANIFEST_CONTROL_READ;
    for (u32 i = 0; i < ARRAY_SIZE(orders); i++)
        assert_string_equal(ask(orders[i]), "error the manifest does not allow this here\n");
    assert_false(fake_driver.recovery.pending);
    u64 events = event_last();
    who = MANIFEST_CONTROL_YES;
    assert_string_equal(ask("restart blk0"), "ok\n");
    assert_true(fake_driver.recovery.pending);
    assert_string_equal(event_get(event_last())->text, "orders: restart blk0");
    assert_true(event_last() > events);
    events = event_last();
    assert_string_equal(ask("restart blk0"), "error a recovery is under way\n");
    assert_int_equal(event_last(), events); /* what is refused leaves no trace: it could fill the log */
    who = MANIFEST_CONTROL_NO;
}

static void a_list_comes_to_the_guest_in_pieces(void **state)
{
    char line[64];
    u32 seen = 0;

    for (u32 i = 0; i < 50; i++)
        event_add(EVENT_LOG, EVENT_NO_VM, "%u", i);
    u64 last = event_last(), from = last - 49;
    who = MANIFEST_CONTROL_READ;
    ask("events");
    assert_int_equal(count_lines(), 16 + 1);
    for (; from <= last; from += 16, seen += count_lines() - 1) {
        snprintf(line, sizeof(line), "events %llu", (unsigned long long)from);
        ask(line);
    }
    assert_int_equal(seen, 50);
    for (u32 i = 0; i < 20; i++) {
        fake_driver.state = DRIVER_RUNNING;
        recovery_report(&fake_driver, FAULT_OPERATOR, 0, 0, "x");
        fake_driver.recovery.pending = false;
    }
    u32 newest = fake_driver.recovery.current.sequence; /* not over: not in the list */
    snprintf(line, sizeof(line), "faults %u", newest - 18);
    ask(line);
    assert_int_equal(count_lines(), 16 + 1);
    snprintf(line, sizeof(line), "faults %u", newest - 2);
    ask(line);
    assert_int_equal(count_lines(), 2 + 1);
    assert_string_equal(ask("faults 18446744073709551615"), "ok\n");
    who = MANIFEST_CONTROL_NO;
    assert_string_equal(ask("faults 18446744073709551615"), "ok\n");
    snprintf(line, sizeof(line), "faults %u", newest - 18);
    ask(line);
    assert_int_equal(count_lines(), 18 + 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, machine, fake_machine_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(status_tells_machine_and_vms),
        TEST(status_tells_bad_news),
        TEST(stats_count),
        TEST(events_from_a_number_on),
        TEST(all_events_fit_the_ports_buffer),
        TEST(faults_have_stamps_and_durations),
        TEST(stages_that_did_not_happen_are_zero_or_absent),
        TEST(inject_and_restart_say_what_is_wrong),
        TEST(flip_tells_what_stood_there),
        TEST(commands_of_a_line_stop_at_a_refusal),
        TEST(stop_and_start_say_what_is_wrong),
        TEST(core_says_what_is_wrong),
        TEST(core_gives_registers_and_memory),
        TEST(core_of_a_full_page_is_one_answer),
        TEST(an_image_comes_in_pieces),
        TEST(every_byte_comes_as_it_is),
        TEST(hostile_pieces_are_refused),
        TEST(hostile_lines_are_errors),
        TEST(help_lists_every_command),
        TEST(the_guest_gives_only_what_it_may),
        TEST(a_list_comes_to_the_guest_in_pieces),
        TEST(random_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
