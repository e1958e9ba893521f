/* pool.c: maximum and average pooling and their gradients by window.
 *
 * Kernels know contiguous channels, and planes whose columns are neighbours. Where all arrays have the one or the other
 * they are used in place; otherwise, and where rows of planes are too short for vectors, a tile of one cache line of
 * channels (and images: channels-first, the planes of all images are one axis) is transposed in, pooled in cache and
 * transposed out. Every output is computed by one kernel call from its window alone, so blocking and threads do not
 * show in the result.
 */
#include "../scratch.h"
#include "../threads.h"
#include "windows.h"

#include <string.h>

typedef struct {
    const fc_kernels *k;
    size_t item;
    fc_view in, out, index; /* in: x, or grad_y; out: y, or grad_x */
    uint8_t *tap;
    int64_t tap_row, tap_col;
    int direct, wants_index, by_planes;
    int flat; /* fc_pool_grad_task.flat */
    fc_blocks blocks;
    int64_t group; /* blocks of a task */
    fc_block_axis h, w;
    int64_t lane_begin, lane_end, lane_step; /* of whole rows, as in fc_pool_task and fc_pool_grad_task */
    int whole_planes; /* fc_pool_task.x_plane */
    fc_pool_task forward;
    fc_pool_grad_task grad;
    void (*run)(const fc_pool_task *);
    void (*run_grad)(const fc_pool_grad_task *);
    char *slots;
    int slot_count;
    size_t slot_bytes, in_bytes, out_bytes;
} pool_call;

static size_t aligned(int64_t bytes) { return ((size_t)bytes + 63) / 64 * 64; }

static char *at(const fc_view *v, size_t item, int64_t n, int64_t c, int64_t h, int64_t w)
{
    return (char *)v->data + (n * v->stride_n + c * v->stride_c + h * v->stride_h + w * v->stride_w) * (int64_t)item;
}

static int is_aligned(const fc_view *v, int64_t size)
{
    return (uintptr_t)v->data % FC_STREAM_ALIGN == 0 && v->stride_w * size % FC_STREAM_ALIGN == 0 &&
           v->stride_h * size % FC_STREAM_ALIGN == 0 && v->stride_n * size % FC_STREAM_ALIGN == 0;
}

/* Whether what a call writes should bypass the caches. */
static int streams(const pool_call *call)
{
    const int64_t size = (int64_t)call->item, indices = call->wants_index ? fc_elements(&call->index) * 8 : 0;
    return call->direct && fc_should_stream(fc_elements(&call->out) * size + indices, fc_elements(&call->in) * size) &&
           is_aligned(&call->out, size) && (!call->wants_index || is_aligned(&call->index, 8));
}

/* The same for planes without gaps: rows are written one after the other, so one may end within a line. */
static int streams_planes(const pool_call *call)
{
    const int64_t size = (int64_t)call->item;
    return fc_should_stream(fc_elements(&call->out) * size, fc_elements(&call->in) * size) &&
           call->out.stride_h == call->out.w;
}

/* ---- planes ------------------------------------------------------------------------------------------------------*/
/* Whether columns are neighbours in all arrays, and channels are not; taps stand by channels. */
static int are_planes(const pool_call *call)
{
    const fc_view *const views[] = {&call->in, &call->out, &call->index};
    int planes = !call->tap;
    for (int i = 0; i < (call->wants_index ? 3 : 2); i++)
        planes &= views[i]->stride_w == 1 && (views[i]->stride_c != 1 || views[i]->c == 1);
    return planes;
}

/* Whether every output is the average of a window of its own plane, planes are apart and outputs follow each other: by
 * channels, or where there is one, by images. */
static int are_whole_planes(const pool_call *call)
{
    const fc_view *in = &call->in, *out = &call->out;
    const int64_t planes = in->c > 1 ? in->c : in->n;
    const int64_t step = in->c > 1 ? in->stride_c : in->stride_n, out_step = in->c > 1 ? out->stride_c : out->stride_n;
    return out->h * out->w == 1 && in->w > 1 && in->stride_w == 1 &&
           (planes == 1 || (step != 0 && step != 1 && out_step == 1));
}

/* Adaptive windows are regular where they divide the axis. */
static int is_regular(int adaptive, int64_t in, int64_t out) { return !adaptive || in % out == 0; }

