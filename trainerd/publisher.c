#include "trainerd/publisher.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "trainerd/publisher_inspect.h"
#include "trainerd/publisher_internal.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    DEFAULT_HEARTBEAT_MS = 1000,
    DEFAULT_ACTIVATION_TIMEOUT_MS = 120000,
    DEFAULT_KEEP_MODELS = 8,
    SILENT_HEARTBEATS = 3,
    BURST = 64, /* messages taken from a socket before the others get a look */
    COMMAND_LIMIT = 64,
};

static const int64_t DEFAULT_MAX_MODEL_BYTES = INT64_C(1) << 30;

/** What another thread asks of the publisher's. It waits on done, so the command may lie on its stack. */
struct command {
    bool (*run)(struct publisher *publisher, struct command *command, struct error *err);
    struct descriptor descriptor;
    const struct publisher_findings *findings;
    struct digest digest;
    struct publisher_published published; /* what became of a publication */
    struct publisher_status status;
    bool ok;
    struct error error;
    sem_t done;
};

/* ---- announcing ---- */

static void announce(struct publisher *publisher, Thorax__V1__EventKind kind,
                     const struct registry_model *model) {
    Thorax__V1__Announcement event;
    Thorax__V1__PublishedModel published;
    thorax__v1__announcement__init(&event);
    event.protocol_version = POOL_PROTOCOL_VERSION;
    event.incarnation = publisher->incarnation;
    event.number = registry_number(publisher->registry);
    event.kind = kind;
    if (kind == THORAX__V1__EVENT_KIND__EVENT_STAGED) {
        descriptor_message(&model->descriptor, &published);
        event.model = &published;
    }
    struct packed packed = pool_pack(&event.base);
    struct error err = {0};
    struct wire_frame frame = {packed.data, packed.size};
    struct wire_socket *socket = publisher->sockets[PUBLISHER_ANNOUNCE];
    if (!packed.data || !socket || !wire_send(socket, &frame, 1, 0, &err))
        log_event(LOG_WARNING, "announce_failed", "number=%llu", (unsigned long long)event.number);
    free(packed.data);
    publisher->heartbeat_due_ms = clock_now_ms() + publisher->heartbeat_ms;
}

static void log_model(const char *event, const struct registry_model *model, uint64_t number) {
    char hex[DIGEST_HEX_SIZE];
    log_event(LOG_INFO, event, "name=%s version=%s digest=%.12s bytes=%lld event=%llu",
              model->descriptor.name, model->descriptor.version, digest_hex(&model->descriptor.digest, hex),
              (long long)model->descriptor.size_bytes, (unsigned long long)number);
}

void publisher_announce_targets(struct publisher *publisher) {
    announce(publisher, THORAX__V1__EVENT_KIND__EVENT_TARGETS, NULL);
}

/** The figures of a stored model, as the gate wants them. */
struct known_figures {
    struct registry_metric metrics[PUBLISHER_MAX_METRICS];
    int count;
};

static bool take_figure(void *context, const struct registry_metric *metric) {
    struct known_figures *known = context;
    if (known->count < PUBLISHER_MAX_METRICS)
        known->metrics[known->count++] = *metric;
    return known->count < PUBLISHER_MAX_METRICS;
}

/** What speaks against a new model; "": nothing. The first one has nothing to be compared with. */
static bool judge(struct publisher *publisher, const struct publisher_findings *findings,
                  char out[REGISTRY_TEXT_SIZE], struct error *err) {
    const struct registry_model *stable = registry_stable(publisher->registry);
    struct known_figures known = {.count = 0};
    out[0] = '\0';
    if (!stable || publisher->gate_count == 0)
        return true;
    if (!registry_metrics(publisher->registry, &stable->descriptor.digest, take_figure, &known, err))
        return false;
    struct gate_figures fresh = {findings->metrics, findings->metric_count}, old = {known.metrics, known.count};
    gate_judge(publisher->gate, publisher->gate_count, &fresh, &old, out);
    return true;
}

