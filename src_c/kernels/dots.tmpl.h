/* dots.tmpl.h: VL sums at a time, each a vector of partial sums over channels c, c + VL, ...: VL / channels
 * neighbouring pixels by all output channels. They share their loads, and enough of them hide the latency of a
 * multiplication. At the end they are turned, as the rows of a square, and added as a tree: the result is the outputs
 * in the order of y.
 */
#define FC_OPAQUE(p) __asm__("" : "+r"(p)) /* or GCC keeps an address per pixel, more than there are registers */
#define FC_EACH_PIXEL(i) _Pragma("GCC unroll 16") for (int i = 0; i < pixels; i++)
#define FC_EACH_CHANNEL(k) _Pragma("GCC unroll 5") for (int k = 0; k < channels; k++)

/* sum[i * channels + k] += x[pixel i][c ..] * weight[k][c ..]. `at` has the address of every third pixel, the middle
 * one of three. */
INLINE void N(dots_step)(const char *const *at, int64_t pixel, const T *w, int64_t weight_k, int64_t c, const int tail,
                         vec *sum, const int pixels, const int channels)
{
    vec b[VL / 2];
    FC_EACH_CHANNEL(k) b[k] = vload(w + k * weight_k + c);
    FC_EACH_PIXEL(i)
    {
        const T *x = (const T *)(at[i / 3] + (i % 3 - 1) * pixel) + c;
        const vec a = tail ? vload_tail(x, tail) : vload(x);
        FC_EACH_CHANNEL(k) sum[i * channels + k] = vmuladd(a, b[k], sum[i * channels + k]);
    }
}

/* The parts of the sums of `pixels` pixels from x on, which the caller set to 0 where there are less than VL */
INLINE void N(dots_parts)(const fc_dots *d, const T *x, vec *parts, const int pixels, const int channels)
{
    const int64_t pixel = d->pixel * (int64_t)sizeof(T), whole = d->length / VL * VL, weight_k = d->weight_k;
    const int tail = (int)(d->length - whole);
    vec sum[VL];
    FC_EACH_LANE(l) sum[l] = (vec){0};
    const T *w = d->weight;
    for (int64_t u = 0; u < d->taps_h; u++, x += d->step_h, w += d->weight_u)
        for (int64_t v = 0; v < d->taps_w; v++) {
            const T *weight = w + v * d->weight_v;
            const char *at[(VL + 2) / 3];
            for (int i = 0; i < pixels; i += 3) {
                at[i / 3] = (const char *)(x + v * d->step_w) + (i + 1) * pixel;
                FC_OPAQUE(at[i / 3]);
            }
            for (int64_t c = 0; c < whole; c += VL)
                N(dots_step)(at, pixel, weight, weight_k, c, 0, sum, pixels, channels);
            if (tail)
                N(dots_step)(at, pixel, weight, weight_k, whole, tail, sum, pixels, channels);
        }
    FC_EACH_LANE(l) if (l < pixels * channels) parts[l] = sum[l];
}

typedef void N(dots_fn)(const fc_dots *, const T *x, vec *parts);
#define FC_DOTS(channels)                                                                                              \
    static void N(dots_tile_##channels)(const fc_dots *d, const T *x, vec *parts)                                      \
    {                                                                                                                  \
        N(dots_parts)(d, x, parts, VL / channels, channels);                                                           \
    }                                                                                                                  \
    static void N(dots_pixel_##channels)(const fc_dots *d, const T *x, vec *parts)                                     \
    {                                                                                                                  \
        N(dots_parts)(d, x, parts, 1, channels);                                                                       \
    }
#define FC_DOTS_ROW(channels) {N(dots_pixel_##channels), N(dots_tile_##channels)}
FC_DOTS(1)
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) >= 4
FC_DOTS(2)
#endif
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) >= 8
FC_DOTS(3) FC_DOTS(4)
#endif
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) >= 16
FC_DOTS(5)
#endif
static N(dots_fn) *const N(dots_tiles)[][2] = {{0, 0}, FC_DOTS_ROW(1),
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) >= 4
                                                FC_DOTS_ROW(2),
#endif
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) >= 8
                                                FC_DOTS_ROW(3), FC_DOTS_ROW(4),
#endif
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) >= 16
                                                FC_DOTS_ROW(5),
#endif
};
#undef FC_DOTS
#undef FC_DOTS_ROW

