/* Lines for people on the UEFI console, and the one way to give up. */
#include "firmware/uefi/loader.h"

#include "shared/lib/printf.h"
#include "shared/x86/io.h"

#define LINE_SIZE 256u
#define EXIT_BOOT_ERROR 0x21u /* QEMU then ends with (0x21 << 1) | 1 */

static EFI_HANDLE loader_image;
static EFI_SYSTEM_TABLE *system_table;
static u16 exit_port;

void loader_console_init(EFI_HANDLE image, EFI_SYSTEM_TABLE *table)
{
    loader_image = image;
    system_table = table;
    /* Firmware resets a machine whose application runs over five minutes (UEFI 2.10 7.5); TCG under load can be slow.
     */
    table->BootServices->SetWatchdogTimer(0, 0, 0, NULL);
}

EFI_BOOT_SERVICES *loader_boot_services(void)
{
    return system_table->BootServices;
}

void loader_set_exit_port(u16 port)
{
    exit_port = port;
}

/* OutputString takes UCS-2. Manifest texts may hold any byte: what is not printable ASCII is shown as '?'. */
static void print_line(const char *text)
{
    CHAR16 wide[LINE_SIZE + 2];
    size_t n = 0;
    for (; text[n] != '\0' && n < LINE_SIZE - 1; n++)
        wide[n] = text[n] >= ' ' && text[n] <= '~' ? (CHAR16)text[n] : L'?';
    wide[n++] = L'\r';
    wide[n++] = L'\n';
    wide[n] = 0;
    system_table->ConOut->OutputString(system_table->ConOut, wide);
}

void loader_say(const char *fmt, ...)
{
    char line[LINE_SIZE];
    BH_FORMAT(line, sizeof(line), fmt);
    print_line(line);
}

void loader_fail(const char *fmt, ...)
{
    char line[LINE_SIZE] = "bulkhead: ";
    const size_t prefix = sizeof("bulkhead: ") - 1;
    BH_FORMAT(line + prefix, sizeof(line) - prefix, fmt);
    print_line(line);
    if (exit_port != 0)
        io_out8(exit_port, EXIT_BOOT_ERROR);
    /* Still here: no exit port in this machine. The line tells scripts that nothing more will come. */
    print_line("bulkhead: boot failed, back to the firmware");
    /* Exit instead of a return: GNU-EFI's crt0 does not restore the firmware's RSI and RDI. */
    system_table->BootServices->Exit(loader_image, EFI_LOAD_ERROR, 0, NULL);
    for (;;)
        __asm__ volatile("hlt");
}
