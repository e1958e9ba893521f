/* transpose.tmpl.h: to[column][row] = from[row][column], VL x VL blocks in registers.
 *
 * A block is log2(VL) butterfly stages: stage d swaps, for rows i and i + d, the lanes that differ in bit d.
 * VL * log2(VL) shuffles for VL^2 elements: 0.25 shuffle per element at VL = 16. Edges go element by element.
 */
#define FC_LOW(l, d) (((l) & (d)) ? VL + (l) - (d) : (l))
#define FC_HIGH(l, d) (((l) & (d)) ? VL + (l) : (l) + (d))
#define FC_LANES2(f, d) f(0, d), f(1, d)
#define FC_LANES4(f, d) FC_LANES2(f, d), f(2, d), f(3, d)
#define FC_LANES8(f, d) FC_LANES4(f, d), f(4, d), f(5, d), f(6, d), f(7, d)
#define FC_LANES16(f, d) \
    FC_LANES8(f, d), f(8, d), f(9, d), f(10, d), f(11, d), f(12, d), f(13, d), f(14, d), f(15, d)
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) == 16
#define FC_LANES FC_LANES16
#elif FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) == 8
#define FC_LANES FC_LANES8
#elif FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) == 4
#define FC_LANES FC_LANES4
#else
#define FC_LANES FC_LANES2
#endif
#define FC_STAGE(d)                                                                                                    \
    _Pragma("GCC unroll 16") for (int i = 0; i < VL; i++) if (!(i & (d)))                                              \
    {                                                                                                                  \
        vec low = __builtin_shufflevector(r[i], r[i + (d)], FC_LANES(FC_LOW, d));                                      \
        r[i + (d)] = __builtin_shufflevector(r[i], r[i + (d)], FC_LANES(FC_HIGH, d));                                  \
        r[i] = low;                                                                                                    \
    }

INLINE void N(transpose_block)(const T *from, int64_t from_pitch, T *to, int64_t to_pitch)
{
    vec r[VL];
    _Pragma("GCC unroll 16") for (int i = 0; i < VL; i++) r[i] = vload(from + i * from_pitch);
    FC_STAGE(1)
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) >= 4
    FC_STAGE(2)
#endif
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) >= 8
    FC_STAGE(4)
#endif
#if FC_VECTOR_BYTES / (FC_F32 ? 4 : 8) >= 16
    FC_STAGE(8)
#endif
    _Pragma("GCC unroll 16") for (int i = 0; i < VL; i++) vstore(to + i * to_pitch, r[i]);
}

INLINE void N(transpose_edge)(int64_t rows, int64_t columns, const T *from, int64_t from_pitch, T *to, int64_t to_pitch)
{
    for (int64_t j = 0; j < columns; j++)
        for (int64_t i = 0; i < rows; i++)
            to[j * to_pitch + i] = from[i * from_pitch + j];
}

static void N(transpose)(int64_t rows, int64_t columns, const void *from_, int64_t from_pitch, void *to_, int64_t to_pitch)
{
    const T *from = from_;
    T *to = to_;
    const int64_t block_columns = columns / VL * VL;
    int64_t i = 0;
    for (; i + VL <= rows; i += VL) {
        const T *f = from + i * from_pitch;
        for (int64_t j = 0; j < block_columns; j += VL)
            N(transpose_block)(f + j, from_pitch, to + j * to_pitch + i, to_pitch);
        N(transpose_edge)(VL, columns - block_columns, f + block_columns, from_pitch, to + block_columns * to_pitch + i,
                          to_pitch);
    }
    N(transpose_edge)(rows - i, columns, from + i * from_pitch, from_pitch, to + i, to_pitch);
}
#undef FC_LOW
#undef FC_HIGH
#undef FC_LANES2
#undef FC_LANES4
#undef FC_LANES8
#undef FC_LANES16
#undef FC_LANES
#undef FC_STAGE
