/* Fixed-width names, address kinds and the few attributes that every part uses. No function here. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;
typedef int64_t i64;

/* Address kinds are one-member structs, so that mixing them does not compile. */
typedef struct {
    u64 v;
} gpa_t; /* guest-physical: of the VM at hand */
typedef struct {
    u64 v;
} hpa_t; /* host-physical: what goes into page tables and IOMMU tables */
typedef struct {
    u64 v;
} iova_t; /* what a device puts on the bus; in a driver VM equal to its gpa */

#define GPA(x) ((gpa_t){.v = (x)})
#define HPA(x) ((hpa_t){.v = (x)})
#define IOVA(x) ((iova_t){.v = (x)})

#define NODISCARD __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define KIB(x) ((u64)(x) << 10)
#define MIB(x) ((u64)(x) << 20)
#define GIB(x) ((u64)(x) << 30)

#define PAGE_SIZE 4096ull
#define PAGE_MASK (PAGE_SIZE - 1)
#define PAGE_DOWN(x) ((u64)(x) & ~PAGE_MASK)
#define PAGE_UP(x) (((u64)(x) + PAGE_MASK) & ~PAGE_MASK)
