/* conv_winograd_weights.c: the transformed weights of conv_winograd.c, and what of them a plan keeps. */
#include "../threads.h"
#include "conv_winograd.h"

#include <string.h>

/* taps[u][v][c][column] of channels [c0, c0 + channels) */
static void pack_taps(const fc_winograd_plan *s, int64_t group, const fc_winograd_piece *k, int64_t c0,
                      int64_t channels, char *taps)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item;
    if (k->columns < k->width)
        memset(taps, 0, (size_t)(p->kernel_h * p->kernel_w * channels * k->width * item));
    fc_pack_weights(p, p->weight + (group * p->weight_g + k->first * p->weight_k + c0 * p->weight_c) * item, channels,
                    k->columns, taps, k->width);
}

/* Taps of a phase, `row` and `tap` apart; to the kernel of lines a column is a row. */
typedef struct {
    const char *at;
    int64_t row, tap;
} phase_taps;

/* Of phase f: taps[u * row + v * tap + i], i < columns; those beyond the kernel are zeros in `pad`. */
static phase_taps taps_of_phase(const fc_winograd_plan *s, const fc_tile_phase *f, const char *taps, int64_t row,
                                int64_t tap, int64_t columns, char *pad)
{
    const fc_tiles *t = &s->tiles;
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, step = t->step, h = p->kernel_h == 1 ? 1 : t->taps,
                  w = p->kernel_w == 1 ? 1 : t->taps, in_h = fc_min(h, fc_ceil_div(p->kernel_h - f->row, step)),
                  in_w = fc_min(w, fc_ceil_div(p->kernel_w - f->column, step));
    phase_taps k = {taps + (f->row * row + f->column * tap) * item, step * row, step * tap};
    if (!fc_has_single_taps(t) && (in_h < h || in_w < w)) {
        memset(pad, 0, (size_t)(h * w * columns * item));
        for (int64_t u = 0; u < in_h; u++)
            for (int64_t v = 0; v < in_w; v++)
                memcpy(pad + (u * w + v) * columns * item, k.at + (u * k.row + v * k.tap) * item,
                       (size_t)(columns * item));
        k = (phase_taps){pad, w * columns, columns};
    }
    if (t->upright)
        k.tap = k.row;
    return k;
}

/* u[phase and point][c + i][column] = G w G' for i < count, of a chunk of `channels`; taps[u * row + v * tap + i *
 * width + column]. pad: pad_bytes of memory */
static void transform_taps(const fc_winograd_plan *s, int64_t width, const char *taps, int64_t row, int64_t tap,
                           int64_t c, int64_t count, int64_t channels, char *pad, char *u)
{
    const fc_tiles *t = &s->tiles;
    const int64_t item = (int64_t)s->p->item, rows = fc_winograd_rows(t, channels), columns = count * width;
    for (int64_t i = 0; i < t->phases; i++) {
        const fc_tile_phase f = t->phase[i];
        const phase_taps k = taps_of_phase(s, &f, taps, row, tap, columns, pad);
        char *to = u + c * width * item;
        if (s->joined || f.last_points == FC_WHOLE_TILE)
            t->k->weights[t->taps](k.at, k.row, k.tap, columns, to, s->u_point);
        else if (f.last_points)
            s->p->k->winograd_small_line->weights[2](k.at, 0, f.last_points == FC_LAST_ROW ? k.row : k.tap, columns, to,
                                                     s->u_point);
        else
            memcpy(to, k.at, (size_t)(columns * item));
        const int64_t points = fc_phase_weights(t, i);
        if (channels < rows && c + count == channels)
            for (int64_t e = 0; e < points; e++)
                memset(u + (e * s->u_point + channels * width) * item, 0, (size_t)((rows - channels) * width * item));
        u += (s->joined ? rows * width : points * s->u_point) * item;
    }
}

