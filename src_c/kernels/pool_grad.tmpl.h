/* pool_grad.tmpl.h: gradients of pooling by window; included by pool.tmpl.h.
 *
 * Averages, and maxima of many channels: gathered, each grad_x written once. Maxima of few vectors of channels (a
 * tile, or an image of few channels; the block is in cache then): grad_x = 0, and each window adds to its taps, which
 * has no loop per position. Both add in ascending order of the windows, to the same bits. Windows that do not overlap
 * write their taps. */
/* grad_x of channels [c, c + streams * VL) of position (h, w): the windows that hold it in ascending order, each
 * counted where its code names this position */
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
            const vcodes tap = vcodes_set(u.tap * p->kernel_w + v.tap);
            FC_EACH_STREAM
            {
                const vmask mine = vcodes_equal(vcodes_load(code + s * VL, tail ? tail : VL), tap);
                sum[s] = vadd_where(mine, sum[s], FC_LOAD(g + s * VL));
            }
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
        const T *g =
            (const T *)p->grad_y + (i - p->first_i) * p->grad_y_row + (col->first - p->first_j) * p->grad_y_col + c;
        for (int64_t j = col->first; j < col->first + col->count; j++, g += p->grad_y_col) {
            if (p->divisor == 0) {
                const double now = (double)p->row_windows[i].area * (double)p->col_windows[j].area;
                if (now != area)
                    area = now, share = (T)(1 / area);
            }
            FC_EACH_STREAM sum[s] += vrounded(FC_LOAD(g + s * VL) * vset1(share));
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
        else if (p->stream)
            vstream(x + s * VL, sum[s]);
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
    if (p->stream)
        vfence();
}

/* ---- average of one channel whose columns are neighbours ---------------------------------------------------------*/
/* 1 / divisor of window (i, j) */
INLINE T N(mean_share)(const fc_pool_grad_task *p, int64_t i, int64_t j)
{
    return (T)(1 / (p->divisor != 0 ? p->divisor : (double)p->row_windows[i].area * (double)p->col_windows[j].area));
}

/* One position, in the order of mean_grad_block */
INLINE T N(mean_grad_one)(const fc_pool_grad_task *p, const fc_cover *row, const fc_cover *col)
{
    T sum = 0;
    for (int64_t i = row->first; i < row->first + row->count; i++) {
        const T *g = (const T *)p->grad_y + (i - p->first_i) * p->grad_y_row - p->first_j;
        for (int64_t j = col->first; j < col->first + col->count; j++)
            sum += vrounded(vset1(g[j] * N(mean_share)(p, i, j)))[0];
    }
    return sum;
}

/* streams * VL groups of positions: the sums of their windows; share = 1 / divisor of rows of windows with this area */
INLINE void N(mean_grad_lanes)(const fc_pool_grad_task *p, const fc_cover *row, int64_t k, T *x, int64_t *area,
                               T *share, const int streams, const int lanes, const int taps)
{
    vec sum[2][FC_STREAMS];
    _Pragma("GCC unroll 2") for (int phase = 0; phase < lanes; phase++) FC_EACH_STREAM sum[phase][s] = (vec){0};
    for (int64_t i = row->first; i < row->first + row->count; i++) {
        const T *g = (const T *)p->grad_y + (i - p->first_i) * p->grad_y_row + k;
        if (*area != p->row_windows[i].area) {
            *area = p->row_windows[i].area;
            *share = N(mean_share)(p, i, p->first_j + k + p->phases->first);
        }
        _Pragma("GCC unroll 2") for (int phase = 0; phase < lanes; phase++)
        {
            const T *q = g + p->phases[phase].first;
            const int64_t count = taps ? taps : p->phases[phase].count;
            for (int64_t t = 0; t < count; t++)
                FC_EACH_STREAM sum[phase][s] += vrounded(vload(q + t + s * VL) * vset1(*share));
        }
    }
    FC_EACH_STREAM
    {
        T *at = x + s * VL * lanes;
        if (lanes == 1) {
            vstore(at, sum[0][s]);
        } else {
            vstore(at, N(zip_low)(sum[0][s], sum[1][s]));
            vstore(at + VL, N(zip_high)(sum[0][s], sum[1][s]));
        }
    }
}

