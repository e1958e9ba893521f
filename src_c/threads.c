/* threads.c: a small pool of worker threads.
 *
 * The caller publishes one job and works on it itself; a worker that is awake joins in. The caller never waits for a
 * worker that has not joined, so a sleeping or descheduled worker costs nothing but its help (an OpenMP runtime waits
 * for all: 7 ms after an idle pause on a two-core virtual machine).
 *
 * Protocol. `ticket` is odd while a job is open. A worker joins by `active += 1` and then reads `ticket` again; the
 * caller closes the job by making `ticket` even and then waits for `active == 0`. All four accesses are sequentially
 * consistent: either the worker sees the job closed and leaves, or the caller sees the worker and waits. The job's
 * plain fields are written only while no job is open and no worker is active.
 *
 * After fork the child has no workers: an atfork handler resets the pool and the next call builds a new one.
 */
#define _GNU_SOURCE
#include "threads.h"
#include "denormals.h"
#include "fastconv.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>

enum {
    MAX_THREADS = 256,
    /* A pause is 40 to 140 cycles: 8000 of them are about 100 to 300 us, longer than the serial Python between two
     * layers, whose code and data the layers push out of the caches (100 us each in a training step), and shorter than
     * a time slice. */
    WORKER_SPINS = 8000,
    CALLER_SPINS = 4000,
    /* The last of n equal tasks may begin when other threads find none left. On a processor of speed s (a neighbour on
     * the machine, an efficiency core) it takes 1 / s as long, so two threads take up to 1 + 1 / (s * n) of the time
     * that they would take if the work could be cut anywhere: with s = 1/2 and 8 tasks each 1.13, with 4 1.25. */
    TASKS_PER_THREAD = 8,
};

/* The tasks [next, end) of one slot, a cache line of its own */
typedef struct {
    _Alignas(64) _Atomic int64_t next;
    int64_t begin, end;
} range;

static struct {
    _Atomic uint64_t ticket;
    _Atomic int active;
    _Atomic bool taken;
    _Atomic int sleepers;
    /* the open job */
    fc_task *run;
    void *context;
    int threads;
    bool backwards;
    range ranges[MAX_THREADS]; /* by slot */
    int flush; /* the caller flushes denormals */
    /* guarded by taken */
    int workers;
    pthread_t thread[MAX_THREADS]; /* thread[slot] of the workers */
    int placed; /* workers that were told their processors */
#ifdef __linux__
    cpu_set_t processors;
#endif
    bool fork_handler;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static _Atomic int num_threads = 1;
static FC_THREAD_LOCAL bool alone;

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* A slot does its own tasks first, then those that others have not come to. */
static void work(int slot)
{
    for (int i = 0; i < pool.threads; i++) {
        range *r = &pool.ranges[(slot + i) % pool.threads];
        int64_t task;
        if (atomic_load_explicit(&r->next, memory_order_relaxed) >= r->end)
            continue; /* do not take the line from those who read it too */
        while ((task = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed)) < r->end)
            pool.run(pool.context, pool.backwards ? r->begin + r->end - 1 - task : task, slot);
    }
}

/* Equal parts. Cut without a product, which could overflow. */
static void share_out(int64_t tasks, int threads)
{
    const int64_t part = tasks / threads, rest = tasks % threads;
    for (int slot = 0; slot < threads; slot++) {
        range *r = &pool.ranges[slot];
        r->begin = slot * part + (slot < rest ? slot : rest);
        r->end = r->begin + part + (slot < rest);
        atomic_store_explicit(&r->next, r->begin, memory_order_relaxed);
    }
}

/* Returns the first ticket after `seen`: spins, then sleeps. */
static uint64_t wait_for_ticket(uint64_t seen)
{
    for (int spin = 0; spin < WORKER_SPINS; spin++) {
        uint64_t ticket = atomic_load(&pool.ticket);
        if (ticket != seen && (ticket & 1))
            return ticket;
        relax();
    }
    pthread_mutex_lock(&pool.mutex);
    atomic_fetch_add(&pool.sleepers, 1);
    uint64_t ticket;
    while ((ticket = atomic_load(&pool.ticket)) == seen || !(ticket & 1))
        pthread_cond_wait(&pool.wake, &pool.mutex);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.mutex);
    return ticket;
}

static void *worker(void *index)
{
    const int slot = (int)(intptr_t)index;
    uint64_t seen = 0;
    int flush = fc_flushes(); /* inherited from the thread that started this one */
    for (;;) {
        seen = wait_for_ticket(seen);
        atomic_fetch_add(&pool.active, 1);
        if (atomic_load(&pool.ticket) == seen && slot < pool.threads) {
            if (flush != pool.flush)
                fc_set_flush(flush = pool.flush);
            work(slot);
        }
        atomic_fetch_sub(&pool.active, 1);
    }
    return NULL;
}

