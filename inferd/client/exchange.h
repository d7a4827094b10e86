#pragma once
#include "inferd/client/check.h"
#include "inferd/client/dispatch.h"
#include "inferd/client/question.h"

/**
 * Asks the members of a pool on behalf of many questions at once: a DEALER for each member, heartbeats, and
 * the rules of dispatch.h in between. libthorax's I/O thread runs one, the router another. All of it belongs
 * to one thread.
 */
struct exchange;

/** How a question ended. */
enum exchange_end {
    EXCHANGE_REPLIED,   /**< a reply that passed its checks */
    EXCHANGE_EXPIRED,   /**< nobody answered in time */
    EXCHANGE_ABANDONED, /**< the exchange was closed first */
};

struct exchange_result {
    enum exchange_end end;
    Thorax__V1__Envelope
        *envelope;             /**< REPLIED: holds a diagnosis_reply; taken by the callee (message_free) */
    struct wire_frame payload; /**< REPLIED: its bytes, borrowed during the call */
};

struct exchange_spec {
    struct wire_context *context;
    const char *const *endpoints; /**< copied; 1 to DISPATCH_MAX_MEMBERS */
    int endpoint_count;
    struct wire_security *security; /**< borrowed for the exchange's life: our key; NULL: clear text */
    const char *const *server_keys; /**< with security: public keys as Z85, copied; what TCP endpoints must have */
    int server_key_count;           /**< 1: the same for all; endpoint_count: one each; 0: all are ipc */
    int max_questions; /**< more are ERROR_BUSY */
    int64_t heartbeat_ms;
    int64_t pin_ms; /**< how long a routing key is kept on its model; 0: not at all */
    /** Gives a question back with its result, from exchange_step or exchange_destroy. */
    void (*done)(void *context, struct question *question, struct exchange_result *result);
    /** A member began to take questions, or no longer does; may be NULL. */
    void (*member_changed)(void *context, int member, bool ready);
    void *callback_context;
};

/** Connects in the background. Returns owned. */
struct exchange *exchange_create(const struct exchange_spec *spec, struct error *err);
/** Takes NULL. Gives back what is left as ABANDONED. */
void exchange_destroy(struct exchange *exchange);

/** Takes the question, whose deadline_ms is set; it is sent in the next step. On error (BUSY) it is still the
 * caller's. */
bool exchange_submit(struct exchange *exchange, struct question *question, int64_t now_ms, struct error *err);

/** Two entries a member, for wire_poll. */
enum { EXCHANGE_MAX_ITEMS = 2 * DISPATCH_MAX_MEMBERS };
/** Fills in what to poll for; the number of entries. */
int exchange_poll_items(struct exchange *exchange, struct wire_poll_item *items);
/** How long to poll at most. */
int64_t exchange_wait_ms(const struct exchange *exchange, int64_t now_ms);
/** Reads what the entries, as wire_poll left them, say is there (NULL: nothing), and does what is due. */
void exchange_step(struct exchange *exchange, const struct wire_poll_item *items);

/** Says in err (ERROR_TIMEOUT) what stood in the way of a question that nobody answered. */
void exchange_explain(const struct exchange *exchange, const struct question *question, struct error *err);

/** Whether an OK reply is by another model than the one that the question was pinned to. */
bool exchange_model_changed(const struct question *question, const Thorax__V1__DiagnosisReply *reply);

/** Questions that are here; members that take some; members. */
int exchange_count(const struct exchange *exchange);
int exchange_ready_count(const struct exchange *exchange);
int exchange_member_count(const struct exchange *exchange);
struct dispatch_member_view exchange_view(const struct exchange *exchange, int member);
/** What the member said of itself last; NULL: nothing yet. Borrowed until the next step. */
const Thorax__V1__StatusReply *exchange_status(const struct exchange *exchange, int member);
