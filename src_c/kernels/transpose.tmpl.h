/* transpose.tmpl.h: to[column][row] = from[row][column], VL x VL blocks in registers.
 *
 * A block is log2(VL) stages of VL shuffles of two registers, 0.25 shuffle per element at VL = 16: first within 128-bit
 * quarters (unpack and shuffle instructions, two per cycle on some machines), then of whole quarters, in an order that
 * needs no permutation with an index register. Edges load and store partial vectors.
 */
#define FC_IN ((int)(16 / sizeof(T))) /* lanes per quarter */
/* lanes of the two results of a stage; l & (FC_IN - 1) is the place in the quarter */
#define FC_LOW(l, d) (((l) & (d)) ? VL + (l) - (d) : (l))
#define FC_HIGH(l, d) (((l) & (d)) ? VL + (l) : (l) + (d))
#define FC_UNPACK(l, half) (((l) & 1) * VL + ((l) & ~3) + ((l) & 3) / 2 + (half))
#define FC_EVEN(l, odd) ((l) / FC_IN / 2 * VL + ((l) / FC_IN % 2 * 2 + (odd)) * FC_IN + (l) % FC_IN)
#define FC_LANES2(f, d) f(0, d), f(1, d)
#define FC_LANES4(f, d) FC_LANES2(f, d), f(2, d), f(3, d)
#define FC_LANES8(f, d) FC_LANES4(f, d), f(4, d), f(5, d), f(6, d), f(7, d)
#define FC_LANES16(f, d) FC_LANES8(f, d), f(8, d), f(9, d), f(10, d), f(11, d), f(12, d), f(13, d), f(14, d), f(15, d)
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) == 16
#define FC_LANES FC_LANES16
#elif FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) == 8
#define FC_LANES FC_LANES8
#elif FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) == 4
#define FC_LANES FC_LANES4
#else
#define FC_LANES FC_LANES2
#endif
#define FC_SHUFFLE(a, b, f, d) __builtin_shufflevector(a, b, FC_LANES(f, d))

/* Quarters of VL / FC_IN rows: r[i + j] = column j of rows i .. i + FC_IN - 1 in each. */
INLINE void N(transpose_quarters)(vec *r, const int rows)
{
#if FC_F32
    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i += 4)
    {
        const vec a = FC_SHUFFLE(r[i], r[i + 1], FC_UNPACK, 0), b = FC_SHUFFLE(r[i], r[i + 1], FC_UNPACK, 2);
        const vec c = FC_SHUFFLE(r[i + 2], r[i + 3], FC_UNPACK, 0), d = FC_SHUFFLE(r[i + 2], r[i + 3], FC_UNPACK, 2);
        r[i] = FC_SHUFFLE(a, c, FC_LOW, 2), r[i + 1] = FC_SHUFFLE(a, c, FC_HIGH, 2);
        r[i + 2] = FC_SHUFFLE(b, d, FC_LOW, 2), r[i + 3] = FC_SHUFFLE(b, d, FC_HIGH, 2);
    }
#else
    _Pragma("GCC unroll 16") for (int i = 0; i < rows; i += 2)
    {
        const vec a = r[i], b = r[i + 1];
        r[i] = FC_SHUFFLE(a, b, FC_LOW, 1), r[i + 1] = FC_SHUFFLE(a, b, FC_HIGH, 1);
    }
#endif
}

#define FC_SWAP_QUARTERS(r)                                                                                            \
    _Pragma("GCC unroll 16") for (int j = 0; j < FC_IN; j++)                                                           \
    {                                                                                                                  \
        const vec a = r[j], b = r[j + FC_IN];                                                                          \
        r[j] = FC_SHUFFLE(a, b, FC_LOW, FC_IN), r[j + FC_IN] = FC_SHUFFLE(a, b, FC_HIGH, FC_IN);                       \
    }

/* VL / 2 rows: each half of them for itself (of vectors of 32 bytes or more) */
INLINE void N(transpose_halves)(vec *r)
{
    N(transpose_quarters)(r, VL / 2);
#if FC_VECTOR_BYTES == 64
    FC_SWAP_QUARTERS(r)
#endif
}

