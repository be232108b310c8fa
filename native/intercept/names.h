/* What the two files about names share. */
#ifndef ZTTRIO_NAMES_H
#define ZTTRIO_NAMES_H

#include "shim.h"

struct zt_addresses {
    int error; /* 0 or EAI_* */
    uint32_t count;
    uint32_t canonical_length;
    const struct zt_resolve_row *rows;
    const char *canonical;
    void *block; /* to be freed if there was no error */
};

struct zt_addresses zt_resolve(const char *node, const char *service, int family, int flags);
int zt_name_of(const void *address, socklen_t length, int flags, char *room, size_t size);
int zt_host_error(int error); /* EAI_* to h_errno */

#endif
