/* conv.h: one convolution as its drivers see it, and the drivers. */
#ifndef FC_OPS_CONV_H
#define FC_OPS_CONV_H
#include "../fastconv.h"
#include "../kernels/kernels.h"
#include "../scratch.h"
#include "image.h"

#include <stdatomic.h>

enum { FC_LINE_BYTES = 64 }; /* of the caches */

/* y[n][g * K + k][i][j] = sum_{c,u,v} weight[g][k][c][u][v]
 *                                     * x[n][g * C + c][i * stride_h + u * dilation_h - pad_top][j * ... - pad_left]
 * with x zero outside. The weight is a view of its own, so that flipped, transposed and sampled kernels (gradients,
 * output phases) are the same problem with other strides. pad_top and pad_left may be negative. */
typedef struct {
    const fc_kernels *k;
    size_t item; /* sizeof(T) */
    fc_view x, y;
    int64_t groups, in_channels, out_channels; /* channels per group: C and K */
    int64_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    const char *weight;
    int64_t weight_g, weight_k, weight_c, weight_u, weight_v; /* strides in elements */
    /* The weight as the method's pack function left it (packed_v is 0), or as fc_pack_direct did, for direct and
     * Winograd: strides in rows of a panel; problems that share a kernel (output phases, residues of a dilation) share
     * it and say where their first tap is and how to step. Or NULL. */
    const char *packed;
    int64_t packed_group, packed_column, packed_first, packed_u, packed_v;
    int narrow; /* what fc_pack_direct makes has panels of two vectors at most, as Winograd reads them */
    fc_epilogue epilogue;
    fc_view
        residual; /* the epilogue's own is NULL: this one is turned and cut like y; .data is NULL when there is none */
    fc_algorithm algorithm;
    int nonfinite; /* the weight or x holds NaN or infinity: no multiplications with padding, and it must not fail */
    int64_t chunk; /* of a region, which is direct: fc_direct_chunk of the whole, or 0 */
    int64_t batch; /* images of the call, of which x and y may be some */
    int warm; /* x and y are in the second-level cache */
    int band; /* some rows of an image: what is copied must not depend on how many */
} fc_problem;

typedef fc_status fc_run(const fc_problem *);

/* Along one axis grad_x[i] = sum_u w[u] * grad_y[(i + pad - u * dilation) / stride] over the u that divide. The i with
 * (i + pad) mod stride == a, i = first + t * stride, form phase a; they see the taps u = u0, u0 + step, ... with
 * u * dilation mod stride == a, where step = stride / gcd(stride, dilation). With the taps reversed,
 *     grad_x[first + t * stride] = sum_j w[last - j * step] * grad_y[t + j * (dilation / gcd) - phase_pad]
 * is a convolution of stride 1. */
typedef struct {
    int64_t first, count; /* inputs of the phase */
    int64_t taps, last, step; /* taps last, last - step, ... */
    int64_t dilation, pad;
} fc_phase;

/* conv_grad_input.c */
fc_phase fc_make_phase(int64_t first, int64_t size, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad);

/* conv_choose.c: a pure function of the shape, see there and conv_choose.h */
int fc_is_depthwise(const fc_problem *);
int fc_is_grouped(const fc_problem *); /* few channels per group, which conv_depthwise.c serves */
/* What the method of a convolution of stride 1 costs per image, in vector multiplications. */
double fc_forward_cost(const fc_problem *);
int fc_is_direct(const fc_problem *); /* whether the matrix products of conv_direct.c are the method */
/* Whether the method is direct or depthwise on the problem as it lies: any rows of y by themselves have the bits of the
 * whole. */
int fc_runs_by_rows(const fc_problem *);
int fc_takes_packed(const fc_problem *); /* whether the method can use what fc_pack_direct made */

/* conv_layout.c: the same problem in an easier shape */
void fc_lay_down(fc_problem *); /* a tall, narrow image is turned on its side */
void fc_turn_tall(fc_problem *); /* depthwise and grouped: a column of taps becomes a row */
void fc_turn_where_better(fc_problem *); /* direct: where that saves multiplications by padding */
/* Pairs of an output and a tap along an axis that meet in x. */
int64_t fc_pairs_inside(int64_t taps, int64_t outputs, int64_t stride, int64_t dilation, int64_t pad, int64_t size);
/* Rows and columns of the kernel that meet nothing but padding are cut off; whether there were any. */
int fc_trim(fc_problem *);
/* A 1x1 problem whose rows (and images) follow each other without gaps becomes one long row. */
void fc_unroll_rows(fc_problem *);