/** Whether members hear of the model. */
static bool is_offered(const struct registry_model *model) {
    return !model->gate[0] && model->state != THORAX__V1__MODEL_STATE__MODEL_REGISTERED;
}

/** A new model: into the registry and, where the gate lets it, to the members. */
static bool add(struct publisher *publisher, struct descriptor *descriptor, const struct publisher_findings *findings,
                struct error *err) {
    struct digest digest = descriptor->digest;
    char gate[REGISTRY_TEXT_SIZE];
    struct registry_addition addition = {.descriptor = descriptor,
                                         .metrics = findings->metrics,
                                         .metric_count = findings->metric_count,
                                         .registers_only = publisher->registers_only,
                                         .gate = gate};
    bool ok = judge(publisher, findings, gate, err) &&
              (!publisher->signs || descriptor_signature_count(descriptor) > 0 ||
               descriptor_sign(descriptor, &publisher->sign_key, err));
    if (!ok) {
        descriptor_fini(descriptor);
        return false;
    }
    if (!registry_add(publisher->registry, &addition, err))
        return false;
    const struct registry_model *model = registry_find(publisher->registry, &digest);
    log_model(model->gate[0]               ? "model_refused_by_gate"
              : publisher->registers_only ? "model_registered"
                                           : "model_staged",
              model, registry_number(publisher->registry));
    if (is_offered(model))
        announce(publisher, THORAX__V1__EVENT_KIND__EVENT_STAGED, model);
    return true;
}

bool publisher_accept(struct publisher *publisher, struct descriptor *descriptor,
                      const struct publisher_findings *findings, struct error *err) {
    struct digest digest = descriptor->digest;
    if (registry_find(publisher->registry, &digest))
        descriptor_fini(descriptor);
    else if (!add(publisher, descriptor, findings, err))
        return false;
    return publisher->activate != PUBLISHER_ACTIVATE_AUTO || publisher_start_by_itself(publisher, &digest, err);
}

bool publisher_inspect(struct publisher *publisher, const struct digest *digest,
                       struct publisher_findings *findings, struct error *err) {
    struct publisher_findings found;
    char path[4096];
    if (!publisher->inspect)
        return true;
    if (!store_path(publisher->store, digest, path, sizeof path, err) ||
        !publisher->inspect(publisher->inspect_context, path, &found, err))
        return false;
    if ((findings->name[0] && strcmp(findings->name, found.name) != 0) ||
        (findings->version[0] && strcmp(findings->version, found.version) != 0))
        return error_set(err, ERROR_INVALID, "the model calls itself %s %s, not %s %s", found.name, found.version,
                         findings->name, findings->version);
    *findings = found;
    return true;
}

/* ---- commands from other threads ---- */

