#include "inferd/inferctl/bench_load.h"
#include "common/base/clock.h"
#include "common/base/signals.h"
#include "common/base/text.h"
#include "common/wire/endpoint.h"
#include "common/wire/message.h"
#include "inferd/client/client.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { BURST = 64, SWEEP_MS = 100, ID_SIZE = 40, REPLY_MAX_FIELDS = 512, REPLY_MAX_DEPTH = 4 };
static const size_t REPLY_MAX_BYTES = 1 << 20;

/** Goes before the delimiter of each request and comes back with its reply. */
struct correlation {
    uint64_t sequence;
    uint64_t slot;
};

/** A request that was sent. Unused where sequence is 0. */
struct pending {
    uint64_t sequence;
    int64_t intended_ns, sent_ns;
    int image, endpoint;
};

struct load {
    const struct bench_load_spec *spec;
    struct bench_result *result;
    struct bench_pacer pacer;
    struct wire_context *context;
    struct wire_socket *sockets[BENCH_MAX_ENDPOINTS];
    int outstanding_at[BENCH_MAX_ENDPOINTS], outstanding;
    struct pending *pending; /* (spec->pace.outstanding) */
    int *free_slots;         /* a stack of as many */
    int free_count, timer;
    uint64_t run, sequence; /* run: at random, so that ids of two benches never meet */
    int64_t sweep_ms;
};

/* ---- sending ---- */

static int least_loaded(const struct load *load) {
    int count = load->spec->endpoint_count, best = (int)(load->sequence % (uint64_t)count);
    for (int i = 0; i < count; i++) {
        best = load->outstanding_at[i] < load->outstanding_at[best] ? i : best;
    }
    return best;
}

static void write_id(const struct load *load, uint64_t sequence, char id[ID_SIZE]) {
    snprintf(id, ID_SIZE, "%016" PRIx64 "%016" PRIx64, load->run, sequence);
}

static bool pack(const struct load *load, const struct pending *pending, struct bytes *out,
                 struct error *err) {
    char id[ID_SIZE];
    const struct bench_load_spec *spec = load->spec;
    const struct bytes *image = &spec->images[pending->image].file;
    Thorax__V1__Envelope envelope = THORAX__V1__ENVELOPE__INIT;
    Thorax__V1__DiagnosisRequest request = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    write_id(load, pending->sequence, id);
    request.request_id = id;
    request.operating_point = text_for_packing(spec->operating_point);
    request.priority =
        spec->stat ? THORAX__V1__PRIORITY__PRIORITY_STAT : THORAX__V1__PRIORITY__PRIORITY_ROUTINE;
    request.timeout_ms = (uint32_t)spec->timeout_ms;
    request.image_case = THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_ENCODED;
    request.encoded = (ProtobufCBinaryData){image->size, image->data};
    envelope.protocol_version = MESSAGE_PROTOCOL_VERSION;
    envelope.body_case = THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REQUEST;
    envelope.diagnosis_request = &request;
    return message_pack(&envelope.base, out, err);
}

static bool send_one(struct load *load, int64_t intended_ns, struct error *err) {
    struct bytes packed;
    int slot = load->free_slots[--load->free_count];
    struct pending *pending = &load->pending[slot];
    *pending = (struct pending){.sequence = ++load->sequence,
                                .intended_ns = intended_ns,
                                .sent_ns = clock_now_ns(),
                                .image = (int)(load->sequence % (uint64_t)load->spec->image_count),
                                .endpoint = least_loaded(load)};
    if (!pack(load, pending, &packed, err)) {
        return false;
    }
    struct correlation correlation = {pending->sequence, (uint64_t)slot};
    struct wire_frame frames[] = {{&correlation, sizeof correlation}, {"", 0}, {packed.data, packed.size}};
    bool ok = wire_send(load->sockets[pending->endpoint], frames, 3, load->spec->timeout_ms, err);
    free(packed.data);
    load->outstanding++;
    load->outstanding_at[pending->endpoint]++;
    load->result->sent++;
    histogram_record(&load->result->send_delay, (uint64_t)(pending->sent_ns - intended_ns) / 1000);
    return ok;
}

static bool send_due(struct load *load, struct error *err) {
    int64_t intended_ns;
    for (int i = 0; i < BURST; i++) {
        if (!bench_pacer_take(&load->pacer, clock_now_ns(), load->outstanding, &intended_ns)) {
            return true;
        }
        if (!send_one(load, intended_ns, err)) {
            return false;
        }
    }
    return true;
}

/* ---- receiving ---- */

