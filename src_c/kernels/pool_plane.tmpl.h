/* pool_plane.tmpl.h: pooling of channels whose columns are neighbours in memory; included by pool.tmpl.h.
 *
 * Lanes are neighbouring outputs of a row, whose windows begin 1 column apart, 2 if they are 2 or 3 columns wide, or 4
 * if 4. Maxima of a row are found without regard to NaN, which saves two operations of three; a row that has one is
 * computed again.
 */
/* ---- outputs one by one, in the order of max_window and sum_window -----------------------------------------------*/
INLINE void N(max_one)(const fc_pool_task *p, int64_t i, int64_t j, const T *x, const int mode)
{
    const fc_span row = p->rows[i], col = p->cols[j];
    T best = (T)-INFINITY;
    int64_t place = 0;
    for (int64_t u = 0; u < row.count; u++, x += p->step_h * p->x_row)
        for (int64_t v = 0; v < col.count; v++) {
            const T a = x[v * p->step_w];
            if ((a > best) | (a != a))
                best = a, place = u * p->step_h * p->width + v * p->step_w;
        }
    ((T *)p->y)[i * p->y_row + j] = best;
    if (mode == N(POOL_INDEX))
        ((int64_t *)p->index)[i * p->index_row + j] = row.begin * p->width + col.begin + place;
}

INLINE T N(pool_divisor)(const fc_pool_task *p, int64_t i, int64_t j)
{
    return (T)(p->divisor != 0 ? p->divisor : (double)p->rows[i].area * (double)p->cols[j].area);
}

INLINE void N(mean_one)(const fc_pool_task *p, int64_t i, int64_t j, const T *x)
{
    const fc_span row = p->rows[i], col = p->cols[j];
    T total = (T)-0.0;
    for (int64_t v = 0; v < col.count; v++, x += p->step_w) {
        T sum = (T)-0.0;
        for (int64_t u = 0; u < row.count; u++)
            sum += x[u * p->step_h * p->x_row];
        total += sum;
    }
    ((T *)p->y)[i * p->y_row + j] = total / N(pool_divisor)(p, i, j);
}

static void N(pool_one)(const fc_pool_task *p, int64_t i, int64_t j, const int mean, const int mode)
{
    const T *x = (const T *)p->x + (p->rows[i].begin - p->top) * p->x_row + p->cols[j].begin - p->left;
    if (mean)
        N(mean_one)(p, i, j, x);
    else
        N(max_one)(p, i, j, x, mode);
}

typedef __typeof__(((ivec){0})[0]) N(lane);
#define FC_FOURS (FC_F32 && FC_VECTOR_BYTES >= 32) /* for the sake of the library's size */

/* ---- a row of outputs --------------------------------------------------------------------------------------------*/
typedef struct {
    const T *x; /* the window of output 0 */
    int64_t row, rows, step, taps; /* distance and number of its rows, of its columns */
    int64_t place, place_row; /* position of x in the plane, distance of two rows */
    int outside; /* the first column of output 0 is padding, the others of its 3 are not */
    vec divisor;
    T outside_divisor;
    T *y;
    int64_t *index;
} N(pool_line);

/* Taps of VL windows of 2 or 3 columns, 2 apart, or of 4, 4 apart, from `lanes` vectors of a row. The last two columns
 * of 3 follow each other; the first is the last of the window before, and of the first window `edge`. */
INLINE void N(split_taps_of)(const vec *a, vec edge, const int lanes, const int taps, vec *tap)
{
    if (lanes == 4) {
        const vec even[] = {N(evens)(a[0], a[1]), N(evens)(a[2], a[3])},
                  odd[] = {N(odds)(a[0], a[1]), N(odds)(a[2], a[3])};
        tap[0] = N(evens)(even[0], even[1]), tap[1] = N(evens)(odd[0], odd[1]);
        tap[2] = N(odds)(even[0], even[1]), tap[3] = N(odds)(odd[0], odd[1]);
        return;
    }
    tap[taps - 2] = N(evens)(a[0], a[1]);
    tap[taps - 1] = N(odds)(a[0], a[1]);
    if (taps == 3)
        tap[0] = N(shifted)(edge, tap[2]);
}

/* Outputs [j, j + VL). Where a NaN was, *nan is true in some lane, and unless `careful` the maximum may be wrong; the
 * first column of output 0 is not looked at. */
