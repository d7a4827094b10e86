#include "trainerd/cluster_launcher.h"

#include "common/base/text.h"
#include "trainerd/cluster_place.h"

#include <stdint.h>
#include <stdlib.h>

enum { FIRST_PORT = 15000, PORTS = 17000 };

static bool is_set(const char *name) {
    return getenv(name) != NULL;
}

static bool read_text(const char *name, const char **out, struct error *err) {
    *out = getenv(name);
    return *out || error_set(err, ERROR_INVALID, "%s is not set", name);
}

static bool read_number(const char *name, int64_t low, int64_t high, int64_t *out, struct error *err) {
    const char *text;
    return read_text(name, &text, err) && (text_to_int(text, low, high, out, err) || error_prefix(err, "%s", name));
}

static bool read_int(const char *name, int low, int high, int *out, struct error *err) {
    int64_t value;
    if (!read_number(name, low, high, &value, err))
        return false;
    *out = (int)value;
    return true;
}

/** Fowler, Noll and Vo's hash FNV-1a: spreads the numbers of jobs that follow each other. */
static uint64_t hash_text(uint64_t hash, const char *text) {
    for (; *text; text++)
        hash = (hash ^ (uint8_t)*text) * UINT64_C(1099511628211);
    return hash;
}

/** The same of all tasks of a job, and seldom the same of two jobs. */
static int port_of(const char *job, const char *part) {
    uint64_t hash = hash_text(hash_text(hash_text(UINT64_C(14695981039346656037), job), "."), part);
    return FIRST_PORT + (int)(hash % PORTS);
}

/** Refuses a value above `most`; `from` is the variable that most comes of, and stands for `total`. */
static bool check_most(int value, const char *name, int most, const char *from, int total, struct error *err) {
    return value <= most || error_set(err, ERROR_INVALID, "%s is %d, but %s is %d", name, value, from, total);
}

/** An index, and the number of things that it counts. */
static bool check_index(int value, const char *name, int count, const char *from, struct error *err) {
    return check_most(value, name, count - 1, from, count, err);
}

bool cluster_slurm_present(void) {
    return is_set("SLURM_STEP_ID");
}