static void release(struct load *load, struct pending *pending) {
    load->outstanding--;
    load->outstanding_at[pending->endpoint]--;
    pending->sequence = 0;
    load->free_slots[load->free_count++] = (int)(pending - load->pending);
}

static void note_failure(struct bench_result *result, const struct error *err) {
    if (result->failure.code == ERROR_NONE) {
        result->failure = *err;
    }
}

/** The request that a message answers; NULL where it is none of those outstanding. */
static struct pending *find(struct load *load, const struct wire_message *message) {
    struct correlation correlation;
    if (message->count != 3 || message->frames[0].size != sizeof correlation ||
        message->frames[1].size != 0) {
        return NULL;
    }
    memcpy(&correlation, message->frames[0].data, sizeof correlation);
    if (correlation.sequence == 0 || correlation.slot >= (uint64_t)load->spec->pace.outstanding) {
        return NULL;
    }
    struct pending *pending = &load->pending[correlation.slot];
    return pending->sequence == correlation.sequence ? pending : NULL;
}

static void count_reply(struct load *load, const struct pending *pending,
                        const Thorax__V1__DiagnosisReply *reply) {
    struct bench_result *result = load->result;
    if (reply->status != THORAX__V1__STATUS__STATUS_OK) {
        result->by_status[reply->status]++;
        return;
    }
    char name[BENCH_MODEL_SIZE];
    snprintf(name, sizeof name, "%s:%s", reply->model->name, reply->model->version);
    bench_count_model(result, name, 1);
    histogram_record(&result->latency, (uint64_t)(clock_now_ns() - pending->intended_ns) / 1000);
}

static bool check(struct load *load, const struct pending *pending, const Thorax__V1__Envelope *envelope,
                  struct error *err) {
    char id[ID_SIZE];
    write_id(load, pending->sequence, id);
    if (envelope->protocol_version != MESSAGE_PROTOCOL_VERSION ||
        envelope->body_case != THORAX__V1__ENVELOPE__BODY_DIAGNOSIS_REPLY) {
        return error_set(err, ERROR_PEER, "the reply is none to a diagnosis request");
    }
    return client_check(envelope->diagnosis_reply, id, &load->spec->images[pending->image].digest, err);
}

static void take_reply(struct load *load, const struct wire_message *message) {
    struct message_limits limits = {REPLY_MAX_BYTES, REPLY_MAX_FIELDS, REPLY_MAX_DEPTH};
    struct error err = {0};
    struct pending *pending = find(load, message);
    if (!pending) {
        load->result->stray++; /* most likely a reply to what was given up */
        return;
    }
    Thorax__V1__Envelope *envelope = (Thorax__V1__Envelope *)message_unpack(
        &thorax__v1__envelope__descriptor, message->frames[2], &limits, &err);
    if (envelope && check(load, pending, envelope, &err)) {
        count_reply(load, pending, envelope->diagnosis_reply);
    } else {
        load->result->wrong++;
        note_failure(load->result, &err);
    }
    message_free(envelope ? &envelope->base : NULL);
    release(load, pending);
}

static void receive_from(struct load *load, struct wire_socket *socket) {
    for (int i = 0; i < BURST; i++) {
        struct wire_message message;
        if (!wire_receive(socket, &message, 0, NULL)) {
            return;
        }
        take_reply(load, &message);
        wire_message_fini(&message);
    }
}

/** Gives up what got no reply in time; looks each SWEEP_MS. */
static void give_up(struct load *load) {
    int64_t now_ns = clock_now_ns(), patience_ns = load->spec->timeout_ms * 1000000;
    if (clock_left_ms(load->sweep_ms) > 0) {
        return;
    }
    load->sweep_ms = clock_now_ms() + SWEEP_MS;
    for (int i = 0; i < load->spec->pace.outstanding; i++) {
        struct pending *pending = &load->pending[i];
        if (pending->sequence && now_ns - pending->sent_ns > patience_ns) {
            struct error err = {0};
            error_set(&err, ERROR_TIMEOUT, "no reply within %" PRId64 " ms", load->spec->timeout_ms);
            if (load->result->latency.total == 0) {
                error_hint(&err, "%s", client_hint(load->spec->keys && load->spec->keys->security, false));
            }
            load->result->lost++;
            note_failure(load->result, &err);
            release(load, pending);
        }
    }
}

/* ---- the loop ---- */

