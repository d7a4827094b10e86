#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/transport/tcp/address.h>
#include <gloo/transport/tcp/device.h>

#include <algorithm>
#include <csignal>
#include <pthread.h>
#include <sched.h>

extern "C" {
#include "common/base/clock.h"
#include "common/tensor/half.h"
#include "trainerd/collective/gloo_shim.h"
}

using std::chrono::milliseconds;

namespace {

/** Carries our own error through Gloo's rendezvous code. */
struct StoreError : public std::runtime_error {
    struct error error;
    explicit StoreError(const struct error &cause) : std::runtime_error(cause.message), error(cause) {}
};

/** Gloo's store over the caller's functions; Gloo's own time-outs give way to one deadline for all of it. */
class Store : public gloo::rendezvous::Store {
  public:
    Store(const struct collective_store &functions, int64_t deadline_ms)
        : functions_(functions), deadline_ms_(deadline_ms) {}

    void set(const std::string &key, const std::vector<char> &data) override {
        struct error err = {};
        published_ = data;
        if (!functions_.set(functions_.context, ("gloo/" + key).c_str(), data.data(), data.size(), &err))
            throw StoreError(err);
    }

    std::vector<char> get(const std::string &key) override {
        struct error err = {};
        struct bytes value = {};
        if (!functions_.get(functions_.context, ("gloo/" + key).c_str(), deadline_ms_, &value, &err))
            throw StoreError(err);
        std::unique_ptr<uint8_t, decltype(&std::free)> owner(value.data, &std::free);
        return std::vector<char>(value.data, value.data + value.size);
    }

    void wait(const std::vector<std::string> &keys) override {
        for (const auto &key : keys)
            get(key);
    }

    void wait(const std::vector<std::string> &keys, const milliseconds &) override {
        wait(keys);
    }

    /** What this rank published last: the addresses on which it listens for each of the others, in rank
     * order. */
    const std::vector<char> &published() const {
        return published_;
    }

  private:
    const struct collective_store &functions_;
    const int64_t deadline_ms_;
    std::vector<char> published_;
};

/** Threads that Gloo starts inherit this: a peer that is gone is an error on its socket, never a signal. */
class BlockSigpipe {
  public:
    BlockSigpipe() {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &set, &saved_);
    }
    ~BlockSigpipe() {
        pthread_sigmask(SIG_SETMASK, &saved_, nullptr);
    }

  private:
    sigset_t saved_;
};

/**
 * Threads that Gloo starts inherit this: one that wakes does not push another one off the core. Gloo's own thread tries again and
 * again to lock a connection that is locked; where it has just pushed off the thread that holds the lock, that goes on until the
 * scheduler's next tick, some milliseconds of a core for each message.
 */
class GiveWay {
  public:
    GiveWay() : ordinary_(sched_getscheduler(0) == SCHED_OTHER) {
        set(SCHED_BATCH);
    }
    ~GiveWay() {
        set(SCHED_OTHER);
    }

  private:
    /** Of this thread; whoever chose another policy keeps it. */
    void set(int policy) const {
        const struct sched_param none = {};
        if (ordinary_)
            sched_setscheduler(0, policy, &none);
    }

    const bool ordinary_;
};

} // namespace

struct gloo_shim {
    std::shared_ptr<gloo::transport::Device> device;
    std::shared_ptr<gloo::rendezvous::Context> context;
    std::vector<std::vector<std::string>> peers; // by rank: its addresses, as Gloo's messages print them
    uint32_t tag = 0;
    bool connected = false; // Gloo's transport exists
};

static bool names(const std::string &message, const std::string &address) {
    const auto at = address.empty() ? std::string::npos : message.find(address);
    // "127.0.0.1:4321" must not be found in "127.0.0.1:43210".
    return at != std::string::npos &&
           !std::isdigit(static_cast<unsigned char>(message.c_str()[at + address.size()]));
}

/** The rank whose address the message names, -1 where it names none. */
static int find_rank(const gloo_shim &shim, const std::string &message) {
    for (size_t rank = 0; rank < shim.peers.size(); rank++) {
        for (const auto &address : shim.peers[rank]) {
            if (names(message, address))
                return static_cast<int>(rank);
        }
    }
    return -1;
}