/* The sum of VL vectors, as a tree */
INLINE vec N(dots_tree)(vec *sum)
{
    _Pragma("GCC unroll 4") for (int n = VL / 2; n > 0; n /= 2)
        _Pragma("GCC unroll 8") for (int l = 0; l < n; l++) sum[l] += sum[l + n];
    return sum[0];
}

/* Whole vectors are stored: what lies beyond their outputs is overwritten by the next. */
static void N(dots_finish)(const fc_dots *d, const vec *parts, int64_t i, int64_t outputs)
{
    vec sum[VL];
    FC_EACH_LANE(l) sum[l] = parts[l];
    N(transpose_registers)(sum);
    vec y = N(dots_tree)(sum);
    if (d->finish) {
        const vec a = d->scale ? vload(d->scale) : vset1(1), b = d->bias ? vload(d->bias) : (vec){0};
        y = vmuladd(y, a, b);
        if (d->residual)
            y += N(gemm_load)((const T *)d->residual + i * d->channels, (int)outputs);
        y = vclamp(y, vset1((T)d->lower), vset1((T)d->upper));
    }
    vstore((T *)d->y + i * d->channels, y);
}

/* The last pixels of a stretch may be computed in part once more; stretches shorter than a tile go pixel by pixel. */
static void N(dots_pixels)(const fc_dots *d, int64_t count)
{
    const int64_t channels = d->channels, tile = VL / channels, step = count < tile ? 1 : tile;
    N(dots_fn) *const parts_of = N(dots_tiles)[channels][step > 1];
    vec parts[VL];
    FC_EACH_LANE(l) parts[l] = (vec){0};
    for (int64_t next = 0; next < count; next += step) {
        const int64_t i = next + step <= count ? next : count - step;
        parts_of(d, (const T *)d->x + i * d->pixel, parts);
        N(dots_finish)(d, parts, i, step * channels);
    }
}

/* Lanes are pixels here, and what were lanes are vectors: the same sums in the same order, of all outputs, for a plane
 * is read once. */
INLINE void N(dots_plane)(const fc_dots *d, const T *x, vec sums[][VL], const int channels)
{
    const int64_t length = d->length, plane = d->plane, weight_k = d->weight_k;
    for (int l = 0; l < VL; l++) {
        vec sum[5];
        FC_EACH_CHANNEL(k) sum[k] = (vec){0};
        for (int64_t c = l; c < length; c += VL) {
            const vec a = vload(x + c * plane);
            FC_EACH_CHANNEL(k) sum[k] = vmuladd(a, vset1(((const T *)d->weight)[k * weight_k + c]), sum[k]);
        }
        FC_EACH_CHANNEL(k) sums[k][l] = sum[k];
    }
}

static void N(dots_planes)(const fc_dots *d, int64_t count)
{
    const T *scale = d->scale, *bias = d->bias;
    for (int64_t i = 0; i < count; i += VL) {
        const T *x = (const T *)d->x + i;
        vec sums[FC_DOTS_MAX_CHANNELS][VL];
        switch (d->channels) {
        case 1: N(dots_plane)(d, x, sums, 1); break;
        case 2: N(dots_plane)(d, x, sums, 2); break;
        case 3: N(dots_plane)(d, x, sums, 3); break;
        case 4: N(dots_plane)(d, x, sums, 4); break;
        default: N(dots_plane)(d, x, sums, 5);
        }
        for (int64_t k = 0; k < d->channels; k++) {
            vec y = N(dots_tree)(sums[k]);
            if (d->length % VL)
                y += (vec){0}; /* as the lanes beyond the tail of pixels, whose sums are +0 */
            if (d->finish)
                y = vclamp(vmuladd(y, vset1(scale ? scale[k] : 1), vset1(bias ? bias[k] : 0)), vset1((T)d->lower),
                           vset1((T)d->upper));
            T *to = (T *)d->y + k * count + i;
            if (count - i >= VL)
                vstore(to, y);
            else
                vstore_tail(to, y, (int)(count - i));
        }
    }
}

static void N(dots_row)(const fc_dots *d, int64_t count)
{
    if (d->plane)
        N(dots_planes)(d, count);
    else
        N(dots_pixels)(d, count);
}
#undef FC_OPAQUE
#undef FC_EACH_PIXEL
#undef FC_EACH_CHANNEL