INLINE void N(transpose_registers)(vec *r)
{
    N(transpose_quarters)(r, VL);
#if FC_VECTOR_BYTES == 32
    FC_SWAP_QUARTERS(r)
#elif FC_VECTOR_BYTES == 64
    _Pragma("GCC unroll 16") for (int j = 0; j < FC_IN; j++)
    {
        vec *q = r + j;
        const vec a = FC_SHUFFLE(q[0], q[FC_IN], FC_EVEN, 0), b = FC_SHUFFLE(q[0], q[FC_IN], FC_EVEN, 1);
        const vec c = FC_SHUFFLE(q[2 * FC_IN], q[3 * FC_IN], FC_EVEN, 0),
                  d = FC_SHUFFLE(q[2 * FC_IN], q[3 * FC_IN], FC_EVEN, 1);
        q[0] = FC_SHUFFLE(a, c, FC_EVEN, 0), q[2 * FC_IN] = FC_SHUFFLE(a, c, FC_EVEN, 1);
        q[FC_IN] = FC_SHUFFLE(b, d, FC_EVEN, 0), q[3 * FC_IN] = FC_SHUFFLE(b, d, FC_EVEN, 1);
    }
#endif
}

#undef FC_SWAP_QUARTERS

/* Two vectors taken apart by the parity of the place, and the way back. AVX2 has no shuffle of two registers across
 * quarters. */
#define FC_SECOND(l, odd) (2 * (l) + (odd))
#define FC_ZIPPED(l, d) (((l) & 1) * VL + (l) / 2 + (d))
#if FC_VECTOR_BYTES == 32 && FC_F32
INLINE vec N(middle_swapped)(vec a) { return (vec)_mm256_permute4x64_epi64((__m256i)a, 0xd8); }
INLINE vec N(evens)(vec a, vec b) { return N(middle_swapped)((vec)_mm256_shuffle_ps((__m256)a, (__m256)b, 0x88)); }
INLINE vec N(odds)(vec a, vec b) { return N(middle_swapped)((vec)_mm256_shuffle_ps((__m256)a, (__m256)b, 0xdd)); }
#else
INLINE vec N(evens)(vec a, vec b) { return FC_SHUFFLE(a, b, FC_SECOND, 0); }
INLINE vec N(odds)(vec a, vec b) { return FC_SHUFFLE(a, b, FC_SECOND, 1); }
#endif
INLINE vec N(zip_low)(vec a, vec b) { return FC_SHUFFLE(a, b, FC_ZIPPED, 0); }
INLINE vec N(zip_high)(vec a, vec b) { return FC_SHUFFLE(a, b, FC_ZIPPED, VL / 2); }
/* b moved up by one lane, with the last of a before it */
#define FC_SHIFTED(l, d) (VL - (d) + (l))
INLINE vec N(shifted)(vec a, vec b) { return FC_SHUFFLE(a, b, FC_SHIFTED, 1); }
#undef FC_SECOND
#undef FC_ZIPPED
#undef FC_SHIFTED

/* also of dots.tmpl.h and pool_plane.tmpl.h */
#define FC_EACH_LANE(i) _Pragma("GCC unroll 16") for (int i = 0; i < VL; i++)

static void N(transpose_block)(const T *from, int64_t from_pitch, T *to, int64_t to_pitch)
{
    vec r[VL];
    FC_EACH_LANE(i) r[i] = vload(from + i * from_pitch);
    N(transpose_registers)(r);
    FC_EACH_LANE(i) vstore(to + i * to_pitch, r[i]);
}

/* to[j][i] = from[i][j] for i < rows, j < columns, both at most VL; the rows of both sides given by pointers. Whole
 * blocks have a code of their own, or a test for each row would be in their way. */
static void N(transpose_rows)(int rows, int columns, const T *const *from, T *const *to)
{
    vec r[VL];
    if (rows == VL && columns == VL) {
        FC_EACH_LANE(i) r[i] = vload(from[i]);
        N(transpose_registers)(r);
        FC_EACH_LANE(i) vstore(to[i], r[i]);
        return;
    }
    FC_EACH_LANE(i) r[i] = i < rows ? vload_tail(from[i], columns) : (vec){0};
    N(transpose_registers)(r);
    FC_EACH_LANE(i)
    {
        if (i < columns && rows == VL)
            vstore(to[i], r[i]);
        else if (i < columns)
            vstore_tail(to[i], r[i], rows);
    }
}

static void N(transpose_edge)(int rows, int columns, const T *from, int64_t from_pitch, T *to, int64_t to_pitch)
{
    const T *f[VL];
    T *t[VL];
    for (int i = 0; i < rows; i++)
        f[i] = from + i * from_pitch;
    for (int i = 0; i < columns; i++)
        t[i] = to + i * to_pitch;
    N(transpose_rows)(rows, columns, f, t);
}

