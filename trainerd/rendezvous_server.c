#include "common/base/clock.h"
#include "trainerd/rendezvous.h"
#include "trainerd/rendezvous_message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IDENTITY_MAX = 255 };

/** What the supervisor knows of a rank. */
struct member {
    bool joined;
    size_t identity_size; /* 0: never heard of */
    uint8_t identity[IDENTITY_MAX];
    int64_t heard_ms;
    uint32_t hello_sequence;
    char *fingerprint;
    bool waiting; /* for waiting_key to be set */
    uint32_t waiting_sequence;
    char waiting_key[RENDEZVOUS_KEY_MAX + 1];
};

struct entry {
    struct entry *next;
    size_t size;
    char key[RENDEZVOUS_KEY_MAX + 1];
    uint8_t value[];
};

struct rendezvous_server {
    struct rendezvous_server_spec spec;
    struct entry *entries;
    size_t stored_bytes;
    struct member members[];
};

struct rendezvous_server *rendezvous_server_open(const struct rendezvous_server_spec *spec,
                                                 struct error *err) {
    if (spec->world_size < 1 || spec->world_size > RENDEZVOUS_RANKS_MAX) {
        error_set(err, ERROR_INVALID, "rendezvous of %d ranks: 1 to %d", spec->world_size,
                  RENDEZVOUS_RANKS_MAX);
        return NULL;
    }
    struct rendezvous_server *server =
        calloc(1, sizeof *server + (size_t)spec->world_size * sizeof server->members[0]);
    if (!server) {
        error_set(err, ERROR_MEMORY, "rendezvous: out of memory");
        return NULL;
    }
    server->spec = *spec;
    return server;
}

void rendezvous_server_close(struct rendezvous_server *server) {
    if (!server)
        return;
    for (int i = 0; i < server->spec.world_size; i++)
        free(server->members[i].fingerprint);
    while (server->entries) {
        struct entry *next = server->entries->next;
        free(server->entries);
        server->entries = next;
    }
    free(server);
}

int64_t rendezvous_server_heard_ms(const struct rendezvous_server *server, int rank) {
    return server->members[rank].heard_ms;
}

int rendezvous_server_missing(const struct rendezvous_server *server) {
    int rank = 0;
    while (rank < server->spec.world_size && server->members[rank].joined)
        rank++;
    return rank;
}

struct answer {
    enum rendezvous_verb verb;
    uint32_t rank, sequence;
    struct wire_frame value;
};

/** Never waits, and forgets what cannot be sent: a worker that is gone is the supervisor's business, not
 * ours. */
static void send_answer(struct rendezvous_server *server, struct wire_frame to, const struct answer *answer) {
    struct rendezvous_message message = {.verb = answer->verb,
                                         .rank = answer->rank,
                                         .world_size = (uint32_t)server->spec.world_size,
                                         .generation = server->spec.generation,
                                         .sequence = answer->sequence,
                                         .value = answer->value};
    uint8_t head[RENDEZVOUS_HEAD_SIZE];
    struct wire_frame frames[1 + RENDEZVOUS_FRAMES] = {to};
    rendezvous_pack(&message, head, frames + 1);
    wire_send(server->spec.socket, frames, 1 + RENDEZVOUS_FRAMES, 0, NULL);
}

static struct wire_frame identity_of(const struct member *member) {
    return (struct wire_frame){member->identity, member->identity_size};
}

static void refuse(struct rendezvous_server *server, struct wire_frame to,
                   const struct rendezvous_message *message, const char *why) {
    struct answer answer = {RENDEZVOUS_REFUSED, message->rank, message->sequence, {why, strlen(why)}};
    send_answer(server, to, &answer);
}

static size_t line_length(const char *text) {
    return strcspn(text, "\n");
}

/** Finds the first line in which the two differ. False: they are equal. */
static bool first_difference(const char **a, const char **b) {
    while (**a || **b) {
        size_t length = line_length(*a);
        if (length != line_length(*b) || memcmp(*a, *b, length) != 0)
            return true;
        *a += length + ((*a)[length] == '\n');
        *b += length + ((*b)[length] == '\n');
    }
    return false;
}

