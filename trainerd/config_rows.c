#include "trainerd/config.h"

#include "common/pool/message.h"
#include "trainerd/publisher.h"

_Static_assert(PRECISION_F32 == 0 && PRECISION_BF16 == 1 && PRECISION_F16 == 2, "the order of the choices below");
_Static_assert((int)TRAINER_ACTIVATE_AUTO == (int)PUBLISHER_ACTIVATE_AUTO &&
                   (int)TRAINER_ACTIVATE_MANUAL == (int)PUBLISHER_ACTIVATE_MANUAL,
               "one order, so that a value can be handed on");

/* clang-format off: a table reads best as one */
#define COUNT(rows) (int)(sizeof(rows) / sizeof *(rows))
#define ROW(KEY, TYPE, FIELD, FALLBACK, ...)                                                                 \
    {                                                                                                        \
        .key = KEY, .type = SCHEMA_##TYPE, .offset = offsetof(struct trainer_config, FIELD),                 \
        .fallback = FALLBACK, __VA_ARGS__                                                                    \
    }
#define RANGE(LOW, HIGH) .min = LOW, .max = HIGH
#define HELP(TEXT)       .help = TEXT

static const char *const architectures[] = {"resnet18",  "resnet34",           "resnet50",
                                            "resnet101", "efficientnet_lite0", NULL};
static const char *const stems[] = {"7x7", "3x3", NULL};
static const char *const metrics[] = {"auc", "balanced_accuracy", "accuracy", "macro_f1", "loss", NULL};
static const char *const optimizers[] = {"sgd", "adamw", NULL};
static const char *const scalings[] = {"none", "linear", "sqrt", NULL};
static const char *const precisions[] = {"f32", "bf16", "f16", NULL};
static const char *const gradients[] = {"f32", "bf16", NULL};
static const char *const schedules[] = {"constant", "cosine", "linear", NULL};
static const char *const devices[] = {"auto", "onednn", "reference", "cuda", NULL};
static const char *const collectives[] = {"auto", "solo", "gloo", "nccl", NULL};
static const char *const launchers[] = {"auto", "none", "slurm", "torchrun", NULL};
static const char *const activations[] = {"auto", "manual", NULL};
static const char *const rules[] = {"youden", "sensitivity", NULL};
static const char *const levels[] = {"debug", "info", "warning", "error", NULL};
static const char *const styles[] = {"text", "json", NULL};

/* The keys of `augment`, which those of a class repeat: ranges and defaults as in common/image/augment.h. */
#define AUGMENT_ROW(PREFIX, OWNER, PATH, NAME, FALLBACK, LOW, HIGH, TEXT)                                    \
    {                                                                                                        \
        .key = PREFIX #NAME, .type = SCHEMA_FLOAT, .offset = offsetof(struct OWNER, PATH NAME),              \
        .fallback = FALLBACK, .min = LOW, .max = HIGH, .help = TEXT                                          \
    }
#define AUGMENT_ROWS(PREFIX, OWNER, PATH)                                                                    \
    AUGMENT_ROW(PREFIX, OWNER, PATH, crop_area_min, "0.4", .05, 1,                                           \
                "least part of the area that the random crop keeps"),                                        \
        AUGMENT_ROW(PREFIX, OWNER, PATH, crop_area_max, "1", .05, 1,                                         \
                    "largest part of the area that the random crop keeps"),                                  \
        AUGMENT_ROW(PREFIX, OWNER, PATH, crop_aspect, "1.25", 1, 2,                                          \
                    "the crop's aspect ratio is drawn from 1/a to a"),                                       \
        AUGMENT_ROW(PREFIX, OWNER, PATH, rotation_degrees, "10", 0, 45, "rotation, from -r to r degrees"),   \
        AUGMENT_ROW(PREFIX, OWNER, PATH, translation, "0.04", 0, .5,                                         \
                    "shift, a fraction of the side, from -t to t"),                                          \
        AUGMENT_ROW(PREFIX, OWNER, PATH, flip_probability, "0", 0, 1,                                        \
                    "mirror left and right; hearts have a side, so off by default"),                         \
        AUGMENT_ROW(PREFIX, OWNER, PATH, brightness, "0.12", 0, .5,                                          \
                    "added to the shade, from -b to b (white = 1)"),                                         \
        AUGMENT_ROW(PREFIX, OWNER, PATH, contrast, "0.5", 0, 2,                                              \
                    "contrast times a factor from 1/(1+c) to 1+c"),                                          \
        AUGMENT_ROW(PREFIX, OWNER, PATH, gamma, "0.4", 0, 2, "shade to a power from 1/(1+g) to 1+g"),        \
        AUGMENT_ROW(PREFIX, OWNER, PATH, blur_probability, "0.3", 0, 1,                                      \
                    "Gaussian blur: films of all classes may be soft"),                                      \
        AUGMENT_ROW(PREFIX, OWNER, PATH, blur_sigma_max, "0.008", 0, .02,                                    \
                    "its largest sigma, a fraction of the width"),                                           \
        AUGMENT_ROW(PREFIX, OWNER, PATH, noise_sigma_max, "0.03", 0, .2,                                     \
                    "noise with a sigma from 0 to this (white = 1)"),                                        \
        AUGMENT_ROW(PREFIX, OWNER, PATH, erasing_probability, "0.25", 0, 1,                                  \
                    "one rectangle filled with a random shade"),                                             \
        AUGMENT_ROW(PREFIX, OWNER, PATH, erasing_area_max, "0.12", 0, .5,                                    \
                    "its largest area, a fraction of the picture")

