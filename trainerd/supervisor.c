#include "trainerd/supervisor.h"

#include "common/base/clock.h"
#include "trainerd/rendezvous.h"
#include "trainerd/rendezvous_folder.h"

#include <stdio.h>

enum { STEP_MS = 50 };

/** On node 0 both sides are here, and talk to each other as any two do. */
struct supervisor {
    const struct supervisor_spec *spec;
    struct rendezvous_folder folder; /* none where there is a coordinator elsewhere */
    char endpoint[CLUSTER_ENDPOINT_SIZE];
    struct wire_context *wire;
    struct wire_socket *socket;      /* the coordinator's; NULL: this is another node */
    struct coordinator *coordinator; /* NULL: this is another node */
    struct cluster_node *node;
};

static bool find_endpoint(struct supervisor *supervisor, struct error *err) {
    const struct cluster_place *place = supervisor->spec->place;
    if (*place->coordinator) {
        snprintf(supervisor->endpoint, sizeof supervisor->endpoint, "%s", place->coordinator);
        return true;
    }
    if (!rendezvous_folder_make(&supervisor->folder, err))
        return false;
    snprintf(supervisor->endpoint, sizeof supervisor->endpoint, "ipc://%s/" RENDEZVOUS_FOLDER_SOCKET,
             supervisor->folder.path);
    return true;
}

static bool bind_socket(struct supervisor *supervisor, struct error *err) {
    const struct supervisor_spec *spec = supervisor->spec;
    char bound[CLUSTER_ENDPOINT_SIZE];
    snprintf(bound, sizeof bound, "%s", supervisor->endpoint);
    if (*spec->place->coordinator)
        cluster_bind_endpoint(supervisor->endpoint, bound);
    const char *const endpoints[] = {bound, NULL};
    struct wire_socket_spec socket = {.kind = WIRE_ROUTER, .bind = endpoints, .max_frame_bytes = RENDEZVOUS_VALUE_MAX,
                                      .linger_ms = 200, .send_limit = 10000, .receive_limit = 10000, .insecure = spec->insecure,
                                      .security = spec->security, .roles = WIRE_TRAINER};
    return (supervisor->socket = wire_socket_open(supervisor->wire, &socket, err)) != NULL;
}

static bool open_coordinator(struct supervisor *supervisor, struct error *err) {
    const struct supervisor_spec *spec = supervisor->spec;
    struct coordinator_spec coordinator = spec->coordinator;
    if (spec->place->node != 0)
        return true;
    if (!bind_socket(supervisor, err))
        return false;
    coordinator.socket = supervisor->socket;
    coordinator.nodes = spec->place->nodes;
    coordinator.fingerprint = spec->fingerprint;
    return (supervisor->coordinator = coordinator_create(&coordinator, err)) != NULL;
}

static bool open_node(struct supervisor *supervisor, struct error *err) {
    const struct supervisor_spec *spec = supervisor->spec;
    const struct cluster_place *place = spec->place;
    const struct coordinator_spec *rules = &spec->coordinator;
    struct crew_spec crew = {.program = spec->program, .arguments = spec->arguments, .endpoint = supervisor->endpoint,
                             .node = place->node, .slots = place->slots, .first_device = place->first_device,
                             .share = place->share, .shares = place->shares, .threads = spec->threads_per_rank,
                             .active_wait = spec->active_wait};
    struct cluster_node_spec node = {.wire = supervisor->wire, .crew = crew, .nodes = place->nodes,
                                     .fingerprint = spec->fingerprint, .security = spec->security,
                                     .server_key = spec->server_key, .join_timeout_ms = rules->gather_timeout_ms,
                                     .silence_ms = rules->silence_ms, .context = rules->context};
    if (place->node != 0)
        node.on_event = rules->on_event; /* beside the coordinator there is nothing more to tell */
    return (supervisor->node = cluster_node_open(&node, err)) != NULL;
}

static void close_all(struct supervisor *supervisor) {
    cluster_node_close(supervisor->node);
    coordinator_destroy(supervisor->coordinator);
    wire_socket_close(supervisor->socket);
    wire_context_destroy(supervisor->wire);
    rendezvous_folder_remove(&supervisor->folder);
}

/** Waits for something to happen and deals with it. */
static bool step(struct supervisor *supervisor, struct error *err) {
    struct wire_poll_item items[2] = {{.socket = cluster_node_socket(supervisor->node)}, {.socket = supervisor->socket}};
    /* What the dead have said is served before they are counted. */
    return wire_poll(items, supervisor->socket ? 2 : 1, STEP_MS, err) >= 0 &&
           (!supervisor->coordinator || coordinator_step(supervisor->coordinator, err)) &&
           cluster_node_step(supervisor->node, err);
}

/** Node 0 ends when the coordinator says that all know. */
static bool is_over(const struct supervisor *supervisor, enum cluster_outcome *outcome, struct error *err) {
    return supervisor->coordinator ? coordinator_is_over(supervisor->coordinator, outcome, err)
                                   : cluster_node_is_over(supervisor->node, outcome, err);
}

bool supervisor_run(const struct supervisor_spec *spec, enum cluster_outcome *outcome, struct error *err) {
    struct supervisor supervisor = {.spec = spec};
    bool ok = find_endpoint(&supervisor, err) && (supervisor.wire = wire_context_create(1, err)) &&
              open_coordinator(&supervisor, err) && open_node(&supervisor, err);
    *outcome = CLUSTER_FAILED;
    while (ok && !is_over(&supervisor, outcome, err))
        ok = step(&supervisor, err);
    close_all(&supervisor);
    return ok && *outcome != CLUSTER_FAILED;
}
