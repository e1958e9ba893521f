/* pool.tmpl.h: pooling over images with contiguous channels.
 *
 * y[i][j][c] = max_{u,v} x[rows[i].begin + u * step_h][cols[j].begin + v * step_w][c], or the sum of the same taps
 * divided by the window's divisor. Taps outside the image are not in the spans, so there is no padding here.
 *
 * The vectors of one step ("streams") are either 4 vectors of channels of one output (averages: 8), or, of the channels
 * that are left, a vector of 4 neighbouring outputs of a row: 4 independent chains hide the latency of compare and
 * blend (8 cycles).
 */
#define FC_STREAMS 4
#define FC_MOST_STREAMS 8 /* averages of channels: half a KiB of each pixel, whose lines are neighbours */
#define FC_EACH_STREAM _Pragma("GCC unroll 8") for (int s = 0; s < streams; s++)
#define FC_LOAD(p) (tail ? vload_tail(p, tail) : vload(p))

enum { N(POOL_VALUE), N(POOL_CODE), N(POOL_INDEX) };
enum { N(POOL_SMALL) = 64 }; /* taps */

/* The scan of one window. torch's rule: a tap wins when it is greater or NaN, so the first maximum stays, and of NaNs
 * the last. Positions count the winner as u * code_h + v * code_w, codes its taps from `first` on. */
INLINE void N(max_window)(const fc_pool_task *p, const T *x, int64_t stream, const fc_span *row, const fc_span *col,
                          int64_t code_h, int64_t code_w, int64_t first, const int streams, const int tail,
                          const int mode, vec *best, ivec *code, vcodes *codes)
{
    const int64_t step_row = p->step_h * p->x_row, step_col = p->step_w * p->x_col;
    FC_EACH_STREAM
    {
        best[s] = FC_LOAD(x + s * stream);
        code[s] = (ivec){0}, codes[s] = vcodes_set(first);
    }
    for (int64_t u = 0; u < row->count; u++) {
        for (int64_t v = u == 0; v < col->count; v++) {
            const T *q = x + u * step_row + v * step_col;
            FC_EACH_STREAM
            {
                const vec a = FC_LOAD(q + s * stream);
                if (mode == N(POOL_VALUE)) {
                    best[s] = vpick(visnan(a), a, vgreatest(a, best[s]));
                    continue;
                }
                const vmask wins = vor(vgreater(a, best[s]), visnan(a));
                best[s] = vpick(wins, a, best[s]);
                if (mode == N(POOL_CODE))
                    codes[s] = vcodes_pick(wins, vcodes_set(first + u * code_h + v), codes[s]);
                else
                    code[s] = ipick(wins, (ivec){0} + (__typeof__(code[0][0]))(u * code_h + v * code_w), code[s]);
            }
        }
    }
}

/* Sums of columns, then the sum of these: the rounding error grows with the window's height plus width, not their
 * product, and of a plane VL columns are one vector. */
INLINE void N(sum_window)(const fc_pool_task *p, const T *x, int64_t stream, const fc_span *row, const fc_span *col,
                          const int streams, const int tail, vec *total)
{
    const int64_t step_row = p->step_h * p->x_row, step_col = p->step_w * p->x_col;
    FC_EACH_STREAM total[s] = vset1((T)-0.0); /* adding to it changes nothing */
    for (int64_t v = 0; v < col->count; v++) {
        const T *q = x + v * step_col;
        vec sum[FC_MOST_STREAMS];
        FC_EACH_STREAM sum[s] = FC_LOAD(q + s * stream);
        for (int64_t u = 1; u < row->count; u++) {
            q += step_row;
            FC_EACH_STREAM sum[s] += FC_LOAD(q + s * stream);
        }
        FC_EACH_STREAM total[s] += sum[s];
    }
}