static bool compare(const struct rendezvous_server *server, struct error *err) {
    for (int rank = 1; rank < server->spec.world_size; rank++) {
        const char *first = server->members[0].fingerprint, *other = server->members[rank].fingerprint;
        if (!first_difference(&first, &other))
            continue;
        error_set(err, ERROR_INVALID,
                  "the ranks are not set up alike: rank 0 has \"%.*s\", rank %d has \"%.*s\"",
                  (int)(line_length(first) > 150 ? 150 : line_length(first)), first, rank,
                  (int)(line_length(other) > 150 ? 150 : line_length(other)), other);
        return error_hint(err, "start all ranks from the same configuration, data and program");
    }
    return true;
}

/** Once all are there: tells everyone to go on, or why not. */
static bool welcome_all(struct rendezvous_server *server, struct error *err) {
    struct error difference = {0};
    bool alike = compare(server, &difference);
    for (int rank = 0; rank < server->spec.world_size; rank++) {
        const struct member *member = &server->members[rank];
        struct answer answer = {alike ? RENDEZVOUS_WELCOME : RENDEZVOUS_REFUSED,
                                (uint32_t)rank,
                                member->hello_sequence,
                                {difference.message, strlen(difference.message)}};
        send_answer(server, identity_of(member), &answer);
    }
    if (!alike && err)
        *err = difference;
    return alike;
}

static char *copy_text(const struct wire_frame *frame) {
    char *text = calloc(1, frame->size + 1);
    if (text && frame->size)
        memcpy(text, frame->data, frame->size);
    return text;
}

static bool on_hello(struct rendezvous_server *server, struct wire_frame from,
                     const struct rendezvous_message *message, struct error *err) {
    struct member *member = &server->members[message->rank];
    const char *why = member->joined                                     ? "this rank has joined already"
                      : from.size > IDENTITY_MAX                         ? "the identity is too long"
                      : message->value.size > RENDEZVOUS_FINGERPRINT_MAX ? "the fingerprint is too long"
                                                                         : NULL;
    if (why) {
        refuse(server, from, message, why);
        return true;
    }
    member->fingerprint = copy_text(&message->value);
    if (!member->fingerprint)
        return error_set(err, ERROR_MEMORY, "rendezvous: out of memory");
    memcpy(member->identity, from.data, from.size);
    member->identity_size = from.size;
    member->hello_sequence = message->sequence;
    member->heard_ms = clock_now_ms();
    member->joined = true;
    return rendezvous_server_missing(server) < server->spec.world_size || welcome_all(server, err);
}

static bool key_is(const char *key, const struct wire_frame *frame) {
    return strlen(key) == frame->size && memcmp(key, frame->data, frame->size) == 0;
}

static struct entry *find_entry(const struct rendezvous_server *server, const struct wire_frame *key) {
    struct entry *entry = server->entries;
    while (entry && !key_is(entry->key, key))
        entry = entry->next;
    return entry;
}

static void answer_waiting(struct rendezvous_server *server, const struct entry *entry) {
    for (int rank = 0; rank < server->spec.world_size; rank++) {
        struct member *member = &server->members[rank];
        if (!member->waiting || strcmp(member->waiting_key, entry->key) != 0)
            continue;
        struct answer answer = {
            RENDEZVOUS_OK, (uint32_t)rank, member->waiting_sequence, {entry->value, entry->size}};
        member->waiting = false;
        send_answer(server, identity_of(member), &answer);
    }
}

static bool on_set(struct rendezvous_server *server, struct wire_frame from,
                   const struct rendezvous_message *message, struct error *err) {
    size_t size = message->value.size, cost = sizeof(struct entry) + size;
    if (find_entry(server, &message->key)) {
        refuse(server, from, message, "the key is set already");
        return true;
    }
    if (cost > RENDEZVOUS_STORE_MAX - server->stored_bytes) {
        refuse(server, from, message, "the store is full");
        return true;
    }
    struct entry *entry = calloc(1, cost);
    if (!entry)
        return error_set(err, ERROR_MEMORY, "rendezvous: out of memory");
    memcpy(entry->key, message->key.data, message->key.size);
    if (size)
        memcpy(entry->value, message->value.data, size);
    entry->size = size;
    entry->next = server->entries;
    server->entries = entry;
    server->stored_bytes += cost;
    struct answer answer = {.verb = RENDEZVOUS_OK, .rank = message->rank, .sequence = message->sequence};
    send_answer(server, from, &answer);
    answer_waiting(server, entry);
    return true;
}

