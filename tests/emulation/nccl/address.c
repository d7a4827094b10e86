#include "tests/emulation/nccl/address.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/** Whether one of the list's prefixes, or whole names, is the name's. */
static bool listed(const char *name, const char *list) {
    bool whole = *list == '=';
    for (const char *item = list + whole; *item;) {
        size_t length = strcspn(item, ",");
        if (length && strncmp(name, item, length) == 0 && (!whole || name[length] == '\0'))
            return true;
        item += length + (item[length] == ',');
    }
    return false;
}

/** How much an interface is wanted; 0: not at all. */
static int rate(const struct ifaddrs *interface, const char *list) {
    if (!interface->ifa_addr || interface->ifa_addr->sa_family != AF_INET || !(interface->ifa_flags & IFF_UP))
        return 0;
    if (list && *list)
        return listed(interface->ifa_name, list);
    return interface->ifa_flags & IFF_LOOPBACK ? 1 : 2;
}

static bool find_interface(struct sockaddr_in *out) {
    struct ifaddrs *all;
    int best = 0;
    if (getifaddrs(&all) != 0)
        return false;
    for (const struct ifaddrs *each = all; each; each = each->ifa_next) {
        int rating = rate(each, getenv("NCCL_SOCKET_IFNAME"));
        if (rating > best)
            memcpy(out, each->ifa_addr, sizeof *out);
        best = rating > best ? rating : best;
    }
    freeifaddrs(all);
    out->sin_port = 0;
    return best > 0;
}

int address_socket(void) {
    static const int yes = 1;
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made >= 0 && setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0)
        return made;
    if (made >= 0)
        close(made);
    return -1;
}

int address_listen(struct sockaddr_in *out) {
    socklen_t length = sizeof *out;
    int listener = address_socket();
    if (listener >= 0 && find_interface(out) && bind(listener, (struct sockaddr *)out, length) == 0 &&
        listen(listener, SOMAXCONN) == 0 && getsockname(listener, (struct sockaddr *)out, &length) == 0)
        return listener;
    if (listener >= 0)
        close(listener);
    return -1;
}
