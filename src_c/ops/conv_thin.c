/* conv_thin.c: 3 x 3 convolution of up to FC_WINOGRAD_THIN input channels by F(4 x 4, 3 x 3) with short sums: what
 * conv_winograd.c stores between its steps, 36 products of a tile, would cost more than they do. A vector of outputs of
 * a tile is 36 C multiplications and the output transform, some 130 operations, in registers; 3 channels take 190
 * multiplications and 50 additions beside them where a direct sum takes 432.
 *
 * Tiles are numbered through images, tile rows and tile columns. For a block of them, as many as a cache line has
 * values,
 *     d[i][j][c][tile]  the inputs under the tiles, turned: lanes are tiles
 *     v = B' d B, in the layout of a brick, whose tiles are channels
 *     y = A' [ sum_c v[c] u[c] ] A of a vector of output channels, each v[e][c][tile] meeting all its lanes
 * stay in the first-level cache beside the transformed weights u of that vector.
 */
#include "../scratch.h"
#include "../threads.h"
#include "winograd_tiles.h"

#include <stdatomic.h>
#include <string.h>

enum { OUT = 4, IN = FC_WINOGRAD_TILE, TAPS = 3, POINTS = FC_WINOGRAD_MAX_POINTS };

typedef struct {
    const fc_problem *p;
    const fc_winograd_kernels *k;
    int64_t lanes, vectors; /* of outputs */
    int64_t rows, columns, slots, count; /* tile rows and columns of an image; slots of a row, of the batch */
    int64_t block, blocks; /* slots per block */
    int64_t pitch; /* of a row of the strip */
    int64_t u_vector, pack; /* elements */
    int64_t v_bytes, strip_bytes, tile_bytes, thread_bytes;
    int y_in_place, stream;
    const char *u;
    char *threads;
    atomic_char *spoilt; /* spoilt[image]: its tiles hold NaN or infinity */
} plan;

int fc_conv_thin_serves(const fc_problem *p)
{
    return p->k->winograd->thin && p->kernel_h == TAPS && p->kernel_w == TAPS && p->stride_h == 1 && p->stride_w == 1 &&
           p->dilation_h == 1 && p->dilation_w == 1 && p->in_channels > 1 && p->in_channels <= FC_WINOGRAD_THIN;
}

static plan make_plan(const fc_problem *p)
{
    const int64_t item = (int64_t)p->item;
    plan s = {.p = p,
              .k = p->k->winograd,
              .lanes = p->k->vector_lanes,
              .block = p->k->winograd->line,
              .rows = fc_ceil_div(p->y.h, OUT),
              .columns = fc_ceil_div(p->y.w, OUT),
              .y_in_place = p->y.stride_c == 1,
              .stream = fc_streams(p)};
    s.vectors = fc_ceil_div(p->out_channels, s.lanes);
    s.slots = s.columns + 1;
    s.count = p->y.n * s.rows * s.slots;
    s.pitch = OUT * s.block + s.lanes;
    s.blocks = fc_ceil_div(s.count, s.block);
    s.u_vector = POINTS * (FC_WINOGRAD_THIN + 1) * s.lanes;
    s.pack = TAPS * TAPS * p->in_channels * s.lanes;
    s.v_bytes = POINTS * s.k->point * item;
    s.strip_bytes = fc_round_up(p->in_channels * IN * s.pitch * item, FC_LINE_BYTES);
    s.tile_bytes = s.y_in_place ? 0 : OUT * OUT * s.block * s.lanes * item;
    s.thread_bytes = s.v_bytes + s.strip_bytes + s.tile_bytes;
    return s;
}

/* ---- weights ---------------------------------------------------------------------------------------------------------*/
static void store_vector(const plan *s, int64_t group, int64_t vector, char *pack, char *u)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, first = vector * s->lanes,
                  columns = fc_min(s->lanes, p->out_channels - first), tap = p->in_channels * s->lanes;
    if (columns < s->lanes)
        memset(pack, 0, (size_t)(s->pack * item));
    fc_pack_weights(p, p->weight + (group * p->weight_g + first * p->weight_k) * item, p->in_channels, columns, pack,
                    s->lanes);
    s->k->weights[TAPS](pack, TAPS * tap, tap, tap, u, (FC_WINOGRAD_THIN + 1) * s->lanes);
}

int64_t fc_packed_thin(const fc_problem *p)
{
    const plan s = make_plan(p);
    return p->groups * s.vectors * s.u_vector;
}

/* pack: memory */
static void store_weights(const plan *s, char *pack, char *to)
{
    for (int64_t i = 0; i < s->p->groups * s->vectors; i++)
        store_vector(s, i / s->vectors, i % s->vectors, pack, to + i * s->u_vector * (int64_t)s->p->item);
}

fc_status fc_pack_thin(const fc_problem *p, char *to)
{
    const plan s = make_plan(p);
    char *pack = fc_scratch_acquire((size_t)(s.pack * (int64_t)p->item));
    if (!pack)
        return FC_ENOMEM;
    store_weights(&s, pack, to);
    fc_scratch_release(pack);
    return FC_OK;
}

/* ---- tiles -----------------------------------------------------------------------------------------------------------*/
/* Tiles of one tile row, the first of which stands at `lane` of its block; `slots` with the one behind the last of a
 * row. */
typedef struct {
    int64_t n, row, column, count, lane, slots;
} run;

