/* pool_flat.tmpl.h: gradients of averages of few channels; included by pool.tmpl.h.
 *
 * A row of few channels is one run of memory, columns by channels, and so is a row of windows. Lane l of a vector of it
 * receives from the windows first, first + 1, ... of its column, which lie within one vector of windows: their columns
 * advance no faster than its own. So a load and a permutation give a window to each lane. Of float32, for the sake of
 * the library's size. */
#if FC_F32 && FC_VECTOR_BYTES >= 32
typedef struct {
    vec count;     /* windows of the lane's column, 0 beyond the row */
    ivec source;   /* lane of the first one, from `first` on */
    int64_t first; /* element of the row of windows */
} __attribute__((aligned(FC_VECTOR_BYTES))) N(flat_lanes);

/* The lanes of a row of p, made where those of the last call were others */
static __attribute__((noinline)) const N(flat_lanes) * N(flat_lanes_of)(const fc_pool_grad_task *p)
{
    fc_pool_flat *known = p->flat;
    N(flat_lanes) *lanes = (N(flat_lanes) *)(known + 1);
    if (known->left == p->left && known->columns == p->n_cols)
        return lanes;
    *known = (fc_pool_flat){.left = p->left, .columns = p->n_cols};
    for (int64_t w = 0; w < p->n_cols; w++)
        known->most = p->cols[w].count > known->most ? p->cols[w].count : known->most;
    for (int64_t w = 0, c = 0; w < p->n_cols; lanes++) {
        T count[VL] = {0};
        int64_t source[VL], first = INT64_MAX;
        __typeof__(lanes->source[0]) from[VL];
        for (int l = 0; l < VL; l++) {
            source[l] = INT64_MAX;
            if (w == p->n_cols)
                continue;
            if (p->cols[w].count) {
                count[l] = (T)p->cols[w].count;
                source[l] = (p->cols[w].first - p->first_j) * p->channels + c;
                first = source[l] < first ? source[l] : first;
            }
            if (++c == p->channels)
                c = 0, w++;
        }
        for (int l = 0; l < VL; l++)
            from[l] = (__typeof__(from[0]))(source[l] == INT64_MAX ? 0 : source[l] - first);
        lanes->first = first == INT64_MAX ? 0 : first;
        memcpy(&lanes->count, count, sizeof count);
        memcpy(&lanes->source, from, sizeof from);
    }
    return (N(flat_lanes) *)(known + 1);
}

/* share[j * channels + c] = 1 / divisor of window (i, j) */
static __attribute__((noinline, cold)) void N(flat_shares)(const fc_pool_grad_task *p, int64_t i, T *share)
{
    for (int64_t j = 0; j < p->windows_j; j++) {
        const T one = N(mean_share)(p, i, p->first_j + j);
        for (int64_t c = 0; c < p->channels; c++)
            *share++ = one;
    }
}

/* values[i][j * channels + c] = grad_y / divisor, rounded as the sums of the other kernels */
INLINE void N(flat_means)(const fc_pool_grad_task *p, int64_t run, T *values, T *share)
{
    int64_t area = -1;
    for (int64_t i = 0; i < p->windows_i; i++, values += run) {
        if (area != p->row_windows[p->first_i + i].area) {
            area = p->row_windows[p->first_i + i].area;
            N(flat_shares)(p, p->first_i + i, share);
        }
        const T *g = (const T *)p->grad_y + i * p->grad_y_row;
        int64_t k = 0;
        for (; k + VL <= run; k += VL)
            vstore(values + k, vload(g + k) * vload(share + k));
        if (k < run)
            vstore(values + k, vload_tail(g + k, (int)(run - k)) * vload(share + k));
    }
}

INLINE void N(flat_rows)(const fc_pool_grad_task *p, const N(flat_lanes) * lanes, int64_t run, const T *values)
{
    const int64_t lanes_in_row = p->n_cols * p->channels, channels = p->channels;
    const int64_t most = ((const fc_pool_flat *)p->flat)->most;
    for (int64_t h = 0; h < p->n_rows; h++) {
        const int64_t windows = p->rows[h].count;
        const T *top = values + (p->rows[h].first - p->first_i) * run;
        T *x = (T *)p->grad_x + h * p->grad_x_row;
        const N(flat_lanes) *q = lanes;
        for (int64_t f = 0; f < lanes_in_row; f += VL, q++) {
            const ivec source = q->source;
            const vec count = q->count;
            const T *from = top + q->first;
            vec sum = {0};
            for (int64_t i = 0; i < windows; i++, from += run)
                for (int64_t t = 0; t < most; t++) {
                    const vec g = __builtin_shuffle(vload(from + t * channels), source);
                    sum += vpick(vgreater(count, vset1((T)t)), g, (vec){0});
                }
            if (f + VL <= lanes_in_row)
                vstore(x + f, sum);
            else
                vstore_tail(x + f, sum, (int)(lanes_in_row - f));
        }
    }
}

static __attribute__((noinline)) void N(mean_grad_flat)(const fc_pool_grad_task *p_)
{
    const fc_pool_grad_task own = *p_, *p = &own; /* out of reach of the stores */
    const N(flat_lanes) *lanes = N(flat_lanes_of)(p);
    const int64_t run = p->windows_j * p->channels, vectors = (p->n_cols * p->channels + VL - 1) / VL;
    T *values = (T *)(lanes + vectors), *share = values + (p->windows_i + 1) * run + 2 * VL;
    N(flat_means)(p, run, values, share);
    N(flat_rows)(p, lanes, run, values);
}
#endif

static void N(pool_mean_grad)(const fc_pool_grad_task *p)
{
    if (p->lane_step && p->lane_end - p->lane_begin >= VL) {
        N(mean_grad_plane)(p);
        return;
    }
#if FC_F32 && FC_VECTOR_BYTES >= 32
    if (p->flat) {
        N(mean_grad_flat)(p);
        return;
    }
#endif
    const int places =
        FC_VECTOR_BYTES < 64 && !p->gaps && p->channels % VL == 0; /* past the caches (measured with AVX2) */
    if (p->apart && (!p->stream || places))
        N(pool_grad_apart)(p, 1);
    else if (p->channels >= FC_STREAMS * VL || p->stream)
        N(pool_grad)(p, 1);
    else
        N(mean_grad_gather)(p);
}
