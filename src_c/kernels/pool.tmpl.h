/* pool.tmpl.h: pooling over images with contiguous channels.
 *
 * y[i][j][c] = max_{u,v} x[rows[i].begin + u * step_h][cols[j].begin + v * step_w][c], or the sum of the same taps divided
 * by the window's divisor. Taps outside the image are not in the spans, so there is no padding here.
 *
 * The vectors of one step ("streams") are either 4 vectors of channels of one output, or, where the channels fill only one
 * vector, 4 neighbouring outputs of a row: 4 independent chains hide the latency of compare and blend (8 cycles).
 */
#define FC_STREAMS 4
#define FC_EACH_STREAM _Pragma("GCC unroll 4") for (int s = 0; s < streams; s++)
#define FC_LOAD(p) (tail ? vload_tail(p, tail) : vload(p))

enum { N(POOL_VALUE), N(POOL_CODE), N(POOL_INDEX) };

/* The scan of one window. torch's rule: a tap wins when it is greater or NaN, so the first maximum stays, and of NaNs the
 * last. code counts the winner as u * code_h + v * code_w. */
INLINE void N(max_window)(const fc_pool_task *p, const T *x, int64_t stream, const fc_span *row, const fc_span *col,
                          int64_t code_h, int64_t code_w, const int streams, const int tail, const int mode, vec *best,
                          ivec *code)
{
    const int64_t step_row = p->step_h * p->x_row, step_col = p->step_w * p->x_col;
    FC_EACH_STREAM
    {
        best[s] = FC_LOAD(x + s * stream);
        code[s] = (ivec){0};
    }
    for (int64_t u = 0; u < row->count; u++) {
        const T *q = x + u * step_row;
        for (int64_t v = 0; v < col->count; v++, q += step_col) {
            const ivec tap = (ivec){0} + (__typeof__(code[0][0]))(u * code_h + v * code_w);
            FC_EACH_STREAM
            {
                const vec a = FC_LOAD(q + s * stream);
                const vmask wins = vor(vgreater(a, best[s]), visnan(a));
                best[s] = vpick(wins, a, best[s]);
                if (mode != N(POOL_VALUE))
                    code[s] = ipick(wins, tap, code[s]);
            }
        }
    }
}

/* Sums of rows, then the sum of these: the rounding error grows with the window's height plus width, not their product. */
INLINE void N(sum_window)(const fc_pool_task *p, const T *x, int64_t stream, const fc_span *row, const fc_span *col,
                          const int streams, const int tail, vec *total)
{
    const int64_t step_row = p->step_h * p->x_row, step_col = p->step_w * p->x_col;
    FC_EACH_STREAM total[s] = (vec){0};
    for (int64_t u = 0; u < row->count; u++) {
        const T *q = x + u * step_row;
        vec sum[FC_STREAMS];
        FC_EACH_STREAM sum[s] = FC_LOAD(q + s * stream);
        for (int64_t v = 1; v < col->count; v++) {
            q += step_col;
            FC_EACH_STREAM sum[s] += FC_LOAD(q + s * stream);
        }
        FC_EACH_STREAM total[s] = u ? total[s] + sum[s] : sum[s];
    }
}

INLINE void N(pool_write_index)(const fc_pool_task *p, const fc_span *row, const fc_span *col, int64_t at, ivec code_v,
                                int lanes, const int mode, int64_t unit)
{
    __typeof__(code_v[0]) code[VL];
    memcpy(code, &code_v, sizeof code);
    if (mode == N(POOL_CODE)) {
        uint8_t *index = (uint8_t *)p->index + at;
        const int64_t base = row->tap * p->kernel_w + col->tap;
        for (int l = 0; l < lanes; l++)
            index[l] = (uint8_t)(base + code[l]);
        return;
    }
    int64_t *index = (int64_t *)p->index + at;
    const int64_t base = row->begin * p->width + col->begin;
    if (unit)
        for (int l = 0; l < lanes; l++)
            index[l] = base + code[l] / unit * p->step_h * p->width + code[l] % unit * p->step_w;
    else
        for (int l = 0; l < lanes; l++)
            index[l] = base + code[l];
}