INLINE void N(max_line)(const N(pool_line) * l, int64_t j, const int lanes, const int taps, const int careful,
                        const int mode, vmask *nan)
{
    const T padding = (T)-INFINITY, *x = l->x + j * lanes;
    const int outside = lanes == 2 && taps == 3 && l->outside && j == 0;
    const T *edge = outside ? &padding : x;
    const int64_t edge_row = outside ? 0 : l->row, count = taps ? taps : l->taps;
    const ivec step = (ivec){0} + (N(lane))l->step, row = (ivec){0} + (N(lane))l->place_row;
    vec best = vset1((T)-INFINITY);
    ivec start, code;
    for (int i = 0; i < VL; i++)
        start[i] = i * lanes;
    code = start;
    code[0] = outside;
    for (int64_t u = 0; u < l->rows; u++, x += l->row, edge += edge_row, start += row) {
        vec tap[4];
        if (lanes > 1) {
            vec a[4];
            _Pragma("GCC unroll 4") for (int i = 0; i < lanes; i++) a[i] = vload(x + (taps == 3) + i * VL);
            N(split_taps_of)(a, taps == 3 ? vset1(*edge) : a[0], lanes, taps, tap);
            _Pragma("GCC unroll 2") for (int i = 0; i < lanes; i += 2) *nan = vor(*nan, vunordered(a[i], a[i + 1]));
        } else {
            *nan = vor(*nan, vunordered(vload(x), vload(x + (count - 1) * l->step)));
        }
        ivec place = start;
        _Pragma("GCC unroll 4") for (int64_t v = 0; v < count; v++, place += step)
        {
            const vec a = lanes > 1 ? tap[v] : vload(x + v * l->step);
            const vmask wins = careful ? vor(vgreater(a, best), visnan(a)) : vgreater(a, best);
            best = careful ? vpick(wins, a, best) : vgreatest(a, best);
            if (mode == N(POOL_INDEX))
                code = ipick(wins, place, code);
        }
    }
    vstore(l->y + j, best);
    if (mode == N(POOL_INDEX))
        N(pool_positions)(l->index + j, code, l->place + j * lanes, 0);
}

INLINE void N(mean_line)(const N(pool_line) * l, int64_t j, const int lanes, const int taps)
{
    const T padding = (T)-0.0, *x = l->x + j * lanes;
    const int outside = lanes == 2 && taps == 3 && l->outside && j == 0;
    const int64_t count = taps ? taps : l->taps;
    const vec zero = vset1((T)-0.0); /* adding to it changes nothing */
    vec total = zero, divisor = l->divisor;
    if (lanes > 1) {
        vec a[4] = {zero, zero, zero, zero}, edge = zero, tap[4];
        for (int64_t u = 0; u < l->rows; u++, x += l->row) {
            _Pragma("GCC unroll 4") for (int i = 0; i < lanes; i++) a[i] += vload(x + (taps == 3) + i * VL);
            if (taps == 3)
                edge += vset1(outside ? padding : *x);
        }
        N(split_taps_of)(a, edge, lanes, taps, tap);
        _Pragma("GCC unroll 4") for (int v = 0; v < taps; v++) total += tap[v];
    } else {
        _Pragma("GCC unroll 3") for (int64_t v = 0; v < count; v++, x += l->step)
        {
            vec sum = zero;
            for (int64_t u = 0; u < l->rows; u++)
                sum += vload(x + u * l->row);
            total += sum;
        }
    }
    if (outside)
        divisor[0] = l->outside_divisor;
    vstore(l->y + j, total / divisor);
}

/* Outputs [begin, end), at least VL, the last ones perhaps twice; whether there may have been a NaN. */
INLINE int N(pool_line_run)(const N(pool_line) * l, int64_t begin, int64_t end, const int lanes, const int taps,
                            const int mean, const int careful, const int mode)
{
    vmask nan = {0};
    for (int64_t j = begin; j < end; j += VL) {
        j = j + VL <= end ? j : end - VL;
        if (mean)
            N(mean_line)(l, j, lanes, taps);
        else
            N(max_line)(l, j, lanes, taps, careful, mode, &nan);
    }
    if (lanes == 2 && taps == 3 && !mean && !l->outside)
        for (int64_t u = 0; u < l->rows; u++)
            nan = vor(nan, visnan(vset1(l->x[u * l->row])));
    return vany(nan);
}