static void wake(struct publisher *publisher) {
    uint64_t one = 1;
    while (write(publisher->wake, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

static bool call(struct publisher *publisher, struct command *command, struct error *err) {
    sem_init(&command->done, 0, 0);
    bool queued = queue_push(publisher->commands, command, -1);
    if (queued) {
        wake(publisher);
        while (sem_wait(&command->done) != 0) {
        }
    }
    sem_destroy(&command->done);
    if (!queued)
        return error_set(err, ERROR_STATE, "the publisher is stopped");
    if (!command->ok && err)
        *err = command->error;
    return command->ok;
}

static void finish(struct command *command, bool ok) {
    command->ok = ok;
    sem_post(&command->done);
}

static void run_commands(struct publisher *publisher) {
    uint64_t count;
    if (read(publisher->wake, &count, sizeof count) < 0) {
        /* EAGAIN: woken for nothing */
    }
    for (struct command *command; (command = queue_pop(publisher->commands, 0));)
        finish(command, command->run(publisher, command, &command->error));
}

static bool run_publish(struct publisher *publisher, struct command *command, struct error *err) {
    if (!publisher_accept(publisher, &command->descriptor, command->findings, err))
        return false;
    const struct registry_model *model = registry_find(publisher->registry, &command->digest);
    command->published.digest = command->digest;
    command->published.offered = model && is_offered(model);
    text_copy(command->published.gate, sizeof command->published.gate, model ? model->gate : "");
    return true;
}

static bool run_activate(struct publisher *publisher, struct command *command, struct error *err) {
    return publisher_roll_back(publisher, &command->digest, "", "", err);
}

static bool run_status(struct publisher *publisher, struct command *command, struct error *err) {
    (void)err;
    struct publisher_status *status = &command->status;
    const struct registry_model *current = registry_stable(publisher->registry);
    *status = (struct publisher_status){.number = registry_number(publisher->registry),
                                        .models = registry_count(publisher->registry),
                                        .uploads = publisher->uploads_accepted,
                                        .sent_bytes = publisher->sent_bytes,
                                        .rollout_state = publisher->rollout.id ? (int)publisher->rollout.state : 0};
    status->has_current = current;
    if (current)
        status->current = current->descriptor.digest;
    int64_t now_ms = clock_now_ms();
    for (int i = 0; i < publisher->members.count; i++) {
        const struct member *member = publisher->members.rows[i];
        if (!members_alive(&publisher->members, member, now_ms))
            continue;
        status->members++;
        status->members_current +=
            current && member->has_active && digest_equal(&member->active, &status->current);
        status->members_failed += member->state == THORAX__V1__MEMBER_STATE__MEMBER_FAILED;
    }
    return true;
}

/** Describes an object of the store, and signs that where there is a key. */
static bool describe(struct publisher *publisher, const struct digest *digest,
                     const struct publisher_findings *findings, struct descriptor *out, struct error *err) {
    struct file_map map;
    char stored[4096];
    if (!store_path(publisher->store, digest, stored, sizeof stored, err) || !file_map_open(stored, &map, err))
        return false;
    struct descriptor_spec spec = publisher_describe(findings, map.data, map.size);
    bool ok = descriptor_make(out, &spec, err);
    file_map_close(&map);
    if (ok && !digest_equal(&out->digest, digest))
        ok = error_set(err, ERROR_IO, "the store's copy of the model is not what was written; check the disk");
    if (!ok)
        descriptor_fini(out);
    return ok;
}

bool publisher_publish_file(struct publisher *publisher, const char *path, const char *name,
                            const char *version, struct publisher_published *published, struct error *err) {
    struct publisher_findings findings = {0};
    struct command command = {.run = run_publish, .findings = &findings};
    if ((name && !text_copy(findings.name, sizeof findings.name, name)) ||
        (version && !text_copy(findings.version, sizeof findings.version, version)))
        return error_set(err, ERROR_INVALID, "a model's name or version is too long");
    if (!store_put_file(publisher->store, path, &command.digest, err))
        return false;
    if (!publisher_inspect(publisher, &command.digest, &findings, err)) {
        store_remove(publisher->store, &command.digest,
                     NULL); /* leaves it where it is published, and so pinned */
        return false;
    }
    if (!describe(publisher, &command.digest, &findings, &command.descriptor, err))
        return false;
    bool ok = call(publisher, &command, err);
    descriptor_fini(&command.descriptor);
    if (ok && published)
        *published = command.published;
    return ok;
}

bool publisher_activate(struct publisher *publisher, const struct digest *digest, struct error *err) {
    struct command command = {.run = run_activate, .digest = *digest};
    return call(publisher, &command, err);
}

bool publisher_status(struct publisher *publisher, struct publisher_status *status, struct error *err) {
    struct command command = {.run = run_status};
    bool ok = call(publisher, &command, err);
    *status = command.status;
    return ok;
}

/* ---- the thread ---- */

static void serve_subscription(struct publisher *publisher, const struct wire_message *message) {
    (void)publisher,
        (void)message; /* who subscribes is of no interest: members say who they are on the control socket */
}

/** Takes up to BURST messages from a socket. */
static void serve(struct publisher *publisher, enum publisher_socket socket,
                  void (*answer)(struct publisher *, const struct wire_message *)) {
    for (int i = 0; i < BURST; i++) {
        struct wire_message message = {0};
        struct error err = {0};
        if (!wire_receive(publisher->sockets[socket], &message, 0, &err)) {
            if (err.code == ERROR_TIMEOUT)
                return;
            continue; /* one bad message, dropped whole */
        }
        answer(publisher, &message);
        wire_message_fini(&message);
    }
}

static void tick(struct publisher *publisher) {
    int64_t now_ms = clock_now_ms();
    uint64_t taken = members_expire(&publisher->members, now_ms);
    if (taken)
        log_event(LOG_WARNING, "turn_taken_back", "turn=%llu", (unsigned long long)taken);
    publisher_close_uploads(publisher, false);
    publisher_follow_list(publisher);
    publisher_tick_rollout(publisher);
    publisher_grant(publisher);
    if (now_ms >= publisher->heartbeat_due_ms)
        announce(publisher, THORAX__V1__EVENT_KIND__EVENT_HEARTBEAT, NULL);
}

static void *run(void *context) {
    struct publisher *publisher = context;
    while (!atomic_load(&publisher->stop)) {
        atomic_store(&publisher->turned_ms, clock_now_ms());
        struct wire_poll_item items[] = {
            {.socket = publisher->sockets[PUBLISHER_CONTROL]},
            {.socket = publisher->sockets[PUBLISHER_BLOBS]},
            {.socket = publisher->sockets[PUBLISHER_ANNOUNCE], .descriptor = -1}, /* NULL: see publisher_follow_list */
            {.descriptor = publisher->wake},
        };
        struct error err = {0};
        int64_t wake_ms = publisher->heartbeat_due_ms;
        if (rollout_live(&publisher->rollout) && publisher->rollout_due_ms < wake_ms)
            wake_ms = publisher->rollout_due_ms;
        if (wire_poll(items, 4, clock_left_ms(wake_ms), &err) < 0) {
            log_error("publisher_poll_failed", &err);
            clock_sleep_ms(publisher->heartbeat_ms); /* not a hot loop */
        }
        if (items[3].readable)
            run_commands(publisher);
        if (items[0].readable)
            serve(publisher, PUBLISHER_CONTROL, publisher_serve_control);
        if (items[1].readable)
            serve(publisher, PUBLISHER_BLOBS, publisher_serve_blob);
        if (items[2].readable)
            serve(publisher, PUBLISHER_ANNOUNCE, serve_subscription);
        tick(publisher);
    }
    return NULL;
}

/* ---- life ---- */

static bool load_state(struct publisher *publisher, const struct publisher_spec *spec, struct error *err) {
    int keep = spec->keep_models ? spec->keep_models : DEFAULT_KEEP_MODELS, dropped;
    if (keep < 1 || keep > REGISTRY_MAX_RETIRED)
        return error_set(err, ERROR_INVALID, "keep_models is 1 to %d", REGISTRY_MAX_RETIRED);
    publisher->store = store_open(spec->store_folder, publisher->max_model_bytes, err);
    struct registry_spec registry = {.store = publisher->store, .keep_retired = keep};
    if (!publisher->store || !(publisher->registry = registry_open(&registry, &dropped, err)))
        return false;
    if (registry_held(publisher->registry)[0])
        log_event(LOG_WARNING, "activation_held", "reason=\"%s\" lift=\"trainctl rollout resume\"",
                  registry_held(publisher->registry));
    if (dropped > 0)
        log_event(LOG_WARNING, "models_dropped", "count=%d reason=\"file missing or damaged\"", dropped);
    return publisher_open_rollout(publisher, spec, err);
}

/** The gate's rules and the key that signs. */
static bool load_rules(struct publisher *publisher, const struct publisher_spec *spec, struct error *err) {
    if (spec->gate_count > GATE_MAX_RULES)
        return error_set(err, ERROR_INVALID, "%d rules of the gate: at most %d", spec->gate_count, GATE_MAX_RULES);
    for (; publisher->gate_count < spec->gate_count; publisher->gate_count++)
        publisher->gate[publisher->gate_count] = spec->gate[publisher->gate_count];
    publisher->signs = spec->sign_key && *spec->sign_key;
    return !publisher->signs || signature_key_load(spec->sign_key, &publisher->sign_key, err);
}

static void take_defaults(struct publisher *publisher, const struct publisher_spec *spec) {
    publisher->max_model_bytes = spec->max_model_bytes ? spec->max_model_bytes : DEFAULT_MAX_MODEL_BYTES;
    publisher->heartbeat_ms = spec->heartbeat_ms ? spec->heartbeat_ms : DEFAULT_HEARTBEAT_MS;
    publisher->activate = spec->activate;
    publisher->registers_only = spec->registers_only;
    publisher->inspect = spec->inspect;
    publisher->inspect_context = spec->inspect_context;
    publisher->wake = -1;
    atomic_init(&publisher->stop, false);
}

static bool start(struct publisher *publisher, const struct publisher_spec *spec, struct error *err) {
    int64_t silence_ms = (int64_t)publisher->heartbeat_ms * SILENT_HEARTBEATS;
    members_init(&publisher->members,
                 &(struct members_spec){
                     .silence_ms = silence_ms,
                     .activation_timeout_ms = spec->activation_timeout_ms ? spec->activation_timeout_ms
                                                                          : DEFAULT_ACTIVATION_TIMEOUT_MS,
                     .quiet_until_ms = registry_count(publisher->registry) > 0 ? clock_now_ms() + silence_ms : 0,
                 });
    /* Members that were there before get the time to connect again before a rollout, be it a new one, takes
     * them for gone. */
    publisher->rollout_settled_ms =
        publisher->members.spec.quiet_until_ms + (rollout_live(&publisher->rollout) ? silence_ms : 0);
    publisher->incarnation = digest_random_u64();
    publisher->members.last_turn =
        publisher->incarnation >> 8; /* no turn of an earlier publisher is taken for ours */
    publisher->commands = queue_create(COMMAND_LIMIT);
    publisher->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!publisher->commands || publisher->wake < 0)
        return error_set(err, ERROR_MEMORY, "out of memory or descriptors for a publisher");
    publisher->turned_ms = clock_now_ms();
    publisher->thread_runs = pthread_create(&publisher->thread, NULL, run, publisher) == 0;
    if (!publisher->thread_runs)
        return error_set(err, ERROR_MEMORY, "the publisher's thread does not start");
    return true;
}

struct publisher *publisher_create(const struct publisher_spec *spec, struct error *err) {
    struct publisher *publisher = calloc(1, sizeof *publisher);
    if (!publisher) {
        error_set(err, ERROR_MEMORY, "out of memory for a publisher");
        return NULL;
    }
    take_defaults(publisher, spec);
    if (load_rules(publisher, spec, err) && load_state(publisher, spec, err) && publisher_open_sockets(publisher, spec, err) &&
        start(publisher, spec, err))
        return publisher;
    publisher_destroy(publisher);
    return NULL;
}

void publisher_destroy(struct publisher *publisher) {
    if (!publisher)
        return;
    if (publisher->commands)
        queue_close(publisher->commands);
    if (publisher->thread_runs) {
        atomic_store(&publisher->stop, true);
        wake(publisher);
        pthread_join(publisher->thread, NULL);
    }
    for (struct command *command; publisher->commands && (command = queue_pop(publisher->commands, 0));) {
        error_set(&command->error, ERROR_STATE, "the publisher is stopped");
        finish(command, false);
    }
    queue_destroy(publisher->commands);
    publisher_close_uploads(publisher, true);
    publisher_close_blobs(publisher);
    members_fini(&publisher->members);
    publisher_close_rollout(publisher);
    registry_close(publisher->registry);
    for (int i = 0; i < PUBLISHER_SOCKETS; i++)
        wire_socket_close(publisher->sockets[i]);
    wire_context_destroy(publisher->context);
    store_close(publisher->store);
    if (publisher->wake >= 0)
        close(publisher->wake);
    signature_key_wipe(&publisher->sign_key);
    free(publisher);
}

int64_t publisher_silent_ms(const struct publisher *publisher) {
    return clock_now_ms() - atomic_load(&publisher->turned_ms);
}

const char *publisher_endpoint(const struct publisher *publisher, enum publisher_socket socket) {
    return publisher->bound[socket];
}