/* Channels [c, c + streams * VL) of output (i, j), or channels [c, c + VL) of outputs (i, j) ... (i, j + streams - 1). */
INLINE void N(pool_block)(const fc_pool_task *p, int64_t i, int64_t j, int64_t c, const int streams, const int neighbours,
                          const int tail, const int mean, const int mode)
{
    const fc_span *row = p->rows + i, *col = p->cols + j;
    const T *x = (const T *)p->x + (row->begin - p->top) * p->x_row + (col->begin - p->left) * p->x_col + c;
    const int64_t stream = neighbours ? (col[streams - 1].begin - col->begin) / (streams - 1) * p->x_col : VL;
    const int64_t y_stream = neighbours ? p->y_col : VL, index_stream = neighbours ? p->index_col : VL;
    T *y = (T *)p->y + i * p->y_row + j * p->y_col + c;
    vec best[FC_STREAMS];
    ivec code[FC_STREAMS];
    int64_t unit = 0;
    if (mean) {
        N(sum_window)(p, x, stream, row, col, streams, tail, best);
        FC_EACH_STREAM
        {
            const double area = (double)row->area * (double)col[neighbours ? s : 0].area;
            best[s] /= vset1((T)(p->divisor != 0 ? p->divisor : area));
        }
    } else if (mode == N(POOL_CODE)) {
        N(max_window)(p, x, stream, row, col, p->kernel_w, 1, streams, tail, mode, best, code);
    } else {
        int64_t code_h = p->step_h * p->width, code_w = p->step_w;
        /* positions beyond the range of a lane: number the taps instead and find the position when it is written */
        if (FC_F32 && mode == N(POOL_INDEX) && (row->count - 1) * code_h + (col->count - 1) * code_w > INT32_MAX)
            unit = code_h = col->count, code_w = 1;
        N(max_window)(p, x, stream, row, col, code_h, code_w, streams, tail, mode, best, code);
    }
    FC_EACH_STREAM
    {
        if (tail)
            vstore_tail(y + s * y_stream, best[s], tail);
        else
            vstore(y + s * y_stream, best[s]);
        if (mode != N(POOL_VALUE))
            N(pool_write_index)(p, row, col + (neighbours ? s : 0), i * p->index_row + j * p->index_col + c + s * index_stream,
                                code[s], tail ? tail : VL, mode, unit);
    }
}

/* Whether the windows of 4 columns are equal but for an even shift. */
INLINE int N(pool_regular)(const fc_span *col)
{
    const int64_t shift = col[1].begin - col[0].begin, count = col[0].count;
    return col[1].count == count && col[2].count == count && col[3].count == count && col[2].begin - col[1].begin == shift &&
           col[3].begin - col[2].begin == shift;
}

INLINE void N(pool_images)(const fc_pool_task *p, const int mean, const int mode)
{
    for (int64_t i = 0; i < p->n_rows; i++) {
        const int wide = p->channels >= 2 * VL;
        if (wide)
            for (int64_t j = 0; j < p->n_cols; j++) {
                int64_t c = 0;
                for (; c + FC_STREAMS * VL <= p->channels; c += FC_STREAMS * VL)
                    N(pool_block)(p, i, j, c, FC_STREAMS, 0, 0, mean, mode);
                for (; c + VL <= p->channels; c += VL)
                    N(pool_block)(p, i, j, c, 1, 0, 0, mean, mode);
                if (c < p->channels)
                    N(pool_block)(p, i, j, c, 1, 0, (int)(p->channels - c), mean, mode);
            }
        else
            for (int64_t c = 0; c < p->channels; c += VL) {
                const int tail = p->channels - c < VL ? (int)(p->channels - c) : 0;
                int64_t j = 0;
                while (j < p->n_cols) {
                    if (!tail && j + FC_STREAMS <= p->n_cols && N(pool_regular)(p->cols + j)) {
                        N(pool_block)(p, i, j, c, FC_STREAMS, 1, 0, mean, mode);
                        j += FC_STREAMS;
                    } else if (!tail) {
                        N(pool_block)(p, i, j++, c, 1, 0, 0, mean, mode);
                    } else {
                        N(pool_block)(p, i, j++, c, 1, 0, tail, mean, mode);
                    }
                }
            }
    }
}

