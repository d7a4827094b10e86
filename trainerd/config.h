#pragma once
#include "common/base/log.h"
#include "common/config/security_config.h"
#include "common/image/augment.h"
#include "common/op/precision.h"
#include "trainerd/schedule.h"

/** Orders follow the choices in config_rows.c. */
enum trainer_optimizer { TRAINER_SGD, TRAINER_ADAMW };
enum trainer_scaling { TRAINER_SCALING_NONE, TRAINER_SCALING_LINEAR, TRAINER_SCALING_SQRT };
enum trainer_metric {
    TRAINER_METRIC_AUC,
    TRAINER_METRIC_BALANCED_ACCURACY,
    TRAINER_METRIC_ACCURACY,
    TRAINER_METRIC_MACRO_F1,
    TRAINER_METRIC_LOSS,
};
enum trainer_activate { TRAINER_ACTIVATE_AUTO, TRAINER_ACTIVATE_MANUAL };
enum trainer_rule { TRAINER_RULE_YOUDEN, TRAINER_RULE_SENSITIVITY };

struct trainer_run_config {
    const char *name, *directory;
    int64_t seed;
};

struct trainer_model_config {
    const char *architecture, *stem;
    int input_channels, size;
    const char *init; /**< weights to start from; "": fresh */
    double dropout;
    bool freeze_batch_norm, sync_batch_norm;
    struct double_list mean, stddev; /**< of grey / 255; empty: the recipe's own */
};

/** Paths are "" where not given. */
struct trainer_data_config {
    const char *name, *directory, *manifest, *npz, *invalid, *validation_list;
    struct string_list class_names; /**< in the order of the labels; empty: as the data has it */
    struct named_lists classes;     /**< class -> folders; none: directory's own layout */
    double validation_fraction;
    const char *cache_dir;
    int loader_threads, prefetch;
};

struct trainer_imbalance_config {
    bool class_weighted_loss, balanced_sampling;
};

struct trainer_train_config {
    int epochs, steps_per_epoch, batch_size; /**< batch_size: of all ranks and parts together */
    int parts;
    bool recompute;
    double label_smoothing, clip_norm, ema_decay;
    int early_stopping_patience;
    enum trainer_metric select_metric;
    enum precision precision;
};

struct trainer_optimizer_config {
    enum trainer_optimizer name;
    double learning_rate, momentum;
    enum trainer_scaling scaling;
    int scaling_batch;
    struct double_list betas; /**< two */
    double epsilon, weight_decay;
};

struct trainer_schedule_config {
    enum schedule_kind kind;
    double warmup_epochs, final_learning_rate_factor;
};

struct trainer_device_config {
    const char *name;
    int ranks, threads;
    bool winograd, graphs, augment, tf32;
    const char *algorithm_cache; /**< "": none */
};

struct trainer_collective_config {
    const char *name, *address;
    enum precision gradients; /* F32 or BF16 */
    size_t bucket_bytes;
    int timeout_seconds;
    bool trusted_network;
};

/** Order follows the choices in config_rows.c. */
enum trainer_launcher { TRAINER_LAUNCHER_AUTO, TRAINER_LAUNCHER_NONE, TRAINER_LAUNCHER_SLURM, TRAINER_LAUNCHER_TORCHRUN };

struct trainer_cluster_config {
    const char *coordinator; /**< "": as the launcher says, else this machine alone */
    int nodes, node;
    enum trainer_launcher launcher;
    int min_ranks, restarts;
    int join_seconds, silence_seconds, grace_seconds;
    const char *secret, *server_key; /**< "": none */
};

struct trainer_checkpoint_config {
    int every_epochs, every_steps, keep_last, keep_best;
    bool replicate;
};

struct trainer_operating_point_config {
    const char *name, *class_name;
    enum trainer_rule rule;
    double target;
};

struct trainer_publish_config {
    bool enabled;
    const char *name; /**< of the model; "": the run's */
    const char *to; /**< "": models are not handed over */
    int to_wait_seconds;
    const char *announce, *control, *blobs, *store, *sign_key, *server_key;
    struct string_list gate;
    bool stage;
    enum trainer_activate activate;
    const char *plan; /**< of rollouts that start by themselves: a name or a file; "": all members, one after the other */
    struct trainer_operating_point_config operating_point;
};

struct trainer_intended_use_config {
    double age_min_years, age_max_years;
    struct string_list views;
    const char *statement;
};

struct trainer_report_config {
    bool images;
    int bootstrap_samples;
};

struct trainer_http_config {
    const char *bind; /**< "": off */
};

struct trainer_log_config {
    enum log_level level;
    enum log_style style;
};

/**
 * All of trainerd's configuration, section by section as in the YAML. Plain data; strings and lists are owned
 * by the struct config that it was read through. What each key means stands in config_rows.c and nowhere
 * else.
 */
struct trainer_config {
    bool trains; /**< the file has a `train:` section; else trainerd only publishes */
    struct trainer_run_config run;
    struct trainer_model_config model;
    struct trainer_data_config data;
    struct augment augment;
    struct schema_table
        augment_class; /**< of struct augment, by class name; each starts as a copy of `augment` */
    struct trainer_imbalance_config imbalance;
    struct trainer_train_config train;
    struct trainer_optimizer_config optimizer;
    struct trainer_schedule_config schedule;
    struct trainer_device_config device;
    struct trainer_collective_config collective;
    struct trainer_cluster_config cluster;
    struct trainer_checkpoint_config checkpoint;
    struct trainer_publish_config publish;
    struct trainer_intended_use_config intended_use;
    struct trainer_report_config report;
    struct security_config security;
    struct trainer_http_config http;
    struct trainer_log_config log;
};

/** Every key of trainerd: for help, the reference, and printing what is in force. */
extern const struct schema trainer_config_schema;

/** Where a configuration comes from. */
struct trainer_config_source {
    const char *path;
    const char *const *overrides; /**< (override_count) "a.b=value", as given to --set */
    int override_count;
};

/**
 * Reads and checks a configuration: each key against its row, then keys against each other. All mistakes are
 * then in config's problems (config_print_problems), and err tells the first and how many; a file that cannot
 * be read or parsed, or an override that is no KEY=VALUE, is in err alone. Finish config in any case
 * (config_fini), after the last use of out. Printed by schema_print_yaml and read back, the values of a
 * configuration that trains are the same; a publisher's would gain a `train:` section, so only those of runs
 * are kept.
 */
bool trainer_config_load(const struct trainer_config_source *source, struct config *config,
                         struct trainer_config *out, struct error *err);

/** Whether the data may have a class of that name: false only where its classes are written down. */
bool trainer_config_may_have_class(const struct trainer_config *config, const char *name);

/** The augmentation of a class: its own, or the one of all. Borrowed from config. */
const struct augment *trainer_config_augment(const struct trainer_config *config, const char *class_name);
