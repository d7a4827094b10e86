#include "trainerd/cluster_place.h"

#include "common/base/cpu.h"
#include "common/base/text.h"
#include "common/wire/address.h"
#include "trainerd/cluster_launcher.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum { HOST_SIZE = HOSTLIST_HOST_SIZE + 2 }; /* with the brackets of IPv6 */

static bool is_ipv6(const char *host) {
    struct in6_addr address;
    char inside[HOST_SIZE];
    size_t length = strlen(host);
    if (host[0] != '[' || host[length - 1] != ']')
        return false;
    memcpy(inside, host + 1, length - 2);
    inside[length - 2] = '\0';
    return inet_pton(AF_INET6, inside, &address) == 1;
}

/** A name's letters, which IPv4 addresses have too. */
static bool is_host(const char *host) {
    const char *letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t length = strlen(host);
    if (length >= 3 && host[0] == '[')
        return is_ipv6(host);
    return length > 0 && strspn(host, letters) == length && !strchr("._-", host[0]);
}

bool cluster_endpoint(const char *address, char out[CLUSTER_ENDPOINT_SIZE], bool *local, struct error *err) {
    const char *colon = strrchr(address, ':');
    char host[HOST_SIZE];
    int64_t port;
    struct error why;
    bool ok = colon && (size_t)(colon - address) < sizeof host;
    if (ok) {
        memcpy(host, address, (size_t)(colon - address));
        host[colon - address] = '\0';
    }
    if (!ok || !is_host(host) || !text_to_int(colon + 1, 1, UINT16_MAX, &port, &why)) {
        error_set(err, ERROR_INVALID, "expected HOST:PORT, found \"%.80s\"", address);
        return error_hint(err, "an IPv6 address stands in brackets: [fd00::1]:15000");
    }
    if (local)
        *local = address_host_is_local(host);
    snprintf(out, CLUSTER_ENDPOINT_SIZE, "tcp://%s:%d", host, (int)port);
    return true;
}

void cluster_bind_endpoint(const char *endpoint, char out[CLUSTER_ENDPOINT_SIZE]) {
    static const char scheme[] = "tcp://";
    const char *host = endpoint + sizeof scheme - 1, *colon = strrchr(host, ':');
    struct in_addr address;
    char name[HOST_SIZE] = "";
    if ((size_t)(colon - host) < sizeof name)
        memcpy(name, host, (size_t)(colon - host));
    if (name[0] == '[' || inet_pton(AF_INET, name, &address) == 1)
        snprintf(out, CLUSTER_ENDPOINT_SIZE, "%s", endpoint);
    else
        snprintf(out, CLUSTER_ENDPOINT_SIZE, "%s%s%s", scheme, strcmp(name, "localhost") == 0 ? "127.0.0.1" : "*", colon);
}

/** device.ranks here, or a rank for each GPU that is visible. */
static bool count_slots(const struct trainer_config *config, int visible_devices, int *slots, struct error *err) {
    int ranks = config->device.ranks, all = visible_devices > 0 ? visible_devices : 1;
    *slots = ranks > 0 ? ranks : all;
    return visible_devices == 0 || *slots <= visible_devices ||
           error_set(err, ERROR_INVALID, "device.ranks is %d, but %d GPU%s visible here", ranks, visible_devices,
                     visible_devices == 1 ? " is" : "s are");
}

/** Gradients are not encrypted. */
static bool check_trusted(const struct trainer_config *config, const char *source, const char *endpoint, bool local,
                          struct error *err) {
    if (local || config->collective.trusted_network)
        return true;
    error_set(err, ERROR_INVALID, "the coordinator (%s) is %s, and collective.trusted_network is false", source, endpoint);
    return error_hint(err, "gradients travel in the clear: say collective.trusted_network: true if the whole network is trusted");
}

static bool from_config(const struct trainer_config *config, int visible_devices, struct cluster_place *out, struct error *err) {
    const struct trainer_cluster_config *cluster = &config->cluster;
    bool local;
    *out = (struct cluster_place){.nodes = cluster->nodes, .node = cluster->node, .shares = 1, .source = "cluster.coordinator"};
    if (cluster->node >= cluster->nodes)
        return error_set(err, ERROR_INVALID, "cluster.node is %d, but cluster.nodes is %d", cluster->node, cluster->nodes);
    return (cluster_endpoint(cluster->coordinator, out->coordinator, &local, err) || error_prefix(err, "cluster.coordinator")) &&
           check_trusted(config, out->source, out->coordinator, local, err) &&
           count_slots(config, visible_devices, &out->slots, err);
}