INLINE void N(mean_grad_row)(const fc_pool_grad_task *p, int64_t h, const int lanes, const int taps)
{
    const fc_pool_grad_task t = *p;
    const fc_cover row = t.rows[h];
    const int64_t from = t.left / lanes - t.first_j; /* windows of a group are counted from first_j on */
    T *x = (T *)t.grad_x + h * t.grad_x_row, share = 0;
    int64_t k = t.lane_begin, area = -1;
    for (; lanes == 1 && k + 2 * VL <= t.lane_end; k += 2 * VL)
        N(mean_grad_lanes)(&t, &row, from + k, x + k * lanes, &area, &share, 2, lanes, taps);
    for (; k < t.lane_end; k += VL) {
        k = k + VL <= t.lane_end ? k : t.lane_end - VL;
        N(mean_grad_lanes)(&t, &row, from + k, x + k * lanes, &area, &share, 1, lanes, taps);
    }
}

/* Windows of 2 columns that tile the plane, all alike: each gives the same to its positions. */
static void N(mean_grad_pairs)(const fc_pool_grad_task *p_, const int past)
{
    const fc_pool_grad_task own = *p_, *p = &own; /* out of reach of the stores */
    const int64_t groups = p->n_cols / 2, rows = p->n_rows, x_row = p->grad_x_row;
    const vec share = vset1(N(mean_share)(p, p->first_i, p->first_j));
    for (int64_t h = 0; h < rows; h++) {
        const T *g = (const T *)p->grad_y + (p->rows[h].first - p->first_i) * p->grad_y_row;
        T *x = (T *)p->grad_x + h * x_row;
        int64_t k = 0;
        for (; k + VL <= groups; k += VL, g += VL, x += 2 * VL) {
            const vec sum = vrounded(vload(g) * share) + (vec){0};
            const vec low = N(zip_low)(sum, sum), high = N(zip_high)(sum, sum);
            if (past)
                vstream(x, low), vstream(x + VL, high);
            else
                vstore(x, low), vstore(x + VL, high);
        }
        if (k < groups) { /* back over some that are there; past the caches, where rows end with half a vector of
                             windows, only the upper half is stored */
            const int64_t back = VL - (groups - k);
            const vec sum = vrounded(vload(g - back) * share) + (vec){0};
            T *high = x - 2 * back + VL;
            if (past)
                vstream(high, N(zip_high)(sum, sum));
            else
                vstore(high - VL, N(zip_low)(sum, sum)), vstore(high, N(zip_high)(sum, sum));
        }
    }
    if (past)
        vfence();
}

/* Whether p is a problem for it (measured with AVX2) */
INLINE int N(are_mean_pairs)(const fc_pool_grad_task *p)
{
    return FC_VECTOR_BYTES < 64 && p->apart && !p->gaps && p->lane_step == 2 && p->lane_begin == 0 &&
           2 * p->lane_end == p->n_cols;
}

static void N(mean_grad_plane)(const fc_pool_grad_task *p)
{
    if (N(are_mean_pairs)(p)) {
        const uintptr_t ends = (uintptr_t)p->grad_x | (uintptr_t)(p->grad_x_row | p->n_cols) * sizeof(T);
        N(mean_grad_pairs)(p, p->stream && ends % FC_VECTOR_BYTES == 0);
        return;
    }
    const int64_t begin = p->lane_begin * p->lane_step, end = p->lane_end * p->lane_step;
    int64_t taps = p->phases->count;
    for (int64_t c = 1; c < p->lane_step; c++)
        taps = p->phases[c].count == taps ? taps : 0;
    for (int64_t h = 0; h < p->n_rows; h++) {
        T *x = (T *)p->grad_x + h * p->grad_x_row;
        for (int64_t w = begin > 0 ? 0 : end; w < p->n_cols; w = w + 1 == begin ? end : w + 1)
            x[w] = N(mean_grad_one)(p, p->rows + h, p->cols + w);
        if (p->lane_step == 1 && taps == 3)
            N(mean_grad_row)(p, h, 1, 3);
        else if (p->lane_step == 1)
            N(mean_grad_row)(p, h, 1, 0);
        else if (p->lane_step == 2 && taps == 1)
            N(mean_grad_row)(p, h, 2, 1);
        else
            N(mean_grad_row)(p, h, 2, 0);
    }
}

