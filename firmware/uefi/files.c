/* Files of the EFI system partition that the loader came from, under \bulkhead\. */
#include "firmware/uefi/loader.h"

#include "shared/lib/string.h"

#define FILE_MAX_BYTES GIB(1) /* far above any image; keeps the page arithmetic small */
#define PATH_PREFIX "\\bulkhead\\"

static EFI_FILE_PROTOCOL *volume;

void loader_files_open(EFI_HANDLE image)
{
    EFI_GUID loaded_image_guid = LOADED_IMAGE_PROTOCOL;
    EFI_GUID file_system_guid = SIMPLE_FILE_SYSTEM_PROTOCOL;
    EFI_BOOT_SERVICES *bs = loader_boot_services();
    EFI_LOADED_IMAGE *loaded;
    EFI_SIMPLE_FILE_SYSTEM_PROTOCOL *file_system;

    if (bs->HandleProtocol(image, &loaded_image_guid, (void **)&loaded) != EFI_SUCCESS)
        loader_fail("the firmware does not say where the loader came from");
    if (bs->HandleProtocol(loaded->DeviceHandle, &file_system_guid, (void **)&file_system) != EFI_SUCCESS)
        loader_fail("the loader did not come from a file system");
    if (file_system->OpenVolume(file_system, &volume) != EFI_SUCCESS)
        loader_fail("cannot open the EFI system partition");
}

/* name: at most BOOT_NAME_SIZE - 1 bytes of ASCII, as the manifest parser guarantees. */
static EFI_FILE_PROTOCOL *file_open(const char *name)
{
    CHAR16 path[sizeof(PATH_PREFIX) + BOOT_NAME_SIZE];
    size_t n = 0;
    for (const char *c = PATH_PREFIX; *c != '\0'; c++)
        path[n++] = (CHAR16)*c;
    for (const char *c = name; *c != '\0' && n < ARRAY_SIZE(path) - 1; c++)
        path[n++] = (CHAR16)(u8)*c;
    path[n] = 0;

    EFI_FILE_PROTOCOL *file;
    EFI_STATUS status = volume->Open(volume, &file, path, EFI_FILE_MODE_READ, 0);
    if (status == EFI_NOT_FOUND)
        loader_fail(PATH_PREFIX "%s: not found", name);
    if (status != EFI_SUCCESS)
        loader_fail(PATH_PREFIX "%s: cannot open (UEFI status 0x%llx)", name, (unsigned long long)status);
    return file;
}

static u64 file_size(EFI_FILE_PROTOCOL *file, const char *name)
{
    EFI_GUID info_guid = EFI_FILE_INFO_ID;
    union {
        EFI_FILE_INFO info;
        u8 bytes[sizeof(EFI_FILE_INFO) + 2 * (BOOT_NAME_SIZE + 1)]; /* the name follows the structure */
    } buffer;
    UINTN size = sizeof(buffer);
    if (file->GetInfo(file, &info_guid, &size, &buffer) != EFI_SUCCESS || (buffer.info.Attribute & EFI_FILE_DIRECTORY))
        loader_fail(PATH_PREFIX "%s: not a file", name);
    return buffer.info.FileSize;
}

struct loader_file loader_file_read(const char *name)
{
    EFI_FILE_PROTOCOL *file = file_open(name);
    u64 size = file_size(file, name);
    if (size == 0)
        loader_fail(PATH_PREFIX "%s: the file is empty", name);
    if (size > FILE_MAX_BYTES)
        loader_fail(PATH_PREFIX "%s: larger than 1 GiB", name);

    struct loader_file out = {.data = loader_pages_alloc(size, GIB(4), name), .size = size};
    UINTN got = size;
    if (file->Read(file, &got, out.data) != EFI_SUCCESS)
        loader_fail(PATH_PREFIX "%s: read error", name);
    if (got != size)
        loader_fail(PATH_PREFIX "%s: truncated: %llu of %llu bytes could be read", name, (unsigned long long)got,
                    (unsigned long long)size);
    file->Close(file);
    loader_say("[uefi] " PATH_PREFIX "%s %llu bytes", name, (unsigned long long)size);
    return out;
}
