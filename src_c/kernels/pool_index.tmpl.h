/* pool_index.tmpl.h: planes addressed by positions that the caller gives; included by pool.tmpl.h. */
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
