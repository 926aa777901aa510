/* A compiled network as a library: memory, threads and the call. What it is a library of says
 * program.h, which is made for each; the steps are in the object file beside.
 *
 * Workers take part in a call when they can, as in a process with Python: the caller never waits
 * for one to come, only for those inside to leave. One caller at a time has them; others, calling
 * at the same moment, do their work alone.
 */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "program.h"

extern void NET_ENTRY(void *context, int64_t stay) __attribute__((visibility("hidden")));
extern const unsigned char net_weights[] __attribute__((visibility("hidden")));
extern const unsigned char net_states[] __attribute__((visibility("hidden")));

enum { OK, NO_MEMORY, BAD_ARGUMENT, WRONG_PROCESSOR };
enum { MOST_THREADS = 256, KEPT = 4, SPINS = 20000 };

static const char *const MESSAGES[] = {
    "no error",
    "out of memory",
    "an argument is null, or a number of threads is not from 1 to 256",
    "the library is made for a processor with instructions that this one lacks",
};

typedef struct call {
    struct call *next; /* in the list of those to be used again */
    void *context[NET_PORTS + NET_PORT_COUNT];
    uint64_t counters[NET_COUNTERS + 8]; /* eight more to begin at a cache line */
    unsigned char *scratch;
} call;

struct NET_TYPE {
    pthread_mutex_t lock; /* of everything here */
    pthread_cond_t changed;
    call *free;
    int kept;
    int threads, started; /* of the team, the caller among them; workers */
    pthread_t workers[MOST_THREADS];
    pid_t owner; /* the process that they are of: a forked child has none of them */
    _Atomic uint64_t number;  /* of calls shown */
    call *shown;              /* null when it is over */
    _Atomic int inside;       /* workers that look at it */
    int leaving;
    pthread_mutex_t state_lock; /* a network with states serves one call at a time */
    unsigned char *states;
};

