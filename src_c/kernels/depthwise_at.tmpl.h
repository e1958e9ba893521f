/* depthwise_at.tmpl.h: the gradient of the weight of depthwise.tmpl.h, which includes it.
 *
 * The sums of a row of taps, or of all 3 x 3, stay in registers while `pixels` outputs of a few rows pass by. */
INLINE void N(depthwise_at_taps)(const N(dw_taps) * t, const vec *g, const int taps, const N(dw_shape) s, vec *acc)
{
    const char *x = t->x;
    FC_UNROLL for (int k = 0; k < s.pixels + taps - 1; k++)
    {
        vec a = {0};
        if (k && k % 3 == 0) {
            x += t->pitch3;
            FC_OPAQUE(x);
        }
        if (!s.edge || (uint64_t)(k - t->inside) < (uint64_t)t->columns)
            a = N(dw_load)((const T *)(x + k % 3 * t->pitch), s.lanes);
        if (taps > 1 || s.edge)
            a = vrounded(a);
        FC_UNROLL for (int j = 0; j < taps; j++)
            if (k >= j && k - j < s.pixels)
                acc[j] = vmuladd(g[k - j], a, acc[j]);
    }
}

INLINE void N(depthwise_at_outputs)(const fc_depthwise_at *d, const fc_depthwise_at_row *row, int64_t first,
                                    int64_t valid, int64_t c, const N(dw_shape) s, vec *g)
{
    const char *y = (const char *)((const T *)row->y + first * d->y_pixel + c);
    const int64_t pitch = d->y_pixel * (int64_t)sizeof(T);
    FC_UNROLL for (int i = 0; i < s.pixels; i++, y += pitch)
    {
        FC_OPAQUE(y);
        g[i] = (vec){0};
        if (!s.part || i < valid)
            g[i] = N(dw_load)((const T *)y, s.lanes);
    }
}

INLINE void N(depthwise_at_load)(const T *c, const int taps, vec *acc)
{
    FC_UNROLL for (int j = 0; j < taps; j++) acc[j] = vload(c + j * FC_DEPTHWISE_ALIGN);
}

INLINE void N(depthwise_at_store)(T *c, const int taps, const vec *acc)
{
    FC_UNROLL for (int j = 0; j < taps; j++) vstore(c + j * FC_DEPTHWISE_ALIGN, acc[j]);
}

/* One row of taps of one group, `x` bytes after where a row starts. */
INLINE void N(depthwise_at_group)(const fc_depthwise_at *d, int64_t u, int64_t first, int64_t valid, int64_t c,
                                  N(dw_taps) *t, int64_t x, T *to, const int taps, const N(dw_shape) s)
{
    vec acc[FC_DEPTHWISE_TAPS], g[FC_PX];
    N(depthwise_at_load)(to, taps, acc);
    for (const fc_depthwise_at_row *row = d->rows; row < d->rows + d->row_count; row++) {
        if (u < row->first || u >= row->end)
            continue;
        t->x = (const char *)row->x + x;
        N(depthwise_at_outputs)(d, row, first, valid, c, s, g);
        N(depthwise_at_taps)(t, g, taps, s, acc);
    }
    N(depthwise_at_store)(to, taps, acc);
}

/* Columns of a tile from group->inside on, without what outputs that do not exist would see. */
INLINE int64_t N(depthwise_at_columns)(const fc_depthwise_group *group, int64_t first, int64_t valid,
                                       const N(dw_shape) s)
{
    const int64_t most = s.part ? valid + group->taps - 1 - (group->inside - first) : INT64_MAX;
    return most < 0 ? 0 : most < group->columns ? most : group->columns;
}

INLINE void N(depthwise_at_groups)(const fc_depthwise_at *d, int64_t first, int64_t valid, int64_t c, N(dw_taps) *t,
                                   int64_t x, T *to, const N(dw_shape) s)
{
    for (int64_t u = 0; u < d->taps_h; u++, x += d->x_row)
        for (const fc_depthwise_group *group = d->groups; group < d->groups + d->group_count; group++) {
            t->inside = group->inside - first;
            t->columns = N(depthwise_at_columns)(group, first, valid, s);
#define FC_CASE(n)                                                                                                     \
    case n:                                                                                                            \
        N(depthwise_at_group)(d, u, first, valid, c, t, x + group->x, to, n, s);                                       \
        break;
            switch (group->taps) { FC_EACH_TAPS(FC_CASE) }
#undef FC_CASE
            to += group->taps * FC_DEPTHWISE_ALIGN;
        }
}

