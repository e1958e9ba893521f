/* fastconv_pool_norm.h: pooling, normalisation and elementwise entry points; included by fastconv.h. */
#ifndef FC_POOL_NORM_H
#define FC_POOL_NORM_H

/* ---- pooling (ops/pool.c) ------------------------------------------------------------------------------------------
 * Window (i, j) holds the positions h = i * h.stride - h.pad_before + u * h.dilation of x with 0 <= h < height, u <
 * h.kernel, and w likewise; every window holds at least one. adaptive: it holds i*H/out_H <= h < ceil((i+1)*H/out_H)
 * instead. */
typedef struct {
    int64_t kernel, stride, dilation, pad_before, pad_after;
} fc_pool_axis;

typedef struct {
    fc_pool_axis h, w;
    int adaptive;          /* the axes are not read */
    int count_include_pad; /* average: divide by the area inside the padded input, not by the number of positions */
    int64_t divisor;       /* average: divide by this instead, unless 0 */
} fc_pool;

/* y[n][c][i][j] = max of the window: the first maximum in row-major order; a NaN beats every number, the last NaN the
 * others. Either of (NULL: not wanted)
 *     index[n][c][i][j] int64_t, position h * width + w of the winner
 *     tap[n][i][j][c]   uint8_t, dense, winner as u * w.kernel + v; h.kernel * w.kernel <= 256, not adaptive
 * by_planes: tap[p / L][i][j][p % L] instead, p = n * channels + c, L = 64 bytes of values, with the last p / L padded;
 * all views have stride_n == c * stride_c then (or c == 1), and n * c > 1. */
fc_status fc_max_pool2d(fc_dtype, const fc_pool *, const fc_view *x, const fc_view *y, const fc_view *index,
                        uint8_t *tap, int by_planes);
/* grad_x[n][c][h][w] = sum of grad_y over the windows whose tap names this position */
fc_status fc_max_pool2d_tap_grad(fc_dtype, const fc_pool *, const fc_view *grad_y, const uint8_t *tap, int by_planes,
                                 const fc_view *grad_x);

/* fc_conv2d_grad_weight of the grad_x that fc_max_pool2d_tap_grad would make (not by planes), in y's place: of y the
 * sizes are read. FC_EALGORITHM where that way is not better, or may treat what is not finite in another way
 * (ops/conv_pooled.c). */
fc_status fc_conv2d_pooled_grad_weight(fc_dtype, const fc_conv *, const fc_pool *, const fc_view *y,
                                       const fc_view *grad, const uint8_t *tap, const fc_view *x,
                                       const fc_view *grad_weight);

/* y[n][c][i][j] = sum of the window / divisor */
fc_status fc_avg_pool2d(fc_dtype, const fc_pool *, const fc_view *x, const fc_view *y);
fc_status fc_avg_pool2d_grad(fc_dtype, const fc_pool *, const fc_view *grad_y, const fc_view *grad_x);

/* ---- positions given by the caller (ops/pool_index.c) --------------------------------------------------------------
 * A plane is addressed by position: its view needs stride_h == w * stride_w unless h or w is 1. FC_EINDEX when an
 * index[n][c][i][j] (int64_t) is negative or >= the plane's h * w; the output is then unspecified. */
/* plane = 0, then in row-major order of (i, j): plane[n][c][index] += value[n][c][i][j] */
fc_status fc_index_add(fc_dtype, const fc_view *value, const fc_view *index, const fc_view *plane);
/* the same with = in place of +=, so that of equal indices the last one stays */
fc_status fc_index_set(fc_dtype, const fc_view *value, const fc_view *index, const fc_view *plane);
/* value[n][c][i][j] = plane[n][c][index] */
fc_status fc_index_get(fc_dtype, const fc_view *plane, const fc_view *index, const fc_view *value);

/* ---- batch normalisation (ops/norm.c) -------------------------------------------------------------------------------
 * y[n][c][h][w] = clamp((x[n][c][h][w] - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c] + residual[n][c][h][w],
 *                       lower, upper)
 * Arrays by channel are contiguous. training: mean and (biased) variance of x over n, h, w; then, unless null,
 *     running_mean[c] = (1 - momentum) * running_mean[c] + momentum * mean[c], running_var with the unbiased variance.
 * Otherwise mean and var are the running ones. Null weight, bias and residual mean 1, 0 and 0. NaN passes through the
 * clamp. Nothing happens when x is empty. y may be x. */
typedef struct {
    void *running_mean, *running_var;
    const void *weight, *bias;
    int training;
    double momentum, eps;
    double *
        saved; /* saved[2][channels]: mean and 1 / sqrt(var + eps); forward writes them, gradient reads them; or null */
    double lower, upper; /* -inf, +inf: no clamp */
} fc_batch_norm;

fc_status fc_batch_norm_forward(fc_dtype, const fc_batch_norm *, const fc_view *x, const fc_view *residual,
                                const fc_view *y);
/* g = grad_y where lower < y < upper or y is NaN (infinite bounds: everywhere), 0 elsewhere: grad_weight[c] = sum g *
 * (x - mean) / sqrt(var + eps), grad_bias[c] = sum g; either may be null. Running statistics are only read. When x is
 * empty the sums are 0. Where a clamp and a residual were used, y is what the forward call gave and grad_residual = g
 * is written; otherwise both are null, y is computed again from x, and the gradient of a residual is grad_y. grad_x may
 * be x, or grad_y where grad_residual is not; grad_residual may be grad_y. */
fc_status fc_batch_norm_grad(fc_dtype, const fc_batch_norm *, const fc_view *grad_y, const fc_view *x, const fc_view *y,
                             const fc_view *grad_x, const fc_view *grad_residual, void *grad_weight, void *grad_bias);

/* ---- elementwise functions (ops/elementwise.c) ----------------------------------------------------------------------
 * Over `count` contiguous values; y may be x, grad_x either argument. NaN gives NaN. alpha: the slope of leaky_relu. */
typedef enum {
    FC_RELU, /* max(x, 0); slope 0 where x <= 0 */
    FC_RELU6, /* min(max(x, 0), 6); slope 0 where x <= 0 or x >= 6 */
    FC_LEAKY_RELU, /* x > 0 ? x : alpha x; slope alpha where x <= 0 */
    FC_SIGMOID, /* 1 / (1 + exp(-x)) */
    FC_TANH,
    FC_SILU, /* x / (1 + exp(-x)) */
    FC_GELU, /* x Phi(x) */
    FC_GELU_TANH, /* x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 */
} fc_elementwise;

void fc_elementwise_map(fc_dtype, fc_elementwise, int64_t count, double alpha, const void *x, void *y);
void fc_elementwise_grad(fc_dtype, fc_elementwise, int64_t count, double alpha, const void *grad_y, const void *x,
                         void *grad_x);
/* y = a + b; y may be a or b */
void fc_elementwise_add(fc_dtype, int64_t count, const void *a, const void *b, void *y);
#endif