/* Of taps that are packed for the whole panel: a vector of it is a part of each row. */
static void transform_packed(const fc_winograd_plan *s, const fc_winograd_piece *k, const char *taps, int64_t row,
                             int64_t tap, fc_range part, int64_t channels, char *pad, char *u)
{
    const int64_t item = (int64_t)s->p->item, most = k->width == k->panel_width ? FC_WINOGRAD_PACKED : 1;
    taps += (k->first - k->panel * s->panel) * item;
    for (int64_t c = part.first; c < part.end; c += most)
        transform_taps(s, k->width, taps + c * k->panel_width * item, row, tap, c, fc_min(most, part.end - c), channels,
                       pad, u);
}

/* Elements of a panel of stored taps. */
static int64_t taps_panel(const fc_winograd_plan *s) { return fc_winograd_taps(s) * s->p->in_channels * s->panel; }

static const char *stored_taps(const fc_winograd_plan *s, int64_t group, const fc_winograd_piece *k, int64_t c0)
{
    const int64_t at = (group * s->panels + k->panel) * taps_panel(s) + fc_winograd_taps(s) * c0 * k->panel_width;
    return s->p->packed + at * (int64_t)s->p->item;
}

/* Those channels of the chunk that are `part`, a multiple of FC_WINOGRAD_PACKED from its first one. */
static void transform_part(const fc_winograd_plan *s, int64_t group, const fc_winograd_piece *k, int64_t c0,
                           int64_t channels, fc_range part, char *pad, char *u)
{
    const fc_problem *p = s->p;
    const int64_t whole = channels * k->panel_width;
    if (s->prepared) {
        transform_packed(s, k, stored_taps(s, group, k, c0), p->kernel_w * whole, whole, part, channels, pad, u);
        return;
    }
    if (p->packed) { /* by fc_use_packed */
        transform_packed(s, k,
                         p->packed + fc_packed_at(p, group, k->panel * s->panel, c0, k->panel_width) * (int64_t)p->item,
                         p->packed_u * k->panel_width, p->packed_v * k->panel_width, part, channels, pad, u);
        return;
    }
    char *pack = pad + s->pad_bytes;
    for (int64_t c = part.first; c < part.end; c += FC_WINOGRAD_PACKED) {
        const int64_t count = fc_min(FC_WINOGRAD_PACKED, part.end - c), tap = count * k->width;
        pack_taps(s, group, k, c0 + c, count, pack);
        transform_taps(s, k->width, pack, p->kernel_w * tap, tap, c, count, channels, pad, u);
    }
}

void fc_winograd_transform(const fc_winograd_plan *s, int64_t group, const fc_winograd_piece *k, int64_t c0,
                           int64_t channels, char *pad, char *u)
{
    transform_part(s, group, k, c0, channels, (fc_range){0, channels}, pad, u);
}

fc_winograd_bytes_ahead fc_winograd_ahead(const fc_winograd_plan *s, int64_t group, const fc_winograd_piece *k,
                                          int64_t c0, int64_t channels)
{
    if (!s->prepared)
        return (fc_winograd_bytes_ahead){"", 0};
    const int64_t bytes = fc_winograd_taps(s) * channels * k->panel_width * (int64_t)s->p->item;
    return (fc_winograd_bytes_ahead){stored_taps(s, group, k, c0) + bytes, bytes};
}

int64_t fc_winograd_offset(const fc_winograd_plan *s, const fc_winograd_piece *k, int64_t c0)
{
    return fc_winograd_all_rows(s, c0) * k->width * (int64_t)s->p->item;
}

int64_t fc_winograd_stored(const fc_winograd_plan *s, int64_t group, int64_t panel)
{
    return (group * s->panels + panel) * s->u_bytes;
}

int64_t fc_winograd_stored_elements(const fc_winograd_plan *s)
{
    return s->p->groups * s->panels * (s->by_panels ? taps_panel(s) : s->u_bytes / (int64_t)s->p->item);
}

/* Of few tiles taps[c][u][v][column] of a vector of columns, or of two: one stream. */
static void pack_columns(const fc_winograd_plan *s, int64_t group, int64_t first, int64_t columns, int64_t width,
                         int64_t c0, int64_t channels, char *to)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, taps = fc_winograd_taps(s), step = taps * width;
    const char *from = p->weight + (group * p->weight_g + first * p->weight_k + c0 * p->weight_c) * item;
    if (columns < width)
        memset(to, 0, (size_t)(channels * step * item));
    if (p->weight_c == taps && p->weight_u == p->kernel_w && p->weight_v == 1)
        p->k->transpose(columns, channels * taps, from, p->weight_k, to, width);
    else
        for (int64_t c = 0; c < channels; c++)
            fc_pack_weights(p, from + c * p->weight_c * item, 1, columns, to + c * step * item, width);
}

