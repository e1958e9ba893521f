/* conv_dots.c: convolution with few output channels, whose lanes are input channels.
 *
 *     y[h][w][k] = sum_u dot(x[h * stride_h + u * dilation_h - pad_top][w * stride_w - pad_left ..], weight[k][u])
 *
 * Lanes that are output channels would be mostly empty. A row of taps and their channels is one run of memory, of which
 * all lanes but the last vector's are in use, for the price of adding up the lanes of a sum at its end, which takes as
 * long as some 5 multiplications (kernels/dots.tmpl.h). Taps in the padding are left out. Pixels are read where they
 * lie; planes are copied where there is one tap, and turned where there are more, block by block.
 */
#include "../scratch.h"
#include "../threads.h"
#include "conv.h"

#include <string.h>

enum {
    MIN_COLUMNS = 64, /* of a piece of a row */
    MAX_ROW_BYTES = 16 << 10, /* of outputs, on their way to y: half of a small first-level cache */
    LINE_BYTES = 64,
};

typedef enum { PIXELS, PLANES, STRIP } source; /* what the kernel reads: pixels of x, or copies: planes, pixels */

typedef struct {
    const fc_problem *p;
    source source;
    int64_t block_h, count_h, block_w, count_w; /* blocks of outputs */
    int64_t plane; /* pitch of the planes of a strip */
    int64_t strip_bytes, line_bytes, thread_bytes;
    const char *weights; /* [group][u][run][k][element], elements in whole vectors */
    char *threads;
} plan;

/* Dilated taps are a run each. */
static int64_t runs_of(const fc_problem *p) { return p->dilation_w == 1 ? 1 : p->kernel_w; }
static int64_t run_of(const fc_problem *p) { return p->in_channels * p->kernel_w / runs_of(p); }
static int64_t pitch_of(const fc_problem *p) { return fc_round_up(run_of(p), p->k->vector_lanes); }

/* The weights of a group are read once per tile of pixels: they stay in half of a small second-level cache. */
int fc_conv_dots_serves(const fc_problem *p)
{
    enum { MAX_WEIGHT_BYTES = 256 << 10 };
    return p->out_channels <= fc_min(FC_DOTS_MAX_CHANNELS, p->k->vector_lanes / 2) &&
           p->kernel_h * runs_of(p) <= MAX_WEIGHT_BYTES / (int64_t)p->item / pitch_of(p) / p->out_channels;
}

static source source_of(const fc_problem *p)
{
    const int one = p->kernel_h * p->kernel_w == 1;
    if (p->x.stride_c == 1 && (run_of(p) == p->in_channels || p->x.stride_w == p->in_channels))
        return PIXELS;
    return one && p->x.stride_w == 1 && p->stride_w == 1 && !p->residual.data && fc_sees_no_padding(p) ? PLANES : STRIP;
}

/* Pitch of the planes of a strip: a line more than a power of two, whose multiples share sets of the first-level
 * cache. */
static int64_t plane_of(const fc_problem *p, int64_t elements)
{
    enum { ALIASING_BYTES = 512 };
    const int64_t item = (int64_t)p->item;
    return elements * item % ALIASING_BYTES ? elements : elements + LINE_BYTES / item;
}

/* Pixels of x that a block sees */
static int64_t seen_pixels(const plan *s)
{
    const fc_problem *p = s->p;
    return fc_min(p->x.h, fc_extent(s->block_h, p->kernel_h, p->stride_h, p->dilation_h)) *
           fc_min(p->x.w, fc_extent(s->block_w, p->kernel_w, p->stride_w, p->dilation_w));
}

static int halve(int64_t *size, int64_t least)
{
    if (*size <= least)
        return 0;
    *size = fc_max(least, fc_ceil_div(*size, 2));
    return 1;
}

static plan make_plan(const fc_problem *p)
{
    const int64_t item = (int64_t)p->item, wanted = fc_parallel_tasks(), images = p->y.n * p->groups;
    plan s = {.p = p, .source = source_of(p), .block_h = p->y.h, .block_w = p->y.w};
    for (;;) {
        s.count_h = fc_ceil_div(p->y.h, s.block_h), s.count_w = fc_ceil_div(p->y.w, s.block_w);
        s.plane = s.source == PLANES ? plane_of(p, seen_pixels(&s)) : seen_pixels(&s);
        s.strip_bytes = s.source == PIXELS ? 0 : fc_round_up(s.plane * p->in_channels * item, LINE_BYTES);
        const int large = s.strip_bytes > fc_l2_bytes() / 4 || s.block_w * p->out_channels * item > MAX_ROW_BYTES;
        if (!large && images * s.count_h * s.count_w >= wanted)
            break;
        if (!halve(&s.block_h, 1) && !halve(&s.block_w, MIN_COLUMNS))
            break;
    }
    s.line_bytes = fc_round_up((s.block_w * p->out_channels + p->k->vector_lanes) * item, LINE_BYTES);
    s.thread_bytes = s.strip_bytes + 2 * s.line_bytes + 2 * LINE_BYTES; /* y, residual, scale, bias */
    return s;
}