/* The outputs of a row whose windows are whole, and of windows of 3 columns 2 apart those whose first column is
 * padding. Positions of winners must fit into a lane. */
static void forward_lanes(pool_call *call, const fc_pool_axis *h, const fc_pool_axis *w, int adaptive)
{
    const int64_t in = call->in.w, last = in + w->pad_before - (w->kernel - 1) * w->dilation - 1;
    const int twos = w->stride == 2 && (w->kernel == 2 || w->kernel == 3);
    const int fours = w->stride == 4 && w->kernel == 4 && call->k->pool->has_fours && !call->wants_index;
    const int is_step = w->stride == 1 || ((twos || fours) && w->dilation == 1);
    if (!are_planes(call) || !is_regular(adaptive, in, call->out.w) || !is_step ||
        (call->wants_index && h->kernel * h->dilation * in + call->out.w * w->stride > INT32_MAX))
        return;
    call->lane_step = w->stride;
    call->lane_begin = w->stride == 2 && w->kernel == 3 ? 0 : fc_parts(w->pad_before, w->stride);
    call->lane_end = fc_lesser(call->out.w, last < 0 ? 0 : last / w->stride + 1);
}

/* With c + pad = a * stride + v, position k * stride + c lies in the windows k + a, k + a - 1, ..., where it is tap v,
 * v + stride, ... */
static fc_pool_phase phase_of(const fc_pool_axis *w, int64_t c)
{
    const int64_t a = (c + w->pad_before) / w->stride, v = (c + w->pad_before) % w->stride;
    const int64_t count = v < w->kernel ? fc_parts(w->kernel - v, w->stride) : 0;
    return (fc_pool_phase){a - count + 1, count};
}

/* The groups of positions of a row whose windows all exist and have the area of the middle one */
static void grad_lanes(pool_call *call, const fc_pool_axis *w, int adaptive, const fc_span *cols)
{
    const int is_step = w->stride == 1 || (w->stride == 2 && w->dilation == 1);
    if (!are_planes(call) || !is_regular(adaptive, call->out.w, call->in.w) || !is_step)
        return;
    int64_t first = call->in.w / 2, end = first + 1;
    while (first > 0 && cols[first - 1].area == cols[first].area)
        first--;
    while (end < call->in.w && cols[end].area == cols[first].area)
        end++;
    call->lane_step = w->stride;
    call->lane_end = call->out.w / w->stride;
    for (int64_t c = 0; c < w->stride; c++) {
        const fc_pool_phase phase = phase_of(w, c);
        if (!phase.count) /* gaps between the windows */
            call->lane_end = 0;
        call->lane_begin = fc_greater(call->lane_begin, first - phase.first);
        call->lane_end = fc_lesser(call->lane_end, end - phase.first - phase.count + 1);
    }
}

/* Whether a row of pixels is one run of memory, of few channels. */
static int are_runs(const pool_call *call)
{
    const fc_view *const views[] = {&call->in, &call->out};
    int runs = call->out.c <= call->k->vector_lanes;
    for (int i = 0; i < 2; i++)
        runs &= views[i]->stride_c == 1 && (views[i]->w == 1 || views[i]->stride_w == views[i]->c);
    return runs;
}

static int64_t within(int64_t x, int64_t end) { return fc_lesser(fc_greater(x, 0), end); }

/* ---- the plan ----------------------------------------------------------------------------------------------------*/
/* Scratch of fc_pool_grad_task.flat for a block */
static size_t lanes_bytes(const pool_call *call)
{
    const fc_blocks *b = &call->blocks;
    const int64_t vector = call->k->vector_lanes, run = fc_block_reach(&call->w, b->cols) * b->lanes;
    const int64_t windows = (fc_block_reach(&call->h, b->rows) + 1) * run + 2 * vector;
    const int64_t lanes = 3 * fc_parts(b->cols * b->lanes, vector) * vector;
    return sizeof(fc_pool_flat) + aligned((lanes + windows + run + 2 * vector) * (int64_t)call->item);
}

/* Whole planes of so many loads each: vectors of any instruction set. The last one of a block is not read beyond its
 * end, which takes longer. */
