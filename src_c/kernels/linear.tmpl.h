/* linear.tmpl.h: y[r][k] = sum_c x[r][c] * w(k, c) for few rows r: the time is that of reading w once. */
enum {
    /* Accumulators in L1: 8 rows x 2 vectors, with 16-bit weights 8 x 2 panels. With more rows a packed weight pays
     * (ops/linear.c). */
    N(THIN_ROWS) = 8,
    /* Rows of w that meet one load and store of y: 8 streams, and 8 of 12 ways where rows lie 4 KiB apart. */
    N(THIN_TERMS) = 8,
};

INLINE vec N(thin_bias)(const fc_thin_product *p, int64_t k, int columns)
{
    const T *bias = p->bias;
    if (!p->bias_step)
        return vset1(*bias);
    return columns == VL ? vload(bias + k) : vload_tail(bias + k, columns);
}

/* ---- w[k][c]: blocks of VL rows and columns are transposed in registers -------------------------------------------*/
/* r[c] = w[.][c] for k < columns, c < length, both at most VL; zero beyond */
INLINE void N(thin_block)(const T *w, int64_t w_row, int columns, int length, vec *r)
{
    _Pragma("GCC unroll 16") for (int i = 0; i < VL; i++) r[i] = i >= columns   ? (vec){0}
                                                                 : length == VL ? vload(w + i * w_row)
                                                                                : vload_tail(w + i * w_row, length);
    N(transpose_registers)(r);
}

INLINE void N(thin_add)(const fc_thin_product *p, const vec *r, int64_t c, int length, vec *sums)
{
    const T *x = (const T *)p->x + c;
    for (int64_t row = 0; row < p->rows; row++, x += p->x_row, sums += 2) {
        vec sum = *sums;
        if (length == VL) {
            _Pragma("GCC unroll 16") for (int i = 0; i < VL; i++) sum = vmuladd(vset1(x[i]), r[i], sum);
        } else {
            for (int i = 0; i < length; i++)
                sum = vmuladd(vset1(x[i]), r[i], sum);
        }
        *sums = sum;
    }
}

static void N(thin_finish)(const fc_thin_product *p, int64_t k, int columns, const vec *sums)
{
    const vec lower = vset1((T)p->lower), upper = vset1((T)p->upper);
    T *y = (T *)p->y + k;
    for (int64_t row = 0; row < p->rows; row++, y += p->y_row, sums += 2) {
        vec out = *sums;
        if (p->bias)
            out += N(thin_bias)(p, k, columns);
        out = vclamp(out, lower, upper);
        if (columns == VL)
            vstore(y, out);
        else
            vstore_tail(y, out, columns);
    }
}

/* sums[.][0] and [1] += the columns from c on of `first` and `second` rows of w */
INLINE void N(thin_columns)(const fc_thin_product *p, const T *w, int64_t c, int first, int second, int length,
                            vec *sums)
{
    vec r[VL];
    N(thin_block)(w + c, p->w_row, first, length, r);
    N(thin_add)(p, r, c, length, sums);
    if (second) {
        N(thin_block)(w + VL * p->w_row + c, p->w_row, second, length, r);
        N(thin_add)(p, r, c, length, sums + 1);
    }
}

/* Columns before the first that starts a cache line in every row of w. Rows a multiple of 4 KiB apart share a set of
 * L1, which has fewer ways than a block has rows: the next block must not need a line again (1024 x 1024: 68 us instead
 * of 163). */
INLINE int64_t N(thin_head)(const fc_thin_product *p)
{
    const int64_t line = 64 / (int64_t)sizeof(T), off = (int64_t)((uintptr_t)p->w / sizeof(T)) % line;
    return off && p->w_row % line == 0 ? line - off : 0;
}

static void N(thin_runs)(const fc_thin_product *p)
{
    const int64_t head = N(thin_head)(p), pitch = p->by_one ? VL : 2 * VL;
    for (int64_t k = 0; k < p->columns; k += pitch) {
        vec sums[N(THIN_ROWS)][2] = {{{0}}};
        const int count = p->columns - k < pitch ? (int)(p->columns - k) : (int)pitch;
        const int first = count < VL ? count : VL, second = count - first;
        const T *w = (const T *)p->w + k * p->w_row;
        for (int64_t c = 0, end; c < p->length; c = end) {
            end = c < head && head < c + VL ? head : c + VL;
            end = end < p->length ? end : p->length;
            if (end - c < VL || count < pitch)
                N(thin_columns)(p, w, c, first, second, (int)(end - c), sums[0]);
            else if (second)
                N(thin_columns)(p, w, c, VL, VL, VL, sums[0]);
            else
                N(thin_columns)(p, w, c, VL, 0, VL, sums[0]);
        }
        N(thin_finish)(p, k, first, sums[0]);
        if (second)
            N(thin_finish)(p, k + VL, second, sums[0] + 1);
    }
}

