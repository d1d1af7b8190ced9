/* What devices have at fixed places since before PCI: IDE channels in compatibility mode, interrupt lines. */
#include "hv/pci/internal.h"

#define IDE_NATIVE(channel) (1u << 2 * (channel)) /* in the class code's interface (PCI IDE Controller 1.0, 4.0) */
#define LINES 16u                                 /* of two 8259 (PCI 3.0 6.2.4) */

/* Ports and interrupt of the two channels (PCI IDE Controller 1.0, 2.1). */
static const struct {
    u16 command, control;
    u8 irq;
} compatible[] = {{0x1f0, 0x3f6, 14}, {0x170, 0x376, 15}};

static bool is_compatible(const struct pci_device *dev, u32 channel)
{
    return dev->class_code >> 8 == PCI_CLASS_IDE && !(dev->class_code & IDE_NATIVE(channel));
}

void pci_ide_bars(struct pci_device *dev)
{
    for (u32 i = 0; i < ARRAY_SIZE(compatible); i++) {
        if (!is_compatible(dev, i)) /* or no IDE at all */
            continue;
        dev->bar[2 * i] = (struct pci_bar){.address = compatible[i].command, .size = 8, .fixed = true};
        dev->bar[2 * i + 1] = (struct pci_bar){.address = compatible[i].control, .size = 1, .fixed = true};
    }
}

void pci_withhold_dma(struct pci_device *dev)
{
    if (dev->class_code >> 8 == PCI_CLASS_IDE)
        dev->bar[4].size = 0;
}

u32 pci_lines(const struct pci_device *dev, struct pci_line line[PCI_LINES])
{
    bool all = true; /* channels of it are compatible */
    u32 count = 0;

    for (u32 i = 0; i < ARRAY_SIZE(compatible); i++) {
        if (is_compatible(dev, i))
            line[count++] = (struct pci_line){.irq = compatible[i].irq, .isa = true};
        else
            all = false;
    }
    u32 irq = pci_read(dev, PCI_INTERRUPT_LINE, 1);
    if (!all && irq != 0 && irq < LINES && pci_read(dev, PCI_INTERRUPT_PIN, 1) != 0)
        line[count++] = (struct pci_line){.irq = (u8)irq};
    return count;
}