static int64_t planes_of_block(int64_t work)
{
    enum { VECTOR = 16, MOST = 256, LOADS = 1 << 17 };
    return fc_greater(VECTOR, fc_lesser(MOST, LOADS / fc_greater(1, work) / VECTOR * VECTOR));
}

/* Decides between in place and tiles, and cuts the output. */
static void plan(pool_call *call, int64_t work)
{
    fc_view *const views[] = {&call->in, &call->out, &call->index};
    const int count = call->wants_index ? 3 : 2;
    const int planes = call->lane_end - call->lane_begin >= call->k->vector_lanes;
    call->direct = 1;
    for (int i = 0; i < count; i++)
        call->direct &= views[i]->stride_c == 1;
    if (!planes)
        call->lane_step = 0;
    if (call->whole_planes)
        fc_merge_images(views, count), call->direct = 1;
    else if (!planes && (!call->direct || call->out.c == 1) && (!call->tap || call->by_planes) &&
             fc_merge_images(views, count))
        call->direct = 0;
    call->direct |= call->out.c == 1 || planes; /* a stride between channels is never used then */
    const int64_t tile_lanes = call->whole_planes ? planes_of_block(work) : FC_TILE_BYTES / (int64_t)call->item;
    if (planes) {
        call->blocks = fc_blocks_of(call->out.n * call->out.c, 1, &call->h, &call->w, work, 0);
        fc_blocks *b = &call->blocks;
        b->lane_parts = call->out.c;
        b->cols = fc_parts(b->cols, call->lane_step) * call->lane_step; /* whole groups of a gradient's positions */
        b->col_parts = fc_parts(call->out.w, b->cols);
        b->tasks = call->out.n * call->out.c * b->row_parts * b->col_parts;
    } else {
        call->blocks = fc_blocks_of(call->out.n, call->out.c, &call->h, &call->w, work,
                                    call->direct && !call->whole_planes ? 0 : tile_lanes);
    }
    call->group = fc_blocks_group(&call->blocks, work);
    if (call->direct) {
        call->flat &= !call->lane_step;
        call->slot_bytes = call->flat ? lanes_bytes(call) : 0;
        return;
    }
    call->flat = 0;
    const int64_t outputs = call->blocks.rows * call->blocks.cols;
    call->in_bytes = aligned(fc_block_reach(&call->h, call->blocks.rows) * fc_block_reach(&call->w, call->blocks.cols) *
                             FC_TILE_BYTES);
    call->out_bytes = aligned(outputs * FC_TILE_BYTES);
    call->slot_bytes = call->in_bytes + call->out_bytes + (call->wants_index ? aligned(outputs * tile_lanes * 8) : 0);
}

static uint8_t *taps_at(const pool_call *call, const fc_block *b, int64_t height)
{
    const int64_t lanes = FC_TILE_BYTES / (int64_t)call->item;
    const int64_t image = call->by_planes ? b->lane / lanes : b->n, lane = call->by_planes ? 0 : b->lane;
    return call->tap + (image * height + b->row) * call->tap_row + b->col * call->tap_col + lane;
}