/* ---- average of few vectors of channels ----------------------------------------------------------------------------
 * A position's windows are looked up once for all its channels. The last vector moves back over sums that are there
 * already; `tail`: of fewer channels than a vector. */
typedef struct {
    const T *g; /* of the first window */
    int64_t i, j; /* the first window */
    T share; /* of all windows, if they have the same */
} N(mean_windows);

INLINE void N(mean_sums)(const fc_pool_grad_task *p, const N(mean_windows) * w, T *x, const int64_t rows,
                         const int64_t cols, const int is_even, const int tail)
{
    T share = w->share;
    double area = 0;
    for (int64_t c = 0; c < p->channels; c += VL) {
        const int64_t at = tail || c + VL <= p->channels ? c : p->channels - VL;
        vec sum = {0};
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < cols; j++) {
                const T *g = w->g + i * p->grad_y_row + j * p->grad_y_col + at;
                if (!is_even) {
                    const double now = (double)p->row_windows[w->i + i].area * (double)p->col_windows[w->j + j].area;
                    if (now != area)
                        area = now, share = N(mean_share)(p, w->i + i, w->j + j);
                }
                sum += vrounded(FC_LOAD(g) * vset1(share));
            }
        if (tail)
            vstore_tail(x, sum, tail);
        else
            vstore(x + at, sum);
    }
}

/* The windows around the middle one of `count` that have its area: the first of them, and how many */
INLINE fc_cover N(even_windows)(const fc_span *windows, int64_t count)
{
    int64_t first = count / 2, end = first;
    while (first > 0 && windows[first - 1].area == windows[count / 2].area)
        first--;
    while (end < count && windows[end].area == windows[count / 2].area)
        end++;
    return (fc_cover){first, end - first};
}

static __attribute__((noinline)) void N(mean_sums_any)(const fc_pool_grad_task *p, const N(mean_windows) * w, T *x,
                                                       int64_t rows, int64_t cols, int is_even)
{
    if (p->channels < VL)
        N(mean_sums)(p, w, x, rows, cols, is_even, (int)p->channels);
    else
        N(mean_sums)(p, w, x, rows, cols, is_even, 0);
}