/* conv.c */
fc_problem fc_make_problem(fc_dtype, const fc_conv *, const fc_view *x, const fc_view *weight, const fc_view *y);
void fc_set_epilogue(fc_problem *, const fc_epilogue *);
int fc_is_empty(const fc_view *);
/* The problem of images [first, first + count). */
fc_problem fc_images(const fc_problem *, int64_t first, int64_t count);
/* Picks the method and runs it; lays the problem out on the way. */
fc_status fc_conv_forward(fc_problem *);
/* Bytes of its scratch. */
int64_t fc_forward_scratch(const fc_problem *);

static inline void fc_swap(int64_t *a, int64_t *b)
{
    const int64_t t = *a;
    *a = *b;
    *b = t;
}
static inline int64_t fc_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t fc_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t fc_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t fc_round_up(int64_t a, int64_t b) { return fc_ceil_div(a, b) * b; }

/* Rows a, a + d, a + 2 d, .. of the output see rows of one residue modulo the dilation d only: d problems without
 * vertical dilation. The same of columns. */
typedef struct {
    int64_t first, x_size, y_size, pad; /* the first of x, how many, and how many of y */
} fc_residue;
static inline fc_residue fc_residue_of(int64_t a, int64_t dilation, int64_t pad, int64_t x_size, int64_t y_size)
{
    const int64_t start = a - pad, first = (start % dilation + dilation) % dilation;
    return (fc_residue){first, first < x_size ? fc_ceil_div(x_size - first, dilation) : 0,
                        fc_ceil_div(y_size - a, dilation), (first - start) / dilation};
}

/* The taps t with 0 <= start + t * dilation < size. */
typedef struct {
    int64_t first, end;
} fc_range;

static inline fc_range fc_valid_taps(int64_t start, int64_t dilation, int64_t taps, int64_t size)
{
    fc_range r = {start < 0 ? fc_min(taps, fc_ceil_div(-start, dilation)) : 0, taps};
    if (start + (taps - 1) * dilation >= size)
        r.end = start >= size ? 0 : fc_min(taps, fc_ceil_div(size - start, dilation));
    if (r.end < r.first)
        r.end = r.first;
    return r;
}

/* Rows (columns) of the kernel that an output of the row (column) sees */
static inline fc_range fc_taps_of_row(const fc_problem *p, int64_t row)
{
    return fc_valid_taps(row * p->stride_h - p->pad_top, p->dilation_h, p->kernel_h, p->x.h);
}
static inline fc_range fc_taps_of_column(const fc_problem *p, int64_t column)
{
    return fc_valid_taps(column * p->stride_w - p->pad_left, p->dilation_w, p->kernel_w, p->x.w);
}

/* The outputs for which tap `tap` lies inside x: 0 <= i * stride + tap * dilation - pad < size. */
static inline fc_range fc_seeing_outputs(int64_t tap, int64_t outputs, int64_t stride, int64_t dilation, int64_t pad,
                                         int64_t size)
{
    const int64_t start = tap * dilation - pad;
    fc_range r = {.first = start < 0 ? fc_min(outputs, fc_ceil_div(-start, stride)) : 0};
    r.end = start >= size ? 0 : fc_min(outputs, fc_ceil_div(size - start, stride));
    if (r.end < r.first)
        r.end = r.first;
    return r;
}

/* Inputs along one axis from the first to the last that `outputs` neighbouring outputs see. */
static inline int64_t fc_extent(int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation)
{
    return (outputs - 1) * stride + (kernel - 1) * dilation + 1;
}
/* Rows or columns of their strip: one tap needs only the sampled inputs. */
static inline int64_t fc_strip_extent(int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation)
{
    return kernel == 1 ? outputs : fc_extent(outputs, kernel, stride, dilation);
}

/* Whether no output sees anything outside x. */
static inline int fc_sees_no_padding(const fc_problem *p)
{
    return p->pad_top <= 0 && p->pad_left <= 0 && -p->pad_top < p->x.h && -p->pad_left < p->x.w &&
           fc_extent(p->y.h, p->kernel_h, p->stride_h, p->dilation_h) - p->pad_top <= p->x.h &&
           fc_extent(p->y.w, p->kernel_w, p->stride_w, p->dilation_w) - p->pad_left <= p->x.w;
}

