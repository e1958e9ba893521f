/* conv_patches.c: convolutions that are one matrix product, because each input meets one output at most.
 *
 *     whole     forward, one output pixel:    y[n][k] = sum_{c,u,v} x[n][c][u][v] * weight[k][c][u][v]
 *     patches   gradient of the input (and transposed convolution) of windows that do not overlap:
 *                   tile[n][i][j][c][u][v] = sum_k grad_y[n][i][j][k] * weight[k][c][u][v]
 *               which are then put where they belong
 *
 * (c, u, v) is one axis: the weight is read as it lies in memory, and no lane is empty where there are few channels. As
 * convolutions the first has rows of one pixel, and the second stride_h * stride_w phases of one tap each, or, with one
 * output, all taps for each input of which one meets more than padding.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <string.h>

enum {
    TILE_BYTES = 1 << 20, /* shared by all threads between the product and its distribution */
    /* Phases store whole pixels at once and need no distribution: they do better once channels fill half a vector,
     * unless there are too few pixels to pay for packing the weight by taps. */
    FEW_PIXELS = 64,
};

static int64_t taps(const fc_problem *p) { return p->kernel_h * p->kernel_w; }

/* Whether (c, u, v) is one axis of the weight, for `channels` of stride weight_c. */
static int taps_run(const fc_problem *p, int64_t channels, int64_t weight_c)
{
    return (p->kernel_w == 1 || p->weight_v == 1) && (p->kernel_h == 1 || p->weight_u == p->kernel_w) &&
           (channels == 1 || weight_c == taps(p));
}

/* A weight that lies otherwise is copied, so that the order of a sum does not depend on it:
 * to[group][a][b][u][v], where a and b are the channels whose strides are given. Bytes of that, 0 where it lies so. */
static int64_t weight_bytes(const fc_problem *p, int64_t channels, int64_t weight_c)
{
    return taps_run(p, channels, weight_c)
               ? 0
               : fc_round_up(p->groups * p->in_channels * p->out_channels * taps(p) * (int64_t)p->item, 64);
}

static void copy_weight(const fc_problem *p, int64_t a, int64_t a_stride, int64_t b, int64_t b_stride, char *to)
{
    const int64_t item = (int64_t)p->item;
    for (int64_t row = 0; row < p->groups * a; row++)
        for (int64_t i = 0; i < b; i++) {
            const char *from = p->weight + (row / a * p->weight_g + row % a * a_stride + i * b_stride) * item;
            for (int64_t t = 0; t < taps(p); t++, to += item)
                memcpy(to, from + (t / p->kernel_w * p->weight_u + t % p->kernel_w * p->weight_v) * item, p->item);
        }
}

static fc_problem one_tap(const fc_problem *p)
{
    fc_problem q = *p;
    q.kernel_h = q.kernel_w = q.stride_h = q.stride_w = q.dilation_h = q.dilation_w = 1;
    q.pad_top = q.pad_left = 0;
    q.weight_u = q.weight_v = 0;
    return q;
}

/* ---- whole --------------------------------------------------------------------------------------------------------*/
int fc_conv_whole_serves(const fc_problem *p) { return p->y.h * p->y.w == 1 && taps(p) > 1 && fc_sees_no_padding(p); }

/* Without data: a row of pixels, one for each image. */
static fc_problem whole_product(const fc_problem *p)
{
    fc_problem q = one_tap(p);
    q.in_channels = p->in_channels * taps(p);
    q.batch = 1;
    q.weight_c = 1;
    const int64_t pixel = q.in_channels * p->groups;
    q.x = (fc_view){.n = 1, .c = pixel, .h = 1, .w = p->x.n, .stride_c = 1, .stride_w = pixel};
    q.x.stride_h = q.x.stride_n = pixel * p->x.n;
    q.y.n = 1, q.y.w = p->y.n;
    q.y.stride_w = p->y.stride_n;
    q.y.stride_h = q.y.stride_n = p->y.stride_n * p->y.n;
    q.residual.w = p->residual.n;
    q.residual.stride_w = p->residual.stride_n;
    if (p->packed)
        fc_use_packed(&q, p->packed);
    return q;
}