static void N(pool_max)(const fc_pool_task *p) { N(pool_images)(p, 0, N(POOL_VALUE)); }
static void N(pool_max_code)(const fc_pool_task *p) { N(pool_images)(p, 0, N(POOL_CODE)); }
static void N(pool_max_index)(const fc_pool_task *p) { N(pool_images)(p, 0, N(POOL_INDEX)); }
static void N(pool_mean)(const fc_pool_task *p) { N(pool_images)(p, 1, N(POOL_VALUE)); }

/* ---- gradients ---------------------------------------------------------------------------------------------------
 * Many channels: gathered, each grad_x written once. Few vectors of channels (a tile, or an image of few channels; the
 * block is in cache then): grad_x = 0, and each window adds to its taps, which has no loop per position. Both add in
 * ascending order of the windows, to the same bits. */
/* grad_x of channels [c, c + streams * VL) of position (h, w): the windows that hold it in ascending order, each counted
 * where its code names this position */
INLINE void N(max_grad_block)(const fc_pool_grad_task *p, const fc_cover *row, const fc_cover *col, int64_t c,
                              const int streams, const int tail, vec *sum)
{
    FC_EACH_STREAM sum[s] = (vec){0};
    for (int64_t a = row->first; a < row->first + row->count; a++) {
        const fc_pair u = p->row_pairs[a];
        const T *g_row = (const T *)p->grad_y + (u.window - p->first_i) * p->grad_y_row + c;
        const uint8_t *code_row = p->code + (u.window - p->first_i) * p->code_row + c;
        for (int64_t b = col->first; b < col->first + col->count; b++) {
            const fc_pair v = p->col_pairs[b];
            const T *g = g_row + (v.window - p->first_j) * p->grad_y_col;
            const uint8_t *code = code_row + (v.window - p->first_j) * p->code_col;
            const uint8_t tap = (uint8_t)(u.tap * p->kernel_w + v.tap);
            uint8_t last[VL];
            if (tail) {
                for (int l = 0; l < VL; l++)
                    last[l] = l < tail ? code[l] : 0;
                code = last;
            }
            FC_EACH_STREAM sum[s] = vadd_where(vbytes_equal(code + s * VL, tap), sum[s], FC_LOAD(g + s * VL));
        }
    }
}

INLINE void N(mean_grad_block)(const fc_pool_grad_task *p, const fc_cover *row, const fc_cover *col, int64_t c,
                               const int streams, const int tail, vec *sum)
{
    FC_EACH_STREAM sum[s] = (vec){0};
    double area = p->divisor;
    T share = area != 0 ? (T)(1 / area) : 0;
    for (int64_t i = row->first; i < row->first + row->count; i++) {
        const T *g = (const T *)p->grad_y + (i - p->first_i) * p->grad_y_row + (col->first - p->first_j) * p->grad_y_col + c;
        for (int64_t j = col->first; j < col->first + col->count; j++, g += p->grad_y_col) {
            if (p->divisor == 0) {
                const double now = (double)p->row_windows[i].area * (double)p->col_windows[j].area;
                if (now != area)
                    area = now, share = (T)(1 / area);
            }
            FC_EACH_STREAM sum[s] += FC_LOAD(g + s * VL) * vset1(share);
        }
    }
}

