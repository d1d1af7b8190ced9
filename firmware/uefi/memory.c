/* Memory from UEFI, and its map for the hypervisor (UEFI 2.10 7.2). */
#include "firmware/uefi/loader.h"

#include "shared/lib/string.h"

#define MAP_SLACK_BYTES 4096u /* entries that may appear between asking for the size and the last call */
#define EXIT_ATTEMPTS 8

struct memory_map {
    u8 *buffer;
    UINTN capacity;
    UINTN size;
    UINTN key;
    UINTN stride; /* bytes from one descriptor to the next: firmware may append fields */
};

void *loader_pages_alloc(u64 bytes, u64 limit, const char *what)
{
    EFI_PHYSICAL_ADDRESS address = limit - 1;
    UINTN pages = PAGE_UP(bytes) / PAGE_SIZE;
    if (loader_boot_services()->AllocatePages(AllocateMaxAddress, EfiLoaderData, pages, &address) != EFI_SUCCESS)
        loader_fail("out of memory: %llu KiB for %s", (unsigned long long)(bytes >> 10), what);
    memset((void *)address, 0, pages * PAGE_SIZE);
    return (void *)address;
}

/* Allocate the buffer once: an allocation after the last GetMemoryMap would make its key stale. */
static void map_prepare(struct memory_map *map)
{
    UINTN needed = 0;
    UINT32 version;
    loader_boot_services()->GetMemoryMap(&needed, NULL, &map->key, &map->stride, &version);
    map->capacity = needed + MAP_SLACK_BYTES;
    map->buffer = loader_pages_alloc(map->capacity, GIB(4), "the memory map");
}

static EFI_STATUS map_read(struct memory_map *map)
{
    UINT32 version;
    map->size = map->capacity;
    return loader_boot_services()->GetMemoryMap(&map->size, (EFI_MEMORY_DESCRIPTOR *)map->buffer, &map->key,
                                                &map->stride, &version);
}

static const EFI_MEMORY_DESCRIPTOR *map_entry(const struct memory_map *map, UINTN offset)
{
    return (const EFI_MEMORY_DESCRIPTOR *)(map->buffer + offset);
}

static u32 memory_kind(UINT32 type)
{
    switch (type) {
    case EfiConventionalMemory:
    case EfiBootServicesCode:
    case EfiBootServicesData:
        return BOOT_MEMORY_FREE;
    case EfiLoaderCode:
    case EfiLoaderData:
        return BOOT_MEMORY_LOADER;
    case EfiACPIReclaimMemory:
    case EfiACPIMemoryNVS:
        return BOOT_MEMORY_ACPI;
    default:
        return BOOT_MEMORY_RESERVED;
    }
}

/* Keep the table sorted: firmware may list its descriptors in any order. False: the table is full. */
static bool memory_insert(struct boot_info *info, const struct boot_memory *entry)
{
    if (info->memory_count == BOOT_MAX_MEMORY)
        return false;
    u32 at = info->memory_count++;
    for (; at > 0 && info->memory[at - 1].base > entry->base; at--)
        info->memory[at] = info->memory[at - 1];
    info->memory[at] = *entry;
    return true;
}

/* Merge neighbours of a kind; cut what overlaps, so that a byte has one kind: the one of the lower entry. */
static void memory_merge(struct boot_info *info)
{
    u32 kept = 0;
    for (u32 i = 0; i < info->memory_count; i++) {
        struct boot_memory entry = info->memory[i];
        struct boot_memory *last = kept > 0 ? &info->memory[kept - 1] : NULL;
        if (last != NULL && entry.base < last->base + last->size) {
            u64 cut = last->base + last->size - entry.base;
            if (cut >= entry.size)
                continue;
            entry.base += cut;
            entry.size -= cut;
        }
        if (last != NULL && last->kind == entry.kind && last->base + last->size == entry.base)
            last->size += entry.size;
        else
            info->memory[kept++] = entry;
    }
    memset(&info->memory[kept], 0, (info->memory_count - kept) * sizeof(info->memory[0]));
    info->memory_count = kept;
}

/*
 * Firmware maps have tens to hundreds of fragments, mostly boot-services memory beside free memory: merging whenever
 * the table is full keeps it small. What still does not fit is left out, and so is never used.
 */
static void memory_fill(const struct memory_map *map, struct boot_info *info)
{
    info->memory_count = 0;
    for (UINTN offset = 0; offset + sizeof(EFI_MEMORY_DESCRIPTOR) <= map->size; offset += map->stride) {
        const EFI_MEMORY_DESCRIPTOR *d = map_entry(map, offset);
        struct boot_memory entry = {
            .base = d->PhysicalStart, .size = d->NumberOfPages * PAGE_SIZE, .kind = memory_kind(d->Type)};
        if (entry.size == 0 || memory_insert(info, &entry))
            continue;
        memory_merge(info);
        if (!memory_insert(info, &entry))
            break;
    }
    memory_merge(info);
}

static void map_read_or_fail(struct memory_map *map)
{
    map_prepare(map);
    if (map_read(map) != EFI_SUCCESS)
        loader_fail("the firmware gives no memory map");
}

u64 loader_memory_end(void)
{
    struct memory_map map;
    u64 end = 0;
    map_read_or_fail(&map);
    for (UINTN offset = 0; offset + sizeof(EFI_MEMORY_DESCRIPTOR) <= map.size; offset += map.stride) {
        const EFI_MEMORY_DESCRIPTOR *d = map_entry(&map, offset);
        u64 last = d->PhysicalStart + d->NumberOfPages * PAGE_SIZE;
        /* Reserved entries may be address-space holes at a terabyte; they are not RAM. */
        if (memory_kind(d->Type) != BOOT_MEMORY_RESERVED && last > end)
            end = last;
    }
    return end;
}

void loader_exit_boot_services(EFI_HANDLE image, struct boot_info *info)
{
    struct memory_map map;
    map_prepare(&map);
    for (int attempt = 0; attempt < EXIT_ATTEMPTS; attempt++) {
        if (map_read(&map) != EFI_SUCCESS)
            loader_fail("the firmware gives no memory map");
        /* A stale key (a timer event allocated in between) is normal: read the map again (UEFI 2.10 7.4.6). */
        if (loader_boot_services()->ExitBootServices(image, map.key) == EFI_SUCCESS) {
            memory_fill(&map, info);
            return;
        }
    }
    loader_fail("the firmware does not end its boot services");
}