/* residual[n][channel][h][w], NULL when there is none */
static inline const char *fc_residual_at(const fc_problem *p, int64_t n, int64_t channel, int64_t h, int64_t w)
{
    const fc_view *r = &p->residual;
    if (!r->data)
        return NULL;
    return (const char *)r->data + (n * r->stride_n + channel + h * r->stride_h + w * r->stride_w) * (int64_t)p->item;
}

/* base[elements] of a T array, NULL of NULL. */
static inline const char *fc_at(const void *base, int64_t elements, size_t item)
{
    return base ? (const char *)base + elements * (int64_t)item : NULL;
}

/* Of an epilogue but for its residual */
static inline int fc_is_identity(const fc_epilogue *e)
{
    return !e->scale && !e->bias && e->lower == -__builtin_inf() && e->upper == __builtin_inf();
}
static inline int fc_has_epilogue(const fc_problem *p) { return p->residual.data || !fc_is_identity(&p->epilogue); }

/* Where the channels from c on of a panel that begins at an output channel are in p->packed, elements. */
static inline int64_t fc_packed_at(const fc_problem *p, int64_t group, int64_t column, int64_t c, int64_t width)
{
    return group * p->packed_group + column * p->packed_column + (p->packed_first + c) * width;
}

/* Whether outputs are best written past the caches: y is large, and its vectors are whole cache lines. */
int fc_streams(const fc_problem *);

/* Whether a vector is a cache line. */
static inline int fc_has_line_vectors(const fc_problem *p)
{
    return p->k->vector_lanes * (int64_t)p->item == FC_LINE_BYTES;
}

/* In which steps a product of so many tiles fetches memory (kernels/gemm.h). Vectors of 64 bytes leave time for that in
 * each. A step of 6 cycles does not: to ask once more for a line that is on its way takes as long as to ask for
 * another, so each fetch is a line of its own where there are 4 tiles for them. */
static inline int64_t fc_ahead_every(const fc_problem *p, int64_t tiles)
{
    return fc_has_line_vectors(p) || tiles < 2 ? 1 : tiles < 4 ? 2 : 4;
}

/* One line, or both of a panel's 128 bytes, of each of `length` rows that are `pitch` elements apart; length, ahead
 * (the first row) and ahead_every are set before. Where a panel is no more than a line and rows are not aligned, that
 * of its last element: the other was fetched with the panel before. */
static inline void fc_set_ahead_rows(const fc_problem *p, int64_t pitch, fc_gemm *product)
{
    const int64_t lanes = p->k->vector_lanes;
    product->ahead_step = pitch;
    if (fc_has_line_vectors(p)) {
        product->ahead_tile = lanes;
        product->ahead_tiles = 2;
        return;
    }
    product->ahead_tiles = product->ahead_every;
    product->ahead_tile = pitch * fc_ceil_div(product->length, product->ahead_every);
    if (product->ahead)
        product->ahead = (const char *)product->ahead + (2 * lanes - 1) * (int64_t)p->item;
}

/* Whether the first tile may copy a panel of two vectors, of which it has so many rows, and read it where it comes
 * from. */
static inline int fc_copies_panel(const fc_problem *p, int64_t columns, int64_t rows)
{
    enum { LEAST_ROWS = 4 };
    return !fc_has_line_vectors(p) && columns == 2 * p->k->vector_lanes && rows >= LEAST_ROWS;
}

/* Bytes of a core's second-level cache, read from the machine once (1 MiB when it does not tell). */
int64_t fc_l2_bytes(void);
/* Whether its first-level cache has 12 ways: 14 rows a power of two apart, read in step, nearly stay in a set, and a
 * tile runs at 0.9 to 1.0 of its speed on operands in the second level, whatever their pitch. With 8 ways it is 0.8:
 * they are copied. */
int fc_has_wide_l1(void);

/* What of the third-level cache may be counted on. A Zen 3 core of a virtual machine that shares 32 MiB with others
 * reads 8 MiB at 50 GB/s and 16 MiB at 15 to 20, as from memory. */
enum { FC_SHARE_BYTES = 8 << 20 };

/* Whether each of two threads makes for itself what both read, so many bytes: there are two copies. To write a line
 * that another core has read takes the two longer than each to write its own twice (Zen 4: 590 KB of transformed
 * weights 29 us and 12, 900 KB of inputs 42 and 31; seven times as long where the two share no cache). More threads
 * have less to write each. */
enum { FC_OWNERS = 2 };
static inline int fc_makes_own(int64_t threads, int64_t bytes)
{
    return threads == FC_OWNERS && bytes > 0 && bytes <= FC_SHARE_BYTES / FC_OWNERS;
}
/* What their second-level caches hold. */
static inline int64_t fc_owners_l2_bytes(void) { return FC_OWNERS * fc_l2_bytes(); }

