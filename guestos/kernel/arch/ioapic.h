/* The one IOAPIC, for the UART's line. */
#pragma once

#include "shared/lib/status.h"
#include "shared/lib/types.h"

/*
 * Route ISA interrupt `irq` (edge, active high) to `vector` on this CPU. ERR_NOT_FOUND: the machine's MADT names no
 * IOAPIC. ERR_RANGE: the IOAPIC has no such input.
 */
NODISCARD status_t ioapic_route_irq(u8 irq, u8 vector);
