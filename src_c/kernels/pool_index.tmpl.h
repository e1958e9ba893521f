/* pool_index.tmpl.h: planes addressed by positions that the caller gives; included by pool.tmpl.h. */
enum { N(INDEX_ADD), N(INDEX_SET), N(INDEX_GET) };

/* Positions are cleared just ahead of the greatest one that is written, so that they are in the cache when they are added to; this
 * many at a time (4 KiB of a plane of its own), for a call takes about as long as clearing as much. */
enum { N(INDEX_CLEARED) = 4096 / sizeof(T) };

INLINE void N(index_zero)(const fc_pool_index_task *p, int64_t from, int64_t to)
{
    T *plane = p->plane;
    if (p->channels == p->plane_step && (p->plane_channel == 1 || p->channels == 1)) {
        T *at = plane + from * p->plane_step;
        int64_t count = (to - from) * p->plane_step;
        const vec zero = vrounded((vec){0}); /* something unknown: no call of memset instead */
        for (; count >= VL && count <= N(INDEX_CLEARED); count -= VL, at += VL)
            vstore(at, zero);
        memset(at, 0, (size_t)count * sizeof(T));
        return;
    }
    if (p->plane_channel == 1) {
        for (int64_t k = from; k < to; k++)
            for (int64_t c = 0; c < p->channels; c++)
                plane[k * p->plane_step + c] = 0;
        return;
    }
    for (int64_t k = from; k < to; k++)
        for (int64_t c = 0; c < p->channels; c++)
            plane[k * p->plane_step + c * p->plane_channel] = 0;
}

/* Makes positions up to `index` ready and returns how many are, 0 when it lies outside the plane. */
static __attribute__((noinline)) uint64_t N(index_clear)(const fc_pool_index_task *p, uint64_t ready, uint64_t index)
{
    const uint64_t size = (uint64_t)p->plane_size; /* a negative index is a huge unsigned one */
    if (index >= size)
        return 0;
    uint64_t end = ready + (uint64_t)(N(INDEX_CLEARED) / (p->channels < 64 ? p->channels : 64));
    end = end > index ? end : index + 1;
    end = end < size ? end : size;
    N(index_zero)(p, (int64_t)ready, (int64_t)end);
    return end;
}

INLINE void N(index_move)(T *at, T *value, const int mode)
{
    if (mode == N(INDEX_GET))
        *value = *at;
    else if (mode == N(INDEX_SET))
        *at = *value;
    else
        *at += *value;
}

/* Outputs of one channel, or of all, that are looked through before they are used: their indices stay in the first-level cache. */
enum { N(INDEX_RUN) = 256, N(INDEX_OUTPUTS) = 16 };

/* The greatest index of `count` outputs; a negative one is a huge number. */
static __attribute__((noinline)) uint64_t N(index_limit)(const fc_pool_index_task *p, const int64_t *index,
                                                         int64_t count)
{
    uint64_t most = 0;
    if (p->index_channel == 1 && p->index_col == p->channels) {
        for (int64_t i = 0; i < count * p->channels; i++)
            most = (uint64_t)index[i] > most ? (uint64_t)index[i] : most;
        return most;
    }
    for (int64_t j = 0; j < count; j++)
        for (int64_t c = 0; c < p->channels; c++) {
            const uint64_t i = (uint64_t)index[j * p->index_col + c * p->index_channel];
            most = i > most ? i : most;
        }
    return most;
}

/* ---- one channel -------------------------------------------------------------------------------------------------
 * plane[index[j] * step] and value[j], for j < count; returns what is ready then, 0 after an index outside. */
