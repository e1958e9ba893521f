/* norm.tmpl.h: batch normalisation: sums over pixels, and (norm_map.tmpl.h) maps by channel.
 *
 * Sums go over few pixels (the driver's chunks). Their order belongs to a channel and to the vector length, not to the
 * layout or the blocking.
 */
#define FC_LOAD(p) (tail ? vload_tail(p, tail) : vload(p))
#define FC_STORE(p, v)                                                                                                 \
    do {                                                                                                               \
        if (tail)                                                                                                      \
            vstore_tail(p, v, tail);                                                                                   \
        else                                                                                                           \
            vstore(p, v);                                                                                              \
    } while (0)

/* ---- the gate of the gradient ------------------------------------------------------------------------------------*/
/* Where t <= low or t >= high; false where t or the bound is NaN. */
INLINE vmask N(norm_closed)(vec t, vec low, vec high) { return vor(vat_least(low, t), vat_least(t, high)); }

/* ---- sums --------------------------------------------------------------------------------------------------------
 * Pixel p of an image belongs to lane p % VL. Lanes add their pixels four at a time, first within the four; at the end
 * lanes are added as a tree. Over channels-last pixels a vector holds channels, and the partial sums of lanes are in
 * memory; over planes it holds lanes. */
enum {
    N(NORM_FOUR) = FC_NORM_FOUR * VL, /* pixels between two visits of the partial sums */
    N(NORM_GROUP) = FC_NORM_PARTIAL_BYTES / (FC_NORM_FOUR * VL * sizeof(T)), /* channels of those */
};

typedef struct {
    vec centre, gain, shift, low, high;
} N(norm_bounds);

/* `count` of the four rows from x (g, y, gated) on; of the last one only `cut` lanes, unless that is 0. */
typedef struct {
    const T *x, *g, *y;
    T *gated;
    int64_t x_row, g_row, y_row, gated_row;
} N(norm_rows);

/* sums[0..3] += sum d, sum d^2, sum g, sum g d. One expression for both layouts, with every product rounded: the same
 * bits. */
INLINE void N(norm_add)(const N(norm_rows) * rows, const N(norm_bounds) * by, int count, int cut, const int wanted,
                        const fc_norm_gate gate, const int maps, const int stream, const int tail, vec *sums)
{
    vec d[4] = {{0}, {0}, {0}, {0}}, g[4] = {{0}, {0}, {0}, {0}};
    _Pragma("GCC unroll 4") for (int r = 0; r < 4; r++)
    {
        if (r >= count)
            continue;
        const int part = tail ? tail : r == count - 1 ? cut : 0;
        const T *x = rows->x + r * rows->x_row;
        d[r] = (part ? vload_tail(x, part) : vload(x)) - by->centre;
        if (wanted & FC_NORM_GRADIENT) {
            const T *at = rows->g + r * rows->g_row;
            g[r] = part ? vload_tail(at, part) : vload(at);
        }
        if (gate == FC_GATE_INPUT)
            g[r] = vpick(N(norm_closed)(vmuladd(d[r], by->gain, by->shift), by->low, by->high), (vec){0}, g[r]);
        if (gate == FC_GATE_OUTPUT)
            g[r] = vpick(N(norm_closed)(FC_LOAD(rows->y + r * rows->y_row), by->low, by->high), (vec){0}, g[r]);
        if (gate == FC_GATE_OUTPUT || maps) {
            T *at = rows->gated + r * rows->gated_row;
            const vec out = maps ? g[r] * by->gain : g[r];
            if (part)
                vstore_tail(at, out, part);
            else if (stream)
                vstream(at, out);
            else
                vstore(at, out);
        }
        if (part && !tail)
            d[r] = vfirst(d[r], part), g[r] = vfirst(g[r], part);
    }
    if (wanted & FC_NORM_STATISTICS) {
        sums[0] += (d[0] + d[1]) + (d[2] + d[3]);
        sums[1] += (vrounded(d[0] * d[0]) + vrounded(d[1] * d[1])) + (vrounded(d[2] * d[2]) + vrounded(d[3] * d[3]));
    }
    if (wanted & FC_NORM_GRADIENT) {
        sums[2] += (g[0] + g[1]) + (g[2] + g[3]);
        sums[3] += (vrounded(g[0] * d[0]) + vrounded(g[1] * d[1])) + (vrounded(g[2] * d[2]) + vrounded(g[3] * d[3]));
    }
}

