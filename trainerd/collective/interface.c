#include "trainerd/collective/interface.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
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

bool interface_for_nccl(const char *address, struct error *err) {
    char name[IF_NAMESIZE] = "lo", exactly[IF_NAMESIZE + 1];
    if (getenv("NCCL_SOCKET_IFNAME"))
        return true;
    if (address && *address && !interface_of(address, name, err))
        return error_prefix(err, "collective.address");
    snprintf(exactly, sizeof exactly, "=%s", name);
    setenv("NCCL_SOCKET_IFNAME", exactly, 1);
    return true;
}
