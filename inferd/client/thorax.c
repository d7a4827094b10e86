#include "inferd/client/thorax.h"
#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/base/thread_slice.h"
#include "inferd/client/answer.h"
#include "inferd/client/keys.h"
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    OUTSTANDING_DEFAULT = 256,
    OUTSTANDING_MAX = 65536,
    HEARTBEAT_DEFAULT_MS = 500,
    PIN_DEFAULT_MS = 600000,
    TIMEOUT_DEFAULT_MS = 30000,
    TIMEOUT_MAX_MS = 86400000,
    ID_SIZE = 40,
};

/** A request from thorax_submit to its call-back. */
struct call {
    struct call *next; /* in the inbox */
    struct question *question;
    thorax_done *done;
    void *context;
    int64_t start_ns;
};

struct thorax_client {
    pthread_t thread;
    int wake_event; /* callers write, the I/O thread polls */
    struct client_keys keys; /* outlive the context */
    struct wire_context *context;
    struct exchange *exchange; /* the I/O thread's alone, once it runs */
    int max_outstanding, endpoint_count;
    pthread_mutex_t lock; /* a leaf; guards all that follows */
    struct call *inbox, **inbox_end;
    int outstanding;
    bool closing;
    struct thorax_member members[DISPATCH_MAX_MEMBERS];
};

static bool fail(struct thorax_error *out, const struct error *err) {
    static const struct {
        enum error_code code;
        enum thorax_error_code public;
    } rows[] = {{ERROR_INVALID, THORAX_ERROR_INVALID},
                {ERROR_UNSUPPORTED, THORAX_ERROR_INVALID},
                {ERROR_TIMEOUT, THORAX_ERROR_TIMEOUT},
                {ERROR_BUSY, THORAX_ERROR_BUSY},
                {ERROR_STATE, THORAX_ERROR_CLOSED}};
    if (!out) {
        return false;
    }
    out->code = THORAX_ERROR_SYSTEM;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        out->code = rows[i].code == err->code ? rows[i].public : out->code;
    }
    text_copy(out->message, sizeof out->message, err->message);
    text_copy(out->hint, sizeof out->hint, err->hint);
    return false;
}

/** Calls back, outside of all locks, and ends the call. */
static void finish(struct thorax_client *client, struct call *call, struct thorax_answer *answer,
                   const struct error *err) {
    struct thorax_error public = {0};
    pthread_mutex_lock(&client->lock);
    client->outstanding--;
    pthread_mutex_unlock(&client->lock);
    if (!answer) {
        fail(&public, err);
    }
    call->done(call->context, answer, answer ? NULL : &public);
    question_destroy(call->question);
    free(call);
}

/** The exchange's call: a question's end. */
static void on_done(void *context, struct question *question, struct exchange_result *result) {
    struct thorax_client *client = context;
    struct call *call = question->owner;
    struct thorax_answer answer = {0};
    struct error err = {0};
    bool ok = false;
    switch (result->end) {
    case EXCHANGE_REPLIED:
        ok = answer_fill(&answer, question, result->envelope, &err);
        answer.elapsed_us = (uint64_t)(clock_now_ns() - call->start_ns) / 1000;
        break;
    case EXCHANGE_EXPIRED:
        exchange_explain(client->exchange, question, &err);
        break;
    case EXCHANGE_ABANDONED:
        error_set(&err, ERROR_STATE, "the client was closed");
        break;
    }
    finish(client, call, ok ? &answer : NULL, &err);
}

/** Takes what callers have left; true where the client is to end. */
static bool take_inbox(struct thorax_client *client) {
    uint64_t count;
    ssize_t got = read(client->wake_event, &count, sizeof count);
    (void)got; /* nothing to read: a look too many does no harm */
    pthread_mutex_lock(&client->lock);
    struct call *call = client->inbox;
    bool closing = client->closing;
    client->inbox = NULL;
    client->inbox_end = &client->inbox;
    pthread_mutex_unlock(&client->lock);
    while (call) {
        struct error err = {0};
        struct call *next = call->next;
        if (!exchange_submit(client->exchange, call->question, clock_now_ms(), &err)) {
            finish(client, call, NULL, &err);
        }
        call = next;
    }
    return closing;
}