INLINE uint64_t N(index_run)(const fc_pool_index_task *p, uint64_t ready, int64_t step, const int64_t *index,
                             int64_t index_j, T *value, int64_t value_j, const int mode)
{
    T *plane = p->plane;
    for (int64_t j = 0; j < p->n_cols; j += N(INDEX_RUN)) {
        const int64_t rest = p->n_cols - j, count = rest < N(INDEX_RUN) ? rest : N(INDEX_RUN);
        const uint64_t most = N(index_limit)(p, index, count);
        if (most >= ready && !(ready = N(index_clear)(p, ready, most)))
            return 0;
        _Pragma("GCC unroll 4") for (int64_t i = 0; i < count; i++, index += index_j, value += value_j)
            N(index_move)(plane + *index * step, value, mode);
    }
    return ready;
}

/* ---- channels together -------------------------------------------------------------------------------------------*/
INLINE void N(index_channels)(const fc_pool_index_task *p, const int64_t *index, int64_t index_channel, T *value,
                              int64_t value_channel, int64_t plane_channel, const int mode)
{
    T *plane = p->plane;
    const int64_t step = p->plane_step;
    for (int64_t c = 0; c < p->channels; c++)
        N(index_move)(plane + index[c * index_channel] * step + c * plane_channel, value + c * value_channel, mode);
}

INLINE uint64_t N(index_outputs)(const fc_pool_index_task *p, uint64_t ready, const int64_t *index, T *value,
                                 const int mode)
{
    const int dense = p->plane_channel == 1 && p->index_channel == 1 && p->value_channel == 1;
    for (int64_t j = 0; j < p->n_cols; j += N(INDEX_OUTPUTS)) {
        const int64_t rest = p->n_cols - j, count = rest < N(INDEX_OUTPUTS) ? rest : N(INDEX_OUTPUTS);
        const uint64_t most = N(index_limit)(p, index, count);
        if (most >= ready && !(ready = N(index_clear)(p, ready, most)))
            return 0;
        for (int64_t i = 0; i < count; i++, index += p->index_col, value += p->value_col)
            if (dense)
                N(index_channels)(p, index, 1, value, 1, 1, mode);
            else
                N(index_channels)(p, index, p->index_channel, value, p->value_channel, p->plane_channel, mode);
    }
    return ready;
}

INLINE uint64_t N(index_row)(const fc_pool_index_task *p, uint64_t ready, const int64_t *index, T *value,
                             const int mode)
{
    if (p->channels > 1)
        return N(index_outputs)(p, ready, index, value, mode);
    if (p->plane_step == 1 && p->index_col == 1 && p->value_col == 1)
        return N(index_run)(p, ready, 1, index, 1, value, 1, mode);
    return N(index_run)(p, ready, p->plane_step, index, p->index_col, value, p->value_col, mode);
}

INLINE int N(index_planes)(const fc_pool_index_task *given, const int mode)
{
    fc_pool_index_task task = *given, *p = &task;
    if (p->index_row == p->n_cols * p->index_col && p->value_row == p->n_cols * p->value_col)
        p->n_cols *= p->n_rows, p->n_rows = 1; /* rows without gaps are one row */
    if (p->channels == 1)
        p->index_channel = 1; /* no other channel: neighbouring indices are one run for index_limit */
    const int writes = mode != N(INDEX_GET);
    if (!p->plane_size)
        return p->n_rows * p->n_cols > 0;
    uint64_t ready = writes ? N(index_clear)(p, 0, 0) : (uint64_t)p->plane_size;
    for (int64_t i = 0; i < p->n_rows && p->n_cols; i++) {
        ready = N(index_row)(p, ready, p->index + i * p->index_row, (T *)p->value + i * p->value_row, mode);
        if (!ready)
            return 1;
    }
    if (writes)
        N(index_zero)(p, (int64_t)ready, p->plane_size);
    return 0;
}

static int N(pool_scatter_add)(const fc_pool_index_task *p) { return N(index_planes)(p, N(INDEX_ADD)); }
static int N(pool_scatter_set)(const fc_pool_index_task *p) { return N(index_planes)(p, N(INDEX_SET)); }
static int N(pool_gather)(const fc_pool_index_task *p) { return N(index_planes)(p, N(INDEX_GET)); }