/** The step's own figure first: SLURM_NTASKS may still be the job's that it is a part of. */
static const char *slurm_tasks_name(void) {
    return is_set("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
}

/** What was asked for on each node, where what came of it is not told. */
static bool slurm_local_asked(struct cluster_task *out, struct error *err) {
    out->local_tasks_name = "SLURM_NTASKS_PER_NODE";
    if (!read_int("SLURM_NTASKS_PER_NODE", 1, CLUSTER_NODES_MAX, &out->local_tasks, err))
        return false;
    out->several = out->local_tasks > 1;
    return check_most(out->local_tasks, "SLURM_NTASKS_PER_NODE", out->tasks, slurm_tasks_name(), out->tasks, err);
}

/** SLURM_STEP_TASKS_PER_NODE has every node of the step. */
static bool slurm_local(struct cluster_task *out, struct error *err) {
    static const char name[] = "SLURM_STEP_TASKS_PER_NODE";
    struct hostlist_tasks counts;
    const char *list;
    int64_t node;
    if (!is_set(name) && is_set("SLURM_NTASKS_PER_NODE"))
        return slurm_local_asked(out, err);
    if (!read_number("SLURM_NODEID", 0, CLUSTER_NODES_MAX - 1, &node, err) || !read_text(name, &list, err))
        return false;
    if (!hostlist_tasks(list, node, &counts, err))
        return error_prefix(err, "%s", name);
    if (counts.tasks != out->tasks)
        return error_set(err, ERROR_INVALID, "%s \"%.60s\" are %lld tasks, but %s is %d", name, list, (long long)counts.tasks,
                         slurm_tasks_name(), out->tasks);
    out->local_tasks_name = name;
    out->local_tasks = (int)counts.here;
    out->several = counts.most > 1;
    return true;
}

/** Task 0, which coordinates, runs on the first host of the step. */
static bool slurm_host(struct cluster_task *out, struct error *err) {
    bool job = !is_set("SLURM_STEP_NODELIST") && is_set("SLURM_JOB_NODELIST");
    const char *name = job ? "SLURM_JOB_NODELIST" : "SLURM_STEP_NODELIST", *list;
    int node = 0;
    if (!read_text(name, &list, err))
        return false;
    if (!hostlist_first(list, out->host, err))
        return error_prefix(err, "%s", name);
    if (out->task == 0 && is_set("SLURM_NODEID") && !read_int("SLURM_NODEID", 0, CLUSTER_NODES_MAX - 1, &node, err))
        return false;
    if (node == 0)
        return true;
    error_set(err, ERROR_INVALID, "task 0 runs on node %d (SLURM_NODEID) and not on %s, the first of %s", node, out->host, name);
    return error_hint(err, "leave the distribution of tasks over nodes to srun, or set cluster.coordinator");
}

static bool slurm_port(struct cluster_task *out, struct error *err) {
    int64_t job, step;
    if (!read_number("SLURM_JOB_ID", 0, UINT32_MAX, &job, err) || !read_number("SLURM_STEP_ID", 0, UINT32_MAX, &step, err))
        return false;
    out->port = port_of(getenv("SLURM_JOB_ID"), getenv("SLURM_STEP_ID"));
    return true;
}

bool cluster_slurm_read(struct cluster_task *out, struct error *err) {
    const char *tasks = slurm_tasks_name();
    *out = (struct cluster_task){.source = "Slurm", .local_tasks = 1, .local_tasks_name = tasks};
    if (!slurm_port(out, err) || !read_int(tasks, 1, CLUSTER_NODES_MAX, &out->tasks, err))
        return error_hint(err, "start trainerd by srun, or say cluster.launcher: none");
    return out->tasks == 1 ||
           (read_int("SLURM_PROCID", 0, CLUSTER_NODES_MAX - 1, &out->task, err) &&
            check_index(out->task, "SLURM_PROCID", out->tasks, tasks, err) && slurm_local(out, err) &&
            read_int("SLURM_LOCALID", 0, CLUSTER_NODES_MAX - 1, &out->local_task, err) &&
            check_index(out->local_task, "SLURM_LOCALID", out->local_tasks, out->local_tasks_name, err) && slurm_host(out, err));
}

/** Scripts for PyTorch export some of its variables without it: those three together, or its own, mean a task. */
bool cluster_torchrun_present(void) {
    return is_set("TORCHELASTIC_RUN_ID") || (is_set("RANK") && is_set("WORLD_SIZE") && is_set("MASTER_ADDR"));
}

/** torchrun's own store listens on MASTER_PORT, where it is torchrun that set it. */
static bool torchrun_port(struct cluster_task *out, struct error *err) {
    const char *run = getenv("TORCHELASTIC_RUN_ID");
    if (!read_int("MASTER_PORT", 1, UINT16_MAX, &out->port, err))
        return false;
    if (run)
        out->port = port_of(run, getenv("MASTER_PORT"));
    return true;
}

static bool torchrun_host(struct cluster_task *out, struct error *err) {
    const char *host;
    return read_text("MASTER_ADDR", &host, err) &&
           (text_copy(out->host, sizeof out->host, host) ||
            error_set(err, ERROR_TOO_LARGE, "MASTER_ADDR: longer than a host's name may be"));
}

/** GROUP_WORLD_SIZE, where it is, is the number of nodes: the others may have more tasks than this one. */
static bool torchrun_several(struct cluster_task *out, struct error *err) {
    int groups = out->tasks;
    if (is_set("GROUP_WORLD_SIZE") && !read_int("GROUP_WORLD_SIZE", 1, CLUSTER_NODES_MAX, &groups, err))
        return false;
    out->several = out->local_tasks > 1 || groups < out->tasks;
    return true;
}

bool cluster_torchrun_read(struct cluster_task *out, struct error *err) {
    *out = (struct cluster_task){.source = "torchrun", .local_tasks_name = "LOCAL_WORLD_SIZE"};
    bool ok = read_int("WORLD_SIZE", 1, CLUSTER_NODES_MAX, &out->tasks, err) &&
              read_int("RANK", 0, CLUSTER_NODES_MAX - 1, &out->task, err) &&
              check_index(out->task, "RANK", out->tasks, "WORLD_SIZE", err) &&
              read_int("LOCAL_WORLD_SIZE", 1, CLUSTER_NODES_MAX, &out->local_tasks, err) &&
              check_most(out->local_tasks, "LOCAL_WORLD_SIZE", out->tasks, "WORLD_SIZE", out->tasks, err) &&
              read_int("LOCAL_RANK", 0, CLUSTER_NODES_MAX - 1, &out->local_task, err) &&
              check_index(out->local_task, "LOCAL_RANK", out->local_tasks, "LOCAL_WORLD_SIZE", err) &&
              torchrun_several(out, err) && torchrun_host(out, err) && torchrun_port(out, err);
    return ok || error_hint(err, "start trainerd by torchrun --no-python, or say cluster.launcher: none");
}