static void publish_members(struct thorax_client *client) {
    pthread_mutex_lock(&client->lock);
    for (int i = 0; i < client->endpoint_count; i++) {
        struct dispatch_member_view view = exchange_view(client->exchange, i);
        client->members[i] = (struct thorax_member){view.reachable, view.ready, view.outstanding};
    }
    pthread_mutex_unlock(&client->lock);
}

static void *run(void *argument) {
    struct thorax_client *client = argument;
    struct wire_poll_item items[EXCHANGE_MAX_ITEMS + 1];
    thread_slice_set(THREAD_SLICE_SHORT);
    while (!take_inbox(client)) {
        exchange_step(client->exchange, NULL); /* sends what was just taken */
        publish_members(client);
        int count = exchange_poll_items(client->exchange, items);
        items[count] = (struct wire_poll_item){.descriptor = client->wake_event};
        /* A poll that fails (no memory, no descriptors) is like one that found nothing: deadlines still
         * count. */
        if (wire_poll(items, count + 1, exchange_wait_ms(client->exchange, clock_now_ms()), NULL) > 0) {
            exchange_step(client->exchange, items);
        }
    }
    exchange_destroy(client->exchange);
    return NULL;
}

static bool check_options(const struct thorax_options *options, struct error *err) {
    if (options->endpoint_count < 1 || options->endpoint_count > DISPATCH_MAX_MEMBERS ||
        !options->endpoints) {
        return error_set(err, ERROR_INVALID, "%d endpoints: expected 1 to %d", options->endpoint_count,
                         DISPATCH_MAX_MEMBERS);
    }
    if (options->max_outstanding < 0 || options->max_outstanding > OUTSTANDING_MAX) {
        return error_set(err, ERROR_INVALID, "max_outstanding %d: expected 1 to %d", options->max_outstanding,
                         OUTSTANDING_MAX);
    }
    for (size_t i = 0; i < sizeof options->reserved / sizeof *options->reserved; i++) {
        if (options->reserved[i]) {
            return error_set(err, ERROR_INVALID, "an option that this version does not know, or options not zeroed");
        }
    }
    return (options->heartbeat_ms >= 0 && options->heartbeat_ms <= TIMEOUT_MAX_MS) ||
           error_set(err, ERROR_INVALID, "heartbeat_ms: expected up to %d", TIMEOUT_MAX_MS);
}

static bool open_exchange(struct thorax_client *client, const struct thorax_options *options,
                          struct error *err) {
    struct client_keys_spec keys = {options->key, options->server_keys, options->server_key_count};
    if (!client_keys_load(&client->keys, &keys, err)) {
        return false;
    }
    struct exchange_spec spec = {
        .security = client->keys.security,
        .server_keys = client->keys.servers,
        .server_key_count = client->keys.server_count,
        .endpoints = options->endpoints,
        .endpoint_count = options->endpoint_count,
        .max_questions = client->max_outstanding,
        .heartbeat_ms = options->heartbeat_ms ? options->heartbeat_ms : HEARTBEAT_DEFAULT_MS,
        .pin_ms = options->pin_ms < 0 ? 0
                  : options->pin_ms   ? options->pin_ms
                                      : PIN_DEFAULT_MS,
        .done = on_done,
        .callback_context = client,
    };
    client->wake_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (client->wake_event < 0) {
        return error_set_errno(err, "eventfd");
    }
    spec.context = client->context = wire_context_create(1, err);
    return spec.context && (client->exchange = exchange_create(&spec, err)) != NULL;
}

/** Starts the I/O thread with all signals blocked: they are the program's. */
static bool start(struct thorax_client *client, struct error *err) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = pthread_create(&client->thread, NULL, run, client);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result == 0 || error_set(err, ERROR_IO, "cannot start a thread: %s", strerror(result));
}

