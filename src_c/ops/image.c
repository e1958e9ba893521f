/* image.c: rectangles between layouts. Channels-last rows are memcpy, channels-first rows go through the register
 * transpose, anything else element by element. */
#include "image.h"

#include <string.h>

fc_image fc_image_of(const fc_view *v, size_t item, int64_t n, int64_t channel, int64_t channels)
{
    return (fc_image){(char *)v->data + (n * v->stride_n + channel * v->stride_c) * (int64_t)item,
                      v->h,
                      v->w,
                      channels,
                      v->stride_h,
                      v->stride_w,
                      v->stride_c,
                      0};
}

/* Channel by channel: planes are often a power of two apart, and would push each other out of the first-level cache.
 * Every second pixel of a row is what the compiler makes shuffles of. */
#define COPY_ELEMENTS(type)                                                                                            \
    for (int64_t c = 0; c < channels; c++) {                                                                           \
        const type *f = (const type *)from + c * from_pitch->channel;                                                  \
        type *restrict t = (type *)to + c * to_pitch->channel;                                                         \
        if (from_pitch->pixel == 2 && to_pitch->pixel == 1)                                                            \
            for (int64_t p = 0; p < pixels; p++)                                                                       \
                t[p] = f[p * 2];                                                                                       \
        else                                                                                                           \
            for (int64_t p = 0; p < pixels; p++)                                                                       \
                t[p * to_pitch->pixel] = f[p * from_pitch->pixel];                                                     \
    }

static void copy_elements(size_t item, int64_t pixels, int64_t channels, const char *from, const fc_pitch *from_pitch,
                          char *to, const fc_pitch *to_pitch)
{
    if (item == 4) {
        COPY_ELEMENTS(uint32_t)
    } else {
        COPY_ELEMENTS(uint64_t)
    }
}

/* to[p][c] = from[p][c] for any pitches */
static void copy_row(const fc_kernels *k, size_t item, int64_t pixels, int64_t channels, const char *from,
                     const fc_pitch *from_pitch, char *to, const fc_pitch *to_pitch)
{
    const int64_t from_pixel = from_pitch->pixel, from_channel = from_pitch->channel, to_pixel = to_pitch->pixel,
                  to_channel = to_pitch->channel;
    const int64_t size = (int64_t)item;
    if (from_channel == 1 && to_channel == 1) {
        if ((from_pixel == channels && to_pixel == channels) || pixels == 1) {
            memcpy(to, from, (size_t)(pixels * channels) * item);
            return;
        }
        k->copy_rows(pixels, channels, from, from_pixel, to, to_pixel);
        return;
    }
    if (from_pixel == 1 && to_pixel == 1) {
        for (int64_t c = 0; c < channels; c++)
            memcpy(to + c * to_channel * size, from + c * from_channel * size, (size_t)pixels * item);
        return;
    }
    if (from_pixel == 1 && to_channel == 1 && channels > 1)
        k->transpose(channels, pixels, from, from_channel, to, to_pixel);
    else if (from_channel == 1 && to_pixel == 1 && channels > 1)
        k->transpose(pixels, channels, from, from_pixel, to, to_channel);
    else
        copy_elements(item, pixels, channels, from, from_pitch, to, to_pitch);
}

static void zero(size_t item, int64_t pixels, int64_t channels, char *to, const fc_pitch *pitch)
{
    const int64_t size = (int64_t)item;
    if (pitch->pixel == channels && (channels == 1 || pitch->channel == 1))
        memset(to, 0, (size_t)(pixels * channels) * item);
    else if (pitch->pixel == 1)
        for (int64_t c = 0; c < channels; c++)
            memset(to + c * pitch->channel * size, 0, (size_t)pixels * item);
    else if (pitch->channel == 1)
        for (int64_t p = 0; p < pixels; p++)
            memset(to + p * pitch->pixel * size, 0, (size_t)channels * item);
    else
        for (int64_t p = 0; p < pixels; p++)
            for (int64_t c = 0; c < channels; c++)
                memset(to + (p * pitch->pixel + c * pitch->channel) * size, 0, item);
}

/* The first i >= 0 with start + i * step >= bound, at most count. */
static int64_t first_at(int64_t start, int64_t step, int64_t bound, int64_t count)
{
    const int64_t i = start >= bound ? 0 : (bound - start + step - 1) / step;
    return i < count ? i : count;
}

/* Planes on their side, whose columns are what lies together: rows and columns change places. */
static int is_on_its_side(const fc_image *x)
{
    return x->stride_h == 1 && x->stride_w != 1 && x->stride_c != 1 && x->h > 1;
}
static fc_image turned_image(const fc_image *x)
{
    return (fc_image){x->data, x->w, x->h, x->c, x->stride_w, x->stride_h, x->stride_c, x->stream};
}
static fc_window turned_window(const fc_window *w)
{
    return (fc_window){w->left, w->columns, w->column_step, w->top, w->rows, w->row_step};
}
static fc_pitch turned_pitch(const fc_pitch *p) { return (fc_pitch){p->pixel, p->row, p->channel}; }

void fc_load_window(const fc_kernels *k, size_t item, const fc_image *x, const fc_window *win, void *to_,
                    const fc_pitch *pitch)
{
    if (is_on_its_side(x)) {
        const fc_image image = turned_image(x);
        const fc_window window = turned_window(win);
        const fc_pitch turned = turned_pitch(pitch);
        fc_load_window(k, item, &image, &window, to_, &turned);
        return;
    }
    const int64_t size = (int64_t)item;
    const int64_t begin = first_at(win->left, win->column_step, 0, win->columns);
    const int64_t end = first_at(win->left, win->column_step, x->w, win->columns);
    const fc_pitch from_pitch = {.pixel = x->stride_w * win->column_step, .channel = x->stride_c};
    for (int64_t r = 0; r < win->rows; r++) {
        char *to = (char *)to_ + r * pitch->row * size;
        const int64_t h = win->top + r * win->row_step;
        if (h < 0 || h >= x->h || begin >= end) {
            zero(item, win->columns, x->c, to, pitch);
            continue;
        }
        zero(item, begin, x->c, to, pitch);
        const int64_t w = win->left + begin * win->column_step;
        copy_row(k, item, end - begin, x->c, x->data + (h * x->stride_h + w * x->stride_w) * size, &from_pitch,
                 to + begin * pitch->pixel * size, pitch);
        zero(item, win->columns - end, x->c, to + end * pitch->pixel * size, pitch);
    }
}

void fc_store_window(const fc_kernels *k, size_t item, const fc_image *y, const fc_window *win, const void *from_,
                     const fc_pitch *pitch)
{
    if (is_on_its_side(y)) {
        const fc_image image = turned_image(y);
        const fc_window window = turned_window(win);
        const fc_pitch turned = turned_pitch(pitch);
        fc_store_window(k, item, &image, &window, from_, &turned);
        return;
    }
    const int64_t size = (int64_t)item;
    const fc_pitch to_pitch = {.pixel = y->stride_w * win->column_step, .channel = y->stride_c};
    for (int64_t r = 0; r < win->rows; r++) {
        const char *from = (const char *)from_ + r * pitch->row * size;
        char *to = y->data + ((win->top + r * win->row_step) * y->stride_h + win->left * y->stride_w) * size;
        if (y->stream && pitch->channel == 1 && to_pitch.pixel == 1 && y->c > 1)
            k->transpose_stream(win->columns, y->c, from, pitch->pixel, to, y->stride_c);
        else
            copy_row(k, item, win->columns, y->c, from, pitch, to, &to_pitch);
    }
}