/* ---- weights: rows end with zeros, and so does the whole ----------------------------------------------------------*/
int64_t fc_packed_dots(const fc_problem *p)
{
    return p->groups * p->kernel_h * runs_of(p) * p->out_channels * pitch_of(p) + p->k->vector_lanes;
}

#define PACK(type)                                                                                                     \
    for (int64_t c = 0; c < p->in_channels; c++)                                                                       \
        ((type *)t)[c] = ((const type *)f)[c * p->weight_c];

fc_status fc_pack_dots(const fc_problem *p, char *to)
{
    const int64_t item = (int64_t)p->item, pitch = pitch_of(p), taps = p->kernel_w / runs_of(p);
    memset(to, 0, (size_t)(fc_packed_dots(p) * item));
    for (int64_t g = 0; g < p->groups; g++)
        for (int64_t u = 0; u < p->kernel_h; u++)
            for (int64_t v = 0; v < p->kernel_w; v++)
                for (int64_t k = 0; k < p->out_channels; k++) {
                    const int64_t row = ((g * p->kernel_h + u) * runs_of(p) + v / taps) * p->out_channels + k;
                    const char *f =
                        p->weight + (g * p->weight_g + k * p->weight_k + u * p->weight_u + v * p->weight_v) * item;
                    char *t = to + (row * pitch + v % taps * p->in_channels) * item;
                    if (p->item == 4) {
                        PACK(uint32_t)
                    } else {
                        PACK(uint64_t)
                    }
                }
    return FC_OK;
}

/* ---- one block ----------------------------------------------------------------------------------------------------*/
typedef struct {
    int64_t n, g, h, w, rows, columns; /* of outputs */
    const char *x; /* where x[0][0] is, or would be: a strip has only what the block sees */
    int64_t x_row, x_pixel, x_channel;
    char *line, *residual;
    fc_dots dots;
} block;

/* channels over and over, a vector of them; NULL of NULL */
static const void *repeated(const fc_problem *p, const char *channels, char *to)
{
    const int64_t item = (int64_t)p->item;
    for (int64_t l = 0; channels && l < p->k->vector_lanes; l++)
        memcpy(to + l * item, channels + l % p->out_channels * item, p->item);
    return channels ? to : NULL;
}

static void load_strip(const plan *s, block *b, char *strip)
{
    const fc_problem *p = s->p;
    const int64_t first_h = b->h * p->stride_h - p->pad_top, first_w = b->w * p->stride_w - p->pad_left;
    const int64_t top = fc_min(p->x.h, fc_max(0, first_h)), left = fc_min(p->x.w, fc_max(0, first_w));
    const int64_t bottom = fc_min(p->x.h, first_h + fc_extent(b->rows, p->kernel_h, p->stride_h, p->dilation_h)),
                  right = fc_min(p->x.w, first_w + fc_extent(b->columns, p->kernel_w, p->stride_w, p->dilation_w));
    const int64_t rows = fc_max(0, bottom - top), columns = fc_max(0, right - left);
    const fc_image image = fc_image_of(&p->x, p->item, b->n, b->g * p->in_channels, p->in_channels);
    b->x_pixel = s->source == PLANES ? 1 : p->in_channels, b->x_row = columns * b->x_pixel;
    b->x_channel = s->source == PLANES ? s->plane : 1;
    b->x = strip - (top * b->x_row + left * b->x_pixel) * (int64_t)p->item;
    fc_load_window(p->k, p->item, &image, &(fc_window){top, rows, 1, left, columns, 1}, strip,
                   &(fc_pitch){b->x_row, b->x_pixel, b->x_channel});
}