/* ---- forward -----------------------------------------------------------------------------------------------------*/
static void forward_block(const pool_call *call, int64_t number, int slot)
{
    const fc_block b = fc_block_at(&call->blocks, &call->out, number);
    if (!b.rows)
        return;
    fc_pool_task t = call->forward;
    fc_block in = b;
    int64_t bottom, right;
    t.rows += b.row, t.cols += b.col;
    t.n_rows = b.rows, t.n_cols = b.cols, t.channels = b.lanes;
    fc_window_range(t.rows, b.rows, t.step_h, &in.row, &bottom);
    fc_window_range(t.cols, b.cols, t.step_w, &in.col, &right);
    in.rows = bottom - in.row, in.cols = right - in.col;
    t.top = in.row, t.left = in.col;
    t.lane_step = call->lane_step;
    t.lane_begin = within(call->lane_begin - b.col, b.cols), t.lane_end = within(call->lane_end - b.col, b.cols);
    if (call->tap) {
        t.index = taps_at(call, &b, call->out.h);
        t.index_row = call->tap_row, t.index_col = call->tap_col;
    }
    if (call->direct) {
        t.x = at(&call->in, call->item, b.n, b.lane, in.row, in.col);
        t.x_row = call->in.stride_h, t.x_col = call->in.stride_w;
        t.x_plane = call->whole_planes ? call->in.stride_c : 0;
        t.y = at(&call->out, call->item, b.n, b.lane, b.row, b.col);
        t.y_row = call->out.stride_h, t.y_col = call->out.stride_w;
        if (call->wants_index) {
            t.index = at(&call->index, 8, b.n, b.lane, b.row, b.col);
            t.index_row = call->index.stride_h, t.index_col = call->index.stride_w;
        }
        call->run(&t);
        return;
    }
    const int64_t lanes = FC_TILE_BYTES / (int64_t)call->item;
    char *x = call->slots + (size_t)slot * call->slot_bytes, *y = x + call->in_bytes, *index = y + call->out_bytes;
    if (b.lanes < lanes && call->by_planes) /* the padding of the record is written too */
        memset(x, 0, call->in_bytes);
    fc_tile_load(call->k, call->item, &call->in, &in, x, lanes);
    if (call->by_planes)
        t.channels = lanes;
    t.x = x, t.x_row = in.cols * lanes, t.x_col = lanes;
    t.y = y, t.y_row = b.cols * lanes, t.y_col = lanes;
    if (call->wants_index)
        t.index = index, t.index_row = b.cols * lanes, t.index_col = lanes;
    call->run(&t);
    fc_tile_store(call->k, call->item, &call->out, &b, y, lanes);
    if (call->wants_index)
        fc_tile_store(fc_get_kernels(FC_F64), 8, &call->index, &b, index, lanes);
}

static void forward_task(void *context, int64_t task, int slot)
{
    const pool_call *call = context;
    for (int64_t i = task * call->group; i < fc_lesser(call->blocks.tasks, (task + 1) * call->group); i++)
        forward_block(call, i, slot);
}

static fc_status forward(fc_dtype dtype, const fc_pool *pool, const fc_view *x, const fc_view *y, const fc_view *index,
                         uint8_t *tap, int by_planes, int mean)
{
    if (y->n == 0 || y->c == 0)
        return FC_OK;
    const fc_pool_axis h = fc_window_axis(&pool->h, pool->adaptive, x->h, y->h);
    const fc_pool_axis w = fc_window_axis(&pool->w, pool->adaptive, x->w, y->w);
    pool_call call = {.k = fc_get_kernels(dtype),
                      .item = dtype == FC_F32 ? 4 : 8,
                      .in = *x,
                      .out = *y,
                      .tap = tap,
                      .by_planes = by_planes,
                      .wants_index = index != NULL};
    call.tap_col = by_planes ? FC_TILE_BYTES / (int64_t)call.item : y->c;
    call.tap_row = y->w * call.tap_col;
    if (index)
        call.index = *index;
    call.h = (fc_block_axis){y->h, h.stride, 1, (h.kernel - 1) * h.dilation + 1, x->h};
    call.w = (fc_block_axis){y->w, w.stride, 1, (w.kernel - 1) * w.dilation + 1, x->w};
    call.whole_planes = mean && are_whole_planes(&call);
    if (!call.whole_planes)
        forward_lanes(&call, &h, &w, pool->adaptive);
    plan(&call, fc_lesser(h.kernel, x->h) * fc_lesser(w.kernel, x->w));
    const fc_pool_kernels *kernels = call.k->pool;
    call.run = mean ? kernels->mean : tap ? kernels->max_code : index ? kernels->max_index : kernels->max;

    call.slot_count = fc_parallel_slots(fc_parts(call.blocks.tasks, call.group));
    const size_t table = aligned((y->h + y->w) * (int64_t)sizeof(fc_span));
    char *scratch = fc_scratch_acquire_parts((int64_t)table, call.slot_count, (int64_t)call.slot_bytes);
    if (!scratch)
        return FC_ENOMEM;
    fc_span *rows = (fc_span *)scratch, *cols = rows + y->h;
    fc_window_spans(&pool->h, pool->adaptive, pool->count_include_pad, x->h, y->h, rows);
    fc_window_spans(&pool->w, pool->adaptive, pool->count_include_pad, x->w, y->w, cols);
    call.slots = scratch + table;
    call.forward = (fc_pool_task){.rows = rows,
                                  .cols = cols,
                                  .step_h = h.dilation,
                                  .step_w = w.dilation,
                                  .width = x->w,
                                  .kernel_w = w.kernel,
                                  .divisor = (double)pool->divisor,
                                  .stream = streams(&call)};
    fc_parallel_in(call.slot_count, fc_parts(call.blocks.tasks, call.group), forward_task, &call);
    fc_scratch_release(scratch);
    return FC_OK;
}

