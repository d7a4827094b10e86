#include "trainerd/step.h"

#include "common/base/clock.h"

/**
 * Blocking sums that are queued before the host looks whether the first of them is done. Where a rank is lost, the stream waits
 * without end, and a host that queues kernels behind it is stopped by the driver once its queue is full: before that, it has to
 * come to where it watches the clock.
 */
enum { RUN_AHEAD = 8 };

bool step_init(struct step *step, const struct step_spec *spec, struct error *err) {
    struct device_info info = {0};
    struct plan_shape shape;
    *step = (struct step){.spec = *spec};
    plan_shape(spec->plan, &shape);
    spec->device->ops->info(spec->device, &info);
    step->losses = spec->device->ops->host_alloc(spec->device, (size_t)shape.parts * sizeof *step->losses, err);
    return step->losses && (info.host_memory || spec->device->ops->event_create(spec->device, &step->over, err));
}

void step_fini(struct step *step) {
    struct device *device = step->spec.device;
    if (step->over)
        device->ops->event_destroy(device, step->over);
    if (step->losses)
        device->ops->host_free(device, step->losses);
    *step = (struct step){0};
}

/* --- sums --- */

/** The host waits for the first `end` tickets. */
static bool wait_for(const struct step *step, struct step_tickets *tickets, int end, struct error *err) {
    int64_t deadline_ms = clock_now_ms() + step->spec.timeout_ms;
    for (; tickets->waited < end; tickets->waited++) {
        if (!collective_wait(step->spec.collective, tickets->ids[tickets->waited], deadline_ms, err))
            return false;
    }
    return true;
}

/** What the plan does from now on comes behind all sums that were started. */
static bool join(const struct step *step, struct step_tickets *tickets, struct error *err) {
    struct device *device = step->spec.device;
    struct event *done =
        tickets->count ? collective_done_event(step->spec.collective, tickets->ids[tickets->count - 1]) : NULL;
    if (!done)
        return wait_for(step, tickets, tickets->count, err);
    return device->ops->stream_wait(device, NULL, done, err) && wait_for(step, tickets, tickets->count - RUN_AHEAD, err);
}

static bool start_sum(const struct step *step, const struct plan_reduction *sum, struct step_tickets *tickets,
                      struct error *err) {
    struct collective_piece piece = {.buffer = sum->buffer, .dtype = sum->dtype, .count = sum->count, .ready = sum->ready};
    if (tickets->count == COLLECTIVE_TICKETS) {
        if (!wait_for(step, tickets, tickets->count, err))
            return false;
        tickets->count = tickets->waited = 0;
    }
    if (!collective_start(step->spec.collective, &piece, &tickets->ids[tickets->count], err))
        return false;
    tickets->count++;
    return !sum->blocking || join(step, tickets, err);
}

/** Gradients are due to the other ranks in the last part only; what blocks is, in every part. */
static bool start_sums(const struct step *step, int segment, bool last, struct step_tickets *tickets, struct error *err) {
    const struct plan_reduction *sums;
    int count = plan_reductions(step->spec.plan, segment, &sums);
    for (int i = 0; i < count; i++) {
        if ((last || sums[i].blocking) && !start_sum(step, &sums[i], tickets, err))
            return false;
    }
    return true;
}

/* --- a step --- */

/** Runs one part of the share; the last one's gradients go to the other ranks as they become ready. */
static bool run_part(const struct step *step, const struct step_input *input, bool last, struct step_tickets *tickets,
                     struct error *err) {
    struct plan *plan = step->spec.plan;
    if (!plan_set_images(plan, input->images, err) || !plan_set_targets(plan, input->labels, input->seed, err))
        return false;
    for (int segment = 0; segment < plan_segment_count(plan); segment++) {
        if (!plan_run_segment(plan, segment, err) || !start_sums(step, segment, last, tickets, err))
            return false;
    }
    return true;
}

static bool run_parts(const struct step *step, const struct step_input *input, struct step_tickets *tickets, struct error *err) {
    struct step_input rest = *input;
    struct plan_shape shape;
    plan_shape(step->spec.plan, &shape);
    for (int part = 0; part < shape.parts; part++) {
        plan_set_part(step->spec.plan, part);
        if (!run_part(step, &rest, part + 1 == shape.parts, tickets, err) ||
            !plan_fetch_loss(step->spec.plan, &step->losses[part], err))
            return false;
        rest.images = (const char *)rest.images + (size_t)shape.batch * shape.image_bytes;
        rest.labels += shape.batch;
        rest.seed[2] += shape.batch;
    }
    return true;
}

/** Behind the sums, so that only this device can keep the host waiting now. */
static bool await_end(const struct step *step, struct error *err) {
    enum { EAGER_POLLS = 1000, POLL_US = 50 };
    struct device *device = step->spec.device;
    int64_t deadline_ms = clock_now_ms() + step->spec.timeout_ms;
    int done = step->over == NULL;
    for (int polls = 0; done == 0; polls++) {
        done = device->ops->event_done(device, step->over, err);
        if (done == 0 && clock_left_ms(deadline_ms) == 0)
            return error_set(err, ERROR_TIMEOUT, "the device has not ended the step within %.1f s",
                             (double)step->spec.timeout_ms / 1000);
        if (done == 0 && polls > EAGER_POLLS)
            clock_sleep_us(POLL_US);
    }
    return done > 0;
}

static bool queue_step(struct step *step, const struct step_input *input, const float hyper[HYPER_COUNT], struct error *err) {
    struct device *device = step->spec.device;
    step->tickets = (struct step_tickets){0};
    return run_parts(step, input, &step->tickets, err) && join(step, &step->tickets, err) &&
           plan_update(step->spec.plan, hyper, err) &&
           (!step->over || device->ops->event_record(device, step->over, NULL, err));
}

/** Nothing here waits for the other ranks any more. Returns false. */
static bool give_up(const struct step *step) {
    collective_abort(step->spec.collective);
    collective_barrier(step->spec.collective, NULL); /* this thread is to let go of it: that takes a call of its own */
    return false;
}

static float mean_loss(const struct step *step) {
    struct plan_shape shape;
    float sum = 0;
    plan_shape(step->spec.plan, &shape);
    for (int part = 0; part < shape.parts; part++)
        sum += step->losses[part] / (float)shape.parts;
    return sum / plan_loss_scale(step->spec.plan);
}

bool step_begin(struct step *step, const struct step_input *input, const float hyper[HYPER_COUNT], struct error *err) {
    return queue_step(step, input, hyper, err) || give_up(step);
}

bool step_end(struct step *step, float *loss, struct error *err) {
    if (!wait_for(step, &step->tickets, step->tickets.count, err) || !await_end(step, err))
        return give_up(step);
    *loss = mean_loss(step);
    return true;
}

bool step_run(struct step *step, const struct step_input *input, const float hyper[HYPER_COUNT], float *loss,
              struct error *err) {
    return step_begin(step, input, hyper, err) && step_end(step, loss, err);
}