INLINE vec N(norm_fold)(vec *lanes)
{
    _Pragma("GCC unroll 8") for (int half = VL / 2; half; half /= 2)
        _Pragma("GCC unroll 8") for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
    return lanes[0];
}

INLINE T N(norm_across)(vec a)
{
    T lanes[VL];
    vstore(lanes, a);
    _Pragma("GCC unroll 8") for (int half = VL / 2; half; half /= 2)
        _Pragma("GCC unroll 8") for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
    return lanes[0];
}

INLINE T N(norm_one_over)(const fc_norm_sums *s)
{
    return 1 / (T)(s->typical * (s->pixels < FC_NORM_TYPICAL ? s->pixels : FC_NORM_TYPICAL));
}

/* The typical value of a vector of channels: the mean of the first pixels. */
static __attribute__((noinline)) vec N(norm_typical_last)(const fc_norm_sums *s, int64_t c, int tail)
{
    vec lanes[VL];
    _Pragma("GCC unroll 16") for (int l = 0; l < VL; l++) lanes[l] = (vec){0};
    const int64_t count = s->pixels < FC_NORM_TYPICAL ? s->pixels : FC_NORM_TYPICAL;
    for (int64_t n = 0; n < s->typical; n++)
        for (int64_t p = 0; p < count; p++)
            lanes[p % VL] += FC_LOAD((const T *)s->x.data + n * s->x.image + p * s->x.pixel + c);
    return vrounded(N(norm_fold)(lanes) * vset1(N(norm_one_over)(s)));
}

INLINE N(norm_rows) N(norm_rows_at)(const fc_norm_sums *s, const int wanted, const fc_norm_gate gate, const int maps,
                                    int64_t n, int64_t p, int64_t c, int64_t pitch)
{
    N(norm_rows) rows = {.x = (const T *)s->x.data + n * s->x.image + p * s->x.pixel + c, .x_row = pitch * s->x.pixel};
    if (wanted & FC_NORM_GRADIENT) {
        rows.g = (const T *)s->g.data + n * s->g.image + p * s->g.pixel + c;
        rows.g_row = pitch * s->g.pixel;
    }
    if (gate == FC_GATE_OUTPUT) {
        rows.y = (const T *)s->y.data + n * s->y.image + p * s->y.pixel + c;
        rows.y_row = pitch * s->y.pixel;
    }
    if (gate == FC_GATE_OUTPUT || maps) {
        rows.gated = (T *)s->gated.data + n * s->gated.image + p * s->gated.pixel + c;
        rows.gated_row = pitch * s->gated.pixel;
    }
    return rows;
}

/* From pixels [p, p + NORM_FOUR) to those after them, in this image or the next */
INLINE int64_t N(norm_ahead)(const fc_norm_sums *s, const fc_norm_pixels *a, int64_t p)
{
    return p + N(NORM_FOUR) < s->pixels ? N(NORM_FOUR) * a->pixel : a->image - p * a->pixel;
}

#define FC_IS_WANTED(q) ((q) < 2 ? wanted & FC_NORM_STATISTICS : wanted & FC_NORM_GRADIENT)

/* What channels [c, c + VL) are compared with and multiplied by */
INLINE N(norm_bounds) N(norm_bounds_last)(const fc_norm_channels *by, const fc_norm_sums *s, int64_t c,
                                          const int wanted, const fc_norm_gate gate, const int maps, const int tail)
{
    N(norm_bounds) b = {.low = vset1((T)by->low), .high = vset1((T)by->high)};
    b.centre = FC_LOAD((const T *)(wanted & FC_NORM_STATISTICS ? s->centre : by->centre) + c);
    if (gate == FC_GATE_INPUT || maps)
        b.gain = FC_LOAD((const T *)by->gain + c);
    if (gate == FC_GATE_INPUT)
        b.shift = FC_LOAD((const T *)by->shift + c);
    return b;
}