/* The same of a large window, walked by rows as far as the sums of columns stay in the first-level cache. */
INLINE void N(sum_rows)(const fc_pool_task *p, const T *x, int64_t stream, const fc_span *row, const fc_span *col,
                        const int streams, const int tail, vec *total)
{
    enum { COLUMNS = 8192 / (FC_STREAMS * FC_VECTOR_BYTES), ROWS = 4 };
    const int64_t step_row = p->step_h * p->x_row, step_col = p->step_w * p->x_col;
    FC_EACH_STREAM total[s] = vset1((T)-0.0);
    for (int64_t first = 0; first < col->count; first += COLUMNS) {
        const int64_t rest = col->count - first, count = rest < COLUMNS ? rest : COLUMNS;
        vec sum[COLUMNS][FC_STREAMS];
        for (int64_t v = 0; v < count; v++)
            FC_EACH_STREAM sum[v][s] = vset1((T)-0.0);
        const T *q = x + first * step_col;
        for (int64_t u = 0; u < row->count; u += ROWS, q += ROWS * step_row)
            for (int64_t v = 0; v < count; v++)
                FC_EACH_STREAM
                {
                    const T *at = q + v * step_col + s * stream;
                    vec a = sum[v][s] + FC_LOAD(at);
                    _Pragma("GCC unroll 4") for (int r = 1; r < ROWS; r++) a =
                        u + r < row->count ? a + FC_LOAD(at + r * step_row) : a;
                    sum[v][s] = a;
                }
        for (int64_t v = 0; v < count; v++)
            FC_EACH_STREAM total[s] += sum[v][s];
    }
}

static __attribute__((noinline)) void N(sum_large)(const fc_pool_task *p, const T *x, int64_t stream,
                                                   const fc_span *row, const fc_span *col, int streams, int tail,
                                                   vec *total)
{
    if (streams == 1 || tail) {
        for (int s = 0; s < streams; s++)
            N(sum_rows)(p, x + s * stream, stream, row, col, 1, tail, total + s);
        return;
    }
    for (int s = 0; s < streams; s += FC_STREAMS)
        N(sum_rows)(p, x + s * stream, stream, row, col, FC_STREAMS, 0, total + s);
}

/* index[l] = base + code[l] for a whole vector */
INLINE void N(pool_positions)(int64_t *index, ivec code, int64_t base, int stream)
{
    typedef int64_t wide __attribute__((vector_size(FC_VECTOR_BYTES)));
    enum { WIDE = FC_VECTOR_BYTES / 8 };
    __typeof__(code[0]) part __attribute__((vector_size(WIDE * sizeof(code[0]))));
    _Pragma("GCC unroll 2") for (int l = 0; l < VL; l += WIDE)
    {
        memcpy(&part, (const char *)&code + (size_t)l * sizeof(code[0]), sizeof part);
        const wide position = __builtin_convertvector(part, wide) + base;
        if (stream)
            vstream((T *)(index + l), (vec)position);
        else
            memcpy(index + l, &position, sizeof position);
    }
}

/* index[l] = base + the position of tap number code[l] of a window `unit` taps wide. Apart: it would be two thirds of
 * the code. */
static __attribute__((noinline)) void N(pool_far_positions)(const fc_pool_task *p, int64_t *index, const ivec *code,
                                                            int lanes, int64_t base, int64_t unit)
{
    for (int l = 0; l < lanes; l++)
        index[l] = base + (*code)[l] / unit * p->step_h * p->width + (*code)[l] % unit * p->step_w;
}

INLINE void N(pool_write_index)(const fc_pool_task *p, const fc_span *row, const fc_span *col, int64_t at, ivec code_v,
                                int lanes, int64_t unit)
{
    __typeof__(code_v[0]) code[VL];
    memcpy(code, &code_v, sizeof code);
    int64_t *index = (int64_t *)p->index + at;
    const int64_t base = row->begin * p->width + col->begin;
    if (unit)
        N(pool_far_positions)(p, index, &code_v, lanes, base, unit);
    else if (lanes == VL)
        N(pool_positions)(index, code_v, base, p->stream);
    else
        for (int l = 0; l < lanes; l++)
            index[l] = base + code[l];
}

/* Channels [c, c + streams * VL) of output (i, j), or channels [c, c + VL) of outputs (i, j) ... (i, j + streams - 1).
 * Maxima of taps x taps, or where that is 0 of any number. */
