/* CPU exceptions: none is survivable here, each becomes the VM's last word (HYPERCALL_FAULT). */
#pragma once

/* Load our own GDT and IDT. Once, before anything that may fault. */
void exception_setup(void);