INLINE void N(pool_row)(const fc_pool_task *p, int64_t i, const int lanes, const int taps, const int mean,
                        const int mode)
{
    const fc_span *row = p->rows + i, *col = p->cols;
    const int64_t start = col->begin - col->tap * p->step_w; /* of the first window, in the padding perhaps */
    N(pool_line)
    l = {.x = (const T *)p->x + (row->begin - p->top) * p->x_row + start - p->left,
         .row = p->step_h * p->x_row,
         .rows = row->count,
         .step = p->step_w,
         .taps = p->cols[p->lane_end - 1].count,
         .place = row->begin * p->width + start,
         .place_row = p->step_h * p->width,
         .outside = col->tap > 0,
         .y = (T *)p->y + i * p->y_row};
    if (mode == N(POOL_INDEX))
        l.index = (int64_t *)p->index + i * p->index_row;
    if (mean)
        l.divisor = vset1(N(pool_divisor)(p, i, p->lane_end - 1)), l.outside_divisor = N(pool_divisor)(p, i, 0);
    const int64_t reach = ((taps ? taps : l.taps) - 1) *
                          l.step; /* the columns between the first and the last tap are looked at by other lanes */
    const int fast =
        (mean || reach <= VL) && !N(pool_line_run)(&l, p->lane_begin, p->lane_end, lanes, taps, mean, 0, mode);
    if (!fast && !mean && lanes == 4) /* seldom: not worth more code */
        for (int64_t j = p->lane_begin; j < p->lane_end; j++)
            N(pool_one)(p, i, j, mean, mode);
    else if (!fast && !mean)
        N(pool_line_run)(&l, p->lane_begin, p->lane_end, lanes, lanes == 2 ? taps : 0, 0, 1, mode);
}

/* Averages of 2x2 columns 2 apart: a row of outputs, the last ones perhaps twice */
INLINE void N(mean_pairs)(const T *x, int64_t row, T *y, int64_t count, vec divisor)
{
    for (int64_t j = 0; j < count; j += VL) {
        j = j + VL <= count ? j : count - VL;
        const T *at = x + 2 * j;
        vfetch(at), vfetch(at + row);
        const vec a = vload(at) + vload(at + row), b = vload(at + VL) + vload(at + VL + row);
        vstore(y + j, (N(evens)(a, b) + N(odds)(a, b)) / divisor);
    }
}

/* The rows of a plane that are such from row i on; returns the first one that is not. */
static __attribute__((noinline)) int64_t N(mean_pairs_rows)(const fc_pool_task *p_, int64_t i)
{
    const fc_pool_task own = *p_, *p = &own; /* out of reach of the stores */
    const int64_t area = p->rows[i].area, left = p->cols->begin - p->left, row = p->step_h * p->x_row;
    const vec divisor = vset1(N(pool_divisor)(p, i, 0));
    for (; i < p->n_rows && p->rows[i].count == 2 && p->rows[i].area == area; i++)
        N(mean_pairs)((const T *)p->x + (p->rows[i].begin - p->top) * p->x_row + left, row, (T *)p->y + i * p->y_row,
                      p->n_cols, divisor);
    return i;
}

INLINE void N(pool_plane)(const fc_pool_task *p, const int mean, const int mode)
{
    const int64_t taps = p->cols[p->lane_end - 1].count;
    const int pairs = FC_VECTOR_BYTES < 64 && mean && p->lane_step == 2 && taps == 2 && p->lane_begin == 0 &&
                      p->lane_end == p->n_cols;
    for (int64_t i = 0; i < p->n_rows; i++) {
        while (pairs && i < p->n_rows && p->rows[i].count == 2)
            i = N(mean_pairs_rows)(p, i);
        if (i == p->n_rows)
            break;
        for (int64_t j = p->lane_begin > 0 ? 0 : p->lane_end; j < p->n_cols;
             j = j + 1 == p->lane_begin ? p->lane_end : j + 1)
            N(pool_one)(p, i, j, mean, mode);
        if (FC_FOURS && mode == N(POOL_VALUE) && p->lane_step == 4)
            N(pool_row)(p, i, 4, 4, mean, mode);
        else if (p->lane_step == 2 && taps == 3)
            N(pool_row)(p, i, 2, 3, mean, mode);
        else if (p->lane_step == 2)
            N(pool_row)(p, i, 2, 2, mean, mode);
        else if (taps == 3 && mode == N(POOL_VALUE))
            N(pool_row)(p, i, 1, 3, mean, mode);
        else
            N(pool_row)(p, i, 1, 0, mean, mode);
    }
}

