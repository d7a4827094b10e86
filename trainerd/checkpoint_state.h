#pragma once
#include "trainerd/checkpoint.h"

/** The state as one line of JSON, owned; NULL on error. Numbers come back from checkpoint_state_parse exactly. */
char *checkpoint_state_print(const struct training_state *state, struct error *err);

/** ERROR_FORMAT names the key that is missing or of the wrong type. */
bool checkpoint_state_parse(const char *text, struct training_state *out, struct error *err);