INLINE void N(pool_grad_block)(const fc_pool_grad_task *p, int64_t h, int64_t w, int64_t c, const int streams,
                               const int tail, const int mean)
{
    vec sum[FC_STREAMS];
    if (mean)
        N(mean_grad_block)(p, p->rows + h, p->cols + w, c, streams, tail, sum);
    else
        N(max_grad_block)(p, p->rows + h, p->cols + w, c, streams, tail, sum);
    T *x = (T *)p->grad_x + h * p->grad_x_row + w * p->grad_x_col + c;
    FC_EACH_STREAM
    {
        if (tail)
            vstore_tail(x + s * VL, sum[s], tail);
        else
            vstore(x + s * VL, sum[s]);
    }
}

INLINE void N(pool_grad)(const fc_pool_grad_task *p, const int mean)
{
    for (int64_t h = 0; h < p->n_rows; h++)
        for (int64_t w = 0; w < p->n_cols; w++) {
            int64_t c = 0;
            for (; c + FC_STREAMS * VL <= p->channels; c += FC_STREAMS * VL)
                N(pool_grad_block)(p, h, w, c, FC_STREAMS, 0, mean);
            for (; c + VL <= p->channels; c += VL)
                N(pool_grad_block)(p, h, w, c, 1, 0, mean);
            if (c < p->channels)
                N(pool_grad_block)(p, h, w, c, 1, (int)(p->channels - c), mean);
        }
}

/* The taps [*from, *to) of a window whose positions lie in [begin, begin + count). */
INLINE void N(taps_within)(const fc_span *span, int64_t step, int64_t begin, int64_t count, int64_t *from, int64_t *to)
{
    *from = 0, *to = span->count;
    while (*from < *to && span->begin + *from * step < begin)
        ++*from;
    while (*to > *from && span->begin + (*to - 1) * step >= begin + count)
        --*to;
}

/* One window adds its gradient to rows x cols taps from x on, the first of which has the code `tap`. */
INLINE void N(max_spread)(T *x, int64_t row, int64_t col, const uint8_t *code, uint8_t tap, int64_t kernel_w, vec g,
                          const int64_t rows, const int64_t cols, const int tail)
{
    for (int64_t u = 0; u < rows; u++)
        for (int64_t v = 0; v < cols; v++) {
            T *at = x + u * row + v * col;
            const vmask mine = vbytes_equal(code, (uint8_t)(tap + u * kernel_w + v));
            if (tail)
                vstore_tail(at, vadd_where(mine, vload_tail(at, tail), g), tail);
            else
                vstore(at, vadd_where(mine, vload(at), g));
        }
}

INLINE void N(max_scatter_block)(const fc_pool_grad_task *p, int64_t c, const int tail)
{
    T *x = (T *)p->grad_x + c;
    for (int64_t h = 0; h < p->n_rows; h++)
        for (int64_t w = 0; w < p->n_cols; w++) {
            T *at = x + h * p->grad_x_row + w * p->grad_x_col;
            if (tail)
                vstore_tail(at, (vec){0}, tail);
            else
                vstore(at, (vec){0});
        }
    const int64_t row = p->step_h * p->grad_x_row, col = p->step_w * p->grad_x_col;
    for (int64_t i = 0; i < p->windows_i; i++) {
        const fc_span *r = p->row_windows + p->first_i + i;
        int64_t u0, u1;
        N(taps_within)(r, p->step_h, p->top, p->n_rows, &u0, &u1);
        for (int64_t j = 0; j < p->windows_j; j++) {
            const fc_span *q = p->col_windows + p->first_j + j;
            int64_t v0, v1;
            N(taps_within)(q, p->step_w, p->left, p->n_cols, &v0, &v1);
            const uint8_t *code = p->code + i * p->code_row + j * p->code_col + c;
            const T *gy = (const T *)p->grad_y + i * p->grad_y_row + j * p->grad_y_col + c;
            const vec g = FC_LOAD(gy);
            T *at = x + (r->begin + u0 * p->step_h - p->top) * p->grad_x_row +
                    (q->begin + v0 * p->step_w - p->left) * p->grad_x_col;
            const uint8_t tap = (uint8_t)((r->tap + u0) * p->kernel_w + q->tap + v0);
            uint8_t last[VL];
            if (tail) {
                for (int l = 0; l < VL; l++)
                    last[l] = l < tail ? code[l] : 0;
                code = last;
            }
            if (u1 - u0 == 3 && v1 - v0 == 3)
                N(max_spread)(at, row, col, code, tap, p->kernel_w, g, 3, 3, tail);
            else if (u1 - u0 == 2 && v1 - v0 == 2)
                N(max_spread)(at, row, col, code, tap, p->kernel_w, g, 2, 2, tail);
            else
                N(max_spread)(at, row, col, code, tap, p->kernel_w, g, u1 - u0, v1 - v0, tail);
        }
    }
}