static bool convert(const gloo_shim &shim, const char *what, const std::exception &cause, struct error *err) {
    const std::string message = cause.what();
    const bool late =
        message.find("imed out") != std::string::npos || message.find("imeout") != std::string::npos;
    const bool peer = dynamic_cast<const gloo::IoException *>(&cause) != nullptr;
    const enum error_code code = late ? ERROR_TIMEOUT : peer ? ERROR_PEER : ERROR_INTERNAL;
    const int self = shim.context ? shim.context->rank : -1, size = shim.context ? shim.context->size : 0;
    const int rank = late && size == 2 ? 1 - self : find_rank(shim, message);
    if (rank >= 0)
        return error_set(err, code, "rank %d: %s: rank %d %s (gloo: %s)", self, what, rank,
                         late ? "did not answer in time" : "is gone", message.c_str());
    return error_set(err, code, "rank %d: %s: %s (gloo: %s)", self, what,
                     late ? "a peer did not answer in time" : "failed", message.c_str());
}

/** Runs a body that may throw; where it does, fills in err, closes all connections and returns false. */
template <typename Body>
static bool guarded(gloo_shim &shim, const char *what, struct error *err, Body body) {
    try {
        body();
        return true;
    } catch (const StoreError &cause) {
        if (err)
            *err = cause.error;
        error_prefix(err, "%s", what);
    } catch (const std::bad_alloc &) {
        error_set(err, ERROR_MEMORY, "%s: out of memory", what);
    } catch (const std::exception &cause) {
        convert(shim, what, cause, err);
    } catch (...) {
        error_set(err, ERROR_INTERNAL, "%s: an unknown exception", what);
    }
    gloo_shim_abort(&shim);
    return false;
}

/** The addresses on which this rank listened for each rank, as text; empty where Gloo's format is not what we
 * know. */
static std::vector<std::string> listening_addresses(const gloo_shim &shim,
                                                    const std::vector<char> &published) {
    const size_t world = static_cast<size_t>(shim.context->size),
                 self = static_cast<size_t>(shim.context->rank);
    std::vector<std::string> out(world);
    const size_t size = world > 1 ? published.size() / (world - 1) : 0;
    for (size_t i = 0, block = 0; i < world && size * (world - 1) == published.size(); i++) {
        if (i == self)
            continue;
        const auto first = published.begin() + static_cast<std::ptrdiff_t>(size * block++);
        out[i] =
            gloo::transport::tcp::Address(std::vector<char>(first, first + static_cast<std::ptrdiff_t>(size)))
                .str();
    }
    return out;
}

/**
 * Gloo's messages name the address of a connection's other end: the one that is connected, or the one that
 * was listened on, whichever it noted last. Only the peer knows them, so every rank gathers everyone's.
 */
static void learn_addresses(gloo_shim &shim, const std::vector<char> &published, milliseconds timeout) {
    constexpr size_t kText = 64, kBoth = 2 * kText;
    const size_t world = static_cast<size_t>(shim.context->size),
                 self = static_cast<size_t>(shim.context->rank);
    const auto listening = listening_addresses(shim, published);
    std::vector<char> mine(world * kBoth), all(world * world * kBoth);
    for (size_t i = 0; i < world; i++) {
        const std::string text = i == self ? "" : shim.context->getPair(static_cast<int>(i))->address().str();
        text.copy(&mine[i * kBoth], kText - 1);
        listening[i].copy(&mine[i * kBoth + kText], kText - 1);
    }
    gloo::AllgatherOptions options(shim.context);
    options.setInput(mine.data(), mine.size());
    options.setOutput(all.data(), all.size());
    options.setTag(shim.tag++);
    options.setTimeout(timeout);
    gloo::allgather(options);
    for (size_t i = 0; i < world; i++) {
        const char *both = &all[(i * world + self) * kBoth];
        shim.peers.push_back({both, both + kText});
    }
}

static void connect(gloo_shim &shim, const struct collective_spec &spec) {
    gloo::transport::tcp::attr attr(spec.address ? spec.address : "127.0.0.1");
    BlockSigpipe block;
    GiveWay give_way;
    shim.device = gloo::transport::tcp::CreateDevice(attr);
    shim.context = std::make_shared<gloo::rendezvous::Context>(spec.rank, spec.world_size);
    // Gloo waits five times as long for a connection as for anything else.
    shim.context->setTimeout(milliseconds(std::max<int64_t>(1, spec.timeout_ms / 5)));
    Store store(*spec.store, clock_now_ms() + spec.timeout_ms);
    shim.context->connectFullMesh(store, shim.device);
    shim.connected = true;
    learn_addresses(shim, store.published(), milliseconds(spec.timeout_ms));
}