/* Fetches `lanes` values of the four rows of each array, `ahead` of them: more streams than the processor follows by
 * itself. */
INLINE void N(norm_fetch)(const T *rows, int64_t row, int64_t ahead, int64_t lanes)
{
    for (int64_t i = 0; i < lanes; i += 64 / sizeof(T))
        _Pragma("GCC unroll 4") for (int r = 0; r < 4; r++) __builtin_prefetch(rows + r * row + ahead + i, 0, 2);
}

/* Channels [c, c + lanes) of `count` rows, one lane of the pixels: partial[vector][VL][4][VL] += their sums */
INLINE void N(norm_sums_lane)(const fc_norm_channels *by, const fc_norm_sums *s, N(norm_rows) rows, int count,
                              int64_t c, int64_t lanes, const int wanted, const fc_norm_gate gate, const int maps,
                              T *partial)
{
    vec sums[4];
    const int64_t end = c + lanes, whole = c + lanes / VL * VL;
#define FC_ADD(count, tail)                                                                                            \
    do {                                                                                                               \
        const N(norm_bounds) bounds = N(norm_bounds_last)(by, s, c, wanted, gate, maps, tail);                         \
        for (int q = 0; q < 4; q++)                                                                                    \
            if (FC_IS_WANTED(q))                                                                                       \
                sums[q] = vload(partial + q * VL);                                                                     \
        N(norm_add)(&rows, &bounds, count, 0, wanted, gate, maps, 0, tail, sums);                                      \
        for (int q = 0; q < 4; q++)                                                                                    \
            if (FC_IS_WANTED(q))                                                                                       \
                vstore(partial + q * VL, sums[q]);                                                                     \
        c += VL, partial += 4 * VL * VL;                                                                               \
        rows.x += VL;                                                                                                  \
        if (wanted & FC_NORM_GRADIENT)                                                                                 \
            rows.g += VL;                                                                                              \
        if (gate == FC_GATE_OUTPUT)                                                                                    \
            rows.y += VL;                                                                                              \
        if (gate == FC_GATE_OUTPUT || maps)                                                                            \
            rows.gated += VL;                                                                                          \
    } while (0)
    while (count == 4 && c < whole)
        FC_ADD(4, 0);
    while (c < end) { /* one copy of the code for 1 to 4 rows, whole vectors or not */
        const int tail = c < whole ? 0 : (int)(end - c);
        FC_ADD(count, tail);
    }
#undef FC_ADD
}

/* What a block of pixels has put out, whole rows one after the other past the caches: the processor combines the parts
 * of few lines at a time, and the sums come to four rows in turn. */
static __attribute__((noinline)) void N(norm_stream_rows)(int64_t pixels, int64_t lanes, const T *tile, T *to,
                                                          int64_t pitch)
{
    const int tail = (int)(lanes % VL);
    for (int64_t p = 0; p < pixels; p++, tile += N(NORM_GROUP), to += pitch) {
        for (int64_t i = 0; i + VL <= lanes; i += VL)
            vstream(to + i, vload(tile + i));
        if (tail)
            vstore_tail(to + lanes - tail, vload_tail(tile + lanes - tail, tail), tail);
    }
}

/* The results of channels [c, c + lanes) from partial[vector][VL][4][VL]; one copy of the code for all variants of the
 * sums */
