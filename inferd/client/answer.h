#pragma once
#include "inferd/client/exchange.h"
#include "inferd/client/thorax.h"

/** Makes the public answer from a checked reply; takes envelope, also on error (MEMORY). */
bool answer_fill(struct thorax_answer *out, const struct question *question, Thorax__V1__Envelope *envelope,
                 struct error *err);
