#include "trainerd/cluster_members.h"
#include "trainerd/rendezvous.h"
#include "trainerd/rendezvous_message.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds) {
    if (!holds)
        abort();
}

/** Whatever fingerprint comes: the reason ends within its limit. */
static void check_hello(const struct cluster_hello *hello) {
    struct cluster_members members;
    char reason[CLUSTER_REASON_SIZE];
    struct wire_frame identity = {"peer", 4};
    must(hello->nodes <= CLUSTER_NODES_MAX && hello->node < hello->nodes && hello->ranks <= RENDEZVOUS_RANKS_MAX);
    must(cluster_members_init(&members, hello->nodes, 5000, "build=aa\ntrain:\n  batch_size: 16\n", NULL));
    memset(reason, 0x7f, sizeof reason);
    if (cluster_members_admit(&members, hello, identity, 1, reason) == CLUSTER_REFUSED)
        must(memchr(reason, '\0', sizeof reason) != NULL);
    cluster_members_fini(&members);
}

static void check_from_node(struct wire_frame frame) {
    struct cluster_received received;
    if (cluster_unpack_from_node(frame, &received, NULL) && received.kind == CLUSTER_HELLO)
        check_hello(&received.hello);
    else if (received.kind == CLUSTER_STATE) {
        for (int i = 0; i < received.state.end_count; i++) {
            const struct cluster_end *end = &received.state.ends[i];
            must(end->rank >= 0 && end->rank < RENDEZVOUS_RANKS_MAX && end->words.code <= ERROR_INTERNAL);
            must(memchr(end->words.message, '\0', sizeof end->words.message) != NULL);
        }
    }
    cluster_received_fini(&received);
}

static void check_to_node(struct wire_frame frame) {
    struct cluster_received received;
    if (cluster_unpack_to_node(frame, &received, NULL) && received.kind == CLUSTER_ORDERS) {
        const struct cluster_share *share = &received.orders.share;
        must(share->first_rank >= 0 && share->count >= 0 && share->first_rank + share->count <= share->ranks);
    }
    cluster_received_fini(&received);
}

/** A head, and what is left in two halves. */
static void check_rendezvous(struct wire_frame frame) {
    struct rendezvous_message message;
    const uint8_t *bytes = frame.data;
    size_t head = frame.size < RENDEZVOUS_HEAD_SIZE ? frame.size : RENDEZVOUS_HEAD_SIZE, key = (frame.size - head) / 2;
    struct wire_frame frames[RENDEZVOUS_FRAMES] = {
        {bytes, head}, {bytes + head, key}, {bytes + head + key, frame.size - head - key}};
    if (rendezvous_unpack(frames, RENDEZVOUS_FRAMES, &message))
        must(message.verb >= RENDEZVOUS_HELLO && message.verb < RENDEZVOUS_VERB_COUNT);
}

/** The first byte says who hears the rest: the coordinator, a node, or the rendezvous. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1)
        return 0;
    struct wire_frame frame = {data + 1, size - 1};
    if (data[0] % 3 == 0)
        check_from_node(frame);
    else if (data[0] % 3 == 1)
        check_to_node(frame);
    else
        check_rendezvous(frame);
    return 0;
}
