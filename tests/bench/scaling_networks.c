#include "tests/bench/scaling.h"

#include <math.h>

#define GB_PER_S 1e6 /* in bytes a millisecond */
#define US 1e-3      /* in milliseconds */

/*
 * alpha is what one message of a ring costs, beta what goes through one direction of a rank's own adapter.
 *
 * TCP: a frame of 1538 bytes on the wire carries 1448 (IEEE 802.3 with an MTU of 1500; IPv4, TCP with time stamps). Tens of
 * microseconds a message: Barroso, Marty, Patterson and Ranganathan, "Attack of the killer microseconds", CACM 60(4), 2017.
 * RoCE and InfiniBand: 4096 bytes of payload in 4178 on the wire (RoCE v2: Ethernet 38, IPv4 20, UDP 8, BTH 12, ICRC 4) or 4122
 * (LRH 8, BTH 12, ICRC 4, VCRC 2), from the InfiniBand Architecture Specification; data rates HDR 200 and NDR 400 Gb/s. 14 us is
 * what NCCL itself counts for a step of a ring over a network, 3.4 us over NVLink, 20.6 GB/s for each of a Hopper GPU's 18 links
 * (src/graph/tuning.cc: hwLat, ring, simple; src/graph/topo.h: SM90_NVLINK_BW).
 */
const struct scaling_network scaling_networks[] = {
    {"10 GbE, TCP", {30 * US, 1.25 * 1448 / 1538 * GB_PER_S}, 512, true, "IEEE 802.3 framing; Barroso et al. 2017"},
    {"25 GbE, TCP", {30 * US, 3.125 * 1448 / 1538 * GB_PER_S}, 512, true, "IEEE 802.3 framing; Barroso et al. 2017"},
    {"100 GbE, RoCE v2", {14 * US, 12.5 * 4096 / 4178 * GB_PER_S}, 512, false, "IBTA framing; NCCL tuning.cc"},
    {"InfiniBand HDR, 200 Gb/s", {14 * US, 25.0 * 4096 / 4122 * GB_PER_S}, 512, false, "IBTA framing; NCCL tuning.cc"},
    {"InfiniBand NDR, 400 Gb/s", {14 * US, 50.0 * 4096 / 4122 * GB_PER_S}, 512, false, "IBTA framing; NCCL tuning.cc"},
    {"NVLink 4 in a node", {3.4 * US, 18 * 20.6 * GB_PER_S}, 8, false, "NCCL tuning.cc, topo.h"},
    {0},
};

double scaling_error(const struct scaling_local *local) {
    return (local->predicted.step_ms + local->words_ms) / local->measured_ms - 1;
}

/*
 * A lone rank's compute over its batch is a line through what was measured for a rank's batch and for that of all; where the line
 * would begin below zero it begins at zero. In parts of the compute for a rank's own batch.
 */
static double compute_for(const struct scaling *scaling, double batch) {
    const struct scaling_local *local = &scaling->local[0];
    double small = local->lone_ms - local->step.update_ms, large = scaling->whole_ms - local->step.update_ms;
    double an_image = (large - small) / (scaling->subject.batch - local->batch), fixed = small - an_image * local->batch;
    if (!(fixed > 0)) {
        fixed = 0;
        an_image = small / local->batch;
    }
    return (fixed + an_image * batch) / small;
}

/* The step of a rank with that many images, by the schedule that was measured. */
static struct scaling_step step_of(const struct scaling *scaling, double batch, struct scaling_bucket buckets[SCALING_BUCKETS]) {
    struct scaling_step step = scaling->local[0].step;
    double pace = scaling->step_ms > 0 ? scaling->step_ms / (step.compute_ms + step.update_ms) : 1;
    double compute = pace * compute_for(scaling, batch);
    for (int i = 0; i < step.count; i++)
        buckets[i] = (struct scaling_bucket){step.buckets[i].ready_ms * compute, step.buckets[i].bytes};
    step.buckets = buckets;
    step.compute_ms *= compute;
    step.update_ms *= pace;
    return step;
}

struct ring scaling_ring(const struct scaling *scaling, const struct scaling_network *network) {
    const struct ring *here = &scaling->local[0].ring;
    if (!network->by_cores)
        return network->ring;
    return (struct ring){fmax(network->ring.alpha_ms, here->alpha_ms), fmin(network->ring.bytes_per_ms, here->bytes_per_ms)};
}

static double over_ms(const struct scaling *scaling, const struct scaling_network *network, int ranks, double batch) {
    struct scaling_bucket buckets[SCALING_BUCKETS];
    struct scaling_step step = step_of(scaling, batch, buckets);
    struct scaling_slowdown none = {1, 1};
    struct ring ring = scaling_ring(scaling, network);
    double words_ms = (ranks - 1) * ring.alpha_ms;
    return words_ms + scaling_predict(&step, &ring, ranks, network->by_cores ? &scaling->local[0].slowdown : &none).step_ms;
}

struct scaling_efficiency scaling_over(const struct scaling *scaling, const struct scaling_network *network, int ranks) {
    double batch = scaling->local[0].batch, all = SCALING_STRONG_BATCH;
    if (ranks > network->most_ranks)
        return (struct scaling_efficiency){NAN, NAN};
    double weak = over_ms(scaling, network, 1, batch) / over_ms(scaling, network, ranks, batch);
    double share_ms = over_ms(scaling, network, ranks, all / ranks);
    return (struct scaling_efficiency){weak, over_ms(scaling, network, 1, all) / (ranks * share_ms)};
}