/* ---- averages of whole planes ------------------------------------------------------------------------------------*/
/* VL planes side by side: sums of `columns` columns, at most VL, as vectors, which are transposed and added to `total`.
 * Half vectors where they do: a vector that is not aligned lies in two cache lines, which takes twice as long. All of
 * one is readable in the first `whole` rows; the others are read by columns, and of `planes` planes only. */
INLINE vec N(columns_sum)(const T *x, int64_t plane, int64_t planes, int64_t row, int64_t rows, int64_t whole,
                          int columns, vec total, const int halves)
{
    enum { TOGETHER = VL < 4 ? VL : 4 };
    vec sum[VL];
    vhalf half[VL];
    FC_EACH_LANE(k) sum[k] = vset1((T)-0.0), half[k] = -(vhalf){0};
    _Pragma("GCC unroll 4") for (int first = 0; first < VL; first += TOGETHER)
    {
        const T *q = x + first * plane;
        for (int64_t u = 0; u < whole; u++, q += row)
            _Pragma("GCC unroll 4") for (int k = 0; k < TOGETHER; k++)
            {
                if (halves)
                    half[first + k] += vload_half(q + k * plane);
                else
                    sum[first + k] += vload(q + k * plane);
            }
    }
    x += whole * row;
    for (int64_t u = whole; u < rows; u++, x += row)
        FC_EACH_LANE(k)
        {
            if (k < planes && halves)
                half[k] += vlow(vload_tail(x + k * plane, columns));
            else if (k < planes)
                sum[k] += vload_tail(x + k * plane, columns);
        }
    if (halves) {
        _Pragma("GCC unroll 16") for (int k = 0; k < VL / 2; k++) sum[k] = vjoin(half[k], half[k + VL / 2]);
        N(transpose_halves)(sum);
    } else {
        N(transpose_registers)(sum);
    }
    FC_EACH_LANE(k) total = (!halves || k < VL / 2) && k < columns ? total + sum[k] : total;
    return total;
}

/* The sums of VL planes from x on, or of `planes`; plane VL is there too if `more`. */
INLINE vec N(planes_sum)(const fc_pool_task *p, const T *x, int64_t planes, int more)
{
    const int64_t row = p->step_h * p->x_row, rows = p->rows->count, plane = p->x_plane, count = p->cols->count;
    vec total = vset1((T)-0.0);
    for (int64_t v = 0; v < count; v += VL, x += VL) {
        const int columns = count - v < VL ? (int)(count - v) : VL, halves = FC_VECTOR_BYTES > 16 && columns <= VL / 2;
        const int over = (halves ? VL / 2 : VL) - columns; /* what a vector reads behind its row */
        int64_t whole = rows;
        if (planes < VL)
            whole = 0;
        else if (over && !(more && plane >= over && row >= 0)) /* else the last row ends in the next plane */
            whole = row >= over ? rows - 1 : 0;
        if (halves)
            total = N(columns_sum)(x, plane, planes, row, rows, whole, columns, total, 1);
        else
            total = N(columns_sum)(x, plane, planes, row, rows, whole, columns, total, 0);
    }
    return total;
}

/* One output of each channel */
static __attribute__((noinline)) void N(mean_planes)(const fc_pool_task *p)
{
    const T *x = (const T *)p->x + (p->rows->begin - p->top) * p->x_row + p->cols->begin - p->left;
    const int64_t planes = p->channels;
    const vec divisor = vset1(N(pool_divisor)(p, 0, 0));
    T *y = p->y;
    for (int64_t c = 0; c < planes; c += VL) {
        c = c + VL <= planes || planes < VL ? c : planes - VL; /* the last planes once more */
        const vec mean = N(planes_sum)(p, x + c * p->x_plane, planes, c + VL < planes) / divisor;
        if (planes < VL)
            vstore_tail(y, mean, (int)planes);
        else
            vstore(y + c, mean);
    }
}
#undef FC_EACH_LANE