typedef struct {
    const fc_problem *p;
    char *to;
} gather;

static void gather_image(void *context, int64_t n, int slot)
{
    (void)slot;
    const gather *a = context;
    const fc_problem *p = a->p;
    const fc_image x = fc_image_of(&p->x, p->item, n, 0, p->x.c);
    const fc_window window = {-p->pad_top, p->kernel_h, p->dilation_h, -p->pad_left, p->kernel_w, p->dilation_w};
    fc_load_window(p->k, p->item, &x, &window, a->to + n * p->x.c * taps(p) * (int64_t)p->item,
                   &(fc_pitch){p->kernel_w, 1, taps(p)});
}

/* Of the images as rows. */
static int64_t gathered_bytes(const fc_problem *product)
{
    return fc_round_up(product->x.w * product->x.c * (int64_t)product->item, 64);
}

static int64_t whole_weight_bytes(const fc_problem *p) { return weight_bytes(p, p->in_channels, p->weight_c); }

static void set_whole_weight(const fc_problem *p, fc_problem *q, char *to)
{
    copy_weight(p, p->out_channels, p->weight_k, p->in_channels, p->weight_c, to);
    q->weight = to;
    q->weight_k = q->in_channels;
    q->weight_g = q->weight_k * q->out_channels;
}

fc_status fc_conv_whole(const fc_problem *p)
{
    fc_problem q = whole_product(p);
    const int64_t weight = p->packed ? 0 : whole_weight_bytes(p);
    const fc_shared_scratch scratch =
        fc_scratch_share(weight + gathered_bytes(&q), fc_need_bytes(fc_conv_direct_scratch(&q)));
    if (!scratch.own)
        return FC_ENOMEM;
    if (weight)
        set_whole_weight(p, &q, scratch.own);
    gather a = {p, scratch.own + weight};
    fc_parallel(p->x.n, gather_image, &a);
    q.x.data = a.to;
    const fc_status status = fc_conv_direct(&q);
    fc_scratch_unshare(scratch);
    return status;
}

fc_need fc_conv_whole_scratch(const fc_problem *p)
{
    const fc_problem q = whole_product(p);
    fc_need n = fc_conv_direct_scratch(&q);
    n.shared += gathered_bytes(&q) + (p->packed ? 0 : whole_weight_bytes(p));
    return n;
}

fc_status fc_pack_whole(const fc_problem *p, char *to)
{
    fc_problem q = whole_product(p);
    const int64_t weight = whole_weight_bytes(p);
    char *block = weight ? fc_scratch_acquire((size_t)weight) : NULL;
    if (weight && !block)
        return FC_ENOMEM;
    if (weight)
        set_whole_weight(p, &q, block);
    const fc_status status = fc_pack_direct(&q, to);
    fc_scratch_release(block);
    return status;
}

/* ---- patches: problem->x is grad_y and ->y is grad_x; the geometry is that of the forward pass --------------------*/
static int disjoint(int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation)
{
    return outputs == 1 || stride > (kernel - 1) * dilation;
}

/* Whether the outermost taps land in grad_x somewhere. */
static int all_land(int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad, int64_t size)
{
    const fc_range first = fc_seeing_outputs(0, outputs, stride, dilation, pad, size),
                   last = fc_seeing_outputs(kernel - 1, outputs, stride, dilation, pad, size);
    return first.first < first.end && last.first < last.end;
}

int fc_grad_input_patches_serves(const fc_problem *p)
{
    return taps(p) > 1 && p->algorithm != FC_WINOGRAD && !p->residual.data &&
           all_land(p->x.h, p->kernel_h, p->stride_h, p->dilation_h, p->pad_top, p->y.h) &&
           all_land(p->x.w, p->kernel_w, p->stride_w, p->dilation_w, p->pad_left, p->y.w) && !fc_is_depthwise(p) &&
           (2 * p->out_channels <= p->k->vector_lanes || p->x.h * p->x.w <= FEW_PIXELS) &&
           disjoint(p->x.h, p->kernel_h, p->stride_h, p->dilation_h) &&
           disjoint(p->x.w, p->kernel_w, p->stride_w, p->dilation_w);
}