extern "C" struct gloo_shim *gloo_shim_create(const struct collective_spec *spec, struct error *err) {
    std::unique_ptr<gloo_shim> shim(new (std::nothrow) gloo_shim);
    if (!shim) {
        error_set(err, ERROR_MEMORY, "gloo: out of memory");
        return nullptr;
    }
    if (!guarded(*shim, "opening gloo", err, [&] { connect(*shim, *spec); }))
        return nullptr;
    return shim.release();
}

extern "C" void gloo_shim_destroy(struct gloo_shim *shim) {
    delete shim;
}

/**
 * Gloo has no abort, but when a wait times out it closes all connections and wakes all who wait: so wait a
 * moment for what nobody will ever send.
 */
extern "C" void gloo_shim_abort(struct gloo_shim *shim) {
    try {
        char byte;
        if (shim->context && shim->connected)
            shim->context->createUnboundBuffer(&byte, sizeof byte)->waitRecv(nullptr, milliseconds(1));
    } catch (...) {
        // The time-out that was asked for.
    }
}

template <typename T> static void sum_in_place(gloo::AllreduceOptions &options, void *buffer, size_t count) {
    options.setOutput(static_cast<T *>(buffer), count);
    options.setReduceFunction(
        static_cast<void (*)(void *, const void *, const void *, size_t)>(&gloo::sum<T>));
}

/** In f32, and rounded after each addition. */
static void sum_bf16(void *to, const void *one, const void *other, size_t count) {
    const auto *a = static_cast<const uint16_t *>(one), *b = static_cast<const uint16_t *>(other);
    for (size_t i = 0; i < count; i++)
        static_cast<uint16_t *>(to)[i] = bf16_encode(bf16_decode(a[i]) + bf16_decode(b[i]));
}

/** Gloo has no bf16: to it these are 16 bits and a function that adds them. */
static void sum_bf16_in_place(gloo::AllreduceOptions &options, void *buffer, size_t count) {
    options.setOutput(static_cast<uint16_t *>(buffer), count);
    options.setReduceFunction(static_cast<void (*)(void *, const void *, const void *, size_t)>(&sum_bf16));
}

using Setter = void (*)(gloo::AllreduceOptions &, void *, size_t);

static Setter setter_of(enum dtype dtype) {
    switch (dtype) {
    case DTYPE_F32:
        return sum_in_place<float>;
    case DTYPE_F64:
        return sum_in_place<double>;
    case DTYPE_BF16:
        return sum_bf16_in_place;
    case DTYPE_S32:
        return sum_in_place<int32_t>;
    case DTYPE_S64:
        return sum_in_place<int64_t>;
    default:
        return nullptr;
    }
}

extern "C" bool gloo_shim_supports(enum dtype dtype) {
    return setter_of(dtype) != nullptr;
}

extern "C" bool gloo_shim_allreduce(struct gloo_shim *shim, void *buffer, enum dtype dtype, size_t count,
                                    int64_t timeout_ms, struct error *err) {
    if (count == 0)
        return true;
    return guarded(*shim, "all-reduce", err, [&] {
        gloo::AllreduceOptions options(shim->context);
        setter_of(dtype)(options, buffer, count);
        options.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
        options.setTag(shim->tag++);
        options.setTimeout(milliseconds(timeout_ms));
        gloo::allreduce(options);
    });
}

extern "C" bool gloo_shim_broadcast(struct gloo_shim *shim, void *buffer, size_t size, int root,
                                    int64_t timeout_ms, struct error *err) {
    return guarded(*shim, "broadcast", err, [&] {
        gloo::BroadcastOptions options(shim->context);
        options.setOutput(static_cast<char *>(buffer), size);
        options.setRoot(root);
        options.setTag(shim->tag++);
        options.setTimeout(milliseconds(timeout_ms));
        gloo::broadcast(options);
    });
}

extern "C" bool gloo_shim_allgather(struct gloo_shim *shim, const void *mine, size_t size, void *all,
                                    int64_t timeout_ms, struct error *err) {
    return guarded(*shim, "all-gather", err, [&] {
        gloo::AllgatherOptions options(shim->context);
        options.setInput(static_cast<char *>(const_cast<void *>(mine)), size);
        options.setOutput(static_cast<char *>(all), size * static_cast<size_t>(shim->context->size));
        options.setTag(shim->tag++);
        options.setTimeout(milliseconds(timeout_ms));
        gloo::allgather(options);
    });
}

extern "C" bool gloo_shim_barrier(struct gloo_shim *shim, int64_t timeout_ms, struct error *err) {
    return guarded(*shim, "barrier", err, [&] {
        gloo::BarrierOptions options(shim->context);
        options.setTag(shim->tag++);
        options.setTimeout(milliseconds(timeout_ms));
        gloo::barrier(options);
    });
}
