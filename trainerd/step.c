#include "trainerd/step.h"

#include "common/base/clock.h"

/** Tickets of reductions under way. */
struct tickets {
    int count;
    int ids[COLLECTIVE_TICKETS];
};

static bool wait_all(const struct step *step, struct tickets *tickets, struct error *err) {
    int64_t deadline_ms = clock_now_ms() + step->timeout_ms;
    for (int i = 0; i < tickets->count; i++) {
        if (!collective_wait(step->collective, tickets->ids[i], deadline_ms, err))
            return false;
    }
    tickets->count = 0;
    return true;
}

/** Gradients are due to the other ranks in the last part only; what blocks is, in every part. */
static bool start_reductions(const struct step *step, int segment, bool last, struct tickets *tickets, struct error *err) {
    const struct plan_reduction *reductions;
    int count = plan_reductions(step->plan, segment, &reductions);
    for (int i = 0; i < count; i++) {
        if (!last && !reductions[i].blocking)
            continue;
        if (tickets->count == COLLECTIVE_TICKETS && !wait_all(step, tickets, err))
            return false;
        int *ticket = &tickets->ids[tickets->count];
        struct collective_piece piece = {.buffer = reductions[i].buffer,
                                         .dtype = reductions[i].dtype,
                                         .count = reductions[i].count,
                                         .ready = reductions[i].ready};
        if (!collective_start(step->collective, &piece, ticket, err))
            return false;
        tickets->count++;
        if (reductions[i].blocking && !wait_all(step, tickets, err))
            return false;
    }
    return true;
}

/** Runs one part of the share; the last one's gradients go to the other ranks as they become ready. */
static bool run_part(const struct step *step, const struct step_input *input, bool last, struct tickets *tickets,
                     struct error *err) {
    if (!plan_set_images(step->plan, input->images, err) || !plan_set_targets(step->plan, input->labels, input->seed, err))
        return false;
    for (int segment = 0; segment < plan_segment_count(step->plan); segment++) {
        if (!plan_run_segment(step->plan, segment, err) || !start_reductions(step, segment, last, tickets, err))
            return false;
    }
    return true;
}

bool step_run(const struct step *step, const struct step_input *input, const float hyper[HYPER_COUNT], struct error *err) {
    struct tickets tickets = {0};
    struct step_input rest = *input;
    struct plan_shape shape;
    plan_shape(step->plan, &shape);
    for (int part = 0; part < shape.parts; part++) {
        plan_set_part(step->plan, part);
        if (!run_part(step, &rest, part + 1 == shape.parts, &tickets, err))
            return false;
        rest.images += shape.batch * shape.image_values;
        rest.labels += shape.batch;
        rest.seed[2] += shape.batch;
    }
    return wait_all(step, &tickets, err) && plan_update(step->plan, hyper, err);
}

bool step_loss(const struct step *step, float *loss, struct error *err) {
    struct plan_shape shape;
    float part_loss = 0;
    plan_shape(step->plan, &shape);
    *loss = 0;
    for (int part = 0; part < shape.parts; part++) {
        plan_set_part(step->plan, part);
        if (!plan_read_loss(step->plan, &part_loss, err))
            return false;
        *loss += part_loss / (float)shape.parts;
    }
    return true;
}