#define FC_UP_TO_VL(n) ((n) < VL ? (int)(n) : VL)

/* Lane l of part k of the pixels of three planes: place (k * VL + l) / 3 of plane (k * VL + l) % 3. */
#define FC_OF_TWO(l, k) (((k) * VL + (l)) % 3 % 2 * VL + ((k) * VL + (l)) / 3)
#define FC_OF_THIRD(l, k) (((k) * VL + (l)) % 3 == 2 ? VL + ((k) * VL + (l)) / 3 : (l))

/* to[j][i] = from[i][j] for i < 3, j < columns, of which there are VL or more. The planes of a color image, first layer
 * of most networks: 6 shuffles per 3 vectors, where blocks of VL x VL take 64 for as many, and VL partial stores. 224 x
 * 224: 135 -> 26 us (Emerald Rapids), the speed of the third-level cache. */
static void N(zip_three)(int64_t columns, const T *from, int64_t from_pitch, T *to)
{
    for (int64_t j = 0; j < columns; j += VL) {
        j = j + VL <= columns ? j : columns - VL; /* the last columns once more */
        const vec a = vload(from + j), b = vload(from + from_pitch + j), c = vload(from + 2 * from_pitch + j);
        vstore(to + 3 * j, FC_SHUFFLE(FC_SHUFFLE(a, b, FC_OF_TWO, 0), c, FC_OF_THIRD, 0));
        vstore(to + 3 * j + VL, FC_SHUFFLE(FC_SHUFFLE(a, b, FC_OF_TWO, 1), c, FC_OF_THIRD, 1));
        vstore(to + 3 * j + 2 * VL, FC_SHUFFLE(FC_SHUFFLE(a, b, FC_OF_TWO, 2), c, FC_OF_THIRD, 2));
    }
}

#if FC_VECTOR_BYTES == 64
/* Lanes of the shuffles of zip_three. The compiler does not see what they are, or each shuffle loads them anew. */
typedef struct {
    ivec two[3], third[3];
} N(zip_lanes);

INLINE N(zip_lanes) N(zip_lanes_of)(void)
{
    N(zip_lanes) lanes = {{{FC_LANES(FC_OF_TWO, 0)}, {FC_LANES(FC_OF_TWO, 1)}, {FC_LANES(FC_OF_TWO, 2)}},
                          {{FC_LANES(FC_OF_THIRD, 0)}, {FC_LANES(FC_OF_THIRD, 1)}, {FC_LANES(FC_OF_THIRD, 2)}}};
    for (int i = 0; i < 3; i++)
        __asm__("" : "+v"(lanes.two[i]), "+v"(lanes.third[i]));
    return lanes;
}

INLINE vec N(shuffled)(vec a, vec b, ivec lanes)
{
#if FC_F32
    return (vec)_mm512_permutex2var_ps((__m512)a, (__m512i)lanes, (__m512)b);
#else
    return (vec)_mm512_permutex2var_pd((__m512d)a, (__m512i)lanes, (__m512d)b);
#endif
}

/* to[i * step], of 3 vectors: element 3 * l + plane = planes[plane][l] */
INLINE void N(zip_planes)(vec *to, int step, vec a, vec b, vec c, const N(zip_lanes) *lanes)
{
    for (int i = 0; i < 3; i++)
        to[i * step] = N(shuffled)(N(shuffled)(a, b, lanes->two[i]), c, lanes->third[i]);
}

/* to[9 * l + tap] = r[tap][l]: threes of threes, 36 shuffles */
INLINE void N(join_nine)(const vec *r, T *to, const N(zip_lanes) *lanes)
{
    vec three[9], nine[9];
    for (int i = 0; i < 3; i++)
        N(zip_planes)(three + i, 3, r[i], r[i + 3], r[i + 6], lanes);
    for (int i = 0; i < 3; i++)
        N(zip_planes)(nine + 3 * i, 1, three[3 * i], three[3 * i + 1], three[3 * i + 2], lanes);
    for (int i = 0; i < 9; i++)
        vstore(to + i * VL, nine[i]);
}
#endif
#undef FC_OF_TWO
#undef FC_OF_THIRD

#if FC_VECTOR_BYTES >= 32
/* The same for VL / 4 to VL / 2 planes: half of the shuffles and less, and stores of half vectors, which spill into the
 * next pixel; it is written later, and after the last one there may be none. */
