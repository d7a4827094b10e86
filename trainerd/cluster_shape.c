#include "trainerd/cluster_shape.h"

bool cluster_shape_check(const struct cluster_batch *batch, struct error *err) {
    return (long long)batch->images % ((long long)batch->ranks * batch->parts) == 0 ||
           error_set(err, ERROR_INVALID, "train.batch_size: %d images cannot be shared evenly by %d ranks and train.parts %d",
                     batch->images, batch->ranks, batch->parts);
}

void cluster_shape(const struct cluster_batch *batch, int available, int *ranks, int *parts) {
    int share = batch->images / batch->parts, taken = available < batch->ranks ? available : batch->ranks;
    while (taken > 1 && share % taken != 0)
        taken--;
    long long slices = (long long)batch->ranks * batch->parts; /* of the batch, as configured */
    bool even = slices % taken == 0 && batch->images % slices == 0;
    *ranks = taken;
    *parts = even && !batch->keeps_parts ? (int)(slices / taken) : batch->parts;
}