static void destroy(struct thorax_client *client) {
    wire_context_destroy(client->context);
    client_keys_fini(&client->keys);
    if (client->wake_event >= 0) {
        close(client->wake_event);
    }
    pthread_mutex_destroy(&client->lock);
    free(client);
}

struct thorax_client *thorax_open(const struct thorax_options *options, struct thorax_error *error) {
    struct error err = {0};
    struct thorax_client *client = NULL;
    if (!check_options(options, &err) || !digest_start(&err)) {
        fail(error, &err);
        return NULL;
    }
    if (!(client = calloc(1, sizeof *client))) {
        error_set(&err, ERROR_MEMORY, "no memory for a client");
        fail(error, &err);
        return NULL;
    }
    client->wake_event = -1;
    client->endpoint_count = options->endpoint_count;
    client->max_outstanding = options->max_outstanding ? options->max_outstanding : OUTSTANDING_DEFAULT;
    client->inbox_end = &client->inbox;
    pthread_mutex_init(&client->lock, NULL);
    if (!open_exchange(client, options, &err) || !start(client, &err)) {
        fail(error, &err);
        exchange_destroy(client->exchange);
        destroy(client);
        return NULL;
    }
    return client;
}

static void wake(struct thorax_client *client) {
    uint64_t one = 1;
    /* Fails only where the counter would overflow, and then the event is readable anyway. */
    ssize_t written = write(client->wake_event, &one, sizeof one);
    (void)written;
}

void thorax_close(struct thorax_client *client) {
    if (!client) {
        return;
    }
    pthread_mutex_lock(&client->lock);
    client->closing = true;
    pthread_mutex_unlock(&client->lock);
    wake(client);
    pthread_join(client->thread, NULL);
    destroy(client);
}

static bool check_request(const struct thorax_request *request, struct error *err) {
    if (request->timeout_ms < 0 || request->timeout_ms > TIMEOUT_MAX_MS) {
        return error_set(err, ERROR_INVALID, "timeout_ms %" PRId64 ": expected up to %d", request->timeout_ms,
                         TIMEOUT_MAX_MS);
    }
    const char *const texts[] = {request->request_id, request->model, request->operating_point};
    for (int i = 0; i < 3; i++) {
        if (texts[i] && !text_is_utf8(texts[i], strlen(texts[i]))) {
            return error_set(err, ERROR_INVALID, "request_id, model or operating_point is not UTF-8");
        }
    }
    return (request->image && request->image_size > 0) ||
           error_set(err, ERROR_INVALID, "image: none, or empty");
}

static void fill_pixels(const struct thorax_request *request, Thorax__V1__RawPixels *out) {
    thorax__v1__raw_pixels__init(out);
    out->rows = request->pixels->rows;
    out->columns = request->pixels->columns;
    out->bits_allocated = request->pixels->bits_allocated;
    out->bits_stored = request->pixels->bits_stored;
    out->is_signed = request->pixels->is_signed;
    out->photometric = (Thorax__V1__Photometric)request->pixels->photometric;
    out->data = (ProtobufCBinaryData){request->image_size, (uint8_t *)text_for_packing(request->image)};
}

static struct question *make_question(const struct thorax_request *request, struct error *err) {
    Thorax__V1__DiagnosisRequest ask = THORAX__V1__DIAGNOSIS_REQUEST__INIT;
    Thorax__V1__RawPixels raw;
    Thorax__V1__Age age = THORAX__V1__AGE__INIT;
    char id[ID_SIZE];
    snprintf(id, sizeof id, "%016" PRIx64 "%016" PRIx64, digest_random_u64(), digest_random_u64());
    ask.request_id = request->request_id ? text_for_packing(request->request_id) : id;
    ask.model = text_for_packing(request->model);
    ask.operating_point = text_for_packing(request->operating_point);
    ask.routing_key = (ProtobufCBinaryData){request->routing_key_size, (uint8_t *)text_for_packing(request->routing_key)};
    ask.priority =
        request->stat ? THORAX__V1__PRIORITY__PRIORITY_STAT : THORAX__V1__PRIORITY__PRIORITY_ROUTINE;
    ask.view = (Thorax__V1__View)request->view;
    if (request->age_years) {
        age.years = *request->age_years;
        ask.age = &age;
    }
    if (request->pixels) {
        fill_pixels(request, &raw);
        ask.image_case = THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_RAW;
        ask.raw = &raw;
    } else {
        ask.image_case = THORAX__V1__DIAGNOSIS_REQUEST__IMAGE_ENCODED;
        ask.encoded = (ProtobufCBinaryData){request->image_size, (uint8_t *)text_for_packing(request->image)};
    }
    return question_pack(&ask, err);
}

