#include "inferd/lanes.h"

void lanes_push(struct lanes *lanes, struct job *job) {
    struct lane *lane = &lanes->lanes[job->urgent ? 0 : 1];
    job->next = NULL;
    if (lane->last) {
        lane->last->next = job;
    } else {
        lane->first = job;
    }
    lane->last = job;
    lanes->count++;
}

struct job *lanes_peek(const struct lanes *lanes) {
    return lanes->lanes[0].first ? lanes->lanes[0].first : lanes->lanes[1].first;
}

struct job *lanes_pop(struct lanes *lanes) {
    return lanes_pop_of(lanes, NULL);
}

static struct job *lane_pop_of(struct lane *lane, const struct model *model) {
    struct job *before = NULL;
    for (struct job *job = lane->first; job; before = job, job = job->next) {
        if (model && job->model != model) {
            continue;
        }
        *(before ? &before->next : &lane->first) = job->next;
        if (lane->last == job) {
            lane->last = before;
        }
        job->next = NULL;
        return job;
    }
    return NULL;
}

struct job *lanes_pop_of(struct lanes *lanes, const struct model *model) {
    struct job *job = lane_pop_of(&lanes->lanes[0], model);
    if (!job) {
        job = lane_pop_of(&lanes->lanes[1], model);
    }
    lanes->count -= job ? 1 : 0;
    return job;
}

int lanes_count_of(const struct lanes *lanes, const struct model *model, int limit) {
    int count = 0;
    for (int i = 0; i < 2; i++) {
        for (const struct job *job = lanes->lanes[i].first; job && count < limit; job = job->next) {
            count += job->model == model;
        }
    }
    return count;
}

int64_t lanes_oldest_ns(const struct lanes *lanes) {
    int64_t oldest = INT64_MAX;
    for (int i = 0; i < 2; i++) {
        const struct job *job = lanes->lanes[i].first;
        if (job && job->batch_ns < oldest) {
            oldest = job->batch_ns;
        }
    }
    return oldest;
}
