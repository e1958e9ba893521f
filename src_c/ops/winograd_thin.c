/* winograd_thin.c: inputs of few channels into the transformed domain, for the gradient of the weight.
 *
 * A tile's columns begin `out` pixels behind those of the tile before it. So pixels that are `out` apart are copied one
 * behind the other, strip[place < out][tile][channel] of each row: what is at one place of all tiles is a vector of
 * tiles and channels then, and 5 tiles of 6 channels take two of them instead of five. Where a dilation makes
 * neighbours of the pixels of different residues, these are more channels of one.
 */
#include "winograd_tiles.h"

enum {
    STRIP = 4096, /* elements: rows of several tile rows; two of these are a first-level cache in floats */
    PAD = 16, /* behind each row */
    MORE = 3, /* elements behind each place that a split writes */
};

/* Channels of a pixel of all residues */
static int64_t lanes_of(const fc_tiles *t) { return t->residues_w * t->p->in_channels; }
/* Pixels that a tile has beyond its own, in tiles */
static int64_t more_of(const fc_tiles *t) { return (FC_WINOGRAD_TILE - 1) / t->out_w; }
/* Tiles of each residue whose pixels are a row of the kernel's */
static int64_t longest(const fc_tiles *t)
{
    return (FC_WINOGRAD_THIN_ROW / t->out_w - MORE) / (t->gap_w * t->p->in_channels) - more_of(t);
}

int fc_is_thin(const fc_tiles *t)
{
    const fc_problem *p = t->p;
    return t->k->thin_inputs && t->phases == 1 && t->step == 1 && p->kernel_h == p->kernel_w && p->in_channels > 1 &&
           p->in_channels < FC_THIN_CHANNELS && longest(t) > 0;
}

int64_t fc_thin_strip_elements(void) { return 2 * (STRIP + FC_WINOGRAD_TILE * (FC_WINOGRAD_THIN_ROW + PAD)); }

int64_t fc_thin_point(const fc_tiles *t, int64_t tiles)
{
    const int64_t line = t->k->line, lines = fc_ceil_div(tiles * t->p->in_channels, line) + 1;
    return (lines | 1) * line; /* 36 streams in different sets of the first-level cache */
}

/* Tiles of so many rows, and of columns [column, column + columns), those of all residues where there are several rows
 */
typedef struct {
    int64_t row, rows, column, columns;
    int64_t first,
        pixels; /* of each residue: the first tile, and tiles with what their last one has beyond its pixels */
    int64_t place; /* pitch, elements */
} thin_run;

/* Pitch of a row, of pixels as they lie or by places */
static int64_t row_of(const fc_tiles *t, const thin_run *r)
{
    return fc_round_up(t->out_w * fc_max(r->place, r->pixels * t->gap_w * t->p->in_channels), PAD) + PAD;
}

/* Rows [top, ..) of x under them as they lie, rows[row][pixel][channel], and strip[row][place][tile][residue][channel]
 */
static void load_strip(const fc_tiles *t, const fc_image *x, const thin_run *r, int64_t top, int64_t rows,
                       int64_t pitch, char *strip, char *copy)
{
    const fc_problem *p = t->p;
    const int64_t item = (int64_t)p->item, pixels = r->pixels * t->out_w * t->gap_w;
    const fc_window window = {top, rows, 1, t->out_w * t->gap_w * r->first - p->pad_left, pixels, 1};
    fc_load_window(p->k, p->item, x, &window, copy, &(fc_pitch){pitch, p->in_channels, 1});
    for (int64_t i = 0; i < rows; i++)
        t->k->thin_split(&(fc_winograd_thin_split){
            .from = copy + i * pitch * item,
            .to = strip + i * pitch * item,
            .pixel = t->gap_w * p->in_channels,
            .pixels = r->pixels,
            .place = r->place,
            .places = t->out_w,
            .lanes = lanes_of(t),
        });
}

static void transform(const fc_tiles *t, int64_t group, int64_t image, const thin_run *r, int64_t point, char *strip,
                      char *v)
{
    const fc_problem *p = t->p;
    const int64_t item = (int64_t)p->item, lanes = lanes_of(t), out = t->out_w;
    const fc_tile_image at = fc_tile_image_at(t, image);
    const fc_image x = fc_tile_image_x(t, &at, group * p->in_channels, p->in_channels);
    fc_winograd_thin_inputs g = {
        .row = row_of(t, r), .length = out * r->place, .lanes = r->columns * p->in_channels, .point = point};
    load_strip(t, &x, r, r->row * t->out_h - at.h.pad, (r->rows - 1) * t->out_h + t->in_h, g.row, strip,
               strip + fc_thin_strip_elements() / 2 * item);
    for (int64_t j = 0; j < FC_WINOGRAD_TILE; j++)
        g.at[j] = j % out * r->place + j / out * lanes + r->column % t->residues_w * p->in_channels;
    for (int64_t i = 0; i < r->rows; i++) {
        g.x = strip + i * t->out_h * g.row * item;
        g.v = v + i * g.lanes * item;
        t->k->thin_inputs(&g);
    }
}

void fc_transform_thin_inputs(const fc_tiles *t, int64_t group, int64_t first, int64_t end, int64_t point, char *strip,
                              char *v)
{
    const int64_t item = (int64_t)t->p->item, residues = t->residues_w;
    for (int64_t tile = first; tile < end;) {
        const int64_t row = tile / t->columns, column = tile % t->columns;
        thin_run r = {.row = row % t->rows, .rows = 1, .column = column, .first = column / residues};
        r.columns = fc_min(fc_min(t->columns - column, end - tile), (r.first + longest(t)) * residues - column);
        r.pixels = (column + r.columns - 1) / residues + 1 - r.first + more_of(t);
        r.place = r.pixels * lanes_of(t) + MORE;
        if (r.columns == t->columns) /* as many rows as fit the strip */
            r.rows = fc_min(fc_min(t->rows - r.row, (end - tile) / t->columns),
                            fc_max(1, (STRIP / row_of(t, &r) - t->in_h) / t->out_h + 1));
        transform(t, group, row / t->rows, &r, point, strip, v + (tile - first) * t->p->in_channels * item);
        tile += r.rows * r.columns;
    }
}