static const struct schema_row augment_rows[] = {AUGMENT_ROWS("", augment, )};
static const struct schema augment_schema = {augment_rows, COUNT(augment_rows), sizeof(struct augment)};

static const struct schema_row rows[] = {
    ROW("run.name", STRING, run.name, "run",
        HELP("names the run's folder: letters, digits, dots, dashes, underscores")),
    ROW("run.directory", PATH, run.directory, "runs", HELP("holds the folders of all runs")),
    ROW("run.seed", INT64, run.seed, "0", RANGE(0, 9.3e18), HELP("all that is random follows from it")),

    ROW("model.architecture", STRING, model.architecture, "resnet18", .choices = architectures,
        HELP("the network")),
    ROW("model.stem", STRING, model.stem, "7x7", .choices = stems,
        HELP("first layer of a ResNet: 7x7 with stride 2, or 3x3 for images under 64 pixels")),
    ROW("model.input_channels", INT, model.input_channels, "1", RANGE(1, 3),
        HELP("1, or 3: the grey picture three times")),
    ROW("model.size", INT, model.size, "224", RANGE(28, 512), .unit = "pixels",
        HELP("height and width of the input")),
    ROW("model.init", PATH, model.init, "",
        HELP("weights to start from, with a fresh head: a file made by trainctl import")),
    ROW("model.dropout", DOUBLE, model.dropout, "0", RANGE(0, .95), HELP("before the last layer")),
    ROW("model.freeze_batch_norm", BOOL, model.freeze_batch_norm, "false",
        HELP("normalise with the running statistics, unchanged")),
    ROW("model.sync_batch_norm", BOOL, model.sync_batch_norm, "false",
        HELP("batch norm's statistics are of all ranks' images, not each rank's own; two waits for the slowest rank a layer")),
    ROW("model.mean", DOUBLE_LIST, model.mean, "[]", RANGE(-4, 5),
        HELP("subtracted from grey / 255, one a channel; none: 0.5, or ImageNet's for three channels")),
    ROW("model.stddev", DOUBLE_LIST, model.stddev, "[]", RANGE(.00390625, 8),
        HELP("divides what is left, one a channel; none: 0.25, or ImageNet's")),

    ROW("data.name", STRING, data.name, "",
        HELP("what reports and model files call the data; none: the run's name")),
    ROW("data.directory", PATH, data.directory, "",
        HELP("holds {train,val,test}/CLASS/image, or the folders of data.classes")),
    ROW("data.classes", STRING_LISTS, data.classes, "{}",
        HELP("class -> folders, where the layout is another")),
    ROW("data.class_names", STRING_LIST, data.class_names, "[]",
        HELP("classes in the order of the outputs; none: NORMAL, PNEUMONIA, and INVALID where there is one")),
    ROW("data.manifest", PATH, data.manifest, "", HELP("CSV with the columns path,class[,patient][,split]")),
    ROW("data.npz", PATH, data.npz, "", HELP("a MedMNIST archive")),
    ROW("data.invalid", PATH, data.invalid, "",
        HELP("folder of pictures that are no chest X-rays: class INVALID")),
    ROW("data.validation_list", PATH, data.validation_list, "",
        HELP("file with the paths of the validation part, one a line")),
    ROW("data.validation_fraction", DOUBLE, data.validation_fraction, "0.1", RANGE(.01, .5),
        HELP("of each class, by whole patients, where a validation part has to be split off")),
    ROW("data.cache_dir", PATH, data.cache_dir, "runs/cache",
        HELP("where decoded images are kept; holds patients' pictures")),
    ROW("data.loader_threads", INT, data.loader_threads, "1", RANGE(1, 64),
        HELP("threads of each rank that load and augment")),
    ROW("data.prefetch", INT, data.prefetch, "4", RANGE(1, 64), .unit = "batches",
        HELP("ready ahead of the step")),

    AUGMENT_ROWS("augment.", trainer_config, augment.),
    {.key = "augment_class",
     .type = SCHEMA_TABLE,
     .offset = offsetof(struct trainer_config, augment_class),
     .entries = &augment_schema,
     .has_base = true,
     .base_offset = offsetof(struct trainer_config, augment),
     HELP("per class, the keys of `augment` that differ for it")},

    ROW("imbalance.class_weighted_loss", BOOL, imbalance.class_weighted_loss, "false",
        HELP("weigh the loss by images / (classes x images of the class)")),
    ROW("imbalance.balanced_sampling", BOOL, imbalance.balanced_sampling, "true",
        HELP("draw as many images of each class, the rare ones repeatedly")),

    ROW("train.epochs", INT, train.epochs, "10", RANGE(1, 100000), HELP("passes over the training part")),
    ROW("train.steps_per_epoch", INT, train.steps_per_epoch, "0", RANGE(0, 100000000),
        HELP("0: images / batch_size, rounded down: what does not fill a last batch is left out, other images each epoch, as "
             "each has an order of its own; with more steps than that the images begin anew, in another order")),
    ROW("train.batch_size", INT, train.batch_size, "64", RANGE(1, 65536), .unit = "images",
        HELP("of one step over all ranks and parts together, always full; a multiple of the number of ranks * train.parts. Ranks "
             "share one order of images, which follows from run.seed and the epoch alone, however many they are")),
    ROW("train.parts", INT, train.parts, "1", RANGE(1, 4096),
        HELP("gradient accumulation: a rank computes its share of a batch in so many parts, which takes so many times less "
             "memory; batch norm sees each part by itself")),
    ROW("train.recompute", BOOL, train.recompute, "false",
        HELP("keep few activations and compute the others again in the backward pass: less memory, for a second forward pass")),
    ROW("train.label_smoothing", DOUBLE, train.label_smoothing, "0.1", RANGE(0, .9),
        HELP("of the cross-entropy")),
    ROW("train.clip_norm", DOUBLE, train.clip_norm, "0", RANGE(0, 1e6),
        HELP("longer gradients are shortened to it; 0: off")),
    ROW("train.ema_decay", DOUBLE, train.ema_decay, "0", RANGE(0, .999999),
        HELP("moving average of the weights; 0: off")),
    ROW("train.early_stopping_patience", INT, train.early_stopping_patience, "0", RANGE(0, 100000),
        .unit = "epochs", HELP("without a better select_metric before the run ends; 0: off")),
    ROW("train.select_metric", ENUM, train.select_metric, "auc", .choices = metrics,
        HELP("decides which epoch was best")),
    ROW("train.precision", ENUM, train.precision, "f32", .choices = precisions,
        HELP("of activations and of what convolutions multiply; weights, statistics and loss stay f32. bf16 takes a "
             "processor that computes in it (avx512_bf16 or amx_bf16) or a GPU, f16 a GPU, and both are refused elsewhere; f16 "
             "scales the loss by what its gradients allow")),

    ROW("optimizer.name", ENUM, optimizer.name, "sgd", .choices = optimizers,
        HELP("how weights follow gradients")),
    ROW("optimizer.learning_rate", DOUBLE, optimizer.learning_rate, "0.05", RANGE(1e-12, 100),
        HELP("after the warm-up, of a step with optimizer.scaling_batch images where optimizer.scaling is not none")),
    ROW("optimizer.scaling", ENUM, optimizer.scaling, "none", .choices = scalings,
        HELP("how the learning rate follows the batch: linear, times train.batch_size / optimizer.scaling_batch (Goyal et al. "
             "2017); sqrt, times the root of that (Krizhevsky 2014; Hoffer et al. 2017); none, it stays as given. A batch is of "
             "all ranks together, so that their number changes no rate; the event start tells the learning_rate in force")),
    ROW("optimizer.scaling_batch", INT, optimizer.scaling_batch, "256", RANGE(1, 65536), .unit = "images",
        HELP("the batch that optimizer.learning_rate was found with")),
    ROW("optimizer.momentum", DOUBLE, optimizer.momentum, "0.9", RANGE(0, .9999), HELP("of sgd")),
    ROW("optimizer.betas", DOUBLE_LIST, optimizer.betas, "[0.9, 0.999]", RANGE(0, .999999), .count = 2,
        HELP("of adamw")),
    ROW("optimizer.epsilon", DOUBLE, optimizer.epsilon, "1e-8", RANGE(1e-20, 1), HELP("of adamw")),
    ROW("optimizer.weight_decay", DOUBLE, optimizer.weight_decay, "1e-4", RANGE(0, 10),
        HELP("not on norms and biases")),

    ROW("schedule.kind", ENUM, schedule.kind, "cosine", .choices = schedules,
        HELP("the learning rate after the warm-up")),
    ROW("schedule.warmup_epochs", DOUBLE, schedule.warmup_epochs, "1", RANGE(0, 100000),
        HELP("linear rise to the learning rate")),
    ROW("schedule.final_learning_rate_factor", DOUBLE, schedule.final_learning_rate_factor, "0.01",
        RANGE(0, 1), HELP("of the learning rate at the end")),

    ROW("device.name", STRING, device.name, "auto", .choices = devices, HELP("what computes")),
    ROW("device.ranks", INT, device.ranks, "1", RANGE(0, 1024),
        HELP("worker processes on this machine; with cuda, each has a GPU: rank 0 the first, and so on; 0: one for each GPU that "
             "is visible, on CPUs one")),
    ROW("device.threads", INT, device.threads, "0", RANGE(0, 1024),
        HELP("that compute in each rank; 0: its share of the cores")),
    ROW("device.winograd", BOOL, device.winograd, "true",
        HELP("on CPUs with AVX-512, 3x3 convolutions in f32 by Winograd's filtering where it is faster: up to twice as fast, and "
             "rounding several times as much")),
    ROW("device.graphs", BOOL, device.graphs, "true",
        HELP("on GPUs, a step is launched as a few graphs; false: kernel by kernel, slower, with the same results")),
    ROW("device.augment", BOOL, device.augment, "true",
        HELP("on GPUs, training pictures are uploaded as bytes and varied and normalised there; false: by data.loader_threads, "
             "with the same results")),
    ROW("device.tf32", BOOL, device.tf32, "false",
        HELP("on GPUs, f32 convolutions and products round what they multiply to TF32's eleven significant bits: several times "
             "as fast")),
    ROW("device.algorithm_cache", PATH, device.algorithm_cache, "",
        HELP("on GPUs, measure once which algorithm of each convolution is the fastest and keep it in this file; empty: take "
             "cuDNN's guess. Results are bitwise the same only for the same file")),

    ROW("collective.name", STRING, collective.name, "auto", .choices = collectives,
        HELP("how ranks add gradients; auto: solo for one rank, else nccl on GPUs and gloo on CPUs")),
    ROW("collective.address", STRING, collective.address, "",
        HELP("local address that gloo binds; none: loopback, for nccl too unless NCCL_SOCKET_IFNAME says another")),
    ROW("collective.gradients", ENUM, collective.gradients, "f32", .choices = gradients,
        HELP("in which ranks add gradients; bf16: half the bytes between ranks, each rank's gradients and their sums rounded to "
             "eight significant bits; batch norm's sums and all else stay as they are. One rank sends nothing and ignores it")),
    ROW("collective.bucket_bytes", SIZE, collective.bucket_bytes, "25MiB", RANGE(65536, 1073741824),
        HELP("gradients that are added in one go while the backward pass still runs; the first and the last of a step are of "
             "1 MiB, so that ranks begin early and little is left that nothing hides")),
    ROW("collective.timeout_seconds", INT, collective.timeout_seconds, "60", RANGE(1, 86400), .unit = "s",
        HELP("a rank that says nothing for so long is lost")),
    ROW("collective.trusted_network", BOOL, collective.trusted_network, "false",
        HELP("must be true for an address that is not loopback: nothing is encrypted")),

    ROW("cluster.coordinator", STRING, cluster.coordinator, "",
        HELP("HOST:PORT of the node whose trainerd brings the ranks of several nodes together, the same in all their "
             "configurations; none: as the launcher says, else this machine alone")),
    ROW("cluster.nodes", INT, cluster.nodes, "1", RANGE(1, 1024), HELP("how many trainerd, each on its node, train together")),
    ROW("cluster.node", INT, cluster.node, "0", RANGE(0, 1023),
        HELP("which of them this is; 0 is the coordinator: it keeps the records, publishes, and has rank 0")),
    ROW("cluster.launcher", ENUM, cluster.launcher, "auto", .choices = launchers,
        HELP("whose environment says coordinator, nodes and node where cluster.coordinator does not; auto: Slurm's or torchrun's "
             "where this process is a task of theirs; slurm, torchrun: nodes and node are theirs even where cluster.coordinator "
             "says where they meet")),
    ROW("cluster.min_ranks", INT, cluster.min_ranks, "1", RANGE(1, 1024),
        HELP("a run that lost ranks goes on with those that are left; with fewer than this it waits for some to come back")),
    ROW("cluster.restarts", INT, cluster.restarts, "3", RANGE(0, 1000000),
        HELP("how often in a row the ranks may meet again without having written a checkpoint in between, before the run ends; "
             "where one GPU or share of cores alone was lost each time, it is left out, and the others go on, down to "
             "cluster.min_ranks")),
    ROW("cluster.join_seconds", INT, cluster.join_seconds, "600", RANGE(1, 604800), .unit = "s",
        HELP("how long nodes wait for each other, at the start and where too few are left")),
    ROW("cluster.silence_seconds", INT, cluster.silence_seconds, "6", RANGE(1, 3600), .unit = "s",
        HELP("a node, or the process of a rank, that gives no sign of life for so long is lost")),
    ROW("cluster.grace_seconds", INT, cluster.grace_seconds, "30", RANGE(1, 86400), .unit = "s",
        HELP("after SIGTERM or SIGUSR1, for the step to end and the checkpoint to be written, before ranks are killed")),
    ROW("cluster.secret", PATH, cluster.secret, "",
        HELP("file of at least 32 characters that all nodes share and nobody else can read: only who has it can join, and what "
             "nodes say to each other (not the gradients) is encrypted; trainctl keygen secret makes one")),
    ROW("cluster.server_key", STRING, cluster.server_key, "",
        HELP("instead of a secret, with security.key, and at the coordinator security.allow (role trainer): the coordinator's "
             "public key, a file NAME.pub or the 40 characters in quotes")),

    ROW("checkpoint.every_epochs", INT, checkpoint.every_epochs, "1", RANGE(0, 100000),
        HELP("0: only at the end")),
    ROW("checkpoint.every_steps", INT, checkpoint.every_steps, "0", RANGE(0, 100000000),
        HELP("also within an epoch; 0: not")),
    ROW("checkpoint.replicate", BOOL, checkpoint.replicate, "false",
        HELP("for nodes that share no folder: each keeps the run's checkpoints in its own; false: rank 0 writes them where all "
             "can read them")),
    ROW("checkpoint.keep_last", INT, checkpoint.keep_last, "2", RANGE(1, 10000),
        HELP("older ones are removed")),
    ROW("checkpoint.keep_best", INT, checkpoint.keep_best, "1", RANGE(1, 10000),
        HELP("model files that stay in the run's models folder, the newest, each the best of its time")),

    ROW("publish.enabled", BOOL, publish.enabled, "false", HELP("offer models to a pool of inferd")),
    ROW("publish.name", STRING, publish.name, "", HELP("the model's name; none: the run's")),
    ROW("publish.to", STRING, publish.to, "",
        HELP("control endpoint of a publisher elsewhere, to which a training job hands its models over as trainctl publish --to "
             "does, instead of offering them itself; several jobs may have the same")),
    ROW("publish.server_key", STRING, publish.server_key, "",
        HELP("with security.key: the public key of the publisher that publish.to names: a file NAME.pub, or the 40 characters in "
             "quotes")),
    ROW("publish.to_wait_seconds", INT, publish.to_wait_seconds, "60", RANGE(0, 86400), .unit = "s",
        HELP("at the end of training, how long to go on trying to hand over what is left; what then is, is said, kept under the "
             "run's folder, and makes the exit code 3")),
    ROW("publish.announce", STRING, publish.announce, POOL_DEFAULT_ANNOUNCE,
        HELP("endpoint for announcements")),
    ROW("publish.control", STRING, publish.control, POOL_DEFAULT_CONTROL,
        HELP("endpoint for members and trainctl")),
    ROW("publish.blobs", STRING, publish.blobs, POOL_DEFAULT_BLOBS, HELP("endpoint for the models' bytes")),
    ROW("publish.store", PATH, publish.store, "runs/store",
        HELP("folder of published models and of the publisher's state")),
    ROW("publish.gate", STRING_LIST, publish.gate, "[]",
        HELP("what a new model must not be worse in than the stable one: \"METRIC [on SPLIT] within TOLERANCE\", such as "
             "\"recall.NORMAL within 0.01\"; one that is, is kept and not offered until it is approved with a note")),
    ROW("publish.stage", BOOL, publish.stage, "true",
        HELP("a new model that the gate lets through is staged by itself: members fetch it; false: it is registered only, and "
             "staged when somebody approves it")),
    ROW("publish.sign_key", PATH, publish.sign_key, "",
        HELP("secret key (trainctl keygen sign) that signs models which come unsigned, or are handed over; none: they stay "
             "unsigned")),
    ROW("publish.activate", ENUM, publish.activate, "manual", .choices = activations,
        HELP("auto: a published model is rolled out by itself, and a rollout that is under way ends; manual: it is staged only, "
             "until trainctl approve and rollout start")),
    ROW("publish.plan", STRING, publish.plan, "",
        HELP("how auto rolls out: a plan of configs/rollouts by its name, or a file; none: all members, one after the other")),
    ROW("publish.operating_point.name", STRING, publish.operating_point.name, "balanced",
        HELP("what requests ask for")),
    ROW("publish.operating_point.class", STRING, publish.operating_point.class_name, "PNEUMONIA",
        HELP("the class that the threshold is about")),
    ROW("publish.operating_point.rule", ENUM, publish.operating_point.rule, "youden", .choices = rules,
        HELP("how the threshold is fitted on the validation part")),
    ROW("publish.operating_point.target", DOUBLE, publish.operating_point.target, "0.95", RANGE(0, 1),
        HELP("the sensitivity to reach, for the rule of that name")),

    ROW("intended_use.age_min_years", DOUBLE, intended_use.age_min_years, "0", RANGE(0, 150),
        HELP("youngest patients")),
    ROW("intended_use.age_max_years", DOUBLE, intended_use.age_max_years, "150", RANGE(0, 150),
        HELP("oldest patients")),
    ROW("intended_use.views", STRING_LIST, intended_use.views, "[]", HELP("such as [AP, PA]; none: any")),
    ROW("intended_use.statement", STRING, intended_use.statement,
        "Research and integration; not a medical device.", HELP("goes into every model")),

    ROW("report.images", BOOL, report.images, "true", HELP("draw the confusion matrix and the ROC curve")),
    ROW("report.bootstrap_samples", INT, report.bootstrap_samples, "1000", RANGE(0, 100000),
        HELP("for confidence intervals; 0: none")),

    SECURITY_ROWS(trainer_config, security),

    ROW("http.bind", STRING, http.bind, "",
        HELP("HOST:PORT for /healthz, /readyz and /metrics, such as 127.0.0.1:5781; none: there is no HTTP")),

    ROW("log.level", ENUM, log.level, "info", .choices = levels, HELP("the least that is logged")),
    ROW("log.style", ENUM, log.style, "text", .choices = styles,
        HELP("one line an event, for people or for machines")),
};

const struct schema trainer_config_schema = {rows, COUNT(rows), sizeof(struct trainer_config)};