static void pause_a_moment(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A thread that waited so long waits for one that was put aside: that one may have this processor. */
static int rest(void) {
    const struct timespec moment = {0, 20000};
    return nanosleep(&moment, NULL);
}

static void give_back(struct NET_TYPE *net, call *done) {
    if (net->kept < KEPT) {
        done->next = net->free;
        net->free = done;
        net->kept++;
        done = NULL;
    }
    if (done) {
        free(done->scratch);
        free(done);
    }
}

static call *take(struct NET_TYPE *net) {
    pthread_mutex_lock(&net->lock);
    call *found = net->free;
    if (found) {
        net->free = found->next;
        net->kept--;
    }
    pthread_mutex_unlock(&net->lock);
    if (found) return found;
    found = calloc(1, sizeof *found);
    if (!found) return NULL;
    size_t bytes = NET_ARENA_BYTES + (size_t)NET_PRIVATE_BYTES * net->threads;
    if (posix_memalign((void **)&found->scratch, 64, bytes ? bytes : 64)) {
        free(found);
        return NULL;
    }
    return found;
}

static void *work(void *given) {
    struct NET_TYPE *net = given;
    uint64_t seen = 0;
    for (;;) {
        for (int spins = 0; spins < SPINS && atomic_load(&net->number) == seen; spins++) pause_a_moment();
        pthread_mutex_lock(&net->lock);
        while (!net->leaving && (atomic_load(&net->number) == seen || !net->shown)) {
            seen = atomic_load(&net->number);
            pthread_cond_wait(&net->changed, &net->lock);
        }
        seen = atomic_load(&net->number);
        call *mine = net->shown;
        int leaving = net->leaving;
        if (mine) atomic_fetch_add(&net->inside, 1);
        pthread_mutex_unlock(&net->lock);
        if (mine) {
            NET_ENTRY(mine->context, 1);
            atomic_fetch_sub(&net->inside, 1);
        }
        if (leaving) return NULL;
    }
}

static int create(struct NET_TYPE **made, int threads) {
    if (!made || threads < 1 || threads > MOST_THREADS) return BAD_ARGUMENT;
    *made = NULL;
    if (!NET_RUNS_HERE) return WRONG_PROCESSOR;
    struct NET_TYPE *net = calloc(1, sizeof *net);
    if (!net) return NO_MEMORY;
    net->threads = threads;
    net->states = malloc(NET_STATE_BYTES + 1);
    if (!net->states) {
        free(net);
        return NO_MEMORY;
    }
    memcpy(net->states, net_states, NET_STATE_BYTES);
    pthread_mutex_init(&net->lock, NULL);
    pthread_mutex_init(&net->state_lock, NULL);
    pthread_cond_init(&net->changed, NULL);
    *made = net;
    return OK;
}

/* Workers start with the first call that wants them, so that a process may fork before. */
static void start(struct NET_TYPE *net) {
    if (net->owner != getpid()) {
        net->owner = getpid();
        net->started = 0;
    }
    while (net->started < net->threads - 1) {
        if (pthread_create(&net->workers[net->started], NULL, work, net)) return;
        net->started++;
    }
}

static void point(struct NET_TYPE *net, call *mine, void *const *ports) {
    uintptr_t first = ((uintptr_t)mine->counters + 63) & ~(uintptr_t)63;
    memset(mine->counters, 0, sizeof mine->counters);
    memset(mine->context, 0, sizeof mine->context);
    mine->context[NET_YIELD] = (void *)rest;
    mine->context[NET_TEAM_SIZE] = (void *)(uintptr_t)net->threads;
    mine->context[NET_WEIGHTS] = (void *)net_weights;
    mine->context[NET_ARENA] = mine->scratch;
    mine->context[NET_COUNTERS_SLOT] = (void *)first;
    for (int port = 0; port < NET_CALLER_PORTS; port++) mine->context[NET_PORTS + port] = ports[port];
    static const size_t offsets[] = NET_STATE_OFFSETS;
    for (int state = 0; state < NET_PORT_COUNT - NET_CALLER_PORTS; state++)
        mine->context[NET_PORTS + NET_CALLER_PORTS + state] = net->states + offsets[state];
}

static int run(struct NET_TYPE *net, void *const *ports) {
    if (!net) return BAD_ARGUMENT;
    for (int port = 0; port < NET_CALLER_PORTS; port++)
        if (!ports[port]) return BAD_ARGUMENT;
    call *mine = take(net);
    if (!mine) return NO_MEMORY;
    if (NET_STATE_BYTES) pthread_mutex_lock(&net->state_lock);
    point(net, mine, ports);
    int shared = 0;
    if (net->threads > 1) {
        pthread_mutex_lock(&net->lock);
        start(net);
        shared = !net->shown && !atomic_load(&net->inside);
        if (shared) {
            net->shown = mine;
            atomic_fetch_add(&net->number, 1);
            pthread_cond_broadcast(&net->changed);
        }
        pthread_mutex_unlock(&net->lock);
    }
    NET_ENTRY(mine->context, 0);
    if (shared) {
        pthread_mutex_lock(&net->lock);
        net->shown = NULL;
        pthread_mutex_unlock(&net->lock);
        for (int spins = 0; atomic_load(&net->inside); spins++)
            if (spins < SPINS) pause_a_moment(); else rest();
    }
    if (NET_STATE_BYTES) pthread_mutex_unlock(&net->state_lock);
    pthread_mutex_lock(&net->lock);
    give_back(net, mine);
    pthread_mutex_unlock(&net->lock);
    return OK;
}

static void destroy(struct NET_TYPE *net) {
    if (!net) return;
    pthread_mutex_lock(&net->lock);
    net->leaving = 1;
    atomic_fetch_add(&net->number, 1);
    pthread_cond_broadcast(&net->changed);
    pthread_mutex_unlock(&net->lock);
    for (int worker = 0; worker < net->started && net->owner == getpid(); worker++)
        pthread_join(net->workers[worker], NULL);
    while (net->free) {
        call *next = net->free->next;
        free(net->free->scratch);
        free(net->free);
        net->free = next;
    }
    pthread_cond_destroy(&net->changed);
    pthread_mutex_destroy(&net->lock);
    pthread_mutex_destroy(&net->state_lock);
    free(net->states);
    free(net);
}

static const char *message(int code) {
    int known = code >= 0 && code < (int)(sizeof MESSAGES / sizeof *MESSAGES);
    return known ? MESSAGES[code] : "no error of this library";
}

NET_FUNCTIONS
