#pragma once
#include "common/pool/descriptor.h"
#include "trainerd/trainctl/control.h"

/**
 * Hands the described file to the publisher, chunk by chunk and each only when the one before it was heard,
 * from where an earlier upload of the same file stopped. data: descriptor->size_bytes of it. True: it is
 * published.
 */
bool upload_model(struct control *control, const struct descriptor *descriptor, const void *data,
                  struct error *err);