typedef struct {
    const fc_problem *p;
    fc_problem product;
    int64_t n, h; /* first image and row of grad_y in the tile */
    char *tile;
} patches;

/* The part of a window along an axis that lies in grad_x: taps, and where the first of them goes. */
typedef struct {
    fc_range taps;
    int64_t at;
} landing;

static landing land(int64_t output, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad, int64_t size)
{
    landing l = {fc_valid_taps(output * stride - pad, dilation, kernel, size), 0};
    l.at = output * stride - pad + l.taps.first * dilation;
    return l;
}

/* to[v][c] = from[c][v] for the taps of one window's row; from's rows are `taps` long. */
static void put_row(const fc_problem *p, const char *from, int64_t count, char *to)
{
    const int64_t item = (int64_t)p->item, step = p->y.stride_w * p->dilation_w;
    if (p->y.stride_c == 1 && p->y.c > 1) {
        p->k->transpose(p->y.c, count, from, taps(p), to, step);
        return;
    }
    if (step == 1) {
        p->k->copy_rows(p->y.c, count, from, taps(p), to, p->y.stride_c);
        return;
    }
    for (int64_t c = 0; c < p->y.c; c++)
        for (int64_t v = 0; v < count; v++)
            memcpy(to + (c * p->y.stride_c + v * step) * item, from + (c * taps(p) + v) * item, p->item);
}

/* One row of grad_y's windows. */
static void put_windows(void *context, int64_t task, int slot)
{
    (void)slot;
    const patches *a = context;
    const fc_problem *p = a->p;
    const fc_view *tile = &a->product.y;
    const int64_t item = (int64_t)p->item, n = task / tile->h, i = task % tile->h;
    const landing u = land(a->h + i, p->kernel_h, p->stride_h, p->dilation_h, p->pad_top, p->y.h);
    for (int64_t j = 0; j < tile->w; j++) {
        const landing v = land(j, p->kernel_w, p->stride_w, p->dilation_w, p->pad_left, p->y.w);
        const int64_t pixel = n * tile->stride_n + i * tile->stride_h + j * tile->stride_w + v.taps.first;
        for (int64_t t = u.taps.first; t < u.taps.end && v.taps.first < v.taps.end; t++)
            put_row(p, a->tile + (pixel + t * p->kernel_w) * item, v.taps.end - v.taps.first,
                    (char *)p->y.data +
                        ((a->n + n) * p->y.stride_n + (u.at + (t - u.taps.first) * p->dilation_h) * p->y.stride_h +
                         v.at * p->y.stride_w) *
                            item);
    }
}

static void set_tile(patches *a, int64_t images, int64_t rows)
{
    fc_problem *q = &a->product;
    const int64_t pixel = q->groups * q->out_channels;
    q->x.n = images, q->x.h = rows;
    q->x.data = (char *)a->p->x.data + (a->n * q->x.stride_n + a->h * q->x.stride_h) * (int64_t)q->item;
    q->y =
        (fc_view){.data = a->tile, .n = images, .c = pixel, .h = rows, .w = q->x.w, .stride_c = 1, .stride_w = pixel};
    q->y.stride_h = pixel * q->x.w;
    q->y.stride_n = q->y.stride_h * rows;
}

/* to[c][u][v] = from[c] */
static const void *spread(const fc_problem *p, const void *from, char *to)
{
    if (!from)
        return NULL;
    for (int64_t i = 0; i < p->y.c * taps(p); i++)
        memcpy(to + i * (int64_t)p->item, (const char *)from + i / taps(p) * (int64_t)p->item, p->item);
    return to;
}

static fc_problem patch_product(const fc_problem *p)
{
    fc_problem q = one_tap(p);
    q.out_channels = p->out_channels * taps(p);
    q.weight_k = 1;
    return q;
}