static void N(zip_few)(int rows, int64_t columns, const T *from, int64_t from_pitch, T *to)
{
    enum { HALF = VL / 2 };
    vec r[HALF], last;
    for (int64_t j = 0; j < columns; j += VL) {
        j = j + VL <= columns ? j : columns - VL; /* the last columns once more */
        _Pragma("GCC unroll 8") for (int i = 0; i < HALF; i++)
            r[i] = i < rows ? vload(from + i * from_pitch + j) : (vec){0};
        N(transpose_halves)(r);
        T *t = to + j * rows;
        _Pragma("GCC unroll 8") for (int i = 0; i < HALF; i++, t += rows) vstore_half(t, vlow(r[i]));
        _Pragma("GCC unroll 8") for (int i = 0; i < HALF - 1; i++, t += rows) vstore_half(t, vhigh(r[i]));
        if (j + VL < columns) {
            vstore_half(t, vhigh(r[HALF - 1]));
        } else {
            vstore((T *)&last, r[HALF - 1]);
            memcpy(t, (T *)&last + HALF, (size_t)rows * sizeof(T));
        }
    }
}
#endif

/* Every third element of 3 vectors, from element r on. */
#define FC_THIRD_LOW(l, r) (3 * (l) + (r) < 2 * VL ? 3 * (l) + (r) : 0)
#define FC_THIRD_HIGH(l, r) (3 * (l) + (r) < 2 * VL ? (l) : 3 * (l) + (r) - VL)
#define FC_THIRD(a, b, c, r)                                                                                           \
    __builtin_shufflevector(__builtin_shufflevector(a, b, FC_LANES(FC_THIRD_LOW, r)), c, FC_LANES(FC_THIRD_HIGH, r))
#define FC_THIRDS(to, step, a, b, c)                                                                                   \
    (to)[0] = FC_THIRD(a, b, c, 0), (to)[step] = FC_THIRD(a, b, c, 1), (to)[2 * (step)] = FC_THIRD(a, b, c, 2)

#if FC_F32 && FC_VECTOR_BYTES >= 32
/* to[j][i] = from[i][j] for i < rows, of which there are VL or more, and j < columns = 2, 3, 4 or 6: pixels that follow
 * each other are taken apart by the parity of the channel and by thirds, 2 to 18 shuffles for 16 of them, where a block
 * of VL x VL takes 64. */
INLINE void N(unzip)(int64_t rows, const T *from, T *to, int64_t to_pitch, const int columns)
{
    for (int64_t i = 0; i < rows; i += VL) {
        i = i + VL <= rows ? i : rows - VL; /* the last rows once more */
        vec r[6], plane[6];
        for (int j = 0; j < columns; j++)
            r[j] = vload(from + i * columns + j * VL);
        if (columns % 2 == 0) {
            vec even[3], odd[3];
            for (int j = 0; j < columns / 2; j++)
                even[j] = N(evens)(r[2 * j], r[2 * j + 1]), odd[j] = N(odds)(r[2 * j], r[2 * j + 1]);
            if (columns == 6) {
                FC_THIRDS(plane, 2, even[0], even[1], even[2]);
                FC_THIRDS(plane + 1, 2, odd[0], odd[1], odd[2]);
            } else if (columns == 4) {
                plane[0] = N(evens)(even[0], even[1]), plane[2] = N(odds)(even[0], even[1]);
                plane[1] = N(evens)(odd[0], odd[1]), plane[3] = N(odds)(odd[0], odd[1]);
            } else {
                plane[0] = even[0], plane[1] = odd[0];
            }
        } else {
            FC_THIRDS(plane, 1, r[0], r[1], r[2]);
        }
        for (int j = 0; j < columns; j++)
            vstore(to + j * to_pitch + i, plane[j]);
    }
}

static int N(unzips)(int64_t rows, int64_t columns, const T *from, T *to, int64_t to_pitch)
{
    switch (rows < VL ? 0 : columns) {
    case 2:
        N(unzip)(rows, from, to, to_pitch, 2);
        return 1;
    case 3:
        N(unzip)(rows, from, to, to_pitch, 3);
        return 1;
    case 4:
        N(unzip)(rows, from, to, to_pitch, 4);
        return 1;
    case 6:
        N(unzip)(rows, from, to, to_pitch, 6);
        return 1;
    default:
        return 0;
    }
}
#endif