/* to[u][v][c][column] = weight[column][c][u][v] for `channels` input channels and `columns` output channels of the
 * weight that starts at `from`; rows of `to` are `width` wide. */
void fc_pack_weights(const fc_problem *, const char *from, int64_t channels, int64_t columns, char *to, int64_t width);

/* The way back, for gradients: weight[group][k0 + k][c0 + c][u][v] = panel[(u * kernel_w + v) * tap_pitch + c * width +
 * k], where problem->weight is the output. */
void fc_unpack_weights(const fc_problem *, int64_t group, int64_t k0, int64_t columns, int64_t c0, int64_t channels,
                       const char *panel, int64_t width, int64_t tap_pitch);

/* Forward: writes y. Each runs the whole problem in parallel, and packs the weight itself unless problem->packed is
 * there. */
fc_status fc_conv_direct(const fc_problem *);
fc_status fc_conv_depthwise(const fc_problem *); /* in_channels == out_channels == 1, or fc_is_grouped */
fc_status fc_conv_depthwise_flat(const fc_problem *); /* where fc_conv_depthwise_flat_serves */
int fc_conv_depthwise_flat_serves(const fc_problem *); /* few channels, stride 1 along the row */
fc_status
fc_conv_depthwise_grad_input(const fc_problem *); /* y is grad_x; strides, dilations and pads of the forward call */
fc_status fc_conv_depthwise_inputs(
    const fc_problem *); /* out_channels == 1: a depthwise problem for each input channel of a group */
int64_t fc_direct_chunk(const fc_problem *); /* channels that a sum takes before it goes to the next tap */
fc_status fc_conv_winograd(const fc_problem *); /* where fc_conv_winograd_serves */
/* Up to 16 x 16 taps and lines of 2 to 64 with stride 1; without dilation squares with a stride of 2 to 4, lines of up
 * to 64 taps with one of up to 16, below their size */
int fc_conv_winograd_serves(const fc_problem *);
fc_status fc_conv_winograd_rows(const fc_problem *); /* where fc_conv_winograd_rows_serves */
int fc_conv_winograd_rows_serves(const fc_problem *); /* several rows of 3 or 5 taps, few input channels */
int64_t fc_winograd_rows_tiles(const fc_problem *); /* in a row of outputs */
fc_status fc_conv_pixels(const fc_problem *); /* out_channels <= FC_PIXELS_MAX_CHANNELS */
fc_status fc_conv_planes(const fc_problem *); /* the sums of direct, where fc_conv_planes_serves */
int fc_conv_planes_serves(const fc_problem *); /* x and y are planes */
fc_status fc_conv_taps(const fc_problem *); /* where fc_conv_taps_serves */
int fc_conv_taps_serves(const fc_problem *); /* stride 1, few output channels */
enum { FC_TAPS_STORE = 8, FC_TAPS_SUM = 3 }; /* multiplications that a vector stored and one added cost */
fc_status fc_conv_dots(const fc_problem *); /* where fc_conv_dots_serves */
int fc_conv_dots_serves(const fc_problem *); /* few output channels */

typedef fc_status fc_guarded(fc_problem *, const void *context);

fc_status fc_conv_whole(const fc_problem *); /* where fc_conv_whole_serves */
int fc_conv_whole_serves(const fc_problem *); /* one output, no padding */

/* conv_phases.c: strides by Winograd, see there. gradient: of the input, x is grad_y, the geometry that of the forward
 * pass */
int fc_conv_phases_serves(const fc_problem *, int gradient);
fc_problem fc_phases_problem(const fc_problem *, int gradient); /* of stride 1, without data */
fc_status fc_conv_phases(const fc_problem *);
fc_status fc_conv_phases_grad_input(const fc_problem *, fc_guarded *otherwise, const void *context);
fc_status fc_conv_phases_grad_weight(const fc_problem *);
fc_need fc_conv_phases_scratch(const fc_problem *);
int64_t fc_packed_phases(const fc_problem *);
fc_status fc_pack_phases(const fc_problem *, char *to);

/* conv_patches.c: the gradient of the input where it is one product, see there */
int fc_grad_input_patches_serves(const fc_problem *);
fc_status fc_grad_input_patches(const fc_problem *);
/* Fills problem->y with the epilogue of zero. */
void fc_fill_zero(const fc_problem *);

