#pragma once
#include "trainerd/cluster_coordinator.h"
#include "trainerd/cluster_members.h"
#include "trainerd/rendezvous.h"

/* What cluster_coordinator.c, which talks to nodes, and cluster_generation.c, which decides, share. */

enum phase { PHASE_GATHER, PHASE_RUN, PHASE_END, PHASE_OVER };

/* Whose fault it was that the last generation was lost. */
struct blamed {
    int node, place;   /* node -1: nobody's in particular */
    uint64_t instance; /* of the node */
    bool alone;        /* of all that were lost in a row */
};

struct coordinator {
    struct coordinator_spec spec;
    struct cluster_members members;
    struct rendezvous_server *rendezvous; /* of the generation that runs; NULL: none does */
    enum phase phase;
    int64_t phase_ms, stepped_ms; /* when it began; when coordinator_step was last called */
    struct cluster_orders orders; /* of all nodes alike; each has its own share */
    int64_t joined_ms;            /* when all ranks had met; 0: they have not */
    bool told;                    /* somebody wants the run to stop */
    struct error failure;         /* what was found wrong first in this generation */
    bool fatal;
    int failed_rank; /* whom that is about; -1: nobody in particular */
    int suspect;
    int64_t suspect_silent_ms;
    int64_t saved_step;
    int lost; /* generations in a row, without a new checkpoint */
    struct blamed blamed;
    enum cluster_outcome outcome;
    struct error reason;
    struct cluster_end ends[RENDEZVOUS_RANKS_MAX];
    bool ended[RENDEZVOUS_RANKS_MAX];
    int node_of[RENDEZVOUS_RANKS_MAX], place_of[RENDEZVOUS_RANKS_MAX];
    int64_t heard_ago_ms[RENDEZVOUS_RANKS_MAX];
};

/* --- of cluster_coordinator.c --- */

void coordinator_tell(const struct coordinator *coordinator, const char *event, const struct metric *metrics, int count);
void coordinator_send_orders(struct coordinator *coordinator);

/* --- of cluster_generation.c --- */

/** Starts a generation as soon as there are ranks enough, or gives up. */
void generation_gather(struct coordinator *coordinator, int64_t now_ms);
/** What is due while it runs or ends; and what comes of it. */
void generation_follow(struct coordinator *coordinator, int64_t now_ms);
/** A rank's process has ended. */
void generation_note_end(struct coordinator *coordinator, const struct cluster_end *end);
/** A rank's process lives, and is not let run. */
void generation_note_stopped(struct coordinator *coordinator, int rank);
/**
 * It cannot go on: the first thing that was wrong is why. cause NULL: the ranks' own ends will tell. fatal: it would come again.
 * kill_rank: the one that the cause is about, which is not asked to end; -1: all are.
 */
void generation_end(struct coordinator *coordinator, const struct error *cause, bool fatal, int kill_rank);
