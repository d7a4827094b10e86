#include "common/base/clock.h"
#include "common/base/log.h"
#include "inferd/subscriber_internal.h"

#include <stdlib.h>
#include <string.h>

enum { STALL_FIRST_MS = 2000, STALL_LAST_MS = 16000, BAD_IN_ROW = 3 };

void fetch_close(struct subscriber *subscriber) {
    struct fetch *fetch = &subscriber->fetch;
    partial_close(fetch->partial);
    descriptor_fini(&fetch->descriptor);
    *fetch = (struct fetch){0};
}

/** Gives up for now; what has arrived stays on disk. */
static void give_up(struct subscriber *subscriber, const struct error *err) {
    struct digest digest = subscriber->fetch.descriptor.digest;
    fetch_close(subscriber);
    subscriber_fail(subscriber, &digest, err);
}

/** Gives credit so that the window is full again. */
static void request_chunks(struct subscriber *subscriber) {
    struct fetch *fetch = &subscriber->fetch;
    struct wire_socket *socket = subscriber->link.sockets[SUBSCRIBER_BLOBS];
    int64_t chunk_bytes = fetch->descriptor.chunk_bytes;
    int64_t window_end = partial_offset(fetch->partial) + subscriber->window_chunks * chunk_bytes;
    if (window_end > fetch->descriptor.size_bytes)
        window_end = fetch->descriptor.size_bytes;
    if (!socket || fetch->requested_end >= window_end)
        return;
    Thorax__V1__BlobRequest request;
    thorax__v1__blob_request__init(&request);
    request.protocol_version = POOL_PROTOCOL_VERSION;
    request.digest = pool_digest_field(&fetch->descriptor.digest);
    request.offset = (uint64_t)fetch->requested_end;
    request.chunks = (uint32_t)((window_end - fetch->requested_end + chunk_bytes - 1) / chunk_bytes);
    struct packed packed = pool_pack(&request.base);
    struct wire_frame frame = {packed.data, packed.size};
    if (packed.data && wire_send(socket, &frame, 1, 0, NULL))
        fetch->requested_end = window_end;
    free(packed.data);
}

/** Whatever was asked for is forgotten and asked for again, from the first byte that is missing. */
static void request_again(struct subscriber *subscriber) {
    subscriber->fetch.requested_end = partial_offset(subscriber->fetch.partial);
    subscriber->fetch.progress_ms = clock_now_ms();
    request_chunks(subscriber);
}

void fetch_restart(struct subscriber *subscriber) {
    if (!subscriber->fetch.partial)
        return;
    subscriber->fetch.stall_ms = STALL_FIRST_MS;
    request_again(subscriber);
}

static bool wanted_now(const struct subscriber *subscriber, const struct descriptor *descriptor) {
    return descriptor->packed && !store_has(subscriber->store, &descriptor->digest) &&
           !subscriber_blocked(subscriber, &descriptor->digest);
}

/** What to fetch: first what the pool is to run, then the shadow, then what was staged last. NULL: nothing. */
static const struct descriptor *choose(const struct subscriber *subscriber) {
    if (subscriber_target_pending(subscriber) && wanted_now(subscriber, &subscriber->target))
        return &subscriber->target;
    if (wanted_now(subscriber, &subscriber->shadow))
        return &subscriber->shadow;
    for (int i = subscriber->staged_count - 1; i >= 0; i--) {
        if (wanted_now(subscriber, &subscriber->staged[i]))
            return &subscriber->staged[i];
    }
    return NULL;
}

static void fetch_start(struct subscriber *subscriber, const struct descriptor *descriptor) {
    struct fetch *fetch = &subscriber->fetch;
    struct error err = {0};
    struct partial_spec spec = {
        .digest = descriptor->digest,
        .size_bytes = descriptor->size_bytes,
        .head_bytes = descriptor->head_bytes,
        .chunk_bytes = descriptor->chunk_bytes,
        .chunk_digests = descriptor->chunk_digests,
    };
    fetch->stall_ms = STALL_FIRST_MS;
    if (!descriptor_copy(&fetch->descriptor, descriptor, &err) ||
        !(fetch->partial = partial_open(subscriber->store, &spec, &err))) {
        struct digest digest = descriptor->digest;
        fetch_close(subscriber);
        subscriber_fail(subscriber, &digest, &err);
        return;
    }
    char hex[DIGEST_HEX_SIZE];
    log_event(LOG_INFO, "model_fetching", "name=%s version=%s digest=%.12s bytes=%lld from=%lld",
              descriptor->name, descriptor->version, digest_hex(&descriptor->digest, hex),
              (long long)descriptor->size_bytes, (long long)partial_offset(fetch->partial));
    request_again(subscriber);
}