/** zmq_poll counts milliseconds, arrivals do not: the timer wakes it at the next one. */
static bool set_timer(struct load *load, int64_t due_ns, struct error *err) {
    struct itimerspec at = {0};
    if (due_ns != INT64_MAX) {
        due_ns = due_ns > 0 ? due_ns : 1;
        at.it_value = (struct timespec){.tv_sec = due_ns / 1000000000, .tv_nsec = due_ns % 1000000000};
    }
    return timerfd_settime(load->timer, TFD_TIMER_ABSTIME, &at, NULL) == 0 ||
           error_set_errno(err, "timerfd_settime");
}

static bool wait_and_receive(struct load *load, struct error *err) {
    struct wire_poll_item items[BENCH_MAX_ENDPOINTS + 1] = {{.descriptor = load->timer}};
    for (int i = 0; i < load->spec->endpoint_count; i++) {
        items[i + 1].socket = load->sockets[i];
    }
    if (!set_timer(load, bench_pacer_due_ns(&load->pacer), err) ||
        wire_poll(items, load->spec->endpoint_count + 1, SWEEP_MS, err) < 0) {
        return false;
    }
    for (int i = 0; i < load->spec->endpoint_count; i++) {
        if (items[i + 1].readable) {
            receive_from(load, load->sockets[i]);
        }
    }
    return true;
}

static bool loop(struct load *load, struct error *err) {
    int64_t start_ns = clock_now_ns();
    bench_pacer_start(&load->pacer, &load->spec->pace, start_ns);
    while (!bench_pacer_done(&load->pacer, clock_now_ns()) || load->outstanding > 0) {
        if (signals_stop) {
            bench_pacer_stop(&load->pacer);
        }
        if (!send_due(load, err) || !wait_and_receive(load, err)) {
            return false;
        }
        give_up(load);
    }
    load->result->seconds = (double)(clock_now_ns() - start_ns) / 1e9;
    load->result->held = (uint64_t)load->pacer.held;
    return true;
}

static bool open_sockets(struct load *load, struct error *err) {
    static const struct client_keys clear_text;
    const struct client_keys *keys = load->spec->keys ? load->spec->keys : &clear_text;
    if (!(load->context = wire_context_create(1, err))) {
        return false;
    }
    for (int i = 0; i < load->spec->endpoint_count; i++) {
        const char *const connect[] = {load->spec->endpoints[i], NULL};
        struct wire_socket_spec spec = {.kind = WIRE_DEALER,
                                        .connect = connect,
                                        .security = keys->security,
                                        .server_key = keys->servers[keys->server_count == 1 ? 0 : i],
                                        .send_limit = load->spec->pace.outstanding + 1,
                                        .receive_limit = load->spec->pace.outstanding + 1};
        if (!(load->sockets[i] = wire_socket_open(load->context, &spec, err))) {
            return false;
        }
    }
    return true;
}

static bool start(struct load *load, struct error *err) {
    int slots = load->spec->pace.outstanding;
    if (load->spec->endpoint_count < 1 || load->spec->endpoint_count > BENCH_MAX_ENDPOINTS || slots < 1 ||
        slots > BENCH_MAX_OUTSTANDING || load->spec->image_count < 1) {
        return error_set(err, ERROR_INVALID,
                         "a load needs 1 to %d endpoints, images, and 1 to %d outstanding",
                         BENCH_MAX_ENDPOINTS, BENCH_MAX_OUTSTANDING);
    }
    load->pending = calloc((size_t)slots, sizeof *load->pending);
    load->free_slots = calloc((size_t)slots, sizeof *load->free_slots);
    if (!load->pending || !load->free_slots) {
        return error_set(err, ERROR_MEMORY, "no memory for %d requests", slots);
    }
    for (load->free_count = 0; load->free_count < slots; load->free_count++) {
        load->free_slots[load->free_count] = load->free_count;
    }
    load->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (load->timer < 0) {
        return error_set_errno(err, "timerfd");
    }
    if (!digest_start(err)) {
        return false;
    }
    load->run = digest_random_u64();
    return open_sockets(load, err);
}

bool bench_load_run(const struct bench_load_spec *spec, struct bench_result *out, struct error *err) {
    struct load load = {.spec = spec, .result = out, .timer = -1};
    memset(out, 0, sizeof *out);
    out->pace = spec->pace;
    bool ok = start(&load, err) && loop(&load, err);
    for (int i = 0; i < spec->endpoint_count && i < BENCH_MAX_ENDPOINTS; i++) {
        wire_socket_close(load.sockets[i]);
    }
    wire_context_destroy(load.context);
    if (load.timer >= 0) {
        close(load.timer);
    }
    free(load.pending);
    free(load.free_slots);
    return ok;
}