static bool on_get(struct rendezvous_server *server, struct wire_frame from,
                   const struct rendezvous_message *message, struct error *err) {
    (void)err;
    struct member *member = &server->members[message->rank];
    const struct entry *entry = find_entry(server, &message->key);
    member->waiting = !entry;
    if (entry) {
        struct answer answer = {RENDEZVOUS_OK, message->rank, message->sequence, {entry->value, entry->size}};
        send_answer(server, from, &answer);
        return true;
    }
    member->waiting_sequence = message->sequence;
    memcpy(member->waiting_key, message->key.data, message->key.size);
    member->waiting_key[message->key.size] = '\0';
    return true;
}

static bool on_report(struct rendezvous_server *server, struct wire_frame from,
                      const struct rendezvous_message *message, struct error *err) {
    (void)from;
    char kind[RENDEZVOUS_KEY_MAX + 1];
    snprintf(kind, sizeof kind, "%.*s", (int)message->key.size, (const char *)message->key.data);
    return !server->spec.on_report || server->spec.on_report(server->spec.context, (int)message->rank, kind,
                                                             message->value.data, message->value.size, err);
}

static bool on_heartbeat(struct rendezvous_server *server, struct wire_frame from,
                         const struct rendezvous_message *message, struct error *err) {
    (void)server, (void)from, (void)message, (void)err;
    return true; /* to be heard is all it is for */
}

static bool on_leave(struct rendezvous_server *server, struct wire_frame from,
                     const struct rendezvous_message *message, struct error *err) {
    (void)err;
    struct answer answer = {.verb = RENDEZVOUS_OK, .rank = message->rank, .sequence = message->sequence};
    send_answer(server, from, &answer);
    return true;
}

typedef bool (*handler)(struct rendezvous_server *server, struct wire_frame from,
                        const struct rendezvous_message *message, struct error *err);

static const handler handlers[RENDEZVOUS_VERB_COUNT] = {
    [RENDEZVOUS_SET] = on_set,       [RENDEZVOUS_GET] = on_get,
    [RENDEZVOUS_REPORT] = on_report, [RENDEZVOUS_HEARTBEAT] = on_heartbeat,
    [RENDEZVOUS_LEAVE] = on_leave,
};

/** Whether the message comes from who it says, of this generation. A newcomer's mistakes are told, others are
 * dropped. */
static bool admit(struct rendezvous_server *server, struct wire_frame from,
                  const struct rendezvous_message *message) {
    const struct rendezvous_server_spec *spec = &server->spec;
    const char *why = message->generation != spec->generation             ? "another generation is running"
                      : message->world_size != (uint32_t)spec->world_size ? "the number of ranks differs"
                      : message->rank >= (uint32_t)spec->world_size       ? "there is no such rank"
                                                                          : NULL;
    if (why && message->verb == RENDEZVOUS_HELLO)
        refuse(server, from, message, why);
    if (why || message->verb == RENDEZVOUS_HELLO)
        return !why;
    const struct member *member = &server->members[message->rank];
    return member->joined && member->identity_size == from.size &&
           memcmp(member->identity, from.data, from.size) == 0;
}

bool rendezvous_server_is_for(const struct wire_message *received) {
    return received->count == 1 + RENDEZVOUS_FRAMES;
}

bool rendezvous_server_take(struct rendezvous_server *server, const struct wire_message *received, struct error *err) {
    struct rendezvous_message message;
    if (received->count < 1 || !rendezvous_unpack(received->frames + 1, received->count - 1, &message) ||
        !admit(server, received->frames[0], &message))
        return true;
    if (message.verb == RENDEZVOUS_HELLO)
        return on_hello(server, received->frames[0], &message, err);
    server->members[message.rank].heard_ms = clock_now_ms();
    handler run = handlers[message.verb];
    return !run || run(server, received->frames[0], &message, err);
}
