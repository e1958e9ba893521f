/* winograd_thin.tmpl.h: few input channels, see fc_winograd_thin; included by winograd.tmpl.h. */
#if FC_F32 && FC_VECTOR_BYTES >= 32
/* Of a vector of tiles d[j] = column j of each, where a[i] are 5 vectors of their neighbouring columns. */
INLINE void N(wino_tile_columns)(vec *d, const vec *a)
{
    const vec even[] = {N(evens)(a[0], a[1]), N(evens)(a[2], a[3])}, odd[] = {N(odds)(a[0], a[1]), N(odds)(a[2], a[3])};
    d[0] = N(evens)(even[0], even[1]), d[2] = N(odds)(even[0], even[1]);
    d[1] = N(evens)(odd[0], odd[1]), d[3] = N(odds)(odd[0], odd[1]);
    d[4] = N(shifted_down)(d[0], a[4]), d[5] = N(shifted_down)(d[1], N(odds)(a[4], a[4]));
}

/* The columns of B' first, while lanes are still the columns of x: 5 vectors instead of 6. */
static void N(winograd_input_thin)(const void *x_, int64_t row, void *v_, void *check_)
{
    const int tile = 6;
    const T *x = x_;
    T *v = v_, *check = check_;
    for (int t = 0; t < FC_LINE; t += VL, x += 4 * VL, v += VL, check += VL) {
        T rows[6 * 5 * VL] __attribute__((aligned(64)));
        vec a[5], d[6], even = vload(check), odd = {0};
        _Pragma("GCC unroll 1") for (int j = 0; j < 5; j++)
        {
    FC_UNROLL for (int i = 0; i < 6; i++) d[i] = vload(x + i * row + j * VL);
            N(wino_store_b)(d, rows + j * VL, 5 * VL, tile, 1);
        }
        _Pragma("GCC unroll 1") for (int i = 0; i < 6; i++) {
            FC_UNROLL for (int j = 0; j < 5; j++) a[j] = vload(rows + (5 * i + j) * VL);
            N(wino_tile_columns)(d, a);
            FC_UNROLL for (int j = 0; j < 6; j += 2) even += d[j] * (T)0, odd += d[j + 1] * (T)0;
            N(wino_store_b)(d, v + 6 * i * FC_POINT, FC_POINT, tile, 1);
        }
        vstore(check, even + odd);
    }
}

/* m = sum over channels of u v, of two tiles, and A' m column by column: columns[column of points][row of outputs].
 * Two, or loading u would take as long as multiplying: 0.54 cycles of a load for each multiplication instead of 1.8
 * (Zen 4). */
#define FC_THIN_POINT ((FC_WINOGRAD_THIN + 1) * VL)
#define FC_THIN_COLUMNS (6 * 4 * VL)
INLINE void N(wino_thin_columns)(T *columns, const T *v, const T *u, int64_t channels)
{
    const int tile = 6;
    for (int j = 0; j < 6; j++, columns += 4 * VL, v += FC_POINT, u += FC_THIN_POINT) {
        vec m[2][6] = {{{0}}}, r[4];
        const T *p = v, *q = u;
        _Pragma("GCC unroll 1") for (int64_t c = 0; c < channels; c++, p += FC_LINE, q += VL)
            FC_UNROLL for (int i = 0; i < 6; i++)
            {
                vec a = vload(q + 6 * i * FC_THIN_POINT);
                __asm__("" : "+v"(a)); /* or GCC loads it twice */
                m[0][i] = vmuladd(vset1(p[6 * i * FC_POINT]), a, m[0][i]);
                m[1][i] = vmuladd(vset1(p[6 * i * FC_POINT + 1]), a, m[1][i]);
            }
        FC_UNROLL for (int t = 0; t < 2; t++)
        {
            N(wino_a)(r, m[t], 1, 4, tile);
            FC_UNROLL for (int i = 0; i < 4; i++) vstore(columns + t * FC_THIN_COLUMNS + i * VL, r[i]);
        }
    }
}

static void N(winograd_thin)(const fc_winograd_thin *g)
{
    const int tile = 6;
    const fc_winograd_output *o = g->output;
    const int count = o->channels < VL ? (int)o->channels : VL, clamps = o->lower > -INFINITY || o->upper < INFINITY;
    const vec bias = o->bias ? N(wino_load)(o->bias, count) : (vec){0}, lower = vset1((T)o->lower), upper = vset1((T)o->upper);
    for (int64_t t = 0; t < g->tiles; t++) {
        T columns[2 * FC_THIN_COLUMNS] __attribute__((aligned(64)));
        if (t % 2 == 0)
            N(wino_thin_columns)(columns, (const T *)g->v + t, g->u, g->channels);
        const T *residual = g->residual ? (const T *)g->residual + 4 * t * o->residual_pixel : NULL, *in = columns + t % 2 * FC_THIN_COLUMNS;
        T *y = (T *)g->y + 4 * t * o->y_pixel;
        const int width = t + 1 < g->tiles ? 4 : g->columns, plain = width == 4 && !residual && !o->scale;
        for (int h = 0; h < g->rows; h++, in += VL, y += o->y_row, residual += residual ? o->residual_row : 0) {
            vec m[6], r[4];
            FC_UNROLL for (int j = 0; j < 6; j++) m[j] = vload(in + 4 * j * VL);
            N(wino_a)(r, m, 1, 4, tile);
            if (!plain) {
                T part[4 * VL];
                const vec scale = o->scale ? N(wino_load)(o->scale, count) : vset1(1);
                FC_UNROLL for (int j = 0; j < 4; j++) vstore(part + j * VL, vmuladd(r[j], scale, bias));
                N(wino_store_part)(o, part, residual, y, 1, width, count, 4);
                continue;
            }
            FC_UNROLL for (int j = 0; j < 4; j++) r[j] += bias;
            if (clamps)
                FC_UNROLL for (int j = 0; j < 4; j++) r[j] = vclamp(r[j], lower, upper);
            FC_UNROLL for (int j = 0; j < 4; j++)
                if (o->stream)
                    vstream(y + j * o->y_pixel, r[j]);
                else if (count == VL)
                    vstore(y + j * o->y_pixel, r[j]);
                else
                    vstore_tail(y + j * o->y_pixel, r[j], count);
        }
    }
}
#undef FC_THIN_COLUMNS
#undef FC_THIN_POINT
#define FC_THIN_square .input_thin = N(winograd_input_thin), .thin = N(winograd_thin),
#else
#define FC_THIN_square
#endif
#define FC_THIN_line