/* Elements of the packed weight, and packing it into `to` (aligned to 64 bytes). */
int64_t fc_packed_direct(const fc_problem *);
int64_t fc_packed_depthwise(const fc_problem *);
int64_t fc_packed_depthwise_flat(const fc_problem *);
int64_t fc_packed_depthwise_inputs(const fc_problem *);
int64_t fc_packed_winograd(const fc_problem *);
int64_t fc_packed_winograd_rows(const fc_problem *);
int64_t fc_packed_pixels(const fc_problem *);
int64_t fc_packed_taps(const fc_problem *);
int64_t fc_packed_dots(const fc_problem *);
fc_status fc_pack_direct(const fc_problem *, char *to);
fc_status fc_pack_whole(const fc_problem *, char *to); /* as many as fc_packed_direct */
fc_status fc_pack_depthwise(const fc_problem *, char *to);
fc_status fc_pack_depthwise_flat(const fc_problem *, char *to);
fc_status fc_pack_depthwise_inputs(const fc_problem *, char *to);
fc_status fc_pack_winograd(const fc_problem *, char *to);
fc_status fc_pack_winograd_rows(const fc_problem *, char *to);
fc_status fc_pack_pixels(const fc_problem *, char *to);
fc_status fc_pack_taps(const fc_problem *, char *to);
fc_status fc_pack_dots(const fc_problem *, char *to);
/* Sets problem->packed to the whole weight that fc_pack_direct packed. */
void fc_use_packed(fc_problem *, const char *packed);
/* As if there were one: what the problem takes when it will be packed by then. */
void fc_expect_packed(fc_problem *);

/* Gradient of the weight: `problem->weight` is the output, y holds grad_y. */
fc_status fc_conv_direct_grad_weight(const fc_problem *);
/* Its multiplications of vectors per output pixel and row of taps, for few output channels. */
int64_t fc_direct_grad_weight_cost(const fc_problem *);
/* conv_correlate.c: few input and output channels, where its cost, in vector multiplications per image, is finite */
fc_status fc_conv_correlate_grad_weight(const fc_problem *);
double fc_correlate_grad_weight_cost(const fc_problem *);
fc_status fc_conv_winograd_grad_weight(const fc_problem *); /* where fc_conv_winograd_serves */
fc_status fc_conv_depthwise_grad_weight(const fc_problem *);
/* Groups of few channels: one depthwise problem for each pair of an input and an output channel of a group */
fc_status fc_conv_depthwise_grad_weight_by_pairs(const fc_problem *);

/* conv_nonfinite.c */
int fc_is_finite(const fc_kernels *, size_t item, const fc_view *);
/* Runs the problem, and where its weight is not finite, images that it spoils again. weight as the caller gave it. */
fc_status fc_guard(fc_problem *, const fc_view *weight, fc_guarded *run, const void *context);
/* Runs images again, with ->nonfinite set: those with spoilt[image], or where it is NULL, with NaN or infinity in y. */
fc_status fc_run_spoilt(const fc_problem *, const atomic_char *spoilt, fc_guarded *run, const void *context);
/* With NaN or infinity, which meet no padding and no neighbours. Where there is no memory, on the stack. */
fc_status fc_conv_by_regions(const fc_problem *);
fc_status fc_direct_by_regions(fc_problem *, const void *); /* the sums of fc_conv_direct, with memory or without */
/* Any problem with its weight as it came, without other memory than the threads' stacks, and without padding. The sums
 * of fc_conv_direct in 3 to 10 times the time, depthwise 200. */
void fc_conv_on_stack(const fc_problem *);
fc_status fc_conv_grad_weight_by_taps(fc_dtype, const fc_conv *, const fc_view *grad_y, const fc_view *x,
                                      const fc_view *grad_weight);

/* The scratch of these */
fc_need fc_conv_direct_scratch(const fc_problem *);
fc_need fc_conv_whole_scratch(const fc_problem *);
fc_need fc_conv_depthwise_scratch(const fc_problem *);
fc_need fc_conv_depthwise_flat_scratch(const fc_problem *);
fc_need fc_conv_depthwise_inputs_scratch(const fc_problem *);
fc_need fc_conv_winograd_scratch(const fc_problem *);
fc_need fc_conv_winograd_rows_scratch(const fc_problem *);
fc_need fc_conv_pixels_scratch(const fc_problem *);
fc_need fc_conv_planes_scratch(const fc_problem *);
fc_need fc_conv_taps_scratch(const fc_problem *);
fc_need fc_conv_dots_scratch(const fc_problem *);
#endif