static struct call *make_call(const struct thorax_request *request, struct error *err) {
    int64_t start_ns = clock_now_ns();
    struct call *call = check_request(request, err) ? calloc(1, sizeof *call) : NULL;
    struct question *question = call ? make_question(request, err) : NULL;
    if (!question) {
        free(call);
        return NULL;
    }
    *call = (struct call){.question = question, .start_ns = start_ns};
    int64_t timeout_ms = request->timeout_ms ? request->timeout_ms : TIMEOUT_DEFAULT_MS;
    question->deadline_ms = start_ns / 1000000 + timeout_ms;
    question->owner = call;
    return call;
}

bool thorax_submit(struct thorax_client *client, const struct thorax_request *request, thorax_done *done,
                   void *context, struct thorax_error *error) {
    struct error err = {.code = ERROR_MEMORY, .message = "no memory for a request"};
    struct call *call = make_call(request, &err);
    if (!call) {
        return fail(error, &err);
    }
    call->done = done;
    call->context = context;
    pthread_mutex_lock(&client->lock);
    bool ok = client->closing ? error_set(&err, ERROR_STATE, "the client is being closed")
                              : client->outstanding < client->max_outstanding ||
                                    error_set(&err, ERROR_BUSY, "%d requests are on their way already",
                                              client->outstanding);
    if (ok) {
        client->outstanding++;
        *client->inbox_end = call;
        client->inbox_end = &call->next;
    }
    pthread_mutex_unlock(&client->lock);
    if (!ok) {
        question_destroy(call->question);
        free(call);
        return fail(error, &err);
    }
    wake(client);
    return true;
}

/** A caller that waits. */
struct waiter {
    sem_t finished;
    struct thorax_answer answer;
    struct thorax_error error;
    bool ok;
};

static void on_waited(void *context, struct thorax_answer *answer, const struct thorax_error *error) {
    struct waiter *waiter = context;
    waiter->ok = answer != NULL;
    if (answer) {
        waiter->answer = *answer;
    } else {
        waiter->error = *error;
    }
    sem_post(&waiter->finished);
}

bool thorax_diagnose(struct thorax_client *client, const struct thorax_request *request,
                     struct thorax_answer *answer, struct thorax_error *error) {
    struct waiter waiter = {.ok = false};
    memset(answer, 0, sizeof *answer);
    sem_init(&waiter.finished, 0, 0);
    bool submitted = thorax_submit(client, request, on_waited, &waiter, error);
    while (submitted && sem_wait(&waiter.finished) != 0) {
    }
    sem_destroy(&waiter.finished);
    if (submitted && waiter.ok) {
        *answer = waiter.answer;
    } else if (submitted && error) {
        *error = waiter.error;
    }
    return submitted && waiter.ok;
}

int thorax_members(struct thorax_client *client, struct thorax_member *out, int count) {
    pthread_mutex_lock(&client->lock);
    for (int i = 0; i < count && i < client->endpoint_count; i++) {
        out[i] = client->members[i];
    }
    pthread_mutex_unlock(&client->lock);
    return client->endpoint_count;
}

const char *thorax_status_name(enum thorax_status status) {
    return client_status_name((Thorax__V1__Status)status);
}

const char *thorax_decision_name(enum thorax_decision decision) {
    return client_decision_name((Thorax__V1__Decision)decision);
}

const char *thorax_version(void) {
    return THORAX_VERSION;
}