typedef struct {
    const fc_winograd_plan *s;
    char *to, *pads; /* pads[slot]: memory of fc_winograd_transform */
    int64_t pad_pitch, parts; /* of the channels of a panel */
} store_job;

static int64_t packs(int64_t channels) { return fc_ceil_div(channels, FC_WINOGRAD_PACKED); }

static void store_part(void *context, int64_t task, int slot)
{
    const store_job *j = context;
    const fc_winograd_plan *s = j->s;
    const int64_t part = task % j->parts, panel = task / j->parts;
    const fc_winograd_piece k = fc_winograd_panel(s, panel % s->panels);
    for (int64_t c0 = 0; c0 < s->p->in_channels; c0 += s->tiles.chunk) {
        const int64_t channels = fc_min(s->tiles.chunk, s->p->in_channels - c0),
                      end = (part + 1) * packs(channels) / j->parts * FC_WINOGRAD_PACKED;
        const fc_range range = {part * packs(channels) / j->parts * FC_WINOGRAD_PACKED, fc_min(end, channels)};
        transform_part(s, panel / s->panels, &k, c0, channels, range, j->pads + slot * j->pad_pitch,
                       j->to + panel * s->u_bytes + fc_winograd_offset(s, &k, c0));
    }
}

static void store_panel(void *context, int64_t task, int slot)
{
    (void)slot;
    const store_job *j = context;
    const fc_winograd_plan *s = j->s;
    const int64_t group = task / s->panels, item = (int64_t)s->p->item;
    const fc_winograd_piece k = fc_winograd_panel(s, task % s->panels);
    char *to = j->to + task * taps_panel(s) * item;
    if (s->few) {
        const int64_t vector = fc_winograd_taps(s) * s->p->in_channels * s->lanes * item;
        for (int64_t first = 0; first < k.columns; first += s->lanes, to += vector)
            pack_columns(s, group, k.first + first, fc_min(s->lanes, k.columns - first), s->lanes, 0, s->p->in_channels,
                         to);
        return;
    }
    if (s->pairs) {
        pack_columns(s, group, k.first, k.columns, k.width, 0, s->p->in_channels, to);
        return;
    }
    for (int64_t c0 = 0; c0 < s->p->in_channels; c0 += s->chunk) {
        const int64_t channels = fc_min(s->chunk, s->p->in_channels - c0);
        pack_taps(s, group, &k, c0, channels, to + fc_winograd_taps(s) * c0 * k.width * item);
    }
}

void fc_winograd_store(const fc_winograd_plan *s, char *to, char *pads, int64_t pad_pitch, int slots)
{
    const int64_t panels = s->p->groups * s->panels,
                  parts = fc_min(fc_ceil_div(fc_parallel_tasks(), panels), packs(s->tiles.chunk));
    store_job job = {s, to, pads, pad_pitch, parts};
    fc_parallel_in(slots, s->by_panels ? panels : panels * parts, s->by_panels ? store_panel : store_part, &job);
}

/* ---- few tiles: a vector of columns of a piece, channels [c0, c0 + f->channels) ---------------------------------*/
/* Taps that a plan keeps: those of the next channels follow. */
static void take_stored(const fc_winograd_plan *s, const fc_winograd_piece *k, int64_t vector, int64_t c0,
                        fc_winograd_few *f)
{
    const int64_t item = (int64_t)s->p->item, of_panel = (k->first - k->panel * s->panel) / s->lanes + vector;
    f->row = s->p->kernel_w * s->lanes, f->tap = s->lanes, f->step = fc_winograd_taps(s) * s->lanes;
    f->w = stored_taps(s, s->group, k, 0) + (of_panel * s->p->in_channels + c0) * f->step * item;
    f->ahead_row = f->step * item, f->ahead_part = f->ahead_row * s->tiles.k->line;
    f->ahead = (const char *)f->w + f->channels * f->ahead_row;
}

