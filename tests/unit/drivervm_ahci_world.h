/*
 * The guest's requests on the model of an AHCI controller (drivervm_hba_model.h), and what they must have done. For the
 * drivervm_ahci_*_test.c alone.
 */
#pragma once

#include "tests/unit/drivervm_hba_model.h"

static inline struct port *port_in_use(void)
{
    for (u32 n = 0; n < ARRAY_SIZE(hba.port); n++)
        if (hba.port[n].cmd & CMD_ST)
            return &hba.port[n];
    return NULL;
}

/* Run until `count` more requests are answered. */
static inline void complete(u32 count)
{
    for (u32 n = 0; completions->produced - seen < count; n++) {
        assert_true(n < 10000);
        loop_once();
        struct port *port = port_in_use();
        for (u64 work = random_below(&hba_random, 4); port && work > 0; work--)
            disk_work(port);
    }
    assert_int_equal(completions->produced - seen, count);
    seen = completions->produced;
}

/* Forget everything, as a restart does, except what the disk and the stash hold. */
static inline void power_on(bool ncq)
{
    memset(&hba, 0, sizeof(hba));
    hba.ncq = ncq;
    hba.cap = CAP_S64A | 31u << 8 | (ncq ? CAP_SNCQ : 0) | 5;
    hba.pi = 0x3f;
    hba.log_works = true;
    hba.bad_sector = ~0ull;
    hba.port[2].device = true;
    reset_hba();
    hba.resets = 0;
    set_identity();
    identity[75] = 31;
    identity[76] = ncq ? 1u << 8 : 0;
    info = (struct driver_info){.ram_size = (u64)image_end + sizeof(image_end), .tsc_khz = 1000, .interrupts = 1};
    info.bar[5] = (struct driver_bar){.address = ABAR, .size = 0x1000, .kind = DRIVER_BAR_MEMORY};
    pci_command_register = 0x0101; /* SERR# and I/O: not ours to change */
}

static inline int setup(void **state)
{
    hba_random = random_start("hba");
    guest_begin(&hba_random);
    power_on(true);
    return 0;
}

/* 40 reads, one of which meets a bad sector: that one fails, all the others succeed, and the disk works afterwards. */
static inline void one_bad_sector(void)
{
    for (u16 t = 0; t < 40; t++)
        submit(t, VIRTIO_BLK_T_IN, t * 8, 4096);
    hba.bad_sector = 17 * 8 + 5;
    complete(40);
    for (u32 t = 0; t < 40; t++) {
        assert_int_equal(guest[t].status, t == 17 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
        if (t != 17)
            assert_memory_equal(guest[t].data, disk_data + guest[t].lba * 512, 4096);
    }
    hba.bad_sector = ~0ull;
    submit(0, VIRTIO_BLK_T_IN, 17 * 8, 4096);
    submit(1, VIRTIO_BLK_T_FLUSH, 0, 0);
    complete(2);
    check_reads(1, 4096);
}
