/* conv_winograd.h: what the schedules of conv_winograd.c, its weights (conv_winograd_weights.c) and the
 * products of few tiles (conv_winograd_few.c) share. */
#ifndef FC_OPS_CONV_WINOGRAD_H
#define FC_OPS_CONV_WINOGRAD_H
#include "winograd_tiles.h"

#include <stdatomic.h>

enum {
    FC_WINOGRAD_PACKED = 16, /* taps are packed 16 channels at a time: 9 x 16 x 32 floats = 18 KiB, in L1 */
};
_Static_assert((int)FC_WINOGRAD_PAIR_CHANNELS <= (int)FC_WINOGRAD_PACKED, "taps of a pair are packed at once");

typedef struct {
    const fc_problem *p;
    fc_tiles tiles;
    int64_t lanes, panel, panels;
    int64_t block, count; /* most tiles of a block, by panels of a stretch; by tiles: blocks */
    int64_t stretches; /* by panels */
    int by_panels, y_in_place, stream, fetch;
    int few; /* by panels: so few tiles that weights are transformed as they are multiplied */
    int pairs; /* by panels: u of two rows of points at a time */
    int prepared; /* p->packed is what fc_pack_winograd made */
    int joined; /* u[e][phase][channel], else phases have fewer weights than points */
    int64_t sharers, each, more; /* by panels: threads, whole panels of each, threads with one task more */
    int cut, halved; /* see share_panels */
    int64_t u_point; /* pitch, elements */
    int64_t chunk; /* by panels: channels whose u is made at a time */
    int own; /* each thread makes for itself what all read: by tiles u, by panels v of a stretch */
    int64_t u_bytes, v_bytes, m_bytes, strip_bytes, tile_bytes, pad_bytes, pack_bytes, thread_bytes;
    const char *u;
    char *v, *threads;
    int64_t group; /* by panels: the current group, and its stretch of tiles */
    fc_tile_block stretch;
    int64_t version; /* of what all read: by panels the number of the stretch, from 1 on; by tiles 1 */
    atomic_char *spoilt; /* spoilt[image]: its tiles hold NaN or infinity */
} fc_winograd_plan;

static inline int64_t fc_winograd_taps(const fc_winograd_plan *s) { return s->p->kernel_h * s->p->kernel_w; }
static inline int64_t fc_winograd_bytes(const fc_winograd_plan *s, int64_t elements)
{
    return fc_round_up(elements * (int64_t)s->p->item, 64);
}

/* Rows of u for so many channels of a phase: whole parts where there are several. */
static inline int64_t fc_winograd_rows(const fc_tiles *t, int64_t channels)
{
    return t->phases == 1 ? channels : fc_round_up(channels, t->k->line);
}
/* Of all phases that have a point in common. */
static inline int64_t fc_winograd_all_rows(const fc_winograd_plan *s, int64_t channels)
{
    return (s->joined ? s->tiles.phases : 1) * fc_winograd_rows(&s->tiles, channels);
}

/* Output channels first .. first + columns - 1 of a panel, all of them or one of its vectors: rows of u and m are
 * `width` long, those of taps packed for the whole panel `panel_width`. */
typedef struct {
    int64_t panel, first, columns, width, panel_width;
} fc_winograd_piece;

static inline fc_winograd_piece fc_winograd_panel(const fc_winograd_plan *s, int64_t panel)
{
    fc_winograd_piece k = {.panel = panel, .first = panel * s->panel};
    k.columns = fc_min(s->panel, s->p->out_channels - k.first);
    k.width = k.panel_width = k.columns > s->lanes ? s->panel : s->lanes;
    return k;
}

/* Vector `index` of it, which may be one behind the last. */
static inline fc_winograd_piece fc_winograd_vector(const fc_winograd_plan *s, int64_t panel, int64_t index)
{
    fc_winograd_piece k = fc_winograd_panel(s, panel);
    k.first += index * s->lanes;
    k.columns = fc_max(0, fc_min(s->lanes, k.columns - index * s->lanes));
    k.width = s->lanes;
    return k;
}

/* A tile adds up neighbours: where one is NaN or infinite all its outputs are. spoilt[image], so many bytes: the images
 * of such tiles run again directly. */
int64_t fc_winograd_flags_bytes(const fc_problem *);
fc_status fc_winograd_repair(const fc_problem *, const atomic_char *spoilt);

/* ---- conv_winograd_weights.c --------------------------------------------------------------------------------------*/
/* What is kept from call to call: by tiles u[group][panel][phase and point][c][column]; by panels the taps, which are a
 * quarter of u, and reading u would cost more than making it, taps[group][panel][chunk][u][v][c][column], of few tiles
 * taps[group][panel][vector][c][u][v][column], with pairs taps[group][panel][c][u][v][column]. Elements of it, and
 * making it; of every slot, pads[slot * pad_pitch]: as in fc_winograd_transform */
int64_t fc_winograd_stored_elements(const fc_winograd_plan *);
void fc_winograd_store(const fc_winograd_plan *, char *to, char *pads, int64_t pad_pitch, int slots);
/* By tiles: where in u a panel is, and in it the chunk of channels from c0 on. */
int64_t fc_winograd_stored(const fc_winograd_plan *, int64_t group, int64_t panel);
int64_t fc_winograd_offset(const fc_winograd_plan *, const fc_winograd_piece *, int64_t c0);

/* u[phase and point][c][column] for the chunk of channels [c0, c0 + channels); pad: pad_bytes and pack_bytes of
 * memory */
void fc_winograd_transform(const fc_winograd_plan *, int64_t group, const fc_winograd_piece *, int64_t c0,
                           int64_t channels, char *pad, char *u);
/* A plan's weights come from memory: those of the chunk behind this one are fetched while it is multiplied. Otherwise
 * none. */
typedef struct {
    const char *at;
    int64_t bytes;
} fc_winograd_bytes_ahead;
fc_winograd_bytes_ahead fc_winograd_ahead(const fc_winograd_plan *, int64_t group, const fc_winograd_piece *,
                                          int64_t c0, int64_t channels);
/* Few tiles: where the taps of a chunk and vector are, in pack if they had to be packed, and those of the next
 * chunk. */
void fc_winograd_set_taps(const fc_winograd_plan *, const fc_winograd_piece *, int64_t vector, int64_t c0, char *pack,
                          fc_winograd_few *);
/* The same of a piece, where u is made of two rows of points at a time. */
void fc_winograd_set_pair(const fc_winograd_plan *, const fc_winograd_piece *, int64_t c0, char *pack,
                          fc_winograd_pair *);

/* ---- conv_winograd_few.c ------------------------------------------------------------------------------------------*/
/* m (+)= v * u for all points of the stretch. */
void fc_winograd_multiply_few(const fc_winograd_plan *, fc_winograd_few *);
/* What does not change from chunk to chunk of the products of a pair of rows of points: a run for those that the same
 * tiles have. */
fc_winograd_pair_product fc_winograd_products_of(const fc_winograd_plan *, const fc_winograd_piece *, int pair);
#endif
