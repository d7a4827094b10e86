#include "common/wire/message.h"
#include "proto/envelope.pb-c.h"
#include "proto/pool.pb-c.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** What message_check lets pass must unpack into something that packs again, and be let pass again. */
static void round_trip(const ProtobufCMessageDescriptor *type, struct wire_frame frame) {
    struct message_limits limits = {.max_bytes = 1 << 20, .max_fields = 256, .max_depth = 4};
    struct bytes packed;
    ProtobufCMessage *message = message_unpack(type, frame, &limits, NULL);
    if (!message) {
        return;
    }
    if (!message_pack(message, &packed, NULL) ||
        (packed.size > 0 &&
         !message_check(type, (struct wire_frame){packed.data, packed.size}, &limits, NULL))) {
        abort();
    }
    free(packed.data);
    message_free(message);
}

/** The first byte chooses what the others are taken for. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const ProtobufCMessageDescriptor *const types[] = {
        &thorax__v1__envelope__descriptor, &thorax__v1__control_request__descriptor,
        &thorax__v1__control_reply__descriptor, &thorax__v1__announcement__descriptor};
    if (size == 0) {
        return 0;
    }
    struct wire_frame frame = {data + 1, size - 1};
    uint64_t version;
    message_peek(frame, 1, &version);
    round_trip(types[data[0] % (sizeof types / sizeof *types)], frame);
    return 0;
}