/* Workers may run where the caller may, but not on the processor it is on. Left to itself Linux may queue a woken
 * worker behind the caller (on a virtual machine an idle processor looks taken, since its host has descheduled it), and
 * there it waits for milliseconds: until the caller has done all the work. */
static void keep_off_the_caller(void)
{
#ifdef __linux__
    const int here = sched_getcpu();
    cpu_set_t processors;
    if (here < 0 || here >= CPU_SETSIZE || pthread_getaffinity_np(pthread_self(), sizeof processors, &processors))
        return;
    if (CPU_COUNT(&processors) > 1)
        CPU_CLR(here, &processors);
    if (pool.placed == pool.workers && CPU_EQUAL(&processors, &pool.processors))
        return;
    for (int slot = 1; slot <= pool.workers; slot++)
        pthread_setaffinity_np(pool.thread[slot], sizeof processors, &processors);
    pool.placed = pool.workers;
    pool.processors = processors;
#endif
}

static void reset_in_child(void)
{
    pool.workers = 0;
    pool.placed = 0;
    pool.mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    pool.wake = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    atomic_store(&pool.ticket, 0);
    atomic_store(&pool.active, 0);
    atomic_store(&pool.sleepers, 0);
    atomic_store(&pool.taken, false);
}

/* Starts workers until there are wanted - 1; a failure leaves fewer, which is slower but right. */
static void grow(int wanted)
{
    if (!pool.fork_handler)
        pool.fork_handler = pthread_atfork(NULL, NULL, reset_in_child) == 0;
    if (!pool.fork_handler)
        return;
    sigset_t all, before; /* signals belong to the interpreter's threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.workers < wanted - 1) {
        const int slot = pool.workers + 1;
        if (pthread_create(&pool.thread[slot], NULL, worker, (void *)(intptr_t)slot))
            break;
        pthread_detach(pool.thread[slot]);
        pool.workers = slot;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void fc_work_alone(int on) { alone = on; }

int fc_parallel_slots(int64_t tasks)
{
    const int threads = alone ? 1 : atomic_load_explicit(&num_threads, memory_order_relaxed);
    return tasks < threads ? (tasks > 1 ? (int)tasks : 1) : threads;
}

int64_t fc_parallel_tasks(void)
{
    const int threads = fc_parallel_slots(INT64_MAX);
    return threads == 1 ? 1 : (int64_t)threads * TASKS_PER_THREAD;
}

void fc_parallel(int64_t tasks, fc_task *run, void *context)
{
    fc_parallel_in(fc_parallel_slots(tasks), tasks, run, context);
}

static void run_job(int threads, int64_t tasks, fc_task *run, void *context, bool backwards)
{
    if (threads == 1 || atomic_exchange(&pool.taken, true)) {
        for (int64_t task = 0; task < tasks; task++)
            run(context, backwards ? tasks - 1 - task : task, 0);
        return;
    }
    if (pool.workers < threads - 1) {
        grow(threads);
        keep_off_the_caller();
    }
    pool.run = run;
    pool.context = context;
    pool.threads = threads;
    pool.backwards = backwards;
    pool.flush = fc_flushes();
    share_out(tasks, threads);
    atomic_fetch_add(&pool.ticket, 1); /* open */
    if (atomic_load(&pool.sleepers) > 0) {
        keep_off_the_caller();
        pthread_mutex_lock(&pool.mutex);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.mutex);
    }
    work(0);
    atomic_fetch_add(&pool.ticket, 1); /* close */
    for (int spin = 0; atomic_load(&pool.active) > 0; spin++) {
        relax();
        if (spin > CALLER_SPINS)
            sched_yield();
    }
    atomic_store(&pool.taken, false);
}

void fc_parallel_in(int slots, int64_t tasks, fc_task *run, void *context)
{
    run_job(slots, tasks, run, context, false);
}

void fc_parallel_back(int slots, int64_t tasks, fc_task *run, void *context)
{
    run_job(slots, tasks, run, context, true);
}

void fc_set_num_threads(int threads)
{
    atomic_store(&num_threads, threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads);
}

int fc_get_num_threads(void) { return atomic_load(&num_threads); }

int fc_flush_denormals(int on)
{
    const int before = fc_flushes();
    fc_set_flush(on);
    return FC_FLUSH_BITS ? before : -1;
}
