/* fastconv.h: the whole C API.
 *
 * Arrays are views: a base pointer, four sizes and four strides counted in elements (any sign, zero for broadcast).
 * The comment beside a view names its axes, e.g. x[batch][channels][height][width]; the strides say how it lies in
 * memory, so "channels-last" is stride_c == 1 and a 1-D signal is a view with height 1.
 * Callers have checked every shape and every size for overflow; nothing here prints, raises or aborts.
 */
#ifndef FASTCONV_H
#define FASTCONV_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    FC_OK = 0,
    FC_ENOMEM = 1,      /* scratch memory could not be allocated; no output was written */
    FC_EINDEX = 2,      /* an index array holds a value outside its plane */
    FC_EALGORITHM = 3,  /* the forced algorithm cannot serve this shape */
} fc_status;

typedef enum { FC_F32 = 0, FC_F64 = 1 } fc_dtype;

/* data[n][c][h][w] with strides in elements */
typedef struct {
    void *data;
    int64_t n, c, h, w;
    int64_t stride_n, stride_c, stride_h, stride_w;
} fc_view;

static inline int64_t fc_elements(const fc_view *v) { return v->n * v->c * v->h * v->w; }

/* ---- convolution (ops/conv.c) ------------------------------------------------------------------------------------
 * y[n][k][i][j] = bias[k] + sum_{c,u,v} weight[k][c][u][v] * x[n][g*C/groups + c][i*stride_h + u*dilation_h - pad_top]
 *                                                             [j*stride_w + v*dilation_w - pad_left]
 * with x zero outside its plane; the bottom and right padding follow from y's size. */
typedef struct {
    int64_t stride_h, stride_w;
    int64_t dilation_h, dilation_w;
    int64_t pad_top, pad_left;
    int64_t groups;
    int algorithm;        /* fc_algorithm */
    const void *prepared; /* what fc_conv2d_prepare wrote for these very shapes, or NULL; read by fc_conv2d alone */
} fc_conv;

typedef enum { FC_AUTO = 0, FC_DIRECT = 1, FC_WINOGRAD = 2 } fc_algorithm;

/* y = clamp(y * scale[k] + bias[k] + residual, lower, upper), applied while y is in registers, by direct convolution
 * with a scale in a pass over y. NaN passes through the clamp. Null pointers mean 1, 0 and 0. */
typedef struct {
    const void *scale;       /* scale[out_channels] */
    const void *bias;        /* bias[out_channels] */
    const fc_view *residual; /* same sizes as y, channels-last; not y itself */
    double lower, upper;     /* -inf, +inf: no clamp */
} fc_epilogue;

fc_status fc_conv2d(fc_dtype, const fc_conv *, const fc_view *x, const fc_view *weight, const fc_epilogue *,
                    const fc_view *y);
/* grad_x[n][c][h][w] = sum over the outputs (i, j) and channels k that saw it. This is also the transposed convolution,
 * hence the epilogue (on c; a residual only where the strides are 1). */
fc_status fc_conv2d_grad_input(fc_dtype, const fc_conv *, const fc_view *grad_y, const fc_view *weight,
                               const fc_epilogue *, const fc_view *grad_x);
/* grad_weight[k][c][u][v] = sum_{n,i,j} grad_y[n][k][i][j] * x[...as above...] */
fc_status fc_conv2d_grad_weight(fc_dtype, const fc_conv *, const fc_view *grad_y, const fc_view *x,
                                const fc_view *grad_weight);
/* The weight as the method chosen for these shapes reads it, for callers that use it more than once. The layouts of x
 * and y (not their data) must be those of the later calls. FC_EALGORITHM for a weight with NaN or infinity, which only
 * the unprepared call keeps away from padding. A prepared call may have weight->data NULL; then an image with NaN or
 * infinity in x spoils whole Winograd tiles. */
int64_t fc_conv2d_prepared_bytes(fc_dtype, const fc_conv *, const fc_view *x, const fc_view *weight, const fc_view *y);
fc_status fc_conv2d_prepare(fc_dtype, const fc_conv *, const fc_view *x, const fc_view *weight, const fc_view *y,
                            void *prepared);

/* What fc_conv2d would do for these shapes: a pure function of them. */
typedef struct {
    const char *algorithm; /* "direct", "depthwise", "pixels", "winograd" */
    const char *reason;
    int64_t scratch_bytes; /* for one thread */
} fc_explanation;
fc_status fc_conv2d_explain(fc_dtype, const fc_conv *, const fc_view *x, const fc_view *weight, const fc_view *y,
                            fc_explanation *);

/* sum[c] = sum_{n,h,w} x[n][c][h][w]: the gradient of a bias */
fc_status fc_channel_sum(fc_dtype, const fc_view *x, void *sum);
/* y[r][k] = clamp(sum_c x[r][c] * weight[k][c] + bias[k], lower, upper), bias NULL for 0: views n = r or k, c = c or k.
 * x and y have stride_c == 1, the weight has it in one of its two axes; there is at least one c. */
fc_status fc_linear(fc_dtype, const fc_view *x, const fc_view *weight, const void *bias, double lower, double upper,
                    const fc_view *y);
/* The same of at most 8 rows of float32, the weight packed in binary16 without NaN and infinities: weight.n, weight.c
 * and weight.data[ceil(n / 32)][c][32], zero beyond n; scale[n] multiplies the sums. */
void fc_linear_f16(const fc_view *x, const fc_view *weight, const float *scale, const float *bias, double lower,
                   double upper, const fc_view *y);
/* y = x, between any two layouts */
fc_status fc_copy(fc_dtype, const fc_view *x, const fc_view *y);
/* Contiguous channels, not as many of them in x as in y: y[n][c][h][w] = x[n][c][h][w], 0 where x has no channel c; or
 * adds: y[n][c][h][w] += x[n][c][h][w] for the channels that both have. */
void fc_copy_channels(fc_dtype, const fc_view *x, const fc_view *y, int adds);

/* ---- the processor (isa/dispatch.c) ------------------------------------------------------------------------------*/
/* Names of the instruction sets this machine can run, best first; *count entries. */
const char *const *fc_isa_names(int *count);
const char *fc_isa(void);
/* 0, or -1 when the name is unknown or the machine lacks it. */
int fc_use_isa(const char *name);

/* ---- threads (threads.c) and scratch (scratch.c) -----------------------------------------------------------------*/
void fc_set_num_threads(int threads);
int fc_get_num_threads(void);
/* Of the calling thread, and of the workers while they work for it. Returns the former setting, -1 where there is
 * none. */
int fc_flush_denormals(int on);
void fc_clear_workspace(void);
int64_t fc_workspace_bytes(void);
/* For tests: after so many more blocks of scratch the system has no memory; negative: it has. Returns what was left. */
int64_t fc_scratch_limit(int64_t blocks);

#include "fastconv_optimize.h"
#include "fastconv_pool_norm.h"

#include "fastconv_plan.h" /* uses the above */
#endif
