/* plan.c: the interpreter of inference plans. It decides nothing: shapes, places and fusions come with the steps. */
#include "../fastconv.h"
#include "../threads.h"

#include <time.h>

/* ---- y = clamp(x + other) over dense values -------------------------------------------------------------------------
 * Bound by memory: the compiler's vectors of the baseline are enough. */
enum { ADD_VALUES = 1 << 15 }; /* per task: three streams of 128 KiB, about 10 us */

typedef struct {
    const char *x, *other;
    char *y;
    int64_t count;
    double lower, upper;
    fc_dtype dtype;
} add_job;

/* NaN compares false and passes. */
#define ADD_TASK(name, type)                                                                                           \
    static void name(void *context, int64_t task, int slot)                                                            \
    {                                                                                                                  \
        (void)slot;                                                                                                    \
        const add_job *j = context;                                                                                    \
        const type *x = (const type *)j->x, *other = (const type *)j->other;                                           \
        type *y = (type *)j->y;                                                                                        \
        const type lower = (type)j->lower, upper = (type)j->upper;                                                     \
        const int64_t begin = task * ADD_VALUES, rest = j->count - begin;                                              \
        const int64_t end = begin + (rest < ADD_VALUES ? rest : ADD_VALUES);                                           \
        for (int64_t i = begin; i < end; i++) {                                                                        \
            type sum = x[i] + other[i];                                                                                \
            sum = sum < lower ? lower : sum;                                                                           \
            y[i] = sum > upper ? upper : sum;                                                                          \
        }                                                                                                              \
    }
ADD_TASK(add_float, float)
ADD_TASK(add_double, double)

static void add(fc_dtype dtype, const fc_step *s, const fc_view *x, const fc_view *other, const fc_view *y)
{
    add_job job = {x->data, other->data, y->data, fc_elements(y), s->lower, s->upper, dtype};
    fc_parallel((job.count + ADD_VALUES - 1) / ADD_VALUES, dtype == FC_F32 ? add_float : add_double, &job);
}

/* ---- the interpreter ----------------------------------------------------------------------------------------------*/
static fc_view locate(const fc_operand *o, char *arena, const fc_view *input, const fc_view *output)
{
    if (o->place == FC_INPUT)
        return *input;
    if (o->place == FC_OUTPUT)
        return *output;
    fc_view v = o->view;
    if (o->place == FC_ARENA)
        v.data = arena + o->offset;
    return v;
}

static fc_status run_step(fc_dtype dtype, const fc_step *s, const fc_view *x, const fc_view *y, const fc_view *other)
{
    switch (s->kind) {
    case FC_STEP_CONV: {
        const fc_epilogue epilogue = {.bias = s->bias, .residual = other, .lower = s->lower, .upper = s->upper};
        return fc_conv2d(dtype, &s->conv, x, &s->weight, &epilogue, y);
    }
    case FC_STEP_LINEAR:
        return fc_linear(dtype, x, &s->weight, s->bias, s->lower, s->upper, y);
    case FC_STEP_LINEAR_F16:
        fc_linear_f16(x, &s->weight, s->scale, s->bias, s->lower, s->upper, y);
        return FC_OK;
    case FC_STEP_MAX_POOL:
        return fc_max_pool2d(dtype, &s->pool, x, y, NULL, NULL, 0);
    case FC_STEP_AVG_POOL:
        return fc_avg_pool2d(dtype, &s->pool, x, y);
    case FC_STEP_MAP:
        fc_elementwise_map(dtype, s->function, fc_elements(y), s->alpha, x->data, y->data);
        return FC_OK;
    case FC_STEP_ADD:
        add(dtype, s, x, other, y);
        return FC_OK;
    case FC_STEP_COPY:
        return fc_copy(dtype, x, y);
    }
    return FC_EALGORITHM;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

fc_status fc_run_steps(fc_dtype dtype, const fc_step *steps, int64_t count, void *arena, const fc_view *input,
                       const fc_view *output, double *seconds)
{
    fc_status status = FC_OK;
    for (int64_t i = 0, last; i < count && status == FC_OK; i = last + 1) {
        const fc_step *s = &steps[i];
        const int chained = s->chain && fc_chain_pays(s, s->x.view.n);
        last = chained ? i + 2 : i;
        const fc_operand *o = &steps[last].other;
        const fc_view x = locate(&s->x, arena, input, output), y = locate(&steps[last].y, arena, input, output);
        const fc_view third = locate(o, arena, input, output), *other = o->place == FC_NOWHERE ? NULL : &third;
        const double start = seconds ? now() : 0;
        status = chained ? fc_run_chain(dtype, s, &x, other, &y) : run_step(dtype, s, &x, &y, other);
        if (seconds)
            seconds[i] = now() - start;
    }
    return status;
}
