/* pool_index.tmpl.h: planes addressed by positions that the caller gives; included by pool.tmpl.h. */
enum { N(INDEX_ADD), N(INDEX_SET), N(INDEX_GET) };

/* Positions are cleared just ahead of the greatest one that is written, so that they are in the cache when they are
 * added to; this many at a time (4 KiB of a plane of its own), for a call takes about as long as clearing as much. */
enum { N(INDEX_CLEARED) = 4096 / sizeof(T) };

static __attribute__((noinline)) void N(index_zero)(const fc_pool_index_task *p, int64_t from, int64_t to)
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

/* Outputs of one channel, or of all, that are looked through before they are used: their indices stay in the
 * first-level cache. */
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

/* ---- windows side by side -----------------------------------------------------------------------------------------
 * Where each output has a position of a rectangle of its own, that is written whole, without clearing and adding.
 * Whether it had is counted; if not, all begins anew. Of float32, for the sake of the library's size. */
#if FC_VECTOR_BYTES >= 32 && FC_F32
/* Lanes of `count` indices, at most VL; those that do not fit are negative or too great for a plane. */
INLINE ivec N(index_load)(const int64_t *index, int count)
{
#if FC_VECTOR_BYTES == 64
    const __m512i low = _mm512_maskz_loadu_epi64((__mmask8)((1u << count) - 1), index);
    const __m512i high = _mm512_maskz_loadu_epi64((__mmask8)(((1u << count) - 1) >> 8), index + 8);
    return (ivec)_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtsepi64_epi32(low)), _mm512_cvtsepi64_epi32(high),
                                    1);
#else
    const __m256i each = _mm256_setr_epi64x(0, 1, 2, 3), few = _mm256_set1_epi64x(count);
    const long long *from = (const long long *)index;
    const int whole = count == VL; /* no copy: a vector cannot be loaded at once of what was stored as two halves */
    const __m256 a = (__m256)(whole ? _mm256_loadu_si256((const __m256i *)from)
                                    : _mm256_maskload_epi64(from, _mm256_cmpgt_epi64(few, each)));
    const __m256 b = (__m256)(whole ? _mm256_loadu_si256((const __m256i *)(from + 4))
                                    : _mm256_maskload_epi64(from + 4, _mm256_cmpgt_epi64(few, each + 4)));
    /* the low halves, and all ones where the high ones are not 0 */
    const __m256i low = (__m256i)_mm256_shuffle_ps(a, b, 0x88), high = (__m256i)_mm256_shuffle_ps(a, b, 0xdd);
    const __m256i zero = _mm256_cmpeq_epi32(high, _mm256_setzero_si256());
    const __m256i all = _mm256_or_si256(low, _mm256_andnot_si256(zero, _mm256_set1_epi32(-1)));
    return (ivec)_mm256_permute4x64_epi64(all, 0xd8);
#endif
}

INLINE ivec N(index_lanes)(int64_t a) { return (ivec){0} + (__typeof__(((ivec){0})[0]))a; }

/* Channels [c, c + streams * VL), or `tail` of them, of a window; *hits counts the positions that were there. Pixels
 * are written whole, in the order of memory. */
INLINE void N(place_channels)(const fc_pool_index_task *p, const int64_t *index, const T *value, T *x, int64_t position,
                              const int64_t rows, const int64_t cols, const int streams, const int tail, const int past,
                              vec *hits)
{
    const int64_t step = p->plane_step, row = p->plane_w * step, width = p->plane_w;
    ivec at[FC_STREAMS];
    vec g[FC_STREAMS];
    FC_EACH_STREAM
    {
        at[s] = N(index_load)(index + s * VL, tail ? tail : VL);
        g[s] = FC_LOAD(value + s * VL) + (vec){0}; /* a sum begins with 0, which -0 does not change */
    }
    for (int64_t u = 0; u < rows; u++)
        for (int64_t v = 0; v < cols; v++)
            FC_EACH_STREAM
            {
                const vmask mine = vequal_lanes(at[s], N(index_lanes)(position + u * width + v));
                const vec sum = vpick(mine, g[s], (vec){0});
                hits[s] = vadd_where(mine, hits[s], vset1(1));
                if (tail)
                    vstore_tail(x + u * row + v * step, sum, tail);
                else if (past)
                    vstream(x + u * row + v * step + s * VL, sum);
                else
                    vstore(x + u * row + v * step + s * VL, sum);
            }
}