static __attribute__((noinline)) void N(norm_fold_group)(const fc_norm_sums *s, int64_t c, int64_t lanes)
{
    const T *partial = s->partial;
    const fc_norm_wanted wanted = s->wanted;
    void *const results[] = {s->sum, s->square, s->grad, s->product};
    for (int64_t i = 0; i < lanes; i += VL, partial += 4 * VL * VL)
        for (int q = 0; q < 4; q++)
            if (FC_IS_WANTED(q)) {
                const int tail = lanes - i < VL ? (int)(lanes - i) : 0;
                vec sums[VL];
                _Pragma("GCC unroll 16") for (int l = 0; l < VL; l++) sums[l] = vload(partial + (l * 4 + q) * VL);
                FC_STORE((T *)results[q] + c + i, N(norm_fold)(sums));
            }
}

/* Channels [c, c + lanes), at most NORM_GROUP: all of them before the next pixels, for a row is a sequential read, of
 * which the processor would fetch the rest in vain. Of 64 channels in two halves the gradient took 1.7 times as long
 * (AVX2). */
INLINE void N(norm_sums_group)(int64_t c, int64_t lanes, const fc_norm_channels *by, const fc_norm_sums *s,
                               const int wanted, const fc_norm_gate gate, const int maps)
{
    const int stream = by->stream && (maps || gate == FC_GATE_OUTPUT);
    T *partial = s->partial;
    const int whole = (int)(lanes / VL), last = (int)(lanes % VL), vectors = whole + (last > 0);
    memset(partial, 0, sizeof(T) * (size_t)(vectors * 4 * VL * VL));
    if (wanted & FC_NORM_STATISTICS)
        for (int v = 0; v < vectors; v++) {
            const int tail = v == whole ? last : 0;
            const int64_t at = c + v * VL;
            FC_STORE((T *)s->centre + at, N(norm_typical_last)(s, at, tail));
        }
    T *tile = partial + FC_NORM_PARTIAL_BYTES / sizeof(T);
    for (int64_t n = 0; n < s->images; n++)
        for (int64_t p = 0; p < s->pixels; p += N(NORM_FOUR)) {
            const int64_t rest = s->pixels - p;
            for (int l = 0; l < VL && l < rest; l++) {
                N(norm_rows) rows = N(norm_rows_at)(s, wanted, gate, maps, n, p + l, c, VL);
                if (stream)
                    rows.gated = tile + l * N(NORM_GROUP), rows.gated_row = VL * N(NORM_GROUP);
                N(norm_fetch)(rows.x, rows.x_row, N(norm_ahead)(s, &s->x, p), lanes);
                if (wanted & FC_NORM_GRADIENT)
                    N(norm_fetch)(rows.g, rows.g_row, N(norm_ahead)(s, &s->g, p), lanes);
                if (gate == FC_GATE_OUTPUT)
                    N(norm_fetch)(rows.y, rows.y_row, N(norm_ahead)(s, &s->y, p), lanes);
                T *own = partial + l * 4 * VL;
                const int count = rest >= N(NORM_FOUR) ? 4 : (int)(rest - l + VL - 1) / VL;
                N(norm_sums_lane)(by, s, rows, count, c, lanes, wanted, gate, maps, own);
            }
            if (stream)
                N(norm_stream_rows)(rest < N(NORM_FOUR) ? rest : N(NORM_FOUR), lanes, tile,
                                    (T *)s->gated.data + n * s->gated.image + p * s->gated.pixel + c, s->gated.pixel);
        }
    N(norm_fold_group)(s, c, lanes);
}

/* FC_RUN(wanted, gate, maps) with all of them known when it is compiled. The gradient alone is summed with constant
 * statistics, and mapped at once, or behind a gate. */
#define FC_WANTED(FC_RUN)                                                                                              \
    do {                                                                                                               \
        if (s->wanted == FC_NORM_STATISTICS)                                                                           \
            FC_RUN(FC_NORM_STATISTICS, FC_GATE_NONE, 0);                                                               \
        else if (s->wanted == FC_NORM_BOTH)                                                                            \
            FC_RUN(FC_NORM_BOTH, FC_GATE_NONE, 0);                                                                     \
        else if (s->gate == FC_GATE_NONE)                                                                              \
            FC_RUN(FC_NORM_GRADIENT, FC_GATE_NONE, 1);                                                                 \
        else if (s->maps)                                                                                              \
            FC_RUN(FC_NORM_GRADIENT, FC_GATE_INPUT, 1);                                                                \
        else                                                                                                           \
            FC_RUN(FC_NORM_GRADIENT, FC_GATE_INPUT, 0);                                                                \
    } while (0)

