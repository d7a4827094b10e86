/*
 * batch_norm [THREADS]: how fast the oneDNN device's batch norm with ReLU goes through memory, forward and backward, in f32 and
 * bf16, in blocked and in channels-last layouts, beside what a copy reaches, in the loops of each instruction set that this CPU
 * has. A pass over the tensor counts once: 3 forward (read for the moments, read, write), 5 backward (both inputs twice, write).
 */
#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/device/onednn/compat.h"
#include "common/device/onednn/kernel.h"
#include "common/device/onednn/onednn.h"
#include "common/op/precision.h"
#include "tests/bench/bandwidth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 25, MOST_THREADS = 1024 };

struct work {
    struct kernel *kernel;
    void *buffers[ARG_COUNT];
};

static bool ask_for_layout(struct onednn_device *device, struct op_args *args, dnnl_format_tag_t tag, struct error *err) {
    for (int arg = ARG_NONE + 1; arg < ARG_COUNT; arg++) {
        struct tensor_desc *desc = &args->desc[arg];
        struct md md = {0};
        if (args->direction[arg] == ARG_ABSENT || desc->shape.rank != 4)
            continue;
        bool good = md_tagged(&md, desc->dtype, &desc->shape, tag, err) && layout_intern(device, &md, &desc->layout, err);
        md_fini(&md);
        if (!good)
            return false;
    }
    return true;
}

/* The buffer of an output that may take over an input's, as plans let it. */
static void *taken_over(const struct work *work, enum arg arg) {
    enum arg over = work->kernel->args.in_place[arg];
    return work->kernel->pass == PASS_BACKWARD_DATA && over != ARG_NONE ? work->buffers[over] : NULL;
}

/* The buffers of arguments that `from` has too are shared with it; backward passes work in place. */
static bool work_init(struct work *work, struct device *device, const struct kernel_request *request, const struct work *from,
                      struct error *err) {
    *work = (struct work){.kernel = kernel_prepare(device, request, err)};
    if (!work->kernel)
        return false;
    for (int arg = ARG_NONE + 1; arg < ARG_COUNT; arg++) {
        void *shared = from && arg != ARG_SCRATCH ? from->buffers[arg] : NULL;
        if (work->kernel->args.direction[arg] == ARG_ABSENT)
            continue;
        size_t bytes = work->kernel->args.desc[arg].bytes;
        shared = shared ? shared : taken_over(work, (enum arg)arg);
        work->buffers[arg] = shared ? shared : device->ops->alloc(device, bytes, err);
        if (!work->buffers[arg])
            return false;
    }
    return true;
}

/* Any numbers but zeros and denormals: bf16 patterns near one, in f32 too. */
static void fill(const struct work *work, enum arg arg) {
    uint16_t *halves = work->buffers[arg];
    uint32_t state = (uint32_t)arg;
    for (size_t i = 0; i < work->kernel->args.desc[arg].bytes / sizeof *halves; i++) {
        state = state * 1664525u + 1013904223u;
        halves[i] = (uint16_t)(0x3f00 | (state >> 31) << 15 | (state >> 20 & 0xff));
    }
}

/* Seconds of the fastest run. */
static bool time_run(struct work *work, double *seconds, struct error *err) {
    *seconds = 1e9;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t start = clock_now_ns();
        if (!kernel_run(work->kernel, work->buffers, NULL, err))
            return false;
        double took = (double)(clock_now_ns() - start) * 1e-9;
        *seconds = took < *seconds ? took : *seconds;
    }
    return true;
}

static void works_fini(struct work works[2], struct device *device) {
    for (int arg = 0; arg < ARG_COUNT; arg++) {
        void *own = works[1].buffers[arg];
        if (own != works[0].buffers[arg] && own != taken_over(&works[1], (enum arg)arg))
            device->ops->free(device, own);
        device->ops->free(device, works[0].buffers[arg]);
    }
    kernel_release(works[0].kernel);
    kernel_release(works[1].kernel);
}

