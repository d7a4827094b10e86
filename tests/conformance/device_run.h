#pragma once
#include "common/device/device.h"

/** Runs one kernel of any device on canonical host tensors: for conformance and gradient tests. */
struct device_run {
    struct device *device;
    const struct kernel_request *request;
    bool in_place; /**< outputs take over the buffers that op_arguments allows, where the kernel's
                      descriptions agree */

    struct op_args prepared; /**< out: what the kernel insisted on */
    char implementation[64]; /**< out */
    bool shared;             /**< out: an output did take over a buffer */
};

/** Device memory that a forward pass leaves for the backward passes. Zero it before the forward pass. */
struct workspace {
    void *data;
    size_t bytes;
};

/** A canonical host tensor for every argument of the request but workspace and scratch. Free with
 * host_tensors_fini. */
bool host_tensors_init(struct tensor tensors[ARG_COUNT], const struct op_args *args, struct error *err);
void host_tensors_fini(struct tensor tensors[ARG_COUNT]);

/** Elements of floating and integer tensors alike. */
double host_get(const struct tensor *tensor, int64_t i);
void host_set(struct tensor *tensor, int64_t i, double value);

/**
 * Prepares the request, brings the inputs to the device in the layouts that the kernel wants, runs, and
 * brings the outputs back, as a plan would. A forward pass fills in workspace, a backward pass reads it.
 */
bool device_run(struct device_run *run, struct tensor tensors[ARG_COUNT], struct workspace *workspace,
                struct error *err);

/** Frees what a forward pass left. */
void workspace_fini(struct workspace *workspace, struct device *device);