/* One channel: each window looks its tap up and adds one number. */
static void N(max_scatter_plane)(const fc_pool_grad_task *p)
{
    for (int64_t h = 0; h < p->n_rows; h++)
        for (int64_t w = 0; w < p->n_cols; w++)
            ((T *)p->grad_x)[h * p->grad_x_row + w * p->grad_x_col] = 0;
    for (int64_t i = 0; i < p->windows_i; i++) {
        const fc_span *r = p->row_windows + p->first_i + i;
        for (int64_t j = 0; j < p->windows_j; j++) {
            const fc_span *q = p->col_windows + p->first_j + j;
            const uint32_t code = p->code[i * p->code_row + j * p->code_col], kernel_w = (uint32_t)p->kernel_w;
            const int64_t u = (int64_t)(code / kernel_w) - r->tap, v = (int64_t)(code % kernel_w) - q->tap;
            const int64_t h = r->begin + u * p->step_h - p->top, w = q->begin + v * p->step_w - p->left;
            const int is_tap = u >= 0 && u < r->count && v >= 0 && v < q->count;
            if (is_tap && h >= 0 && h < p->n_rows && w >= 0 && w < p->n_cols)
                ((T *)p->grad_x)[h * p->grad_x_row + w * p->grad_x_col] +=
                    ((const T *)p->grad_y)[i * p->grad_y_row + j * p->grad_y_col];
        }
    }
}

static void N(pool_max_grad)(const fc_pool_grad_task *p)
{
    if (p->channels == 1) {
        N(max_scatter_plane)(p);
        return;
    }
    if (p->channels >= FC_STREAMS * VL) {
        N(pool_grad)(p, 0);
        return;
    }
    int64_t c = 0;
    for (; c + VL <= p->channels; c += VL)
        N(max_scatter_block)(p, c, 0);
    if (c < p->channels)
        N(max_scatter_block)(p, c, (int)(p->channels - c));
}

static void N(pool_mean_grad)(const fc_pool_grad_task *p) { N(pool_grad)(p, 1); }

/* ---- positions given by the caller ---------------------------------------------------------------------------------*/
enum { N(INDEX_ADD), N(INDEX_SET), N(INDEX_GET) };

/* The greatest of count indices, or -1 when one lies outside the plane. */
INLINE int64_t N(index_limit)(const int64_t *index, int64_t count, int64_t step, int64_t plane_size)
{
    uint64_t most = 0; /* a negative index is a huge unsigned one */
    if (step == 1)
        for (int64_t j = 0; j < count; j++)
            most = (uint64_t)index[j] > most ? (uint64_t)index[j] : most;
    else
        for (int64_t j = 0; j < count; j++)
            most = (uint64_t)index[j * step] > most ? (uint64_t)index[j * step] : most;
    return most < (uint64_t)plane_size ? (int64_t)most : -1;
}

INLINE int64_t N(index_row_limit)(const fc_pool_index_task *p, const int64_t *index)
{
    if (p->channels == 1)
        return N(index_limit)(index, p->n_cols, p->index_col, p->plane_size);
    int64_t most = 0;
    for (int64_t j = 0; j < p->n_cols && most >= 0; j++) {
        const int64_t m = N(index_limit)(index + j * p->index_col, p->channels, p->index_channel, p->plane_size);
        most = m < 0 || m > most ? m : most;
    }
    return most;
}