static bool measure(struct device *device, const struct shape *shape, enum precision precision, dnnl_format_tag_t tag,
                    bool residual, struct error *err) {
    struct op op = {OP_BATCH_NORM,
                    .batch_norm = {.epsilon = 1e-5f, .momentum = .1f, .residual = residual, .activation = ACTIVATION_RELU}};
    struct shape inputs[] = {*shape, *shape};
    struct work works[2];
    double seconds[2];
    char text[SHAPE_TEXT_SIZE];
    for (int backward = 0; backward < 2; backward++) {
        struct kernel_request request = {.op = op, .pass = backward ? PASS_BACKWARD_DATA : PASS_FORWARD};
        if (!op_arguments(&op, request.pass, inputs, &request.args, err))
            return false;
        precision_apply(precision, &op, &request.args);
        if (!ask_for_layout((struct onednn_device *)device, &request.args, tag, err) ||
            !work_init(&works[backward], device, &request, backward ? &works[0] : NULL, err))
            return false;
        fill(&works[backward], backward ? ARG_DIFF_DST : ARG_SRC);
        if (!time_run(&works[backward], &seconds[backward], err))
            return false;
    }
    double bytes = (double)works[0].kernel->args.desc[ARG_SRC].bytes;
    printf("%-17s %-20s %-5s %-8s %-9s %8.2f %8.1f %8.2f %8.1f\n", works[0].kernel->implementation, shape_text(shape, text),
           precision_name(precision), tag == dnnl_acdb ? "nhwc" : "aBcd16b", residual ? "residual" : "", seconds[0] * 1e3,
           (residual ? 4 : 3) * bytes / seconds[0] * 1e-9, seconds[1] * 1e3, (residual ? 6 : 5) * bytes / seconds[1] * 1e-9);
    works_fini(works, device);
    return true;
}

static bool measure_loops(struct device *device, struct error *err) {
    static const int64_t shapes[][4] = {{16, 64, 112, 112}, {16, 256, 56, 56}, {16, 512, 28, 28}, {16, 2048, 7, 7}};
    static const dnnl_format_tag_t tags[] = {dnnl_aBcd16b, dnnl_acdb};
    static const enum precision every[] = {PRECISION_F32, PRECISION_BF16};
    const int precisions = compat_has_bf16() ? 2 : 1;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t t = 0; t < 2; t++)
            for (int p = 0; p < precisions; p++)
                for (int residual = 0; residual < 2; residual++) {
                    struct shape shape = shape_make(4, (const int64_t[SHAPE_MAX_RANK]){shapes[i][0], shapes[i][1], shapes[i][2],
                                                                                       shapes[i][3]});
                    if (!measure(device, &shape, every[p], tags[t], residual != 0, err))
                        return false;
                }
    return true;
}

static bool measure_all(struct device *device, struct error *err) {
    struct onednn_device *onednn = (struct onednn_device *)device;
    bool good = true;
    printf("%-17s %-20s %-5s %-8s %-9s %8s %8s %8s %8s\n", "loops", "shape", "in", "layout", "", "fwd ms", "GB/s", "bwd ms",
           "GB/s");
    for (int i = 0; good && (onednn->loops = loops_row(i)); i++)
        good = measure_loops(device, err);
    return good;
}

int main(int argc, char **argv) {
    int64_t threads = 2;
    struct error err = {0};
    struct bandwidth bandwidth;
    if (argc > 2 || (argc == 2 && !text_to_int(argv[1], 1, MOST_THREADS, &threads, &err))) {
        fprintf(stderr, "usage: batch_norm [THREADS]\n");
        return 2;
    }
    struct device *device = device_open(&(struct device_spec){.name = "onednn", .threads = (int)threads}, &err);
    bool good = device && bandwidth_init(&bandwidth, (int)threads, &err);
    double best = 0;
    for (int i = 0; good && i < 5; i++) {
        double rate = bandwidth_measure(&bandwidth);
        best = rate > best ? rate : best;
    }
    if (good)
        bandwidth_fini(&bandwidth);
    printf("copy: %.1f GB/s\n", best * 1e-9);
    good = good && measure_all(device, &err);
    if (!good)
        fprintf(stderr, "batch_norm: %s\n", err.message);
    device_close(device);
    return good ? 0 : 1;
}
