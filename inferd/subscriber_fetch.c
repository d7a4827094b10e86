#include "common/base/clock.h"
#include "common/base/log.h"
#include "inferd/subscriber_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    STALL_FIRST_MS = 2000,
    STALL_LAST_MS = 16000,
    BAD_IN_ROW = 3,
    REUSED_AT_ONCE = 32, /* chunks that are copied before the sockets get a look */
};

void fetch_close(struct subscriber *subscriber) {
    struct fetch *fetch = &subscriber->fetch;
    partial_close(fetch->partial);
    reuse_close(&fetch->reuse);
    descriptor_fini(&fetch->descriptor);
    *fetch = (struct fetch){0};
}

/** Gives up for now; what has arrived stays on disk. */
static void give_up(struct subscriber *subscriber, const struct error *err) {
    struct digest digest = subscriber->fetch.descriptor.digest;
    fetch_close(subscriber);
    subscriber_fail(subscriber, &digest, err);
}

/** The chunk after those that are here. */
static int64_t next_chunk(const struct fetch *fetch) {
    int64_t index = descriptor_chunk_index(&fetch->descriptor.cut, partial_offset(fetch->partial));
    return index < 0 ? (int64_t)fetch->descriptor.cut.count : index;
}

/** Where the chunk is here already; NULL: nowhere. */
static struct reuse_entry *find_here(const struct fetch *fetch, int64_t index) {
    int64_t offset = descriptor_chunk_offset(&fetch->descriptor.cut, index);
    return reuse_find(&fetch->reuse, fetch->descriptor.cut.digests + 32 * index,
                      descriptor_chunk_size(&fetch->descriptor.cut, offset));
}

/** Copies chunks that are here, up to one that is not. */
static void copy_here(struct subscriber *subscriber) {
    struct fetch *fetch = &subscriber->fetch;
    uint8_t *data = NULL;
    for (int i = 0; i < REUSED_AT_ONCE && !partial_complete(fetch->partial); i++) {
        struct reuse_entry *entry = find_here(fetch, next_chunk(fetch));
        if (!entry || (!data && !(data = malloc(DESCRIPTOR_MAX_CHUNK_BYTES))))
            break;
        size_t size = entry->size;
        if (!reuse_read(subscriber->store, entry, data)) {
            fetch->requested = next_chunk(fetch); /* it was passed over when chunks were asked for */
            break;
        }
        struct error err = {0};
        if (!partial_append(fetch->partial, data, size, &err)) {
            free(data);
            give_up(subscriber, &err);
            return;
        }
        subscriber->now.reused_bytes += size;
        fetch->progress_ms = clock_now_ms();
    }
    free(data);
}

int64_t fetch_left_ms(const struct subscriber *subscriber, int64_t left_ms) {
    const struct fetch *fetch = &subscriber->fetch;
    bool more = fetch->partial && (partial_complete(fetch->partial) || find_here(fetch, next_chunk(fetch)));
    return more ? 0 : left_ms;
}

/** Asks for chunks from index on. */
static bool send_credit(struct subscriber *subscriber, int64_t index, int64_t count) {
    const struct fetch *fetch = &subscriber->fetch;
    struct wire_socket *socket = subscriber->link.sockets[SUBSCRIBER_BLOBS];
    Thorax__V1__BlobRequest request;
    thorax__v1__blob_request__init(&request);
    request.protocol_version = POOL_PROTOCOL_VERSION;
    request.digest = pool_digest_field(&fetch->descriptor.digest);
    request.offset = (uint64_t)descriptor_chunk_offset(&fetch->descriptor.cut, index);
    request.chunks = (uint32_t)count;
    request.headed = fetch->descriptor.cut.head_bytes > 0;
    struct packed packed = pool_pack(&request.base);
    struct wire_frame frame = {packed.data, packed.size};
    bool ok = packed.data && socket && wire_send(socket, &frame, 1, 0, NULL);
    free(packed.data);
    return ok;
}

/** Gives credit so that the window is full again: a request for each run of chunks that are not here. */
static void request_chunks(struct subscriber *subscriber) {
    struct fetch *fetch = &subscriber->fetch;
    int64_t end = next_chunk(fetch) + subscriber->window_chunks, count = (int64_t)fetch->descriptor.cut.count;
    end = end < count ? end : count;
    while (fetch->requested < end) {
        int64_t first = fetch->requested, last = first;
        while (last < end && !find_here(fetch, last))
            last++;
        if (last > first && !send_credit(subscriber, first, last - first))
            return;
        fetch->requested = last > first ? last : first + 1;
    }
}

/** Whatever was asked for is forgotten and asked for again, from the first byte that is missing. */
static void request_again(struct subscriber *subscriber) {
    subscriber->fetch.requested = next_chunk(&subscriber->fetch);
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

/** What to fetch: first what the pool is to run, then the shadow, then what was staged last. NULL: nothing.
 */
static const struct descriptor *choose(const struct subscriber *subscriber) {
    if (subscriber_target_pending(subscriber) && !subscriber->target_refused &&
        wanted_now(subscriber, &subscriber->target))
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
        .head_bytes = descriptor->cut.head_bytes,
        .chunk_bytes = descriptor->cut.chunk_bytes,
        .chunk_digests = descriptor->cut.digests,
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
    reuse_open(&fetch->reuse, subscriber->store);
    request_again(subscriber);
}

static void complete(struct subscriber *subscriber) {
    struct fetch *fetch = &subscriber->fetch;
    struct error err = {0};
    char hex[DIGEST_HEX_SIZE];
    if (!record_write(subscriber->store, &fetch->descriptor, &err) || !partial_commit(fetch->partial, &err)) {
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
    if (fetch->partial)
        copy_here(subscriber);
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
    if (fetch->requested < next_chunk(fetch))
        fetch->requested = next_chunk(fetch);
    copy_here(subscriber);
    if (!fetch->partial)
        return;
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
