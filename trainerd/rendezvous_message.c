#include "trainerd/rendezvous_message.h"

#include "trainerd/rendezvous.h"

#include <string.h>

static const uint8_t MAGIC[8] = {'T', 'R', 'D', 'V', 1}; /* verb and padding follow */

static void put(uint8_t *out, uint64_t value, int size) {
    for (int i = 0; i < size; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *in, int size) {
    uint64_t value = 0;
    for (int i = 0; i < size; i++)
        value |= (uint64_t)in[i] << (8 * i);
    return value;
}

void rendezvous_pack(const struct rendezvous_message *message, uint8_t head[RENDEZVOUS_HEAD_SIZE],
                     struct wire_frame frames[RENDEZVOUS_FRAMES]) {
    memcpy(head, MAGIC, sizeof MAGIC);
    head[5] = (uint8_t)message->verb;
    put(head + 8, message->rank, 4);
    put(head + 12, message->world_size, 4);
    put(head + 16, message->generation, 8);
    put(head + 24, message->sequence, 4);
    frames[0] = (struct wire_frame){head, RENDEZVOUS_HEAD_SIZE};
    frames[1] = message->key;
    frames[2] = message->value;
}

bool rendezvous_unpack(const struct wire_frame *frames, int count, struct rendezvous_message *out) {
    if (count != RENDEZVOUS_FRAMES || frames[0].size != RENDEZVOUS_HEAD_SIZE)
        return false;
    const uint8_t *head = frames[0].data;
    if (memcmp(head, MAGIC, 5) != 0 || head[5] == 0 || head[5] >= RENDEZVOUS_VERB_COUNT)
        return false;
    if (frames[1].size > RENDEZVOUS_KEY_MAX || frames[2].size > RENDEZVOUS_VALUE_MAX)
        return false;
    if (frames[1].size && memchr(frames[1].data, 0, frames[1].size))
        return false;
    *out = (struct rendezvous_message){.verb = (enum rendezvous_verb)head[5],
                                       .rank = (uint32_t)get(head + 8, 4),
                                       .world_size = (uint32_t)get(head + 12, 4),
                                       .generation = get(head + 16, 8),
                                       .sequence = (uint32_t)get(head + 24, 4),
                                       .key = frames[1],
                                       .value = frames[2]};
    return true;
}