fc_status fc_max_pool2d(fc_dtype dtype, const fc_pool *pool, const fc_view *x, const fc_view *y, const fc_view *index,
                        uint8_t *tap, int by_planes)
{
    return forward(dtype, pool, x, y, index, tap, by_planes, 0);
}

fc_status fc_avg_pool2d(fc_dtype dtype, const fc_pool *pool, const fc_view *x, const fc_view *y)
{
    return forward(dtype, pool, x, y, NULL, NULL, 0, 1);
}

/* ---- gradients ---------------------------------------------------------------------------------------------------*/
/* First and one past the last window of `count` covers. */
static void window_range(const fc_cover *covers, int64_t count, const fc_pair *pairs, int64_t *begin, int64_t *end)
{
    *begin = INT64_MAX, *end = 0;
    if (!pairs) { /* both ends of what covers a position grow with it */
        while (count > 1 && !covers->count)
            covers++, count--;
        while (count > 1 && !covers[count - 1].count)
            count--;
        *begin = covers->first, *end = covers[count - 1].first + covers[count - 1].count;
        return;
    }
    for (int64_t h = 0; h < count; h++) {
        if (!covers[h].count)
            continue;
        const int64_t last = covers[h].first + covers[h].count - 1;
        *begin = fc_lesser(*begin, pairs[covers[h].first].window);
        *end = fc_greater(*end, pairs[last].window + 1);
    }
    if (*end == 0) /* no window sees these positions */
        *begin = 0;
}

static void grad_block(const pool_call *call, int64_t number, int slot)
{
    const fc_block b = fc_block_at(&call->blocks, &call->out, number);
    if (!b.rows)
        return;
    fc_pool_grad_task t = call->grad;
    fc_block in = b;
    int64_t bottom, right;
    t.rows += b.row, t.cols += b.col;
    t.n_rows = b.rows, t.n_cols = b.cols, t.channels = b.lanes;
    window_range(t.rows, b.rows, t.row_pairs, &in.row, &bottom);
    window_range(t.cols, b.cols, t.col_pairs, &in.col, &right);
    in.rows = bottom - in.row, in.cols = right - in.col;
    t.first_i = in.row, t.first_j = in.col, t.windows_i = in.rows, t.windows_j = in.cols;
    t.top = b.row, t.left = b.col;
    if (call->lane_step && b.col % call->lane_step == 0) {
        const int64_t group = b.col / call->lane_step, groups = b.cols / call->lane_step;
        t.lane_step = call->lane_step;
        t.lane_begin = within(call->lane_begin - group, groups), t.lane_end = within(call->lane_end - group, groups);
    }
    if (call->tap) {
        t.code = taps_at(call, &in, call->in.h);
        t.code_row = call->tap_row, t.code_col = call->tap_col;
    }
    char *scratch = call->slots + (size_t)slot * call->slot_bytes;
    if (call->direct) {
        t.flat = call->flat ? scratch : NULL;
        t.grad_y = at(&call->in, call->item, b.n, b.lane, in.row, in.col);
        t.grad_y_row = call->in.stride_h, t.grad_y_col = call->in.stride_w;
        t.grad_x = at(&call->out, call->item, b.n, b.lane, b.row, b.col);
        t.grad_x_row = call->out.stride_h, t.grad_x_col = call->out.stride_w;
        call->run_grad(&t);
        return;
    }
    const int64_t lanes = FC_TILE_BYTES / (int64_t)call->item;
    char *grad_y = scratch, *grad_x = grad_y + call->in_bytes;
    if (b.lanes < lanes && call->by_planes)
        memset(grad_y, 0, call->in_bytes);
    if (in.rows > 0 && in.cols > 0)
        fc_tile_load(call->k, call->item, &call->in, &in, grad_y, lanes);
    if (call->by_planes)
        t.channels = lanes;
    t.grad_y = grad_y, t.grad_y_row = in.cols * lanes, t.grad_y_col = lanes;
    t.grad_x = grad_x, t.grad_x_row = b.cols * lanes, t.grad_x_col = lanes;
    call->run_grad(&t);
    fc_tile_store(call->k, call->item, &call->out, &b, grad_x, lanes);
}