/* All 3 x 3 taps, of one group or FC_TWO_AND_ONE */
INLINE void N(depthwise_at_three)(const fc_depthwise_at *d, int64_t first, int64_t valid, int64_t c, N(dw_taps) *t,
                                  int64_t x, T *to, const N(dw_shape) s)
{
    vec acc[3][3], g[FC_PX];
    const int64_t row_of_taps = 3 * FC_DEPTHWISE_ALIGN;
    t->inside = d->groups->inside - first;
    t->columns = N(depthwise_at_columns)(d->groups, first, valid, s);
    FC_UNROLL for (int u = 0; u < 3; u++) N(depthwise_at_load)(to + u * row_of_taps, 3, acc[u]);
    for (const fc_depthwise_at_row *row = d->rows; row < d->rows + d->row_count; row++) {
        N(depthwise_at_outputs)(d, row, first, valid, c, s, g);
        t->x = (const char *)row->x + x + d->groups->x;
        FC_UNROLL for (int u = 0; u < 3; u++)
        {
            if (u >= row->first && u < row->end && s.taps == FC_TWO_AND_ONE) {
                N(dw_taps) one = *t;
                one.x += d->groups[1].x - d->groups[0].x;
                N(depthwise_at_taps)(t, g, 2, s, acc[u]);
                N(depthwise_at_taps)(&one, g, 1, s, acc[u] + 2);
            } else if (u >= row->first && u < row->end) {
                N(depthwise_at_taps)(t, g, 3, s, acc[u]);
            }
            t->x += d->x_row;
        }
    }
    FC_UNROLL for (int u = 0; u < 3; u++) N(depthwise_at_store)(to + u * row_of_taps, 3, acc[u]);
}

INLINE void N(depthwise_at_tile)(const fc_depthwise_at *d, int64_t first, int64_t valid, int64_t c, const N(dw_shape) s)
{
    N(dw_taps) t = {.pitch = d->x_step, .pitch3 = 3 * d->x_step};
    const int64_t x = first * d->x_step + c * (int64_t)sizeof(T);
    T *to = (T *)d->c + c / FC_DEPTHWISE_ALIGN * d->c_block + c % FC_DEPTHWISE_ALIGN;
    if (s.taps)
        N(depthwise_at_three)(d, first, valid, c, &t, x, to, s);
    else
        N(depthwise_at_groups)(d, first, valid, c, &t, x, to, s);
}

/* Whole vectors of channels */
#define FC_TILE(pixels, edge, taps)                                                                                    \
    static void N(depthwise_at_##pixels##_##edge##_##taps)(const fc_depthwise_at *d, int64_t first, int64_t valid)     \
    {                                                                                                                  \
        for (int64_t c = 0; c + VL <= d->channels; c += VL)                                                            \
            N(depthwise_at_tile)(d, first, valid, c,                                                                   \
                                 (N(dw_shape)){pixels, taps, edge, pixels == FC_LEAST_PX, VL});                        \
    }
/* Channels from c on. Of 8 outputs any tile but, where inner tiles multiply exactly those 7, one of 7: a product with
 * an output that does not exist may change the sign of a zero. */
#define FC_TAIL(pixels, taps)                                                                                          \
    static void N(depthwise_at_tail_##pixels##_##taps)(const fc_depthwise_at *d, int64_t first, int64_t valid,         \
                                                       int64_t c)                                                      \
    {                                                                                                                  \
        const int part = pixels == FC_PX;                                                                              \
        for (; c < d->channels; c += VL)                                                                               \
            N(depthwise_at_tile)(d, first, valid, c,                                                                   \
                                 (N(dw_shape)){pixels, taps, 1, part, N(lanes_left)(d->channels - c)});                \
    }
FC_TILE(7, 0, 0)
FC_TILE(8, 0, 0)
FC_TAIL(7, 0)
FC_TAIL(8, 0)
FC_TILE(5, 1, 3)
FC_TILE(7, 0, 3)
FC_TILE(7, 1, 3)
FC_TILE(8, 0, 3)
FC_TILE(8, 1, 3)
FC_TAIL(8, 3)
#if FC_F32 && FC_VECTOR_BYTES >= 32 /* for the sake of the library's size */
FC_TILE(7, 0, 21)
FC_TILE(8, 0, 21)
#define FC_STRIDE_2(pixels) N(depthwise_at_##pixels##_0_21)
#else
#define FC_STRIDE_2(pixels) N(depthwise_at_##pixels##_0_0)
#endif
#undef FC_TAIL

static void N(depthwise_at)(const fc_depthwise_at *d)
{
    typedef void tile_fn(const fc_depthwise_at *, int64_t, int64_t);
    static tile_fn *const any[5] = {[1] = N(depthwise_at_7_0_0), [3] = N(depthwise_at_8_0_0)};
    static tile_fn *const stride_2[5] = {[1] = FC_STRIDE_2(7), [3] = FC_STRIDE_2(8)};
    static tile_fn *const of_three[5] = FC_TABLE(depthwise_at, 3);
    const int three = d->group_count == 1 && d->groups->taps == 3 && d->taps_h == 3;
    const int two_and_one = d->group_count == 2 && d->groups->taps == 2 && d->groups[1].taps == 1 && d->taps_h == 3;
    for (int64_t first = 0, valid; first < d->count; first += valid) {
        valid = N(depthwise_next)(d->count - first);
        const int edge = first < d->first_inner || first + valid > d->end_inner;
        tile_fn *tile = (three ? of_three : two_and_one ? stride_2 : any)[N(depthwise_which)(valid, edge)];
        int64_t done = 0;
        if (tile) {
            tile(d, first, valid);
            done = d->channels / VL * VL;
        }
        if (done == d->channels)
            continue;
        if (three)
            N(depthwise_at_tail_8_3)(d, first, valid, done);
        else if (valid == FC_PX - 1)
            N(depthwise_at_tail_7_0)(d, first, valid, done);
        else
            N(depthwise_at_tail_8_0)(d, first, valid, done);
    }
}
