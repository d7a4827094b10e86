#pragma once
#include "common/base/error.h"
#include "common/pool/message.h"
#include <stdio.h>

/** How a rollout is, as text for a terminal. members may be NULL. */
void rollout_show_text(const Thorax__V1__RolloutStatus *status, const Thorax__V1__ModelsReply *members,
                       FILE *out);
/** The same as one JSON object. */
bool rollout_show_json(const Thorax__V1__RolloutStatus *status, const Thorax__V1__ModelsReply *members,
                       FILE *out, struct error *err);