static void grad_task(void *context, int64_t task, int slot)
{
    const pool_call *call = context;
    for (int64_t i = task * call->group; i < fc_lesser(call->blocks.tasks, (task + 1) * call->group); i++)
        grad_block(call, i, slot);
}

/* Windows that can meet b neighbouring positions: those of a stretch of b + reach - 1 starts, one per stride. */
static fc_block_axis grad_axis(const fc_pool_axis *a, int adaptive, int64_t in, int64_t out)
{
    if (adaptive)
        return (fc_block_axis){in, out, in, out / in + 4, out};
    return (fc_block_axis){in, 1, a->stride, (a->kernel - 1) * a->dilation / a->stride + 2, out};
}

static int64_t held(const fc_span *spans, int64_t count)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += spans[i].count;
    return sum;
}

/* Whether no position lies in two windows, and whether every one lies in one. */
static int is_apart(const fc_pool_axis *a) { return a->stride > (a->kernel - 1) * a->dilation; }
static int is_tiled(const fc_pool_axis *a, int64_t in, int64_t out)
{
    return a->stride == a->kernel && a->dilation == 1 && a->pad_before == 0 && in == out * a->stride;
}

/* What a gradient knows of its windows. */
typedef struct {
    const fc_pool *pool;
    int64_t in_h, in_w, out_h, out_w;
    fc_pool_axis h, w;
    fc_span *rows, *cols;
    int64_t row_held, col_held; /* pairs of an input and a window along an axis */
} grad_windows;

static grad_windows windows_of(const fc_pool *pool, const fc_view *grad_y, const fc_view *grad_x, fc_span *spans)
{
    grad_windows g = {.pool = pool,
                      .in_h = grad_x->h,
                      .in_w = grad_x->w,
                      .out_h = grad_y->h,
                      .out_w = grad_y->w,
                      .rows = spans,
                      .cols = spans + grad_y->h};
    fc_window_spans(&pool->h, pool->adaptive, pool->count_include_pad, g.in_h, g.out_h, g.rows);
    fc_window_spans(&pool->w, pool->adaptive, pool->count_include_pad, g.in_w, g.out_w, g.cols);
    g.row_held = held(g.rows, g.out_h), g.col_held = held(g.cols, g.out_w);
    g.h = fc_window_axis(&pool->h, pool->adaptive, g.in_h, g.out_h);
    g.w = fc_window_axis(&pool->w, pool->adaptive, g.in_w, g.out_w);
    return g;
}

/* Sets how the call runs. */
static void plan_grad(const grad_windows *g, pool_call *call)
{
    const int adaptive = g->pool->adaptive;
    call->tap_col = call->by_planes ? FC_TILE_BYTES / (int64_t)call->item : call->in.c;
    call->tap_row = g->out_w * call->tap_col;
    call->h = grad_axis(&g->h, adaptive, g->in_h, g->out_h);
    call->w = grad_axis(&g->w, adaptive, g->in_w, g->out_w);
    if (!call->tap) {
        grad_lanes(call, &g->w, adaptive, g->cols);
        /* windows of adjacent columns are the same or adjacent ones, unless columns are fewer */
        call->flat = call->k->pool->has_flat && are_runs(call) && (!adaptive || g->out_w <= g->in_w);
    }
    plan(call, fc_parts(g->row_held, g->in_h) * fc_parts(g->col_held, g->in_w) + 1);
    call->run_grad = call->tap ? call->k->pool->max_grad : call->k->pool->mean_grad;
    call->slot_count = fc_parallel_slots(fc_parts(call->blocks.tasks, call->group));
}

static size_t tables_bytes(const grad_windows *g, const pool_call *call)
{
    const int64_t pairs = call->tap ? (g->row_held + g->col_held) * (int64_t)sizeof(fc_pair) : 0;
    return aligned((g->in_h + g->in_w) * (int64_t)sizeof(fc_cover) + g->in_w * (int64_t)sizeof(fc_pool_phase) + pairs);
}