static block block_at(const plan *s, int64_t task, char *scratch)
{
    const fc_problem *p = s->p;
    const fc_epilogue *e = &p->epilogue;
    block b = {.line = scratch + s->strip_bytes, .residual = scratch + s->strip_bytes + s->line_bytes};
    b.w = task % s->count_w * s->block_w, task /= s->count_w;
    b.h = task % s->count_h * s->block_h, task /= s->count_h;
    b.g = task % p->groups, b.n = task / p->groups;
    b.rows = fc_min(s->block_h, p->y.h - b.h), b.columns = fc_min(s->block_w, p->y.w - b.w);
    b.x = fc_image_of(&p->x, p->item, b.n, b.g * p->in_channels, p->in_channels).data;
    b.x_row = p->x.stride_h, b.x_pixel = p->x.stride_w;
    if (s->source != PIXELS)
        load_strip(s, &b, scratch);
    const int64_t channel = b.g * p->out_channels, row = p->out_channels * pitch_of(p), item = (int64_t)p->item;
    char *constants = b.residual + s->line_bytes;
    b.dots = (fc_dots){.pixel = p->stride_w * b.x_pixel,
                       .plane = s->source == PLANES ? b.x_channel : 0,
                       .step_h = p->dilation_h * b.x_row,
                       .step_w = p->dilation_w * b.x_pixel,
                       .weight_k = pitch_of(p),
                       .weight_v = row,
                       .weight_u = runs_of(p) * row,
                       .channels = p->out_channels,
                       .finish = fc_has_epilogue(p),
                       .scale = repeated(p, fc_at(e->scale, channel, item), constants),
                       .bias = repeated(p, fc_at(e->bias, channel, item), constants + LINE_BYTES),
                       .lower = e->lower,
                       .upper = e->upper};
    return b;
}

/* Outputs w .. w + count - 1 of row h, which see the taps u and v. */
static void run_stretch(const plan *s, block *b, int64_t h, int64_t w, int64_t count, fc_range u, fc_range v)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, at = (w - b->w) * p->out_channels * item, seen = v.end - v.first;
    const int64_t row = h * p->stride_h - p->pad_top + u.first * p->dilation_h,
                  column = w * p->stride_w - p->pad_left + v.first * p->dilation_w;
    const int one_run = runs_of(p) == 1;
    fc_dots *d = &b->dots;
    d->x = b->x + (row * b->x_row + column * b->x_pixel) * item;
    d->taps_h = u.end - u.first;
    d->taps_w = one_run ? 1 : seen, d->length = one_run ? seen * p->in_channels : p->in_channels;
    d->weight =
        s->weights +
        ((b->g * p->kernel_h + u.first) * d->weight_u + v.first * (one_run ? p->in_channels : d->weight_v)) * item;
    d->y = b->line + at;
    d->residual = p->residual.data ? b->residual + at : NULL;
    p->k->dots(d, count);
}

static void run_row(const plan *s, block *b, int64_t h)
{
    const fc_problem *p = s->p;
    const fc_range u = fc_taps_of_row(p, h);
    const int64_t end = b->w + b->columns, /* of them, and of those from the first on that see all taps of a row */
        inside = fc_seeing_outputs(p->kernel_w - 1, p->y.w, p->stride_w, p->dilation_w, p->pad_left, p->x.w).end;
    for (int64_t w = b->w, count; w < end; w += count) {
        const fc_range v = fc_taps_of_column(p, w);
        count = v.first == 0 && v.end == p->kernel_w ? fc_min(end, inside) - w : 1;
        run_stretch(s, b, h, w, count, u, v);
    }
}

static void run_block(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    block b = block_at(s, task, s->threads + slot * s->thread_bytes);
    const int64_t channel = b.g * p->out_channels;
    const fc_image y = fc_image_of(&p->y, p->item, b.n, channel, p->out_channels);
    const fc_pitch line = s->source == PLANES ? (fc_pitch){0, 1, b.columns} : (fc_pitch){0, p->out_channels, 1};
    for (int64_t h = b.h; h < b.h + b.rows; h++) {
        if (p->residual.data)
            p->k->copy_rows(b.columns, p->out_channels, fc_residual_at(p, b.n, channel, h, b.w), p->residual.stride_w,
                            b.residual, p->out_channels);
        run_row(s, &b, h);
        fc_store_window(p->k, p->item, &y, &(fc_window){h, 1, 1, b.w, b.columns, 1}, b.line, &line);
    }
}

static int64_t weight_bytes(const fc_problem *p)
{
    return p->packed ? 0 : fc_round_up(fc_packed_dots(p) * (int64_t)p->item, LINE_BYTES);
}

fc_need fc_conv_dots_scratch(const fc_problem *p) { return (fc_need){weight_bytes(p), make_plan(p).thread_bytes}; }

fc_status fc_conv_dots(const fc_problem *p)
{
    plan s = make_plan(p);
    const int64_t tasks = p->y.n * p->groups * s.count_h * s.count_w;
    const int64_t weights = weight_bytes(p);
    const int slots = fc_parallel_slots(tasks);
    char *scratch = fc_scratch_acquire_parts(weights, slots, s.thread_bytes);
    if (!scratch)
        return FC_ENOMEM;
    if (!p->packed)
        fc_pack_dots(p, scratch);
    s.weights = p->packed ? p->packed : scratch;
    s.threads = scratch + weights;
    fc_parallel_in(slots, tasks, run_block, &s);
    fc_scratch_release(scratch);
    return FC_OK;
}
