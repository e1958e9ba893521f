/* conv_winograd_grad.c: the gradient of a 3x3 weight by F(3x3, 4x4).
 *
 * The gradient of w is a correlation of x with grad_y: per tile, 3 x 3 outputs of a 4 x 4 kernel, so with the tiles of
 * the forward pass
 *     grad_w = A3' [ sum over tiles of (B' x B) o (G4 grad_y G4') ] A3
 * and the sum over tiles is 36 matrix products sum[e][c][k] += v[e][tile][c] * d[e][tile][k]. Blocks of tiles are transformed
 * (tasks are tiles), multiplied (tasks are points: no two share a sum), and at the end sum is transformed back. Each sum
 * runs through the tiles in order whatever the blocks and threads are.
 */
#include "../scratch.h"
#include "../threads.h"
#include "winograd_tiles.h"

#include <string.h>

enum {
    /* v and d of a block: half of a second-level cache of 2 MiB, more where the sums they update are larger. */
    MIN_BLOCK_BYTES = 1 << 20,
    MAX_BLOCK_BYTES = 16 << 20,
    TILES_PER_TASK = 4,
    CHUNK = 64, /* channels transformed back at a time: 9 x 64 x 32 floats = 72 KiB */
};

typedef struct {
    const fc_problem *p;
    fc_tiles tiles;
    int64_t panel, panels;
    int64_t d_row, d_point, sum_row, sum_point; /* pitches, elements */
    int64_t block;
    int64_t v_bytes, d_bytes, sum_bytes, zero_bytes, strip_bytes, strip_y_bytes, thread_bytes;
    char *v, *d, *sum, *threads;
    int64_t group, first, end; /* of the current block */
} plan;

static int64_t bytes_of(const plan *s, int64_t elements) { return fc_round_up(elements * (int64_t)s->p->item, 64); }

static plan make_plan(const fc_problem *p)
{
    const int64_t item = (int64_t)p->item, pad = FC_PITCH_PAD_BYTES / item;
    plan s = {.p = p, .tiles = fc_make_tiles(p), .panel = 2 * p->k->vector_lanes};
    s.panels = fc_ceil_div(p->out_channels, s.panel);
    s.d_row = fc_round_up(p->out_channels, p->k->vector_lanes) + pad;
    s.sum_row = s.d_row;
    s.sum_point = p->in_channels * s.sum_row + pad;
    s.sum_bytes = bytes_of(&s, FC_POINTS * s.sum_point);
    const int64_t budget = fc_max(MIN_BLOCK_BYTES, fc_min(MAX_BLOCK_BYTES, s.sum_bytes));
    s.block = fc_min(s.tiles.count, fc_max(TILES_PER_TASK, budget / (FC_POINTS * (s.tiles.row + s.d_row) * item)));
    fc_set_block(&s.tiles, s.block);
    s.d_point = s.block * s.d_row + pad;
    s.v_bytes = bytes_of(&s, FC_POINTS * s.tiles.point);
    s.d_bytes = bytes_of(&s, FC_POINTS * s.d_point);
    s.zero_bytes = bytes_of(&s, fc_max(p->in_channels, p->out_channels));
    s.strip_bytes = fc_tiles_strip_bytes(&s.tiles);
    s.strip_y_bytes = p->y.stride_c == 1 ? 0 : bytes_of(&s, FC_OUT * FC_OUT * s.tiles.longest_run * p->out_channels);
    s.thread_bytes = fc_max(s.strip_bytes + s.strip_y_bytes, bytes_of(&s, 9 * CHUNK * s.panel));
    return s;
}

