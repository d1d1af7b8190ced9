# One line of the hypervisor each, wrong. tests/system/test_oracle.py says what the oracle has to say to it.

# Grant revocation: the driver VM's CPU loses the page, its device keeps it.
oracle_mistake(grant hv/relay/grant.c
    "status = iommu_unmap(relay->driver->domain, IOVA(at), size);"
    "(void)size;")
# The same in time: tables are changed, translation caches are not told.
oracle_mistake(flush hv/relay/grant.c
    "    vcpu_shootdown(&relay->driver->vm->vcpu);\n"
    "")
# Domain switch: after quiesce the device still sits in its driver VM's domain.
oracle_mistake(domain hv/recovery/quiesce.c
    "iommu_block(bdf);"
    "(void)bdf;")
# The log: a request is answered, and stays in it.
oracle_mistake(log hv/relay/complete.c
    "    inflight_remove(log, (u8)tag);\n    return NULL;"
    "    return NULL;")
# The log: what cannot be replayed is forgotten without an answer. Here nothing can.
oracle_mistake(lost hv/relay/forward.c
    "if (grants_take(relay, &slot->chain) != OK) {"
    "if (1) { inflight_remove(&queue->log, tag); continue;")