/* Returns the hits of a row of windows. */
INLINE vec N(place_row)(const fc_pool_index_task *p, const int64_t *index, const T *value, T *x, int64_t position,
                        const int64_t rows, const int64_t cols, const int past)
{
    const int64_t channels = p->channels, n_cols = p->n_cols, next = cols * p->plane_step;
    const int64_t index_j = p->index_col, value_j = p->value_col;
    const int tail = (int)(channels % VL);
    vec hits[FC_STREAMS] = {{0}}, last = {0};
    for (int64_t j = 0; j < n_cols; j++, index += index_j, value += value_j, x += next, position += cols) {
        int64_t c = 0;
        for (; c + FC_STREAMS * VL <= channels; c += FC_STREAMS * VL)
            N(place_channels)(p, index + c, value + c, x + c, position, rows, cols, FC_STREAMS, 0, past, hits);
        for (; c + VL <= channels; c += VL)
            N(place_channels)(p, index + c, value + c, x + c, position, rows, cols, 1, 0, past, hits);
        if (tail)
            N(place_channels)(p, index + c, value + c, x + c, position, rows, cols, 1, tail, 0, &last);
    }
    return hits[0] + hits[1] + hits[2] + hits[3] + (tail ? vfirst(last, tail) : last);
}

/* Few channels: a row of positions is one run of memory, columns by channels, and so is a row of windows. Lanes of a
 * vector of positions find their windows within one vector of these, whose columns advance no faster than their own.
 * Rows are cut into pieces of whole windows, all alike; the last one moves back, as does the last vector of each. */
typedef struct {
    ivec source, column; /* of each lane: its window, from `first` on, and its column of the piece */
    int64_t first, lane; /* the first lane's of the piece */
} __attribute__((aligned(FC_VECTOR_BYTES))) N(place_lanes);

typedef struct {
    int64_t windows, pieces, vectors, again; /* of a piece, of a row; lanes that its last two vectors share */
    int reach; /* of the vectors of windows that are read: fewer lanes than VL where a piece has no more */
    N(place_lanes) lanes[FC_POOL_PLACE_LANES / VL];
} N(place_table);
_Static_assert(sizeof(N(place_table)) <= FC_POOL_PLACE_BYTES, "a table fits into what a task has for it");

/* Task after task has the same table. */
static __attribute__((noinline, cold)) void N(place_make_table)(const fc_pool_index_task *p, N(place_table) * table)
{
    const int64_t channels = p->channels, lanes_of = p->window_w * channels, most = FC_POOL_PLACE_LANES / lanes_of;
    table->pieces = (p->n_cols + most - 1) / most;
    table->windows = (p->n_cols + table->pieces - 1) / table->pieces;
    const int64_t lanes = table->windows * lanes_of;
    table->vectors = (lanes + VL - 1) / VL;
    table->again = table->vectors * VL - lanes;
    const int64_t count = table->windows * channels, latest = count < VL ? 0 : count - VL;
    table->reach = count < VL ? (int)count : VL;
    int32_t source[FC_POOL_PLACE_LANES], column[FC_POOL_PLACE_LANES];
    for (int64_t l = 0, c = 0, begin = 0, next = p->window_w, w = 0; l < lanes; l++) {
        source[l] = (int32_t)(begin + c), column[l] = (int32_t)w;
        if (++c == channels) {
            c = 0;
            if (++w == next)
                next += p->window_w, begin += channels;
        }
    }
    for (int64_t v = 0; v < table->vectors; v++) {
        N(place_lanes) *q = table->lanes + v;
        const int64_t begin = v + 1 < table->vectors ? v * VL : lanes - VL;
        int32_t first = source[begin] < latest ? source[begin] : (int32_t)latest;
        for (int l = 1; l < VL; l++)
            first = source[begin + l] < first ? source[begin + l] : first;
        memcpy(&q->source, source + begin, sizeof q->source);
        memcpy(&q->column, column + begin, sizeof q->column);
        q->source -= N(index_lanes)(first);
        q->first = first, q->lane = begin;
    }
}