/* d[e][t] = G4 grad_y G4' for a run of tiles. */
static void transform_gradients(const plan *s, const fc_tile_run *r, char *strip, char *d)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, top = r->row * FC_OUT, left = r->column * FC_OUT;
    const int in_place = p->y.stride_c == 1;
    const fc_image image = fc_image_of(&p->y, p->item, r->n, s->group * p->out_channels, p->out_channels);
    const char *base = image.data + (top * image.stride_h + left * image.stride_w) * item;
    int64_t row = image.stride_h, pixel = image.stride_w;
    if (!in_place) {
        const fc_window window = {top, FC_OUT, 1, left, FC_OUT * r->count, 1};
        row = FC_OUT * r->count * p->out_channels, pixel = p->out_channels;
        fc_load_window(p->k, p->item, &image, &window, strip, &(fc_pitch){row, pixel, 1});
        base = strip;
    }
    for (int64_t t = 0; t < r->count; t++) {
        const void *y[FC_OUT * FC_OUT];
        for (int64_t i = 0; i < FC_OUT; i++)
            for (int64_t j = 0; j < FC_OUT; j++) {
                const int inside = !in_place || (top + i < p->y.h && left + FC_OUT * t + j < p->y.w);
                y[FC_OUT * i + j] = inside ? base + (i * row + (FC_OUT * t + j) * pixel) * item : s->tiles.zeros;
            }
        p->k->winograd->gradient(y, p->out_channels, d + t * s->d_row * item, s->d_point);
    }
}

static void transform_task(void *context, int64_t task, int slot)
{
    const plan *s = context;
    const int64_t item = (int64_t)s->p->item;
    const int64_t first = s->first + task * TILES_PER_TASK, end = fc_min(first + TILES_PER_TASK, s->end);
    char *strip = s->threads + slot * s->thread_bytes;
    fc_transform_inputs(&s->tiles, s->group, first, end, strip, s->v + (first - s->first) * s->tiles.row * item);
    for (int64_t tile = first; tile < end;) {
        const fc_tile_run r = fc_run_at(&s->tiles, tile, end);
        transform_gradients(s, &r, strip + s->strip_bytes, s->d + (tile - s->first) * s->d_row * item);
        tile += r.count;
    }
}

static void multiply_task(void *context, int64_t e, int slot)
{
    (void)slot;
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item;
    const fc_gemm_at product = {
        .a = s->v + e * s->tiles.point * item,
        .a_step = s->tiles.row,
        .b = s->d + e * s->d_point * item,
        .b_step = s->d_row,
        .images = 1,
        .lines = 1,
        .depth = s->end - s->first,
        .c = s->sum + e * s->sum_point * item,
        .c_row = s->sum_row,
        .rows = p->in_channels,
        .columns = fc_round_up(p->out_channels, p->k->vector_lanes),
        .accumulate = s->first > 0,
    };
    p->k->gemm->at(&product);
}

static void store_task(void *context, int64_t panel, int slot)
{
    const plan *s = context;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, k0 = panel * s->panel, columns = fc_min(s->panel, p->out_channels - k0);
    char *taps = s->threads + slot * s->thread_bytes;
    for (int64_t c0 = 0; c0 < p->in_channels; c0 += CHUNK) {
        const int64_t channels = fc_min(CHUNK, p->in_channels - c0);
        for (int64_t c = 0; c < channels; c++)
            p->k->winograd->weight_gradient(s->sum + ((c0 + c) * s->sum_row + k0) * item, s->sum_point, columns,
                                            taps + c * s->panel * item, channels * s->panel);
        fc_unpack_weights(p, s->group, k0, columns, c0, channels, taps, s->panel, channels * s->panel);
    }
}

fc_status fc_conv_winograd_grad_weight(const fc_problem *p)
{
    plan s = make_plan(p);
    const int slots = fc_parallel_slots(INT64_MAX);
    char *scratch = fc_scratch_acquire_parts(s.zero_bytes + s.v_bytes + s.d_bytes + s.sum_bytes, slots, s.thread_bytes);
    if (!scratch)
        return FC_ENOMEM;
    s.tiles.zeros = memset(scratch, 0, (size_t)s.zero_bytes);
    s.v = scratch + s.zero_bytes;
    s.d = s.v + s.v_bytes;
    s.sum = s.d + s.d_bytes;
    s.threads = s.sum + s.sum_bytes;
    for (s.group = 0; s.group < p->groups; s.group++) {
        for (s.first = 0; s.first < s.tiles.count; s.first = s.end) {
            s.end = fc_min(s.first + s.block, s.tiles.count);
            fc_parallel_in(slots, fc_ceil_div(s.end - s.first, TILES_PER_TASK), transform_task, &s);
            fc_parallel_in(slots, FC_POINTS, multiply_task, &s);
        }
        fc_parallel_in(slots, s.panels, store_task, &s);
    }
    fc_scratch_release(scratch);
    return FC_OK;
}