/* ---- w[c][k]: rows of w are added to those of y, which stay in L1 -------------------------------------------------*/
INLINE void N(thin_terms)(const fc_thin_product *p, int64_t c, const int terms, int64_t k, const int columns)
{
    const T *w = (const T *)p->w + c * p->w_row + k, *x = (const T *)p->x + c;
    const int whole = columns == VL, last = c + terms == p->length;
    const vec lower = vset1((T)p->lower), upper = vset1((T)p->upper);
    T *y = (T *)p->y + k;
    vec r[N(THIN_TERMS)];
    _Pragma("GCC unroll 8") for (int i = 0; i < terms; i++) r[i] =
        whole ? vload(w + i * p->w_row) : vload_tail(w + i * p->w_row, columns);
    for (int64_t row = 0; row < p->rows; row++, x += p->x_row, y += p->y_row) {
        vec sum = c == 0 ? (vec){0} : whole ? vload(y) : vload_tail(y, columns);
        _Pragma("GCC unroll 8") for (int i = 0; i < terms; i++) sum = vmuladd(vset1(x[i]), r[i], sum);
        if (last) {
            if (p->bias)
                sum += N(thin_bias)(p, k, columns);
            sum = vclamp(sum, lower, upper);
        }
        if (whole)
            vstore(y, sum);
        else
            vstore_tail(y, sum, columns);
    }
}

INLINE void N(thin_line)(const fc_thin_product *p, int64_t c, const int terms)
{
    int64_t k = 0;
    for (; k + VL <= p->columns; k += VL)
        N(thin_terms)(p, c, terms, k, VL);
    if (k < p->columns)
        N(thin_terms)(p, c, terms, k, (int)(p->columns - k));
}

static void N(thin_rows)(const fc_thin_product *p)
{
    int64_t c = 0;
    for (; c + N(THIN_TERMS) <= p->length; c += N(THIN_TERMS))
        N(thin_line)(p, c, N(THIN_TERMS));
    for (; c < p->length; c++)
        N(thin_line)(p, c, 1);
}

/* ---- w of 16 bits, packed -----------------------------------------------------------------------------------------*/
#if FC_F32
enum {
    F16_VECTORS = FC_F16_PANEL / VL,
    /* Rows of a panel that stay in L1 for all rows of x: 128 cache lines, 8 KiB, or of two panels 16. */
    F16_TERMS = 128,
};

/* sums[panel][vector] += the terms [0, count) of a row of x; two panels, `pitch` apart, so that two streams come from
 * memory (206 MB on one thread of a Zen 4, pages of 4 KiB: 7.1 ms, in one stream 8.7). */
INLINE void f16_terms(const float *x, const uint16_t *w, int64_t pitch, int64_t count, vec *sums, const int panels)
{
    vec sum[2 * F16_VECTORS];
    _Pragma("GCC unroll 16") for (int i = 0; i < panels * F16_VECTORS; i++) sum[i] = sums[i];
    for (int64_t c = 0; c < count; c++, w += FC_F16_PANEL)
        _Pragma("GCC unroll 16") for (int i = 0; i < panels * F16_VECTORS; i++) sum[i] =
            vmuladd(vset1(x[c]), vload_f16(w + i / F16_VECTORS * pitch + i % F16_VECTORS * VL), sum[i]);
    _Pragma("GCC unroll 16") for (int i = 0; i < panels * F16_VECTORS; i++) sums[i] = sum[i];
}

static void f16_finish(const fc_f16_product *p, int64_t row, int64_t k, const vec *sums)
{
    const vec lower = vset1(p->lower), upper = vset1(p->upper);
    float *y = p->y + row * p->y_row;
    for (int64_t end = k + FC_F16_PANEL; k < end && k < p->columns; k += VL, sums++) {
        const int count = p->columns - k < VL ? (int)(p->columns - k) : VL;
        const vec bias = p->bias ? vload_tail(p->bias + k, count) : (vec){0};
        const vec out = vclamp(vmuladd(*sums, vload_tail(p->scale + k, count), bias), lower, upper);
        if (count == VL)
            vstore(y + k, out);
        else
            vstore_tail(y + k, out, count);
    }
}

/* One or two panels from column k on; of two, each row's are side by side */
INLINE void f16_panels(const fc_f16_product *p, int64_t k, const int panels)
{
    vec sums[N(THIN_ROWS)][2 * F16_VECTORS] = {{{0}}};
    const int64_t pitch = p->length * FC_F16_PANEL;
    const uint16_t *w = p->w + k / FC_F16_PANEL * pitch;
    for (int64_t c = 0; c < p->length; c += F16_TERMS) {
        const int64_t count = p->length - c < F16_TERMS ? p->length - c : F16_TERMS;
        for (int64_t row = 0; row < p->rows; row++)
            f16_terms(p->x + row * p->x_row + c, w + c * FC_F16_PANEL, pitch, count, sums[row], panels);
    }
    for (int64_t row = 0; row < p->rows; row++)
        for (int i = 0; i < panels; i++)
            f16_finish(p, row, k + i * FC_F16_PANEL, sums[row] + i * F16_VECTORS);
}

static void linear_f16(const fc_f16_product *p)
{
    int64_t k = 0;
    for (; k + FC_F16_PANEL < p->columns; k += 2 * FC_F16_PANEL)
        f16_panels(p, k, 2);
    if (k < p->columns)
        f16_panels(p, k, 1);
}
#define FC_LINEAR_F16 .f16 = linear_f16
#else
#define FC_LINEAR_F16 .f16 = NULL
#endif

static const fc_linear_kernels N(linear_table) = {
    .max_rows = N(THIN_ROWS), .runs = N(thin_runs), .rows = N(thin_rows), FC_LINEAR_F16};
#undef FC_LINEAR_F16
