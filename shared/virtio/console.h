/* VirtIO 1.2 5.3: console device, one port, no features. A stream of bytes each way. */
#pragma once

#define VIRTIO_ID_CONSOLE 3u

/* 5.3.2, of port 0 */
enum { VIRTIO_CONSOLE_RECEIVE, VIRTIO_CONSOLE_TRANSMIT, VIRTIO_CONSOLE_QUEUES };