static run run_at(const plan *s, int64_t first, int64_t slot, int64_t end)
{
    const int64_t row = slot / s->slots;
    run r = {.n = row / s->rows, .row = row % s->rows, .column = slot % s->slots, .lane = slot - first};
    r.slots = fc_min(s->slots - r.column, end - slot);
    r.count = fc_min(s->columns - r.column, r.slots);
    return r;
}

/* strip[c][i][OUT * lane + j] of the tiles of a run */
static void load_inputs(const plan *s, int64_t group, const run *r, char *strip)
{
    const fc_problem *p = s->p;
    const fc_image image = fc_image_of(&p->x, p->item, r->n, group * p->in_channels, p->in_channels);
    const fc_window window = {OUT * r->row - p->pad_top, IN, 1, OUT * r->column - p->pad_left,
                              OUT * r->count + IN - OUT, 1};
    fc_load_window(p->k, p->item, &image, &window, strip + OUT * r->lane * (int64_t)p->item,
                   &(fc_pitch){s->pitch, 1, IN * s->pitch});
}

/* A vector of outputs of a run; planes through `tile`. */
static void store_run(const plan *s, int64_t group, const run *r, int64_t vector, const char *v, char *tile)
{
    const fc_problem *p = s->p;
    const fc_epilogue *e = &p->epilogue;
    const int64_t item = (int64_t)p->item, first = vector * s->lanes, channel = group * p->out_channels + first,
                  channels = fc_min(s->lanes, p->out_channels - first), h = OUT * r->row, w = OUT * r->column;
    const fc_window window = {h, fc_min(OUT, p->y.h - h), 1, w, fc_min(OUT * r->count, p->y.w - w), 1};
    const fc_image image = fc_image_of(&p->y, p->item, r->n, channel, channels);
    const fc_pitch pitch = {window.columns * s->lanes, s->lanes, 1};
    const fc_winograd_output o = {
        .channels = channels,
        .scale = fc_at(e->scale, channel, p->item),
        .bias = fc_at(e->bias, channel, p->item),
        .lower = e->lower,
        .upper = e->upper,
        .residual_row = p->residual.stride_h,
        .residual_pixel = p->residual.stride_w,
        .y_row = s->y_in_place ? image.stride_h : pitch.row,
        .y_pixel = s->y_in_place ? image.stride_w : pitch.pixel,
        .stream = s->stream,
    };
    const fc_winograd_thin t = {
        .output = &o,
        .v = v + r->lane * item,
        .u = s->u + (group * s->vectors + vector) * s->u_vector * item,
        .residual = fc_residual_at(p, r->n, channel, h, w),
        .y = s->y_in_place ? image.data + (h * image.stride_h + w * image.stride_w) * item : tile,
        .channels = p->in_channels,
        .tiles = r->count,
        .rows = (int)window.rows,
        .columns = (int)(window.columns - OUT * (r->count - 1)),
    };
    s->k->thin(&t);
    if (!s->y_in_place)
        fc_store_window(p->k, p->item, &image, &window, tile, &pitch);
}

static void run_block(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const int64_t item = (int64_t)s->p->item, group = task / s->blocks, first = task % s->blocks * s->block,
                  end = fc_min(first + s->block, s->count);
    char *v = s->threads + slot * s->thread_bytes, *strip = v + s->v_bytes, *tile = strip + s->strip_bytes;
    double check[FC_MAX_LANES] = {0};
    run r;
    for (int64_t t = first; t < end; t += r.slots) {
        r = run_at(s, first, t, end);
        if (r.count > 0)
            load_inputs(s, group, &r, strip);
    }
    for (int64_t c = 0; c < s->p->in_channels; c++)
        s->k->input_thin(strip + c * IN * s->pitch * item, s->pitch, v + c * s->block * item, check);
    for (int64_t t = first; t < end; t += r.slots) {
        r = run_at(s, first, t, end);
        if (r.count > 0 && !s->p->k->finite(r.count, (const char *)check + r.lane * item))
            atomic_store_explicit(&s->spoilt[r.n], 1, memory_order_relaxed);
    }
    for (int64_t i = 0; i < s->vectors; i++)
        for (int64_t t = first; t < end; t += r.slots) {
            r = run_at(s, first, t, end);
            if (r.count > 0)
                store_run(s, group, &r, i, v, tile);
        }
    if (s->stream)
        s->p->k->fence();
}

static int64_t u_bytes(const plan *s)
{
    return s->p->packed ? 0 : s->p->groups * s->vectors * s->u_vector * (int64_t)s->p->item;
}

int64_t fc_conv_thin_scratch(const fc_problem *p)
{
    const plan s = make_plan(p);
    return u_bytes(&s) + fc_spoilt_flags(p) + fc_max(s.thread_bytes, fc_spoilt_bytes(p));
}

fc_status fc_conv_thin(const fc_problem *p)
{
    plan s = make_plan(p);
    const int64_t u = u_bytes(&s), flags = fc_spoilt_flags(p), each = fc_max(s.thread_bytes, fc_spoilt_bytes(p));
    const int slots = fc_parallel_slots(INT64_MAX);
    char *scratch = fc_scratch_acquire_parts(flags + u, slots, each);
    if (!scratch)
        return FC_ENOMEM;
    s.spoilt = memset(scratch, 0, (size_t)flags);
    s.threads = scratch + flags + u;
    s.u = u ? scratch + flags : p->packed;
    if (u)
        store_weights(&s, s.threads, scratch + flags);
    fc_parallel_in(slots, p->groups * s.blocks, run_block, &s);
    const fc_status status = fc_mend_spoilt(p, s.spoilt, flags + u + slots * each);
    fc_scratch_release(scratch);
    return status;
}
