/* winograd_thin.tmpl.h: the gradient of the weight of few input channels, which would leave most lanes of a tile's
 * inputs empty; included by winograd.tmpl.h.
 *
 * Lanes are the channels of tile after tile: a row of pixels is copied so that those at one place of all tiles follow
 * each other, and a column of the squares is a vector anywhere in it.
 */
#if FC_F32 && FC_VECTOR_BYTES >= 32
/* By quads: what one has beyond its pixel is written over by the next one. */
INLINE void N(thin_split)(const fc_winograd_thin_split *g, const int64_t quads)
{
    enum { QUAD = 4 };
    typedef T quad __attribute__((vector_size(QUAD * sizeof(T)), aligned(sizeof(T)), may_alias));
    const T *from = g->from;
    T *to = g->to;
    for (int64_t i = 0; i < g->pixels; i++, to += g->lanes) {
        T *at = to;
        for (int64_t j = 0; j < g->places; j++, at += g->place, from += g->pixel)
            for (int64_t l = 0; l < QUAD * quads; l += QUAD)
                *(quad *)(at + l) = *(const quad *)(from + l);
    }
}
static void N(winograd_thin_split)(const fc_winograd_thin_split *g)
{
    if (g->lanes <= 4)
        N(thin_split)(g, 1);
    else if (g->lanes <= 8)
        N(thin_split)(g, 2);
    else
        N(thin_split)(g, (g->lanes + 3) / 4);
}

static void N(winograd_thin_inputs)(const fc_winograd_thin_inputs *g)
{
    enum { TILE = FC_WINOGRAD_TILE, ROW = FC_WINOGRAD_THIN_ROW + 2 * VL };
    _Alignas(64) T between[TILE * ROW];
    const T *x = g->x;
    T *v = g->v;
    for (int64_t i = 0; i < g->length; i += VL) {
        const int count = g->length - i < VL ? (int)(g->length - i) : VL;
        vec d[6];
    FC_UNROLL for (int j = 0; j < TILE; j++) d[j] = N(wino_load)(x + j * g->row + i, count);
        N(wino_store_b)(d, between + i, ROW, TILE, 1);
    }
    const T *from = between;
    for (int row = 0; row < TILE; row++, from += ROW, v += TILE * g->point)
        for (int64_t i = 0; i < g->lanes; i += VL) { /* lanes behind the last one are whatever lies there */
            vec d[6];
            FC_UNROLL for (int j = 0; j < TILE; j++) d[j] = vload(from + g->at[j] + i);
            N(wino_store_b)(d, v + i, g->point, TILE, 1);
        }
}

/* 2 or 3 channels by one or two vectors of outputs, of 4 tiles (two vectors of AVX2: 2): 12 sums and more, of which
 * none is waited for, and each as short as a quarter of a block: the error of the transforms is that of few pixels. */
INLINE void N(wino_thin)(const fc_winograd_thin_product *g, const T *v, const T *d, T *sum, const int rows,
                         const int vectors)
{
    const int tiles = FC_WINO_ROWS > 6 || vectors == 1 ? 4 : 2;
    const int64_t step = g->channels, part = g->part;
    vec acc[4][3][2] = {{{{0}}}};
    for (int64_t left = g->tiles; left > 0; left -= g->share, d += g->d_brick) {
        int64_t count = left < g->share ? left : g->share;
        const T *q = d;
        for (; count > 0; count -= tiles)
            FC_UNROLL for (int t = 0; t < tiles; t++, v += step, q += FC_LINE)
            {
                if (t >= count)
                    break;
                /* rounded: or it is loaded by each of 3 multiplications */
                const vec d0 = vrounded(vload(q)), d1 = vectors > 1 ? vrounded(vload(q + FC_VECTOR(1))) : d0;
                FC_UNROLL for (int i = 0; i < rows; i++)
                {
                    const vec a = vset1(v[i]);
                    acc[t][i][0] = vmuladd(a, d0, acc[t][i][0]);
                    if (vectors > 1)
                        acc[t][i][1] = vmuladd(a, d1, acc[t][i][1]);
                }
            }
    }
    FC_UNROLL for (int i = 0; i < rows; i++)
        FC_UNROLL for (int j = 0; j < vectors; j++)
        {
            T *to = sum + i * g->sum_row + j * VL;
            vec all = acc[0][i][j] + acc[1][i][j];
            if (tiles > 2)
                all += acc[2][i][j] + acc[3][i][j];
            vstore(to, g->accumulate ? vload(to) + all : all);
        }
}

typedef void N(wino_thin_fn)(const fc_winograd_thin_product *, const T *v, const T *d, T *sum);
#define FC_THIN(rows, vectors)                                                                                         \
    static void N(wino_thin_##rows##_##vectors)(const fc_winograd_thin_product *g, const T *v, const T *d, T *sum)     \
    {                                                                                                                  \
        N(wino_thin)(g, v, d, sum, rows, vectors);                                                                     \
    }
FC_THIN(2, 1) FC_THIN(3, 1) FC_THIN(3, 2)
#undef FC_THIN

/* Channels by threes, or twos as long as they are no multiple of three. */
static void N(winograd_thin_multiply)(const fc_winograd_thin_product *g)
{
    const int64_t part = g->part;
    for (int e = 0; e < FC_WINOGRAD_MAX_POINTS; e++)
        for (int64_t c = 0, count; c < g->channels; c += count) {
            count = (g->channels - c) % 3 ? 2 : 3;
            for (int64_t k = 0, vectors; k < g->vectors; k += vectors) {
                vectors = count == 3 && g->vectors - k > 1 ? 2 : 1;
                N(wino_thin_fn) *const sums = vectors > 1 ? N(wino_thin_3_2) : count == 3 ? N(wino_thin_3_1) : N(wino_thin_2_1);
                sums(g, (const T *)g->v + e * g->point + c, (const T *)g->d + e * FC_POINT + FC_VECTOR(k),
                     (T *)g->sum + e * g->sum_point + c * g->sum_row + k * VL);
            }
        }
}
#define FC_THIN_KERNELS                                                                                                \
    .thin_split = N(winograd_thin_split), .thin_inputs = N(winograd_thin_inputs), .thin_multiply = N(winograd_thin_multiply)
#else
#define FC_THIN_KERNELS .thin_split = NULL
#endif
