#pragma once
#include "common/base/digest.h"
#include <stddef.h>

/**
 * Which model answered for a routing key, so that one study does not see two models. The first answer pins,
 * for a time that is not prolonged by asking: after it the key goes over to whatever the pool runs by then,
 * and a key that somebody uses for everything cannot hold an old model for ever. A pin never moves while it
 * lasts: where its model is gone, every answer by another one can say so. Bounded: the key that was used
 * least recently makes room. A key is kept only as a hash (SipHash-2-4 of 128 bits under a key that is drawn
 * when the table is made), since it may say something of a patient. Any thread; its mutex is a leaf lock.
 * Takes the clock from its caller: monotonic milliseconds.
 */
struct pins;

struct pins_spec {
    size_t limit;    /**< keys at most; 0: nothing is ever pinned */
    int64_t time_ms; /**< how long a pin lasts; 0: nothing is ever pinned */
};

/** After digest_start. Returns owned, NULL where memory ends or the limit is over 16 million. */
struct pins *pins_create(const struct pins_spec *spec, struct error *err);
/** Takes NULL. */
void pins_destroy(struct pins *pins);

/** The model that the key is pinned to; false: none, or no longer. An empty key is never pinned. */
bool pins_get(struct pins *pins, const void *key, size_t key_size, int64_t now_ms, struct digest *out);

/** The model has answered for the key: pins it, unless it is pinned already. */
void pins_put(struct pins *pins, const void *key, size_t key_size, const struct digest *model,
              int64_t now_ms);

/** Keys in the table, those that are over and not yet met again among them. */
size_t pins_count(struct pins *pins);