/* A piece of a row of windows of `rows` rows, whose positions begin at x, the first of them number `position`. The
 * hits; *last_hits: of the last vector. */
INLINE ivec N(place_lanes_of)(const fc_pool_index_task *p, const N(place_table) * table, const int64_t *index,
                              const T *value, T *x, int64_t position, const int64_t rows, ivec *last_hits)
{
    const int64_t row = p->plane_w * p->channels;
    const int reach = FC_VECTOR_BYTES == 64 ? table->reach : VL;
    const ivec down = N(index_lanes)(p->plane_w), begin = N(index_lanes)(position);
    const N(place_lanes) *q = table->lanes, *end = q + table->vectors;
    ivec sum = {0}, before = sum;
    for (; q < end; q++) {
        const ivec at = __builtin_shuffle(N(index_load)(index + q->first, reach), q->source);
        const vec from = reach == VL ? vload(value + q->first) : vload_tail(value + q->first, reach);
        /* a sum begins with 0, which -0 does not change */
        const vec g = __builtin_shuffle(from + (vec){0}, q->source);
        ivec here = q->column + begin;
        T *to = x + q->lane;
        before = sum;
        for (int64_t u = 0; u < rows; u++, here += down, to += row) {
            const vmask mine = vequal_lanes(at, here);
            sum = vcount(mine, sum);
            vstore(to, vpick(mine, g, (vec){0}));
        }
    }
    *last_hits += sum - before;
    return sum;
}

static __attribute__((noinline)) ivec N(place_piece)(const fc_pool_index_task *p, const N(place_table) * table,
                                                     const int64_t *index, const T *value, T *x, int64_t position,
                                                     ivec *last_hits)
{
    if (p->window_h == 2)
        return N(place_lanes_of)(p, table, index, value, x, position, 2, last_hits);
    return N(place_lanes_of)(p, table, index, value, x, position, p->window_h, last_hits);
}

/* Returns how many positions of a plane were in their windows, of windows that are there twice both times. */
INLINE int64_t N(place_runs)(const fc_pool_index_task *p, const N(place_table) * table)
{
    const int64_t step = p->window_w * p->channels;
    ivec hits = {0}, last_hits = {0};
    for (int64_t i = 0; i < p->n_rows; i++) {
        const int64_t *index = p->index + i * p->index_row;
        const T *value = (const T *)p->value + i * p->value_row;
        const int64_t position = i * p->window_h * p->plane_w;
        T *x = (T *)p->plane + position * p->channels;
        for (int64_t k = 0; k < table->pieces; k++) {
            const int64_t rest = p->n_cols - table->windows, j = k * table->windows < rest ? k * table->windows : rest;
            hits += N(place_piece)(p, table, index + j * p->channels, value + j * p->channels, x + j * step,
                                   position + j * p->window_w, &last_hits);
        }
    }
    int64_t sum = 0;
    for (int64_t l = 0; l < VL; l++)
        sum += hits[l] - (l < table->again ? last_hits[l] : 0);
    return sum;
}

#if FC_VECTOR_BYTES == 32
/* One channel of windows 2 columns wide, at least VL of them in a row: the gradients of the first columns and those of
 * the second are zipped. Returns the hits, of the windows that the last vector of a row finds there both times. */
INLINE int64_t N(place_pairs)(const fc_pool_index_task *p, const int64_t rows, const int past)
{
    const ivec each = {0, 2, 4, 6, 8, 10, 12, 14}, down = N(index_lanes)(p->plane_w);
    ivec hits = {0};
    for (int64_t i = 0; i < p->n_rows; i++) {
        const int64_t *index = p->index + i * p->index_row, first = i * rows * p->plane_w;
        const T *value = (const T *)p->value + i * p->value_row;
        T *x = (T *)p->plane + first;
        for (int64_t j = 0; j < p->n_cols; j += VL) {
            j = j + VL <= p->n_cols ? j : p->n_cols - VL;
            const ivec at = N(index_load)(index + j, VL);
            const vec g = vload(value + j) + (vec){0}; /* a sum begins with 0, which -0 does not change */
            ivec here = each + N(index_lanes)(first + 2 * j);
            T *to = x + 2 * j;
            for (int64_t u = 0; u < rows; u++, here += down, to += p->plane_w) {
                const vmask left = vequal_lanes(at, here), right = vequal_lanes(at, here + 1);
                const vec a = vpick(left, g, (vec){0}), b = vpick(right, g, (vec){0});
                hits = vcount(vor(left, right), hits);
                if (past) {
                    vstream(to, N(zip_low)(a, b));
                    vstream(to + VL, N(zip_high)(a, b));
                } else {
                    vstore(to, N(zip_low)(a, b));
                    vstore(to + VL, N(zip_high)(a, b));
                }
            }
        }
    }
    int64_t sum = 0;
    for (int l = 0; l < VL; l++)
        sum += hits[l];
    return sum;
}
#endif