static void N(norm_sums_last)(int64_t channels, const fc_norm_channels *by, const fc_norm_sums *s)
{
    for (int64_t c = 0; c < channels; c += N(NORM_GROUP)) {
        const int64_t lanes = channels - c < N(NORM_GROUP) ? channels - c : N(NORM_GROUP);
#define FC_RUN(wanted, gate, maps) N(norm_sums_group)(c, lanes, by, s, wanted, gate, maps)
        if (s->gate == FC_GATE_OUTPUT)
            FC_RUN(FC_NORM_GRADIENT, FC_GATE_OUTPUT, 0);
        else
            FC_WANTED(FC_RUN);
#undef FC_RUN
    }
}

/* ---- sums of planes ----------------------------------------------------------------------------------------------*/
/* One channel as if it were alone: neighbouring pixels */
INLINE fc_norm_pixels N(norm_plane_of)(const fc_norm_pixels *a, int64_t i)
{
    return (fc_norm_pixels){a->data ? (T *)a->data + i * a->pixel : NULL, 1, a->image};
}

INLINE T N(norm_typical_plane)(const fc_norm_sums *s, const fc_norm_pixels *plane)
{
    vec lanes = {0};
    const int64_t count = s->pixels < FC_NORM_TYPICAL ? s->pixels : FC_NORM_TYPICAL;
    for (int64_t n = 0; n < s->typical; n++) {
        const T *x = (const T *)plane->data + n * plane->image;
        int64_t p = 0;
        for (; p + VL <= count; p += VL)
            lanes += vload(x + p);
        if (p < count)
            lanes += vload_tail(x + p, (int)(count - p));
    }
    return N(norm_across)(lanes) * N(norm_one_over)(s);
}

/* One plane of image n: partial[q][VL] += its sums. What is read 32 KiB later, or in the next image, is fetched: the
 * processor looks no further than the page. 64 channels at 56x56, batch 16, Zen 4: the gradient in evaluation takes 1.9
 * ms with 4 KiB, 1.45 with 8, 1.3 with 16, 1.2 with 32; in training 2.5 with the next channel's plane, 1.6 with the
 * next image's. */
INLINE void N(norm_sums_values)(int64_t n, const N(norm_bounds) * bounds, const fc_norm_sums *s, const int wanted,
                                const fc_norm_gate gate, const int maps, const int stream, T *partial)
{
    const int64_t near = (1 << 15) / (int64_t)sizeof(T), ahead_x = s->images_follow ? s->x.image : near,
                  ahead_g = s->images_follow ? s->g.image : near;
    vec sums[4];
    for (int q = 0; q < 4; q++)
        if (FC_IS_WANTED(q))
            sums[q] = vload(partial + q * VL);
    int64_t p = 0;
    for (; p + N(NORM_FOUR) <= s->pixels; p += N(NORM_FOUR)) {
        const N(norm_rows) rows = N(norm_rows_at)(s, wanted, gate, maps, n, p, 0, VL);
        _Pragma("GCC unroll 4") for (int r = 0; r < 4; r++)
        {
            __builtin_prefetch(rows.x + r * VL + ahead_x, 0, 2);
            if (wanted & FC_NORM_GRADIENT)
                __builtin_prefetch(rows.g + r * VL + ahead_g, 0, 2);
        }
        N(norm_add)(&rows, bounds, 4, 0, wanted, gate, maps, stream, 0, sums);
    }
    const int rest = (int)(s->pixels - p);
    if (rest) {
        const N(norm_rows) rows = N(norm_rows_at)(s, wanted, gate, maps, n, p, 0, VL);
        N(norm_add)(&rows, bounds, (rest + VL - 1) / VL, rest % VL, wanted, gate, maps, stream, 0, sums);
    }
    for (int q = 0; q < 4; q++)
        if (FC_IS_WANTED(q))
            vstore(partial + q * VL, sums[q]);
}