/** Where one of several tasks on a node finds its GPU: it may see its own alone, or those of all of them. */
static bool choose_device(const struct cluster_task *task, int visible_devices, struct cluster_place *out, struct error *err) {
    out->first_device = visible_devices > 1 ? task->local_task : 0;
    return visible_devices <= 1 || visible_devices >= task->local_tasks ||
           error_set(err, ERROR_INVALID,
                     "%d tasks on this node (%s), but %d GPUs are visible: neither one for each nor a task's own",
                     task->local_tasks, task->local_tasks_name, visible_devices);
}

/** Tasks that are not bound to cores, each of which would start as many threads as the machine has processors, share them. */
static bool choose_share(const struct cluster_task *task, struct cluster_place *out, struct error *err) {
    struct cpu_set own;
    if (!cpu_available(&own, err))
        return false;
    bool bound = own.count < cpu_online();
    out->share = bound ? 0 : task->local_task;
    out->shares = bound ? 1 : task->local_tasks;
    return true;
}

/** One of several tasks on its node is one rank. */
static bool place_rank(const struct trainer_config *config, const struct cluster_task *task, int visible_devices,
                       struct cluster_place *out, struct error *err) {
    int ranks = config->device.ranks;
    out->slots = 1;
    if (ranks > 1 && ranks != task->local_tasks)
        return error_set(err, ERROR_INVALID, "device.ranks is %d, but %d task%s on this node (%s), each of them a rank", ranks,
                         task->local_tasks, task->local_tasks == 1 ? " is" : "s are", task->local_tasks_name);
    return choose_device(task, visible_devices, out, err) && choose_share(task, out, err);
}

/** Tasks that are all on this machine meet on loopback, whatever it is called. */
static void task_address(const struct cluster_task *task, char out[CLUSTER_ENDPOINT_SIZE]) {
    const char *host = task->tasks == task->local_tasks ? "127.0.0.1" : task->host;
    bool bare = strchr(host, ':') && host[0] != '[';
    snprintf(out, CLUSTER_ENDPOINT_SIZE, bare ? "[%s]:%d" : "%s:%d", host, task->port);
}

/** Where they meet, which the configuration may say. */
static bool task_endpoint(const struct trainer_config *config, const struct cluster_task *task, struct cluster_place *out,
                          struct error *err) {
    const struct trainer_cluster_config *cluster = &config->cluster;
    bool given = *cluster->coordinator, local;
    const char *source = given ? "cluster.coordinator" : task->source;
    char address[CLUSTER_ENDPOINT_SIZE];
    if (given && cluster->nodes > 1 && cluster->nodes != task->tasks)
        return error_set(err, ERROR_INVALID, "cluster.nodes is %d, but %s started %d tasks", cluster->nodes, task->source,
                         task->tasks);
    task_address(task, address);
    return (cluster_endpoint(given ? cluster->coordinator : address, out->coordinator, &local, err) ||
            error_prefix(err, "%s", source)) &&
           check_trusted(config, source, out->coordinator, local, err);
}

static bool from_task(const struct trainer_config *config, const struct cluster_task *task, int visible_devices,
                      struct cluster_place *out, struct error *err) {
    *out = (struct cluster_place){.nodes = task->tasks, .node = task->task, .shares = 1, .source = task->source};
    if (task->tasks > 1 && !task_endpoint(config, task, out, err))
        return false;
    return task->several ? place_rank(config, task, visible_devices, out, err)
                         : count_slots(config, visible_devices, &out->slots, err);
}

/** Under auto torchrun comes first: it is often started by srun, which then counts torchrun's processes. */
static bool find_task(enum trainer_launcher launcher, struct cluster_task *out, bool *found, struct error *err) {
    bool automatic = launcher == TRAINER_LAUNCHER_AUTO;
    *found = true;
    if (launcher == TRAINER_LAUNCHER_TORCHRUN || (automatic && cluster_torchrun_present()))
        return cluster_torchrun_read(out, err);
    if (launcher == TRAINER_LAUNCHER_SLURM || (automatic && cluster_slurm_present()))
        return cluster_slurm_read(out, err);
    *found = false;
    return true;
}

bool cluster_place_find(const struct trainer_config *config, int visible_devices, struct cluster_place *out, struct error *err) {
    enum trainer_launcher launcher = config->cluster.launcher;
    bool launched = launcher == TRAINER_LAUNCHER_SLURM || launcher == TRAINER_LAUNCHER_TORCHRUN;
    struct cluster_task task;
    bool found;
    if (*config->cluster.coordinator && !launched)
        return from_config(config, visible_devices, out, err);
    if (!find_task(launcher, &task, &found, err))
        return false;
    if (found)
        return from_task(config, &task, visible_devices, out, err);
    *out = (struct cluster_place){.nodes = 1, .shares = 1, .source = "this machine"};
    return count_slots(config, visible_devices, &out->slots, err);
}
