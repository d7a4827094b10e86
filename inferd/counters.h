#pragma once
#include "common/metrics/histogram.h"
#include "inferd/instances.h"
#include "proto/diagnosis.pb-c.h"
#include <stdatomic.h>
#include <stdint.h>

enum { COUNTERS_STATUSES = THORAX__V1__STATUS__STATUS_PERMISSION_DENIED + 1 };

/** What a request that was accepted goes through; times are in microseconds. */
enum counters_stage {
    COUNTERS_QUEUE,   /**< waiting for a decoding thread */
    COUNTERS_DECODE,  /**< digest, decoding, resizing */
    COUNTERS_BATCH,   /**< waiting for company and for the inference thread */
    COUNTERS_COMPUTE, /**< the network, for the whole batch that the request was part of */
    COUNTERS_STAGES
};

/** What one instance does. */
struct counters_instance {
    _Atomic uint64_t batches, busy_us;  /**< computed, and how long that took */
    _Atomic int64_t computing_since_ms; /**< when the batch under way began (monotonic); 0: none is */
    char device[DEVICE_TEXT_SIZE];      /**< what it computes on; set before the threads start */
};

/** What the daemon counts, for status replies and metrics. Any thread; zeroed at the start. */
struct counters {
    _Atomic uint64_t by_status[COUNTERS_STATUSES];
    _Atomic uint64_t batches, images, compute_us;
    _Atomic uint64_t undelivered;
    struct histogram stages[COUNTERS_STAGES]; /**< of requests that came so far */
    struct histogram request;                 /**< from acceptance to the reply, whatever its status */
    struct histogram batch_images;            /**< images in a batch */
    int instance_count; /**< set before the threads start */
    _Atomic int lost;   /**< instances whose device is lost: they compute nothing any more */
    struct counters_instance instances[INSTANCES_MAX];
};