INLINE void N(pool_block)(const fc_pool_task *p, int64_t i, int64_t j, int64_t c, const int streams,
                          const int neighbours, const int tail, const int mean, const int mode, const int taps)
{
    const fc_span *row = p->rows + i, *col = p->cols + j;
    const T *x = (const T *)p->x + (row->begin - p->top) * p->x_row + (col->begin - p->left) * p->x_col + c;
    const int64_t stream = neighbours ? (col[streams - 1].begin - col->begin) / (streams - 1) * p->x_col : VL;
    const int64_t y_stream = neighbours ? p->y_col : VL, index_stream = neighbours ? p->index_col : VL;
    T *y = (T *)p->y + i * p->y_row + j * p->y_col + c;
    vec best[FC_MOST_STREAMS];
    ivec code[FC_STREAMS];
    vcodes codes[FC_STREAMS];
    int64_t unit = 0;
    if (mean) {
        if (row->count * col->count > N(POOL_SMALL))
            N(sum_large)(p, x, stream, row, col, streams, tail, best);
        else
            N(sum_window)(p, x, stream, row, col, streams, tail, best);
        FC_EACH_STREAM
        {
            const double area = (double)row->area * (double)col[neighbours ? s : 0].area;
            best[s] /= vset1((T)(p->divisor != 0 ? p->divisor : area));
        }
    } else if (taps) {
        const fc_span some = {.count = taps}; /* a number to the compiler */
        N(max_window)(p, x, stream, &some, &some, p->kernel_w, 1, row->tap * p->kernel_w + col->tap, streams, tail,
                      mode, best, code, codes);
    } else if (mode == N(POOL_CODE)) {
        /* neighbours have the tap of the first */
        N(max_window)(p, x, stream, row, col, p->kernel_w, 1, row->tap * p->kernel_w + col->tap, streams, tail, mode,
                      best, code, codes);
    } else {
        int64_t code_h = p->step_h * p->width, code_w = p->step_w;
        /* positions beyond the range of a lane: number the taps instead and find the position when it is written */
        if (FC_F32 && mode == N(POOL_INDEX) && (row->count - 1) * code_h + (col->count - 1) * code_w > INT32_MAX)
            unit = code_h = col->count, code_w = 1;
        N(max_window)(p, x, stream, row, col, code_h, code_w, 0, streams, tail, mode, best, code, codes);
    }
    FC_EACH_STREAM
    {
        if (tail)
            vstore_tail(y + s * y_stream, best[s], tail);
        else if (p->stream)
            vstream(y + s * y_stream, best[s]);
        else
            vstore(y + s * y_stream, best[s]);
        const int64_t at = i * p->index_row + j * p->index_col + c + s * index_stream;
        if (mode == N(POOL_CODE))
            vcodes_store((uint8_t *)p->index + at, codes[s], tail ? tail : VL);
        else if (mode == N(POOL_INDEX))
            N(pool_write_index)(p, row, col + (neighbours ? s : 0), at, code[s], tail ? tail : VL, unit);
    }
}

/* Channels [c, c + VL) or the last ones of output (i, j) by itself: seldom, and one copy of the code */
INLINE void N(pool_rest)(const fc_pool_task *p, int64_t i, int64_t j, int64_t c, const int mean, const int mode)
{
    if (c + VL <= p->channels)
        N(pool_block)(p, i, j, c, 1, 0, 0, mean, mode, 0);
    else
        N(pool_block)(p, i, j, c, 1, 0, (int)(p->channels - c), mean, mode, 0);
}

#define FC_REST(name, mean, mode)                                                                                      \
    static __attribute__((noinline)) void N(name)(const fc_pool_task *p, int64_t i, int64_t j, int64_t c)              \
    {                                                                                                                  \
        N(pool_rest)(p, i, j, c, mean, mode);                                                                          \
    }
FC_REST(max_rest, 0, N(POOL_VALUE))
FC_REST(max_rest_code, 0, N(POOL_CODE))
FC_REST(max_rest_index, 0, N(POOL_INDEX))
FC_REST(mean_rest, 1, N(POOL_VALUE))
#undef FC_REST

#include "pool_plane.tmpl.h"

/* ---- any number of channels ---------------------------------------------------------------------------------------*/
/* Whether the windows of 4 columns are equal but for an even shift; their first taps never grow. */
INLINE int N(pool_regular)(const fc_span *col)
{
    const int64_t shift = col[1].begin - col[0].begin, count = col[0].count;
    return col[1].count == count && col[2].count == count && col[3].count == count &&
           col[2].begin - col[1].begin == shift && col[3].begin - col[2].begin == shift && col[3].tap == col[0].tap;
}