static void complete(struct subscriber *subscriber) {
    struct fetch *fetch = &subscriber->fetch;
    struct error err = {0};
    char hex[DIGEST_HEX_SIZE];
    if (!partial_commit(fetch->partial, &err)) {
        give_up(subscriber, &err);
        return;
    }
    log_event(LOG_INFO, "model_fetched", "digest=%.12s bytes=%lld",
              digest_hex(&fetch->descriptor.digest, hex), (long long)fetch->descriptor.size_bytes);
    subscriber_forgive(subscriber, &fetch->descriptor.digest);
    fetch_close(subscriber);
}

void fetch_tick(struct subscriber *subscriber) {
    struct fetch *fetch = &subscriber->fetch;
    if (!subscriber->link.synced)
        return;
    const struct descriptor *wanted = choose(subscriber);
    if (fetch->partial && (!wanted || !digest_equal(&wanted->digest, &fetch->descriptor.digest)))
        fetch_close(subscriber); /* goes on later where it stopped, if it is wanted then */
    if (!wanted)
        return;
    if (!fetch->partial)
        fetch_start(subscriber, wanted);
    if (fetch->partial && partial_complete(fetch->partial)) {
        complete(subscriber);
    } else if (fetch->partial && clock_now_ms() - fetch->progress_ms > fetch->stall_ms) {
        fetch->stall_ms = fetch->stall_ms * 2 < STALL_LAST_MS ? fetch->stall_ms * 2 : STALL_LAST_MS;
        request_again(subscriber);
    }
}

/** A chunk that is not what the descriptor says. Asked for again, but not for ever. */
static void refuse_chunk(struct subscriber *subscriber, const struct error *err) {
    subscriber->now.bad_chunks++;
    if (err->code != ERROR_FORMAT || ++subscriber->fetch.bad_in_row >= BAD_IN_ROW) {
        give_up(subscriber, err);
        return;
    }
    log_error("chunk_refused", err);
    request_again(subscriber);
}

static void take_chunk(struct subscriber *subscriber, const Thorax__V1__BlobChunk *chunk,
                       const struct wire_frame *data) {
    struct fetch *fetch = &subscriber->fetch;
    struct error err = {0};
    subscriber->now.transferred_bytes += data->size;
    if (chunk->offset != (uint64_t)partial_offset(fetch->partial))
        return; /* from a window that was given up */
    if (!partial_append(fetch->partial, data->data, data->size, &err)) {
        refuse_chunk(subscriber, &err);
        return;
    }
    fetch->bad_in_row = 0;
    fetch->stall_ms = STALL_FIRST_MS;
    fetch->progress_ms = clock_now_ms();
    if (fetch->requested_end < partial_offset(fetch->partial))
        fetch->requested_end = partial_offset(fetch->partial);
    if (partial_complete(fetch->partial))
        complete(subscriber);
    else
        request_chunks(subscriber);
}

void fetch_receive(struct subscriber *subscriber, const struct wire_message *message) {
    struct fetch *fetch = &subscriber->fetch;
    struct error err = {0};
    struct digest digest;
    Thorax__V1__BlobChunk *chunk =
        message->count > 0 ? pool_unpack_blob_chunk(message->frames[0].data, message->frames[0].size, &err)
                           : NULL;
    if (!chunk) {
        log_error("chunk_refused", &err);
        return;
    }
    bool ours = fetch->partial && pool_digest(&chunk->digest, &digest) &&
                digest_equal(&digest, &fetch->descriptor.digest);
    if (ours && chunk->refusal) {
        pool_refusal_error(chunk->refusal, &err);
        give_up(subscriber, &err);
        link_resync(subscriber);
    } else if (ours && message->count == 2) {
        take_chunk(subscriber, chunk, &message->frames[1]);
    }
    pool_free(chunk);
}
