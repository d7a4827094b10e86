#pragma once
#include "inferd/job.h"

/** Jobs that wait, the urgent ones before the others, each kind first come first served. Not thread-safe; its
 * owner locks. */
struct lanes {
    struct lane {
        struct job *first, *last;
    } lanes[2]; /**< [0] urgent */
    int count;
};

void lanes_push(struct lanes *lanes, struct job *job);
/** The next job, still inside; NULL where there is none. */
struct job *lanes_peek(const struct lanes *lanes);
/** Takes the next job out; NULL where there is none. */
struct job *lanes_pop(struct lanes *lanes);
/** Takes out the first job of the model, NULL: of any; NULL where there is none. */
struct job *lanes_pop_of(struct lanes *lanes, const struct model *model);
/** How many jobs of the model are inside; counts no further than limit. */
int lanes_count_of(const struct lanes *lanes, const struct model *model, int limit);
/** The earliest batch_ns of all that wait; INT64_MAX where none does. */
int64_t lanes_oldest_ns(const struct lanes *lanes);