/* Whether every element of grad_x is written. */
static int covers_all(const fc_problem *p)
{
    int64_t rows = 0, columns = 0;
    for (int64_t u = 0; u < p->kernel_h; u++) {
        const fc_range r = fc_seeing_outputs(u, p->x.h, p->stride_h, p->dilation_h, p->pad_top, p->y.h);
        rows += r.end - r.first;
    }
    for (int64_t v = 0; v < p->kernel_w; v++) {
        const fc_range r = fc_seeing_outputs(v, p->x.w, p->stride_w, p->dilation_w, p->pad_left, p->y.w);
        columns += r.end - r.first;
    }
    return rows == p->y.h && columns == p->y.w;
}

static fc_status run_product(patches *a)
{
    fc_problem q = a->product;
    fc_unroll_rows(&q);
    const fc_status status = fc_conv_direct(&q);
    if (status == FC_OK)
        fc_parallel(a->product.y.n * a->product.y.h, put_windows, a);
    return status;
}

/* Scratch of a product: those of the last, smaller tiles may take more. */
static int64_t product_scratch(const patches *whole, int64_t images, int64_t rows)
{
    patches copy = *whole, *a = &copy;
    const fc_view *x = &a->p->x;
    int64_t most = 0;
    for (int i = 0; i < 4; i++) {
        set_tile(a, i % 2 && x->n % images ? x->n % images : images, i / 2 && x->h % rows ? x->h % rows : rows);
        fc_problem q = a->product;
        fc_unroll_rows(&q);
        most = fc_max(most, fc_need_bytes(fc_conv_direct_scratch(&q)));
    }
    return most;
}

fc_status fc_grad_input_patches(const fc_problem *p)
{
    const int64_t item = (int64_t)p->item, row = p->x.w * p->y.c * taps(p) * item;
    const int64_t rows = fc_max(1, fc_min(p->x.h, TILE_BYTES / row));
    const int64_t images = rows < p->x.h ? 1 : fc_max(1, fc_min(p->x.n, TILE_BYTES / (row * p->x.h)));
    patches a = {.p = p, .product = patch_product(p)};
    const int single = rows == p->x.h && images == p->x.n;
    const int64_t tile = fc_round_up(images * rows * row, 64), spreads = fc_round_up(p->y.c * taps(p) * item, 64);
    const int64_t packed = single ? 0 : fc_round_up(fc_packed_direct(&a.product) * item, 64);
    const int64_t weight = weight_bytes(p, p->out_channels, p->weight_k);
    if (packed)
        fc_expect_packed(&a.product);
    const fc_shared_scratch scratch =
        fc_scratch_share(tile + 2 * spreads + packed + weight, product_scratch(&a, images, rows));
    if (!scratch.own)
        return FC_ENOMEM;
    a.tile = scratch.own;
    if (weight) {
        a.product.weight = a.tile + tile + 2 * spreads + packed;
        a.product.weight_c = a.product.out_channels;
        a.product.weight_g = a.product.weight_c * p->in_channels;
        copy_weight(p, p->in_channels, p->weight_c, p->out_channels, p->weight_k, (char *)a.product.weight);
    }
    set_tile(&a, images, rows);
    a.product.epilogue.scale = spread(p, p->epilogue.scale, a.tile + tile);
    a.product.epilogue.bias = spread(p, p->epilogue.bias, a.tile + tile + spreads);
    if (packed) {
        fc_pack_direct(&a.product, a.tile + tile + 2 * spreads);
        fc_use_packed(&a.product, a.tile + tile + 2 * spreads);
    }
    if (!covers_all(p))
        fc_fill_zero(p);
    fc_status status = FC_OK;
    for (a.n = 0; a.n < p->x.n; a.n += images)
        for (a.h = 0; a.h < p->x.h && status == FC_OK; a.h += rows) {
            set_tile(&a, fc_min(images, p->x.n - a.n), fc_min(rows, p->x.h - a.h));
            status = run_product(&a);
        }
    fc_scratch_unshare(scratch);
    return status;
}