static void N(transpose)(int64_t rows, int64_t columns, const void *from_, int64_t from_pitch, void *to_,
                         int64_t to_pitch)
{
    const T *from = from_;
    T *to = to_;
    if (rows == 3 && to_pitch == 3 && columns >= VL) {
        N(zip_three)(columns, from, from_pitch, to);
        return;
    }
#if FC_VECTOR_BYTES >= 32
    if (rows >= VL / 4 && rows <= VL / 2 && rows > 1 && to_pitch == rows && columns >= VL) {
        N(zip_few)((int)rows, columns, from, from_pitch, to);
        return;
    }
#endif
#if FC_F32 && FC_VECTOR_BYTES >= 32
    if (from_pitch == columns && N(unzips)(rows, columns, from, to, to_pitch))
        return;
#endif
    for (int64_t i = 0; i < rows; i += VL)
        for (int64_t j = 0; j < columns; j += VL) {
            if (i + VL <= rows && columns >= VL)
                j = j + VL <= columns ? j : columns - VL; /* the last columns once more */
            const T *f = from + i * from_pitch + j;
            T *t = to + j * to_pitch + i;
            /* the next rows: VL short runs are no stream that the hardware could see */
            if (i + VL < rows && j * (int64_t)sizeof(T) % 64 == 0)
                FC_EACH_LANE(l) __builtin_prefetch(f + (VL + l) * from_pitch, 0, 2);
            if (i + VL <= rows && j + VL <= columns)
                N(transpose_block)(f, from_pitch, t, to_pitch);
            else
                N(transpose_edge)(FC_UP_TO_VL(rows - i), FC_UP_TO_VL(columns - j), f, from_pitch, t, to_pitch);
        }
}

/* The same past the caches, for to_pitch a multiple of 64 bytes. Only where a vector is a cache line: halves of VL
 * lines at a time would have to meet in the few write-combining buffers. */
static void N(transpose_stream)(int64_t rows, int64_t columns, const void *from_, int64_t from_pitch, void *to_,
                                int64_t to_pitch)
{
    const T *from = from_;
    T *to = to_;
    const int off = (int)((uintptr_t)to / sizeof(T) % (size_t)VL), head = off ? VL - off : 0;
    if (FC_VECTOR_BYTES < 64 || head >= rows) {
        N(transpose)(rows, columns, from, from_pitch, to, to_pitch);
        return;
    }
    if (head)
        N(transpose)(head, columns, from, from_pitch, to, to_pitch);
    int64_t i = head;
    for (; i + VL <= rows; i += VL) {
        int64_t j = 0;
        for (; j + VL <= columns; j += VL) {
            vec r[VL];
            FC_EACH_LANE(l) r[l] = vload(from + (i + l) * from_pitch + j);
            N(transpose_registers)(r);
            FC_EACH_LANE(l) vstream(to + (j + l) * to_pitch + i, r[l]);
        }
        if (j < columns)
            N(transpose)(VL, columns - j, from + i * from_pitch + j, from_pitch, to + j * to_pitch + i, to_pitch);
    }
    if (i < rows)
        N(transpose)(rows - i, columns, from + i * from_pitch, from_pitch, to + i, to_pitch);
    vfence();
}

static void N(copy_rows)(int64_t rows, int64_t columns, const void *from_, int64_t from_pitch, void *to_,
                         int64_t to_pitch)
{
    const T *from = from_;
    T *to = to_;
    const int64_t whole = columns / VL * VL;
    const int tail = (int)(columns - whole);
    for (int64_t i = 0; i < rows; i++, from += from_pitch, to += to_pitch) {
        for (int64_t j = 0; j < whole; j += VL)
            vstore(to + j, vload(from + j));
        if (tail)
            vstore_tail(to + whole, vload_tail(from + whole, tail), tail);
    }
}

/* Every ninth element of 9 vectors. With AVX-512 it is every third of every third: 36 shuffles, where a transpose with
 * 7 empty rows takes 64. Without shuffles of two registers across quarters 8 taps are transposed and the last one is
 * gathered. */
