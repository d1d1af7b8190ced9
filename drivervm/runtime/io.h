/*
 * Device registers, ports and the clock. MMIO is mapped uncached, so accesses reach the device in program order, and on
 * x86 after every earlier store to RAM: a doorbell needs no fence, only the compiler must not reorder, which the
 * volatile access and the calls see to. Host tests link a model of their device instead of io.c.
 */
#pragma once

#include "shared/lib/types.h"

u32 mmio_read32(u64 address);
void mmio_write32(u64 address, u32 value);
void mmio_write64(u64 address, u64 value);

u64 tsc_read(void);

u8 port_read8(u16 port);
void port_write8(u16 port, u8 value);

/* Move `count` units of 32 or 16 bits between one port and memory of any alignment. */
void port_read32s(u16 port, void *to, u32 count);
void port_write32s(u16 port, const void *from, u32 count);
void port_read16s(u16 port, void *to, u32 count);
void port_write16s(u16 port, const void *from, u32 count);