/* In `memory`, tables_bytes of it. */
static void set_tables(const grad_windows *g, pool_call *call, char *memory)
{
    const int adaptive = g->pool->adaptive;
    fc_cover *row_covers = (fc_cover *)memory, *col_covers = row_covers + g->in_h;
    fc_pool_phase *phases = (fc_pool_phase *)(col_covers + g->in_w);
    fc_pair *row_pairs = (fc_pair *)(phases + g->in_w), *col_pairs = row_pairs + g->row_held;
    call->grad = (fc_pool_grad_task){.kernel_w = g->w.kernel,
                                     .rows = row_covers,
                                     .cols = col_covers,
                                     .row_windows = g->rows,
                                     .col_windows = g->cols,
                                     .step_h = g->h.dilation,
                                     .step_w = g->w.dilation,
                                     .divisor = (double)g->pool->divisor,
                                     .phases = phases,
                                     .apart = is_regular(adaptive, g->in_h, g->out_h) && is_apart(&g->h) &&
                                              is_regular(adaptive, g->in_w, g->out_w) && is_apart(&g->w),
                                     .gaps = !is_tiled(&g->h, g->in_h, g->out_h) || !is_tiled(&g->w, g->in_w, g->out_w),
                                     .stream = call->lane_step ? streams_planes(call) : streams(call)};
    for (int64_t c = 0; c < call->lane_step; c++)
        phases[c] = phase_of(&g->w, c);
    if (call->tap) {
        fc_window_pairs(g->rows, g->h.dilation, g->in_h, g->out_h, row_covers, row_pairs);
        fc_window_pairs(g->cols, g->w.dilation, g->in_w, g->out_w, col_covers, col_pairs);
        call->grad.row_pairs = row_pairs, call->grad.col_pairs = col_pairs;
    } else {
        fc_window_covers(g->rows, g->in_h, g->out_h, row_covers);
        fc_window_covers(g->cols, g->in_w, g->out_w, col_covers);
    }
}

static fc_status gradient(fc_dtype dtype, const fc_pool *pool, const fc_view *grad_y, const uint8_t *tap, int by_planes,
                          const fc_view *grad_x)
{
    if (grad_x->n == 0 || grad_x->c == 0)
        return FC_OK;
    fc_span *spans = fc_scratch_acquire((size_t)(grad_y->h + grad_y->w) * sizeof *spans);
    if (!spans)
        return FC_ENOMEM;
    const grad_windows windows = windows_of(pool, grad_y, grad_x, spans);
    pool_call call = {.k = fc_get_kernels(dtype),
                      .item = dtype == FC_F32 ? 4 : 8,
                      .in = *grad_y,
                      .out = *grad_x,
                      .tap = (uint8_t *)tap,
                      .by_planes = by_planes};
    plan_grad(&windows, &call);
    const size_t table = tables_bytes(&windows, &call);
    char *scratch = fc_scratch_acquire_parts((int64_t)table, call.slot_count, (int64_t)call.slot_bytes);
    const fc_status status = scratch ? FC_OK : FC_ENOMEM;
    if (scratch) {
        call.slots = scratch + table;
        for (int i = 0; call.flat && i < call.slot_count; i++)
            *(fc_pool_flat *)(call.slots + (size_t)i * call.slot_bytes) = (fc_pool_flat){0};
        set_tables(&windows, &call, scratch);
        fc_parallel_in(call.slot_count, fc_parts(call.blocks.tasks, call.group), grad_task, &call);
    }
    fc_scratch_release(scratch);
    fc_scratch_release(spans);
    return status;
}

fc_status fc_max_pool2d_tap_grad(fc_dtype dtype, const fc_pool *pool, const fc_view *grad_y, const uint8_t *tap,
                                 int by_planes, const fc_view *grad_x)
{
    return gradient(dtype, pool, grad_y, tap, by_planes, grad_x);
}

fc_status fc_avg_pool2d_grad(fc_dtype dtype, const fc_pool *pool, const fc_view *grad_y, const fc_view *grad_x)
{
    return gradient(dtype, pool, grad_y, NULL, 0, grad_x);
}