#define FC_NINTH(l, tap) from[9 * (l) + (tap)]
INLINE void N(split_nine)(const T *from, T *to, int64_t tap_pitch)
{
#if FC_VECTOR_BYTES < 64
    for (int tap = 0; tap < 8; tap += VL, to += VL * tap_pitch) {
        vec r[VL];
        FC_EACH_LANE(l) r[l] = vload(from + 9 * l + tap);
        N(transpose_registers)(r);
        FC_EACH_LANE(l) vstore(to + l * tap_pitch, r[l]);
    }
    vstore(to, (vec){FC_LANES(FC_NINTH, 8)});
#else
    vec r[9], third[9], ninth[9];
    for (int i = 0; i < 9; i++)
        r[i] = vrounded(vload(from + i * VL)); /* or it is loaded by each of 3 shuffles, across cache lines */
    for (int i = 0; i < 3; i++)
        FC_THIRDS(third + i, 3, r[3 * i], r[3 * i + 1], r[3 * i + 2]);
    for (int i = 0; i < 3; i++)
        FC_THIRDS(ninth + i, 3, third[3 * i], third[3 * i + 1], third[3 * i + 2]);
    for (int i = 0; i < 9; i++)
        vstore(to + i * tap_pitch, ninth[i]);
#endif
}
#undef FC_NINTH

static void N(split_taps)(int64_t count, int64_t taps, const void *from_, void *to_, int64_t tap_pitch)
{
    const T *from = from_;
    T *to = to_;
    for (; taps == 9 && count >= VL; count -= VL, from += 9 * VL, to += VL)
        N(split_nine)(from, to, tap_pitch);
    if (count)
        N(transpose)(count, taps, from, taps, to, tap_pitch);
}
#undef FC_THIRD_LOW
#undef FC_THIRD_HIGH
#undef FC_THIRD
#undef FC_THIRDS

/* One run (c, tap) of a weight is `channels * taps` long; panel[tap][c][k] has rows of `width`. */
static void N(pack_runs)(int64_t columns, int64_t channels, int64_t taps, const void *from_, int64_t pitch,
                         void *panel_, int64_t width)
{
    const T *from = from_;
    T *panel = panel_;
    if (taps == 1) {
        N(transpose)(columns, channels, from, pitch, panel, width);
        return;
    }
    const int64_t length = channels * taps;
    for (int64_t k = 0; k < columns; k += VL) {
        const T *f[VL];
        T *t[VL];
        for (int i = 0; i < FC_UP_TO_VL(columns - k); i++)
            f[i] = from + (k + i) * pitch;
        for (int64_t j = 0, c = 0, tap = 0; j < length; j += VL) {
            for (int i = 0; i < FC_UP_TO_VL(length - j); i++) {
                t[i] = panel + (tap * channels + c) * width + k;
                if (++tap == taps)
                    tap = 0, c++;
            }
            N(transpose_rows)(FC_UP_TO_VL(columns - k), FC_UP_TO_VL(length - j), f, t);
            for (int i = 0; i < FC_UP_TO_VL(columns - k); i++)
                f[i] += VL;
        }
    }
}

static void N(unpack_runs)(int64_t columns, int64_t channels, int64_t taps, const void *panel_, int64_t width,
                           int64_t tap_pitch, void *to_, int64_t pitch)
{
    const T *panel = panel_;
    T *to = to_;
    if (taps == 1) {
        for (int64_t k = 0; k < columns; k += VL)
            N(transpose)(channels, FC_UP_TO_VL(columns - k), panel + k, width, to + k * pitch, pitch);
        return;
    }
    const int64_t length = channels * taps;
    for (int64_t k = 0; k < columns; k += VL) {
        const T *f[VL];
        T *t[VL];
        for (int i = 0; i < FC_UP_TO_VL(columns - k); i++)
            t[i] = to + (k + i) * pitch;
        for (int64_t j = 0, c = 0, tap = 0; j < length; j += VL) {
            for (int i = 0; i < FC_UP_TO_VL(length - j); i++) {
                f[i] = panel + tap * tap_pitch + c * width + k;
                if (++tap == taps)
                    tap = 0, c++;
            }
            N(transpose_rows)(FC_UP_TO_VL(length - j), FC_UP_TO_VL(columns - k), f, t);
            for (int i = 0; i < FC_UP_TO_VL(columns - k); i++)
                t[i] += VL;
        }
    }
}
#undef FC_UP_TO_VL
#undef FC_IN
#undef FC_LOW
#undef FC_HIGH
#undef FC_UNPACK
#undef FC_EVEN
#undef FC_SHUFFLE
#undef FC_LANES2
#undef FC_LANES4
#undef FC_LANES8
#undef FC_LANES16
#undef FC_LANES
