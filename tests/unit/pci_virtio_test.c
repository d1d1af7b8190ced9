/* SOURCES: hv/pci/bar.c hv/pci/capability.c hv/pci/driver_view.c hv/pci/enumerate.c hv/pci/legacy.c
            hv/pci/message.c hv/pci/reset.c hv/pci/virtio_platform.c tests/unit/pci_fake.c */
/* INCLUDE_FAKES */
/* Which VirtIO devices are seen to go past the IOMMU: their feature bits, behind the window in configuration space. */
#include "shared/virtio/virtio.h"
#include "tests/unit/pci_fake.h"

#include <string.h>

#define COMMON 0x60u
#define WINDOW 0x80u
#define WINDOW_DATA (WINDOW + 16)
#define COMMON_BAR 4u
#define COMMON_OFFSET 0x2000u
#define PLATFORM (VIRTIO_F_VERSION_1 | VIRTIO_F_ACCESS_PLATFORM)

static struct fake_function *function;
static u64 features;
static u32 selected, looks;

static void set_capability(u32 at, u32 type, u32 bar, u32 offset)
{
    fake_pci_put(function, at + 3, 1, type);
    fake_pci_put(function, at + 4, 1, bar);
    fake_pci_put(function, at + 8, 4, offset);
}

/* The device's side of the window (VirtIO 1.2 4.1.4.9.1): aligned accesses, inside the common configuration. */
static u32 access_registers(struct fake_function *f, bool write, u32 value)
{
    u32 command = fake_pci_get(f, PCI_COMMAND, 2), offset = fake_pci_get(f, WINDOW + 8, 4);

    assert_int_equal(command & (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER), PCI_COMMAND_MEMORY);
    assert_int_equal(fake_pci_get(f, WINDOW + 4, 1), COMMON_BAR);
    assert_int_equal(fake_pci_get(f, WINDOW + 12, 4), 4);
    if (write) {
        assert_int_equal(offset, COMMON_OFFSET + offsetof(struct virtio_pci_common_cfg, device_feature_select));
        selected = value;
        return 0;
    }
    assert_int_equal(offset, COMMON_OFFSET + offsetof(struct virtio_pci_common_cfg, device_feature));
    looks++;
    return selected <= 1 ? (u32)(features >> selected * 32) : 0;
}

/* A modern disk that offers PLATFORM. Its capabilities stand behind another one of the same kind. */
static int setup(void **state)
{
    fake_pci_clear();
    features = PLATFORM;
    selected = looks = 0;
    function = fake_pci_add(0x0018, 0x010000);
    fake_pci_put(function, PCI_VENDOR, 4, VIRTIO_PCI_VENDOR | 0x1042u << 16);
    fake_pci_capability(function, PCI_CAP_VENDOR, WINDOW, 18, true);
    fake_pci_capability(function, PCI_CAP_VENDOR, COMMON, 0, false);
    fake_pci_capability(function, PCI_CAP_VENDOR, 0x40, 0, false);
    set_capability(WINDOW, VIRTIO_PCI_CAP_PCI, 0, 0);
    set_capability(COMMON, VIRTIO_PCI_CAP_COMMON, COMMON_BAR, COMMON_OFFSET);
    set_capability(0x40, VIRTIO_PCI_CAP_ISR, 1, 0);
    function->window = WINDOW_DATA;
    function->window_access = access_registers;
    return 0;
}

static bool is_past_iommu(void)
{
    assert_int_equal(pci_enumerate(HPA(0xb0000000), 0, 3, NULL, 0), OK);
    return pci_devices[0].past_iommu;
}

static void feature_decides(void **state)
{
    assert_false(is_past_iommu());
    assert_int_equal(looks, 1);
    features = VIRTIO_F_VERSION_1 | 0xffffffff;
    assert_true(is_past_iommu());
    features = ~0ull; /* as a device that is gone answers */
    assert_true(is_past_iommu());
    features = 2; /* bit 1, not 33 */
    assert_true(is_past_iommu());
}

static void ids(void **state)
{
    const struct {
        u16 vendor, device;
        bool virtio;
    } id[] = {{0x1af4, 0x0fff, false}, {0x1af4, 0x1000, true},  {0x1af4, 0x103f, true}, {0x1af4, 0x1041, true},
              {0x1af4, 0x107f, true},  {0x1af4, 0x1080, false}, {0x8086, 0x1042, false}};

    features = 0;
    for (u32 i = 0; i < ARRAY_SIZE(id); i++) {
        fake_pci_put(function, PCI_VENDOR, 2, id[i].vendor);
        fake_pci_put(function, PCI_DEVICE, 2, id[i].device);
        looks = 0;
        assert_int_equal(is_past_iommu(), id[i].virtio);
        assert_int_equal(looks, id[i].virtio);
    }
}

/* The look leaves the command register as firmware had it, but for bus mastering and the pin. */
static void command_is_restored(void **state)
{
    fake_pci_put(function, PCI_COMMAND, 2, 0);
    assert_false(is_past_iommu());
    assert_int_equal(fake_pci_get(function, PCI_COMMAND, 2), PCI_COMMAND_INTX_DISABLE);
    fake_pci_put(function, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_false(is_past_iommu());
    assert_int_equal(fake_pci_get(function, PCI_COMMAND, 2), PCI_COMMAND_INTX_DISABLE | PCI_COMMAND_MEMORY);
}

static void without_the_modern_interface(void **state)
{
    fake_pci_bar(function, 0, 0xfe800000, KIB(4), 2); /* where a window at 0 would read: the bit is set */
    set_capability(WINDOW, VIRTIO_PCI_CAP_NOTIFY, 0, 0);
    assert_true(is_past_iommu());
    set_capability(WINDOW, VIRTIO_PCI_CAP_PCI, 0, 0);
    set_capability(COMMON, VIRTIO_PCI_CAP_NOTIFY, COMMON_BAR, COMMON_OFFSET);
    assert_true(is_past_iommu());
    fake_pci_put(function, PCI_STATUS, 2, 0);
    function->space[PCI_STATUS] = 0; /* legacy devices may have no capabilities at all */
    assert_true(is_past_iommu());
    assert_int_equal(looks, 0);
}

static void capabilities_that_lie(void **state)
{
    fake_pci_put(function, COMMON + 1, 1, COMMON); /* a loop in front of the window */
    assert_true(is_past_iommu());
    fake_pci_put(function, COMMON + 1, 1, 0x20); /* into the header */
    assert_true(is_past_iommu());
    fake_pci_put(function, COMMON + 1, 1, 0xf0); /* a window that sticks out */
    fake_pci_put(function, 0xf0, 4, PCI_CAP_VENDOR | VIRTIO_PCI_CAP_PCI << 24);
    fake_pci_put(function, 0x100, 4, 2); /* what would be read there */
    assert_true(is_past_iommu());
    assert_int_equal(looks, 0);
    fake_pci_put(function, COMMON + 1, 1, WINDOW);
    assert_false(is_past_iommu());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(feature_decides, setup),
        cmocka_unit_test_setup(ids, setup),
        cmocka_unit_test_setup(command_is_restored, setup),
        cmocka_unit_test_setup(without_the_modern_interface, setup),
        cmocka_unit_test_setup(capabilities_that_lie, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