static __attribute__((noinline)) void N(mean_grad_gather)(const fc_pool_grad_task *p_)
{
    const fc_pool_grad_task own = *p_, *p = &own; /* out of reach of the stores */
    fc_cover even = N(even_windows)(p->col_windows + p->first_j, p->windows_j);
    even.first += p->first_j;
    for (int64_t h = 0; h < p->n_rows; h++) {
        const fc_cover row = p->rows[h];
        const fc_span *windows = p->row_windows + row.first;
        const T *g = (const T *)p->grad_y + (row.first - p->first_i) * p->grad_y_row;
        T *x = (T *)p->grad_x + h * p->grad_x_row;
        const int even_rows = row.count > 0 && even.count > 0 && N(even_windows)(windows, row.count).count == row.count;
        N(mean_windows) now = {.i = row.first, .share = even_rows ? N(mean_share)(p, row.first, even.first) : 0};
        for (int64_t w = 0; w < p->n_cols; w++, x += p->grad_x_col) {
            const fc_cover col = p->cols[w];
            const int is_even =
                even_rows && col.first >= even.first && col.first + col.count <= even.first + even.count;
            const int64_t most = is_even && p->channels >= VL ? 2 : 0;
            now.j = col.first, now.g = g + (col.first - p->first_j) * p->grad_y_col;
            if (row.count > most || col.count > most || col.count == 0)
                N(mean_sums_any)(p, &now, x, row.count, col.count, is_even);
            else if (row.count == 1 && col.count == 1)
                N(mean_sums)(p, &now, x, 1, 1, 1, 0);
            else if (row.count == 1)
                N(mean_sums)(p, &now, x, 1, 2, 1, 0);
            else if (col.count == 1)
                N(mean_sums)(p, &now, x, 2, 1, 1, 0);
            else
                N(mean_sums)(p, &now, x, 2, 2, 1, 0);
        }
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

/* One window adds its gradient to rows x cols taps from x on, the first of which has the code `tap`; or `places` it
 * there: no other window has these positions. */
INLINE void N(max_spread)(T *x, int64_t row, int64_t col, vcodes code, int64_t tap, int64_t kernel_w, vec g,
                          const int64_t rows, const int64_t cols, const int tail, const int places, const int stream)
{
    for (int64_t u = 0; u < rows; u++)
        for (int64_t v = 0; v < cols; v++) {
            T *at = x + u * row + v * col;
            const vmask mine = vcodes_equal(code, vcodes_set(tap + u * kernel_w + v));
            const vec sum = places ? vpick(mine, g, (vec){0}) : vadd_where(mine, FC_LOAD(at), g);
            if (tail)
                vstore_tail(at, sum, tail);
            else if (stream)
                vstream(at, sum);
            else
                vstore(at, sum);
        }
}

/* grad_x = 0 for the channels [c, c + VL) or [c, c + tail) */
INLINE void N(scatter_zero)(const fc_pool_grad_task *p, int64_t c, const int tail)
{
    for (int64_t h = 0; h < p->n_rows; h++)
        for (int64_t w = 0; w < p->n_cols; w++) {
            T *at = (T *)p->grad_x + c + h * p->grad_x_row + w * p->grad_x_col;
            if (tail)
                vstore_tail(at, (vec){0}, tail);
            else
                vstore(at, (vec){0});
        }
}

INLINE void N(scatter_block)(const fc_pool_grad_task *p, int64_t c, const int tail)
{
    T *x = (T *)p->grad_x + c;
    N(scatter_zero)(p, c, tail);
    const int64_t row = p->step_h * p->grad_x_row, col = p->step_w * p->grad_x_col;
    for (int64_t i = 0; i < p->windows_i; i++) {
        const fc_span *r = p->row_windows + p->first_i + i;
        int64_t u0, u1;
        N(taps_within)(r, p->step_h, p->top, p->n_rows, &u0, &u1);
        for (int64_t j = 0; j < p->windows_j; j++) {
            const fc_span *q = p->col_windows + p->first_j + j;
            int64_t v0, v1;
            N(taps_within)(q, p->step_w, p->left, p->n_cols, &v0, &v1);
            const T *gy = (const T *)p->grad_y + i * p->grad_y_row + j * p->grad_y_col + c;
            const vec g = FC_LOAD(gy);
            T *at = x + (r->begin + u0 * p->step_h - p->top) * p->grad_x_row +
                    (q->begin + v0 * p->step_w - p->left) * p->grad_x_col;
            const vcodes code = vcodes_load(p->code + i * p->code_row + j * p->code_col + c, tail ? tail : VL);
            const int64_t tap = (r->tap + u0) * p->kernel_w + q->tap + v0;
            if (u1 - u0 == 3 && v1 - v0 == 3)
                N(max_spread)(at, row, col, code, tap, p->kernel_w, g, 3, 3, tail, 0, 0);
            else if (u1 - u0 == 2 && v1 - v0 == 2)
                N(max_spread)(at, row, col, code, tap, p->kernel_w, g, 2, 2, tail, 0, 0);
            else
                N(max_spread)(at, row, col, code, tap, p->kernel_w, g, u1 - u0, v1 - v0, tail, 0, 0);
        }
    }
}

/* ---- windows that do not overlap ----------------------------------------------------------------------------------
 * Each is read once and writes its positions, in the order of memory. */
/* A row of `windows` whose positions begin at x, x_step apart: rows x cols taps of each, the first of them number
 * `tap`. */
INLINE void N(max_place)(const fc_pool_grad_task *p, const T *g, const uint8_t *code, int64_t windows, T *x,
                         int64_t x_step, int64_t tap, const int64_t rows, const int64_t cols, const int stream)
{
    const int64_t whole = p->channels / VL * VL, row = p->step_h * p->grad_x_row, col = p->step_w * p->grad_x_col;
    const int64_t g_col = p->grad_y_col, code_col = p->code_col, kernel_w = p->kernel_w;
    const int tail = stream ? 0 : (int)(p->channels - whole); /* whole vectors only */
    for (int64_t j = 0; j < windows; j++, g += g_col, code += code_col, x += x_step) {
        for (int64_t c = 0; c < whole; c += VL) /* + 0: a sum begins with 0, which -0 does not change */
            N(max_spread)(x + c, row, col, vcodes_load(code + c, VL), tap, kernel_w, vload(g + c) + (vec){0}, rows,
                          cols, 0, 1, stream);
        if (tail)
            N(max_spread)(x + whole, row, col, vcodes_load(code + whole, tail), tap, kernel_w,
                          vload_tail(g + whole, tail) + (vec){0}, rows, cols, tail, 1, 0);
    }
}

/* The same of averages, past the caches: whole vectors, rows of positions one after the other, for parts of a line must
 * follow each other. */
INLINE void N(mean_stream)(const fc_pool_grad_task *p, const T *g, T share, int64_t windows, T *x, int64_t x_step,
                           int64_t rows, int64_t cols)
{
    const int64_t channels = p->channels, row = p->step_h * p->grad_x_row, col = p->step_w * p->grad_x_col;
    const vec factor = vset1(share);
    for (int64_t u = 0; u < rows; u++) {
        const T *from = g;
        T *to = x + u * row;
        for (int64_t j = 0; j < windows; j++, from += p->grad_y_col, to += x_step)
            for (int64_t v = 0; v < cols; v++)
                for (int64_t c = 0; c < channels; c += VL)
                    vstream(to + v * col + c, vrounded(vload(from + c) * factor) + (vec){0});
    }
}

/* A row of windows alike, whole ones or a single cut one, that give `share` of their gradient to each position */
INLINE void N(mean_place)(const fc_pool_grad_task *p, const T *g, T share, int64_t windows, T *x, int64_t x_step,
                          int64_t rows, int64_t cols)
{
    const int64_t whole = p->channels / VL * VL, row = p->step_h * p->grad_x_row, col = p->step_w * p->grad_x_col;
    const int64_t g_col = p->grad_y_col;
    const int tail = (int)(p->channels - whole);
    const vec factor = vset1(share);
    for (int64_t j = 0; j < windows; j++, g += g_col, x += x_step) {
        for (int64_t c = 0; c < whole; c += VL) {
            const vec sum = vrounded(vload(g + c) * factor) + (vec){0};
            for (int64_t u = 0; u < rows; u++)
                for (int64_t v = 0; v < cols; v++)
                    vstore(x + c + u * row + v * col, sum);
        }
        if (tail) {
            const vec sum = vrounded(vload_tail(g + whole, tail) * factor) + (vec){0};
            for (int64_t u = 0; u < rows; u++)
                for (int64_t v = 0; v < cols; v++)
                    vstore_tail(x + whole + u * row + v * col, sum, tail);
        }
    }
}

#if FC_VECTOR_BYTES == 64
/* Lanes of a vector as columns of `channels`: the channel and the column of each */
typedef struct {
    ivec channel;
    __m128i channel_byte, column;
} N(max_run);

INLINE N(max_run) N(max_run_of)(int64_t channels)
{
    N(max_run) run;
    uint8_t channel[16], column[16];
    for (int l = 0, c = 0, v = 0; l < 16; l++) {
        channel[l] = (uint8_t)c, column[l] = (uint8_t)v;
        if (++c == channels)
            c = 0, v++;
    }
    run.channel_byte = _mm_loadu_si128((const __m128i *)channel);
    run.column = _mm_loadu_si128((const __m128i *)column);
    N(bytes) lanes;
    memcpy(&lanes, channel, sizeof lanes);
    run.channel = __builtin_convertvector(lanes, ivec);
    return run;
}

/* The same where the columns of a window and their channels are neighbours and fit into one vector, which is stored by
 * rows: masked stores cost by number, 49 us for 64 images of 6 channels at 28x28 by rows and 79 by taps. */
INLINE void N(max_place_runs)(const fc_pool_grad_task *p, const N(max_run) * run, const T *g, const uint8_t *code,
                              int64_t windows, T *x, int64_t x_step, int64_t tap, int64_t rows, int64_t cols)
{
    const int channels = (int)p->channels, lanes = (int)cols * channels;
    const int64_t row = p->step_h * p->grad_x_row, g_col = p->grad_y_col, code_col = p->code_col;
    const __m128i first = _mm_add_epi8(run->column, vcodes_set(tap)), next = vcodes_set(p->kernel_w);
    const ivec channel = run->channel;
    for (int64_t j = 0; j < windows; j++, g += g_col, code += code_col, x += x_step) {
        const vec sum = __builtin_shuffle(vload_tail(g, channels) + (vec){0}, channel);
        const vcodes codes = _mm_shuffle_epi8(vcodes_load(code, channels), run->channel_byte);
        __m128i taps = first;
        T *at = x;
        for (int64_t u = 0; u < rows; u++, taps = _mm_add_epi8(taps, next), at += row)
            vstore_tail(at, vpick(vcodes_equal(codes, taps), sum, (vec){0}), lanes);
    }
}
#endif

INLINE void N(grad_apart)(const fc_pool_grad_task *p_, const int mean, const int stream)
{
    const fc_pool_grad_task own = *p_, *p = &own; /* out of reach of the stores */
    const fc_span *cols = p->col_windows + p->first_j;
    int64_t v0, v1, next = 1;
#if FC_VECTOR_BYTES == 64
    const int runs = !mean && !stream && 2 * p->channels <= VL && p->step_w == 1 && p->grad_x_col == p->channels;
    const N(max_run) run = runs ? N(max_run_of)(p->channels) : (N(max_run)){0};
#endif
    const fc_span *last = cols + p->windows_j - 1;
    const int64_t right = p->left + p->n_cols; /* windows after a whole one are whole, but for the last */
    for (int64_t i = 0; i < p->windows_i; i++) {
        const fc_span *r = p->row_windows + p->first_i + i;
        int64_t u0, u1;
        N(taps_within)(r, p->step_h, p->top, p->n_rows, &u0, &u1);
        for (int64_t j = 0; j < p->windows_j; j += next) {
            const fc_span *q = cols + j;
            N(taps_within)(q, p->step_w, p->left, p->n_cols, &v0, &v1);
            next = 1;
            if (v0 == 0 && v1 == q->count && q->tap == 0 && q < last)
                next = last - q + (last->count == v1 && last->begin + (v1 - 1) * p->step_w < right);
            T *x = (T *)p->grad_x + (r->begin + u0 * p->step_h - p->top) * p->grad_x_row +
                   (q->begin + v0 * p->step_w - p->left) * p->grad_x_col;
            const T *g = (const T *)p->grad_y + i * p->grad_y_row + j * p->grad_y_col;
            const int64_t step = next > 1 ? (q[1].begin - q->begin) * p->grad_x_col : 0;
            if (mean) {
                const T share = N(mean_share)(p, p->first_i + i, p->first_j + j);
                if (stream)
                    N(mean_stream)(p, g, share, next, x, step, u1 - u0, v1 - v0);
                else
                    N(mean_place)(p, g, share, next, x, step, u1 - u0, v1 - v0);
                continue;
            }
            const uint8_t *code = p->code + i * p->code_row + j * p->code_col;
            const int64_t tap = (r->tap + u0) * p->kernel_w + q->tap + v0;
#if FC_VECTOR_BYTES == 64
            if (runs && (v1 - v0) * p->channels <= VL) {
                N(max_place_runs)(p, &run, g, code, next, x, step, tap, u1 - u0, v1 - v0);
                continue;
            }
#endif
            if (u1 - u0 == 2 && v1 - v0 == 2)
                N(max_place)(p, g, code, next, x, step, tap, 2, 2, stream);
            else
                N(max_place)(p, g, code, next, x, step, tap, u1 - u0, v1 - v0, stream);
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

/* Windows that do not overlap, after zeros for what is in none */
INLINE void N(pool_grad_apart)(const fc_pool_grad_task *p, const int mean)
{
    for (int64_t c = 0; p->gaps && c < p->channels; c += VL) {
        if (c + VL <= p->channels)
            N(scatter_zero)(p, c, 0);
        else
            N(scatter_zero)(p, c, (int)(p->channels - c));
    }
    if (p->stream && !p->gaps && p->channels % VL == 0) {
        N(grad_apart)(p, mean, 1);
        vfence();
    } else {
        N(grad_apart)(p, mean, 0);
    }
}

static void N(pool_max_grad)(const fc_pool_grad_task *p)
{
    if (p->channels == 1) {
        N(max_scatter_plane)(p);
        return;
    }
    if (p->apart) {
        N(pool_grad_apart)(p, 0);
        return;
    }
    if (p->channels >= FC_STREAMS * VL) {
        N(pool_grad)(p, 0);
        return;
    }
    int64_t c = 0;
    for (; c + VL <= p->channels; c += VL)
        N(scatter_block)(p, c, 0);
    if (c < p->channels)
        N(scatter_block)(p, c, (int)(p->channels - c));
}