/* plane[index[j] * step + j * plane_j] and value[j], for j < count */
INLINE void N(index_apply)(T *plane, int64_t step, int64_t plane_j, const int64_t *index, int64_t index_j, T *value,
                           int64_t value_j, int64_t count, const int mode)
{
    for (int64_t j = 0; j < count; j++) {
        T *at = plane + index[j * index_j] * step + j * plane_j, *v = value + j * value_j;
        if (mode == N(INDEX_GET))
            *v = *at;
        else if (mode == N(INDEX_SET))
            *at = *v;
        else
            *at += *v;
    }
}

INLINE void N(index_row)(const fc_pool_index_task *p, const int64_t *index, T *value, const int mode)
{
    if (p->channels == 1) {
        if (p->plane_step == 1 && p->index_col == 1 && p->value_col == 1)
            N(index_apply)(p->plane, 1, 0, index, 1, value, 1, p->n_cols, mode);
        else
            N(index_apply)(p->plane, p->plane_step, 0, index, p->index_col, value, p->value_col, p->n_cols, mode);
        return;
    }
    for (int64_t j = 0; j < p->n_cols; j++, index += p->index_col, value += p->value_col)
        if (p->plane_channel == 1 && p->index_channel == 1 && p->value_channel == 1)
            N(index_apply)(p->plane, p->plane_step, 1, index, 1, value, 1, p->channels, mode);
        else
            N(index_apply)(p->plane, p->plane_step, p->plane_channel, index, p->index_channel, value, p->value_channel,
                           p->channels, mode);
}

INLINE void N(index_zero)(const fc_pool_index_task *p, int64_t from, int64_t to)
{
    T *plane = p->plane;
    if (p->plane_channel == 1 && p->channels == p->plane_step) {
        memset(plane + from * p->plane_step, 0, (size_t)((to - from) * p->plane_step) * sizeof(T));
        return;
    }
    for (int64_t k = from; k < to; k++)
        for (int64_t c = 0; c < p->channels; c++)
            plane[k * p->plane_step + c * p->plane_channel] = 0;
}

/* Row by row; the plane is cleared just ahead of the greatest index seen, so that it is in cache when it is added to. */
INLINE int N(index_planes)(const fc_pool_index_task *p, const int mode)
{
    int64_t cleared = 0;
    for (int64_t i = 0; i < p->n_rows; i++) {
        const int64_t *index = p->index + i * p->index_row;
        const int64_t most = p->n_cols ? N(index_row_limit)(p, index) : 0;
        if (most < 0)
            return 1;
        if (mode != N(INDEX_GET) && most >= cleared) {
            N(index_zero)(p, cleared, most + 1);
            cleared = most + 1;
        }
        N(index_row)(p, index, (T *)p->value + i * p->value_row, mode);
    }
    if (mode != N(INDEX_GET))
        N(index_zero)(p, cleared, p->plane_size);
    return 0;
}

static int N(pool_scatter_add)(const fc_pool_index_task *p) { return N(index_planes)(p, N(INDEX_ADD)); }
static int N(pool_scatter_set)(const fc_pool_index_task *p) { return N(index_planes)(p, N(INDEX_SET)); }
static int N(pool_gather)(const fc_pool_index_task *p) { return N(index_planes)(p, N(INDEX_GET)); }

static const fc_pool_kernels N(pool_table) = {
    .max = N(pool_max),
    .max_code = N(pool_max_code),
    .max_index = N(pool_max_index),
    .mean = N(pool_mean),
    .max_grad = N(pool_max_grad),
    .mean_grad = N(pool_mean_grad),
    .scatter_add = N(pool_scatter_add),
    .scatter_set = N(pool_scatter_set),
    .gather = N(pool_gather),
};
#undef FC_STREAMS
#undef FC_EACH_STREAM
#undef FC_LOAD