/* Channels from c on, fewer than FC_STREAMS vectors, of the outputs of row i. */
INLINE void N(pool_last)(const fc_pool_task *p, int64_t i, int64_t c, const int mean, const int mode,
                         void (*rest)(const fc_pool_task *, int64_t, int64_t, int64_t))
{
    const int64_t row_taps = p->rows[i].count, last = p->n_cols - FC_STREAMS;
    for (; c < p->channels; c += VL) {
        const int tail = p->channels - c < VL ? (int)(p->channels - c) : 0;
        for (int64_t j = 0; j < p->n_cols;) {
            if (j > last && last >= 0 && N(pool_regular)(p->cols + last))
                j = last; /* over some that are there already */
            const int four = j <= last && N(pool_regular)(p->cols + j);
            const int pairs = !mean && mode != N(POOL_INDEX) && row_taps == 2 && p->cols[j].count == 2;
            if (four && pairs && tail)
                N(pool_block)(p, i, j, c, FC_STREAMS, 1, tail, mean, mode, 2);
            else if (four && tail)
                N(pool_block)(p, i, j, c, FC_STREAMS, 1, tail, mean, mode, 0);
            else if (four)
                N(pool_block)(p, i, j, c, FC_STREAMS, 1, 0, mean, mode, 0);
            else
                rest(p, i, j, c);
            j += four ? FC_STREAMS : 1;
        }
    }
}

INLINE void N(pool_images)(const fc_pool_task *p, const int mean, const int mode,
                           void (*rest)(const fc_pool_task *, int64_t, int64_t, int64_t))
{
    if (mode != N(POOL_CODE) && p->lane_step && p->lane_end - p->lane_begin >= VL) {
        N(pool_plane)(p, mean, mode);
        return;
    }
    if (mean && p->x_plane) {
        N(mean_planes)(p);
        return;
    }
    const int64_t whole = p->channels / (FC_STREAMS * VL) * (FC_STREAMS * VL);
    for (int64_t i = 0; i < p->n_rows; i++) {
        for (int64_t j = 0; whole && j < p->n_cols; j++) {
            int64_t c = 0;
            for (; mean && c + FC_MOST_STREAMS * VL <= whole; c += FC_MOST_STREAMS * VL)
                N(pool_block)(p, i, j, c, FC_MOST_STREAMS, 0, 0, mean, mode, 0);
            for (; c < whole; c += FC_STREAMS * VL)
                N(pool_block)(p, i, j, c, FC_STREAMS, 0, 0, mean, mode, 0);
        }
        N(pool_last)(p, i, whole, mean, mode, rest);
    }
    if (p->stream)
        vfence();
}

static void N(pool_max)(const fc_pool_task *p) { N(pool_images)(p, 0, N(POOL_VALUE), N(max_rest)); }
static void N(pool_max_code)(const fc_pool_task *p) { N(pool_images)(p, 0, N(POOL_CODE), N(max_rest_code)); }
static void N(pool_max_index)(const fc_pool_task *p) { N(pool_images)(p, 0, N(POOL_INDEX), N(max_rest_index)); }
static void N(pool_mean)(const fc_pool_task *p) { N(pool_images)(p, 1, N(POOL_VALUE), N(mean_rest)); }

#include "pool_grad.tmpl.h"
#include "pool_flat.tmpl.h"
#include "pool_index.tmpl.h"

static const fc_pool_kernels N(pool_table) = {
    .has_fours = FC_FOURS,
    .max = N(pool_max),
    .max_code = N(pool_max_code),
    .max_index = N(pool_max_index),
    .mean = N(pool_mean),
    .max_grad = N(pool_max_grad),
    .mean_grad = N(pool_mean_grad),
    .has_flat = FC_F32 && FC_VECTOR_BYTES >= 32,
    .scatter_add = N(pool_scatter_add),
    .scatter_set = N(pool_scatter_set),
    .gather = N(pool_gather),
};
#undef FC_FOURS
#undef FC_STREAMS
#undef FC_MOST_STREAMS
#undef FC_EACH_STREAM
#undef FC_LOAD