/* Taps that fc_use_packed shares with other problems, so they are in the cache. */
static void take_shared(const fc_winograd_plan *s, const fc_winograd_piece *k, int64_t vector, int64_t c0,
                        fc_winograd_few *f)
{
    const fc_problem *p = s->p;
    const int64_t panel = k->panel * s->panel, column = k->first - panel + vector * s->lanes;
    f->row = p->packed_u * k->panel_width, f->tap = p->packed_v * k->panel_width, f->step = k->panel_width;
    f->w = p->packed + (fc_packed_at(p, s->group, panel, c0, k->panel_width) + column) * (int64_t)p->item;
    f->ahead = f->w;
}

/* Taps of the weight as it lies, packed here. The rows that are fetched are those that will be packed next: of the
 * next channels, or after the last ones of the next vector. Of a weight as torch keeps it, where the taps of all
 * channels are one run, a row is an output, else a channel of the sum. */
static void take_packed(const fc_winograd_plan *s, const fc_winograd_piece *k, int64_t vector, int64_t c0, char *pack,
                        fc_winograd_few *f)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, taps = fc_winograd_taps(s), line = s->tiles.k->line;
    const int64_t first = k->first + vector * s->lanes, runs = p->weight_c == taps;
    pack_columns(s, s->group, first, fc_min(s->lanes, k->columns - vector * s->lanes), s->lanes, c0, f->channels, pack);
    f->row = p->kernel_w * s->lanes, f->tap = s->lanes, f->step = taps * s->lanes;
    f->w = pack;
    const int last = c0 + s->chunk >= p->in_channels;
    const int64_t next_k = last ? first + s->lanes : first, next_c = last ? 0 : c0 + s->chunk;
    f->ahead_row = (runs ? p->weight_k : p->weight_c) * item;
    f->ahead_part = runs ? taps * line * item : f->ahead_row * line;
    f->ahead = p->weight + (s->group * p->weight_g + next_k * p->weight_k + next_c * p->weight_c -
                            (runs ? 0 : taps - 1)) * /* a gradient's are reversed */
                               item;
}

void fc_winograd_set_taps(const fc_winograd_plan *s, const fc_winograd_piece *k, int64_t vector, int64_t c0, char *pack,
                          fc_winograd_few *f)
{
    if (s->prepared)
        take_stored(s, k, vector, c0, f);
    else if (s->p->packed)
        take_shared(s, k, vector, c0, f);
    else
        take_packed(s, k, vector, c0, pack, f);
}

void fc_winograd_set_pair(const fc_winograd_plan *s, const fc_winograd_piece *k, int64_t c0, char *pack,
                          fc_winograd_pair *f)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, taps = fc_winograd_taps(s), panel = k->panel * s->panel,
                  column = k->first - panel;
    int64_t width = k->panel_width;
    if (s->prepared) {
        f->w = stored_taps(s, s->group, k, c0) + column * item;
        f->ahead_row = taps * width * item, f->ahead = (const char *)f->w + f->channels * f->ahead_row;
    } else if (p->packed) {
        f->row = p->packed_u * width, f->tap = p->packed_v * width, f->step = width;
        f->w = p->packed + (fc_packed_at(p, s->group, panel, c0, width) + column) * item;
        f->ahead = f->w;
        return;
    } else {
        pack_columns(s, s->group, k->first, k->columns, k->width, c0, f->channels, pack);
        f->w = pack, width = k->width;
        const int runs = p->weight_c == taps, last = c0 + s->chunk >= p->in_channels;
        const int64_t next_k = last ? k->first + k->width : k->first, next_c = last ? 0 : c0 + s->chunk;
        f->ahead_row = (runs ? p->weight_k : p->weight_c) * item;
        const int64_t next = s->group * p->weight_g + next_k * p->weight_k + next_c * p->weight_c;
        f->ahead = p->weight + (next - (runs ? 0 : taps - 1)) * item; /* a gradient's are reversed */
    }
    f->row = p->kernel_w * width, f->tap = width, f->step = taps * width;
}
