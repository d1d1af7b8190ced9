/*
 * From lwIP's frames to the device: headers copied, data in place where they lie in the I/O arena. Where the device
 * cuts TCP segments, consecutive segments of a connection are held for a moment and handed over as one; transmit_flush
 * ends that moment. One thread.
 */
#pragma once

#include "guestos/kernel/dev/virtio_net.h"
#include "guestos/kernel/net/lwip.h"

/* For a usable card, by the features that were negotiated. *checksums: whether the device completes TCP's.
 * ERR_NO_MEMORY. */
status_t transmit_init(struct nic *nic, bool *checksums);

/* A frame from lwIP, which keeps its own reference. ERR_MEM: no room, and transmit_was_full will say so. ERR_VAL: too
 * large.
 */
err_t transmit_frame(struct nic *nic, struct pbuf *p);

/* Hand over what is held, and tell the device: of this card. */
void transmit_flush(struct nic *nic);

/* The device has done with what nic_send was given as owner. */
void transmit_done(struct nic *nic, void *owner);

/* Whether a frame was refused since the last call, on any card. */
bool transmit_was_full(void);