/* Channels [channel, channel + lanes), the first ones of the arrays, at most NORM_GROUP. Neighbouring planes follow
 * each other in memory. */
INLINE void N(norm_sums_planes)(int64_t channel, int64_t lanes, const fc_norm_channels *by, const fc_norm_sums *all,
                                const int wanted, const fc_norm_gate gate, const int maps, const int stream)
{
    T *partial = all->partial, *centre = all->centre;
    memset(partial, 0, sizeof(T) * (size_t)(lanes * 4 * VL));
    if (wanted & FC_NORM_STATISTICS)
        for (int64_t i = 0; i < lanes; i++) {
            const fc_norm_pixels x = N(norm_plane_of)(&all->x, i);
            centre[i] = N(norm_typical_plane)(all, &x);
        }
    for (int64_t n = 0; n < all->images; n++)
        for (int64_t i = 0; i < lanes; i++) {
            const int64_t c = channel + i;
            const int gated = gate == FC_GATE_INPUT;
            const N(norm_bounds)
                bounds = {vrounded(vset1(wanted & FC_NORM_STATISTICS ? centre[i] : ((const T *)by->centre)[c])),
                          gated || maps ? vset1(((const T *)by->gain)[c]) : (vec){0},
                          gated ? vset1(((const T *)by->shift)[c]) : (vec){0}, vset1((T)by->low), vset1((T)by->high)};
            fc_norm_sums s = *all;
            s.x = N(norm_plane_of)(&all->x, i);
            s.g = N(norm_plane_of)(&all->g, i);
            s.gated = N(norm_plane_of)(&all->gated, i);
            N(norm_sums_values)(n, &bounds, &s, wanted, gate, maps, stream, partial + i * 4 * VL);
        }
    void *const results[] = {all->sum, all->square, all->grad, all->product};
    for (int q = 0; q < 4; q++)
        if (FC_IS_WANTED(q))
            for (int64_t i = 0; i < lanes; i++)
                ((T *)results[q])[i] = N(norm_across)(vload(partial + (i * 4 + q) * VL));
}

static void N(norm_sums_plane)(int64_t channel, int64_t channels, const fc_norm_channels *by, const fc_norm_sums *s_)
{
    fc_norm_sums own = *s_, *s = &own;
    const int aligned =
        s->maps && ((uintptr_t)s->gated.data | (uintptr_t)(s->gated.image | s->gated.pixel) * sizeof(T)) % 64 == 0;
    for (int64_t i = 0; i < channels; i += N(NORM_GROUP)) {
        const int64_t lanes = channels - i < N(NORM_GROUP) ? channels - i : N(NORM_GROUP);
#define FC_RUN(wanted, gate, maps)                                                                                     \
    N(norm_sums_planes)(channel + i, lanes, by, s, wanted, gate, maps, maps && by->stream && aligned)
        FC_WANTED(FC_RUN);
#undef FC_RUN
        fc_norm_pixels *const arrays[] = {&s->x, &s->g, &s->gated};
        for (int a = 0; a < 3; a++)
            if (arrays[a]->data)
                arrays[a]->data = (T *)arrays[a]->data + lanes * arrays[a]->pixel;
        void **const results[] = {&s->centre, &s->sum, &s->square, &s->grad, &s->product};
        for (int r = 0; r < 5; r++)
            *results[r] = (T *)*results[r] + lanes;
    }
}
#undef FC_IS_WANTED
#undef FC_WANTED

#include "norm_map.tmpl.h"

static const fc_norm_kernels N(norm_table) = {
    .sums_last = N(norm_sums_last),
    .sums_plane = N(norm_sums_plane),
    .map_last = N(norm_map_last),
    .map_plane = N(norm_map_plane),
    .grad_last = N(norm_grad_last),
    .grad_plane = N(norm_grad_plane),
};
#undef FC_LOAD
#undef FC_STORE
