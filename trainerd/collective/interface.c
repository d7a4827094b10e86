#include "trainerd/collective/interface.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static bool has_address(const struct ifaddrs *entry, const char *address) {
    char text[NI_MAXHOST];
    int family = entry->ifa_addr ? entry->ifa_addr->sa_family : AF_UNSPEC;
    if (family != AF_INET && family != AF_INET6)
        return false;
    socklen_t size = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    return getnameinfo(entry->ifa_addr, size, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0 && strcmp(text, address) == 0;
}

bool interface_of(const char *address, char out[IF_NAMESIZE], struct error *err) {
    struct ifaddrs *all = NULL;
    if (getifaddrs(&all) != 0)
        return error_set_errno(err, "the list of network interfaces");
    const struct ifaddrs *entry = all;
    while (entry && !has_address(entry, address))
        entry = entry->ifa_next;
    if (entry)
        snprintf(out, IF_NAMESIZE, "%s", entry->ifa_name);
    freeifaddrs(all);
    return entry || error_set(err, ERROR_NOT_FOUND, "no network interface has the address %s", address);
}
