/* fastconv_plan.h: a network as a list of steps on one block of memory; included by fastconv.h. */
#ifndef FC_PLAN_H
#define FC_PLAN_H

/* ---- inference plans (ops/plan.c) -----------------------------------------------------------------------------------
 * Where an operand lies: in the arena at `offset` bytes, in the caller's input or output (whose view then stands for
 * the operand's), or at view.data, which the plan owns. */
typedef enum { FC_NOWHERE, FC_ARENA, FC_INPUT, FC_OUTPUT, FC_CONSTANT } fc_place;

typedef struct {
    fc_place place;
    int64_t offset;
    fc_view view;
} fc_operand;

typedef enum {
    FC_STEP_CONV,     /* y = clamp(conv(x) + bias + other) */
    FC_STEP_LINEAR, /* y[n][k] = clamp(sum_c weight[k][c] * x[n][c] + bias[k]), the weight row-major; x, y dense */
    FC_STEP_LINEAR_F16, /* the same with fc_linear_f16's weight and scale */
    FC_STEP_MAX_POOL,
    FC_STEP_AVG_POOL,
    FC_STEP_MAP, /* y = function(x); x and y dense, of one layout; y may be x */
    FC_STEP_ADD, /* y = clamp(x + other); the same */
    FC_STEP_COPY, /* y = x, between any two layouts */
} fc_step_kind;

typedef struct {
    fc_step_kind kind;
    fc_operand x, y, other; /* other: FC_NOWHERE where there is none */
    fc_conv conv;
    fc_view weight;
    const void *bias;
    const float *scale; /* of FC_STEP_LINEAR_F16 */
    double lower, upper;
    fc_pool pool;
    fc_elementwise function;
    double alpha;
    int chain; /* of FC_STEP_CONV: this and the next two run depth first; between them: the arena or FC_NOWHERE */
} fc_step;

/* Whether three steps, of which only shapes count, can run depth first (ops/conv_chain.c): 0, 1, or 2 where what lies
 * between them is too large for the second-level cache and had better not exist. All three need prepared weights. */
int fc_chain_serves(fc_dtype, const fc_step *steps);
/* Whether they should now: not where so many threads meet that much would be computed twice. */
int fc_chain_pays(const fc_step *steps, int64_t images);
/* other: of the last step, or NULL */
fc_status fc_run_chain(fc_dtype, const fc_step *steps, const fc_view *x, const fc_view *other, const fc_view *y);

/* Runs the steps in order; stops at the first that fails. seconds[count], unless null: the time each took, that of a
 * chain in its first step. Steps are only read, so that any number of threads may run them, each with its own arena. */
fc_status fc_run_steps(fc_dtype, const fc_step *steps, int64_t count, void *arena, const fc_view *input,
                       const fc_view *output, double *seconds);
#endif