/* Whether one channel is a problem for place_pairs */
INLINE int N(index_is_paired)(const fc_pool_index_task *p)
{
    return FC_VECTOR_BYTES == 32 && p->channels == 1 && p->window_w == 2 && p->n_cols >= VL && p->plane_step == 1 &&
           p->index_col == 1 && p->value_col == 1;
}

/* Whether all positions were in their windows; the plane is written then. */
static __attribute__((noinline)) int N(index_place)(const fc_pool_index_task *given)
{
    const fc_pool_index_task task = *given, *p = &task; /* out of reach of the stores */
    const int64_t rows = p->window_h, cols = p->window_w, row = p->plane_w * p->plane_step;
    const int64_t right = p->n_cols * cols, bottom = p->n_rows * rows * p->plane_w;
    const int past = FC_VECTOR_BYTES < 64 && p->stream; /* tried there only */
    int64_t windows = p->n_cols;
    double sum = 0;
#if FC_VECTOR_BYTES == 32
    if (p->channels == 1) {
        windows = (p->n_cols + VL - 1) / VL * VL;
        if (past && p->n_cols % VL == 0)
            sum = (double)N(place_pairs)(p, rows, 1);
        else
            sum = (double)(rows == 2 ? N(place_pairs)(p, 2, 0) : N(place_pairs)(p, rows, 0));
    }
#endif
    if (p->channels > 1 && p->channels < VL) {
        N(place_table) *table = p->place;
        if (!table->windows)
            N(place_make_table)(p, table);
        if (FC_VECTOR_BYTES < 64 && table->reach < VL)
            return 0; /* fewer windows than lanes: place_lanes_of reads whole vectors */
        windows = table->pieces * table->windows;
        sum = (double)N(place_runs)(p, table);
    }
    vec hits = {0};
    for (int64_t i = 0; p->channels >= VL && i < p->n_rows; i++) {
        const int64_t *index = p->index + i * p->index_row, position = i * rows * p->plane_w;
        const T *value = (const T *)p->value + i * p->value_row;
        T *x = (T *)p->plane + i * rows * row;
        if (past)
            hits += N(place_row)(p, index, value, x, position, rows, cols, 1);
        else
            hits += N(place_row)(p, index, value, x, position, rows, cols, 0);
    }
    if (past)
        vfence(); /* what comes may write all of it again */
    for (int l = 0; l < VL; l++)
        sum += (double)hits[l];
    for (int64_t h = 0; right < p->plane_w && h < p->n_rows * rows; h++)
        N(index_zero)(p, h * p->plane_w + right, (h + 1) * p->plane_w);
    N(index_zero)(p, bottom, p->plane_size);
    return sum == (double)(p->n_rows * windows * p->channels);
}

/* Whether p is a problem for it: many channels, or few where rows are runs that fill a vector. */
INLINE int N(index_is_placed)(const fc_pool_index_task *p)
{
    const int64_t lanes = p->window_w * p->channels;
    const int dense = p->plane_channel == 1 && p->index_channel == 1 && p->value_channel == 1;
    const int runs =
        p->channels > 1 && p->plane_step == p->channels && p->index_col == p->channels && p->value_col == p->channels;
    if (p->window_h && N(index_is_paired)(p))
        return 1;
    return p->window_h && dense &&
           (p->channels >= VL || (runs && p->n_cols * lanes >= VL && lanes <= FC_POOL_PLACE_LANES / 2));
}
#endif

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
#if FC_VECTOR_BYTES >= 32 && FC_F32
    if (mode == N(INDEX_ADD) && N(index_is_placed)(p) && N(index_place)(p))
        return 0;
#endif
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
