/* The grey levels of a picture, in one call: a small copy, the histogram and the colours of a grid, and how sharp it is.
 *
 * Grey, box means and the small copy are Pillow's `convert("L")`, `reduce` and `resize(BILINEAR)` to the last bit, with
 * its arithmetic: weights in double precision, rounded to 22 bits, and 8 bits between the two passes. The lock of the
 * interpreter is released.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The loops are plain C; where the processor has AVX2, they run as the compiler wrote them for it, but for `to_grey`. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAS_AVX2 1
#include <immintrin.h>
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

#define VERSION 2 /* of the arguments and the answer of `measure`, see grey.py */
#define SMALL 32 /* pixels of the small copy, across and down */
#define PRECISION 22
#define HALF (1 << (PRECISION - 1))
#define CELLS 8 /* of the grid: those in the corners and in the middle of each side */

/* The start of the Arrow C data interface, by which Pillow lends its pixels. */
struct arrow_array {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct arrow_array **children;
};

struct picture {
    const uint8_t *pixels; /* RGBX, or grey */
    int width, height, bands;
};

/* Weights of one axis: output i is the sum of `weights[i * taps + k]` times input `first[i] + k`, for k < taps. */
struct axis {
    int taps, first[SMALL];
    int32_t *weights;
};

/* Memory to work in, and what was worked out before the lock is released. */
struct scratch {
    uint8_t *grey, *reduced, *between;
    uint32_t *sums;
    struct axis across, down;
};

struct result {
    float *small;
    int across, down, vertical_first;
    const int32_t *columns, *rows;
    int grid;
    int64_t *histogram;
    int64_t edges;
    long colours[3]; /* sums over the grid */
    uint8_t border[3 * CELLS];
};

INLINE void to_grey(const uint8_t *pixels, uint8_t *grey, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const uint8_t *pixel = pixels + 4 * i;
        grey[i] = (uint8_t)((pixel[0] * 19595u + pixel[1] * 38470u + pixel[2] * 7471u + 0x8000) >> 16);
    }
}

#ifdef HAS_AVX2
/* Eight pixels. The weight of green has 17 bits: `pmaddwd` gets 38470 - 65536, and green is added to the result. */
__attribute__((target("avx2"), always_inline)) static inline __m256i eight_to_grey(const uint8_t *pixels) {
    __m256i all = _mm256_loadu_si256((const __m256i *)pixels), green = _mm256_srli_epi16(all, 8);
    __m256i sum = _mm256_madd_epi16(_mm256_and_si256(all, _mm256_set1_epi32(0xff00ff)), _mm256_set1_epi32(7471 << 16 | 19595));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(green, _mm256_set1_epi32((uint16_t)(38470 - 65536))));
    sum = _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_slli_epi32(green, 16), _mm256_set1_epi32(0x8000)));
    return _mm256_srli_epi32(sum, 16);
}

__attribute__((target("avx2"))) static void to_grey_avx2(const uint8_t *pixels, uint8_t *grey, size_t count) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    size_t done = 0;
    for (; done + 32 <= count; done += 32) {
        const uint8_t *first = pixels + 4 * done;
        __m256i low = _mm256_packus_epi32(eight_to_grey(first), eight_to_grey(first + 32));
        __m256i high = _mm256_packus_epi32(eight_to_grey(first + 64), eight_to_grey(first + 96));
        __m256i levels = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
        _mm256_storeu_si256((__m256i *)(grey + done), levels);
    }
    to_grey(pixels + 4 * done, grey + done, count - done);
}
#endif

/* Mean of blocks of `across` x `down` pixels, those at the right and the lower edge smaller. Rounded totals times the
 * factor stay below 2^32: factor <= 2^24 / area. */
INLINE void means(const uint32_t *sums, int across, int lines, uint8_t *out, int count) {
    uint32_t area = (uint32_t)(across * lines), factor = (1u << 24) / area;
    for (int i = 0; i < count; i++) {
        uint32_t total = area / 2;
        for (int k = 0; k < across; k++) total += sums[i * across + k];
        out[i] = (uint8_t)((total * factor) >> 24);
    }
}

INLINE void reduce(const uint8_t *grey, int width, int height, int across, int down, uint8_t *out, uint32_t *sums) {
    int full = width / across, rest = width % across;
    for (int top = 0; top < height; top += down) {
        int lines = height - top < down ? height - top : down;
        const uint8_t *row = grey + (size_t)top * width;
        for (int x = 0; x < width; x++) sums[x] = row[x];
        for (int y = 1; y < lines; y++)
            for (int x = 0; x < width; x++) sums[x] += row[(size_t)y * width + x];
        switch (across) { /* the usual ones, so that the compiler knows the number */
        case 2: means(sums, 2, lines, out, full); break;
        case 3: means(sums, 3, lines, out, full); break;
        case 4: means(sums, 4, lines, out, full); break;
        default: means(sums, across, lines, out, full);
        }
        if (rest) means(sums + full * across, rest, lines, out + full, 1);
        out += full + (rest > 0);
    }
}

/* Sum of the squares of the Laplacian, on every fourth row. */
INLINE int64_t edges(const uint8_t *grey, int width, int height) {
    int64_t total = 0;
    for (int y = 1; y + 1 < height; y += 4) {
        const uint8_t *at = grey + (size_t)y * width, *above = at - width, *below = at + width;
        for (int start = 1; start + 1 < width; start += 2048) { /* so many values up to 1020^2 are summed in 31 bits */
            int end = start + 2048 < width - 1 ? start + 2048 : width - 1;
            int32_t sum = 0;
            for (int x = start; x < end; x++) {
                int16_t edge = (int16_t)(above[x] + below[x] + at[x - 1] + at[x + 1] - 4 * at[x]);
                sum += edge * edge;
            }
            total += sum;
        }
    }
    return total;
}

/* Weights for `SMALL` outputs from inputs 0 to `high` of `inputs`; 0 if there is no memory. */
static int prepare(struct axis *axis, int inputs, float high) {
    double scale = (double)high / SMALL, support = scale < 1.0 ? 1.0 : scale, inverse = 1.0 / support;
    int most = (int)ceil(support) * 2 + 1, taps = axis->taps = most < inputs ? most : inputs;
    double *exact = malloc((size_t)most * sizeof(double));
    axis->weights = calloc((size_t)SMALL * taps, sizeof(int32_t));
    for (int i = 0; exact && axis->weights && i < SMALL; i++) {
        double center = (i + 0.5) * scale, total = 0.0;
        int from = (int)(center - support + 0.5), to = (int)(center + support + 0.5);
        if (from < 0) from = 0;
        if (to > inputs) to = inputs;
        for (int k = 0; k < to - from; k++) {
            double distance = fabs((k + from - center + 0.5) * inverse);
            total += exact[k] = distance < 1.0 ? 1.0 - distance : 0.0;
        }
        /* A window that would leave the inputs starts earlier, with weights of 0. */
        int first = axis->first[i] = from + taps > inputs ? inputs - taps : from;
        int32_t *weights = axis->weights + i * taps + (from - first);
        for (int k = 0; k < to - from; k++) {
            double weight = total != 0.0 ? exact[k] / total : exact[k];
            weights[k] = (int32_t)(0.5 + weight * (1 << PRECISION));
        }
    }
    int is_ready = exact && axis->weights;
    free(exact);
    return is_ready;
}

INLINE uint8_t rounded(int32_t sum) {
    sum >>= PRECISION;
    return (uint8_t)(sum > 255 ? 255 : sum);
}

/* `lines` rows of `width` levels to as many of `SMALL`. */
INLINE void squeeze_across(
    const uint8_t *levels, int width, int lines, const struct axis *axis, const int taps, uint8_t *out) {
    for (int y = 0; y < lines; y++, levels += width, out += SMALL)
        for (int i = 0; i < SMALL; i++) {
            const int32_t *weights = axis->weights + i * taps;
            const uint8_t *first = levels + axis->first[i];
            int32_t sum = HALF;
            for (int k = 0; k < taps; k++) sum += weights[k] * first[k];
            out[i] = rounded(sum);
        }
}

/* Rows of `width` levels to `SMALL` of them. */
INLINE void squeeze_down(const uint8_t *levels, int width, const struct axis *axis, int32_t *sums, uint8_t *out) {
    for (int i = 0; i < SMALL; i++, out += width) {
        const uint8_t *row = levels + (size_t)axis->first[i] * width;
        for (int x = 0; x < width; x++) sums[x] = HALF;
        for (int k = 0; k < axis->taps; k++, row += width) {
            int32_t weight = axis->weights[i * axis->taps + k];
            for (int x = 0; x < width; x++) sums[x] += weight * row[x];
        }
        for (int x = 0; x < width; x++) out[x] = rounded(sums[x]);
    }
}

/* The usual number of taps is known to the compiler: a loop over it would cost more than twice the time. */
INLINE void squeeze_rows(const uint8_t *levels, int width, int lines, const struct axis *axis, uint8_t *out) {
    if (axis->taps == 5)
        squeeze_across(levels, width, lines, axis, 5, out);
    else
        squeeze_across(levels, width, lines, axis, axis->taps, out);
}

/* Box means, then the small copy of them. */
INLINE void shrink(const uint8_t *grey, int width, int height, struct scratch *scratch, struct result *result) {
    int columns = (width + result->across - 1) / result->across, lines = (height + result->down - 1) / result->down;
    int32_t *sums = (int32_t *)scratch->sums;
    uint8_t levels[SMALL * SMALL];
    reduce(grey, width, height, result->across, result->down, scratch->reduced, scratch->sums);
    if (result->vertical_first) {
        squeeze_down(scratch->reduced, columns, &scratch->down, sums, scratch->between);
        squeeze_rows(scratch->between, columns, SMALL, &scratch->across, levels);
    } else {
        squeeze_rows(scratch->reduced, columns, lines, &scratch->across, scratch->between);
        squeeze_down(scratch->between, SMALL, &scratch->down, sums, levels);
    }
    for (int i = 0; i < SMALL * SMALL; i++) result->small[i] = levels[i];
}

/* Levels and colours at the grid. Copies of what is added to, as a write to a byte may change anything for the compiler;
 * two tables, as equal levels follow each other. */
INLINE void look_at_grid(const struct picture *picture, const uint8_t *grey, struct result *result) {
    const int32_t *columns = result->columns;
    uint32_t even[256] = {0}, odd[256] = {0};
    uint64_t red = 0, green = 0, blue = 0;
    int grid = result->grid;
    for (int i = 0; i < grid; i++) {
        size_t start = (size_t)result->rows[i] * picture->width;
        for (int k = 0; k < grid; k++) ((k & 1) ? odd : even)[grey[start + columns[k]]]++;
        const uint8_t *pixels = picture->pixels + 4 * start;
        for (int k = 0; picture->bands == 4 && k < grid; k++) {
            const uint8_t *pixel = pixels + 4 * columns[k];
            red += pixel[0];
            green += pixel[1];
            blue += pixel[2];
        }
    }
    for (int i = 0; i < 256; i++) result->histogram[i] = (int64_t)even[i] + odd[i];
    result->colours[0] = red;
    result->colours[1] = green;
    result->colours[2] = blue;
    if (picture->bands != 4 || grid < 1) return;
    const int cells[3] = {0, grid / 2, grid - 1};
    uint8_t *border = result->border;
    for (int place = 0; place < 9; place++) {
        if (place == 4) continue;
        size_t row = (size_t)result->rows[cells[place / 3]] * picture->width;
        memcpy(border, picture->pixels + 4 * (row + columns[cells[place % 3]]), 3);
        border += 3;
    }
}

INLINE void measure_levels(
    const struct picture *picture, const uint8_t *grey, struct scratch *scratch, struct result *result) {
    shrink(grey, picture->width, picture->height, scratch, result);
    result->edges = edges(grey, picture->width, picture->height);
    look_at_grid(picture, grey, result);
}

static void measure_plain(const struct picture *picture, struct scratch *scratch, struct result *result) {
    if (picture->bands == 4) to_grey(picture->pixels, scratch->grey, (size_t)picture->width * picture->height);
    measure_levels(picture, picture->bands == 4 ? scratch->grey : picture->pixels, scratch, result);
}

#ifdef HAS_AVX2
__attribute__((target("avx2"))) static void measure_avx2(
    const struct picture *picture, struct scratch *scratch, struct result *result) {
    if (picture->bands == 4) to_grey_avx2(picture->pixels, scratch->grey, (size_t)picture->width * picture->height);
    measure_levels(picture, picture->bands == 4 ? scratch->grey : picture->pixels, scratch, result);
}
#endif

static void release(struct scratch *scratch) {
    free(scratch->grey);
    free(scratch->reduced);
    free(scratch->between);
    free(scratch->sums);
    free(scratch->across.weights);
    free(scratch->down.weights);
}

/* 1, or 0 if there is no memory; `release` it in both cases. */
static int reserve(struct scratch *scratch, const struct picture *picture, const struct result *result) {
    int columns = (picture->width + result->across - 1) / result->across;
    int lines = (picture->height + result->down - 1) / result->down;
    int longer = columns > lines ? columns : lines, wide = picture->width > SMALL ? picture->width : SMALL;
    scratch->grey = picture->bands == 4 ? malloc((size_t)picture->width * picture->height) : NULL;
    scratch->reduced = malloc((size_t)columns * lines);
    scratch->between = malloc((size_t)longer * SMALL);
    scratch->sums = malloc((size_t)wide * sizeof(uint32_t));
    return (scratch->grey || picture->bands == 1) && scratch->reduced && scratch->between && scratch->sums &&
           prepare(&scratch->across, columns, (float)((double)picture->width / result->across)) &&
           prepare(&scratch->down, lines, (float)((double)picture->height / result->down));
}

/* 1, or 0 with an exception: a buffer of `size` bytes that can be written. */
static int lend(PyObject *object, Py_buffer *buffer, Py_ssize_t size, int flags, const char *name) {
    if (PyObject_GetBuffer(object, buffer, flags) < 0) return 0;
    if (buffer->len == size) return 1;
    PyErr_Format(PyExc_ValueError, "%s must have %zd bytes", name, size);
    PyBuffer_Release(buffer);
    buffer->obj = NULL;
    return 0;
}

static int within(const int32_t *positions, int count, int size) {
    for (int i = 0; i < count; i++)
        if (positions[i] < 0 || positions[i] >= size) return 0;
    return 1;
}

static PyObject *measure(PyObject *self, PyObject *args) {
    PyObject *lent, *columns, *rows, *histogram, *small, *answer = NULL;
    struct picture picture = {0};
    struct result result = {0};
    Py_buffer buffers[5] = {{0}};
    (void)self;
    if (!PyArg_ParseTuple(
            args, "OiiiiipOOOO", &lent, &picture.width, &picture.height, &picture.bands, &result.across, &result.down,
            &result.vertical_first, &columns, &rows, &histogram, &small))
        return NULL;
    int width = picture.width, height = picture.height, bands = picture.bands;
    if (width < 1 || height < 1 || width > 32767 || height > 32767 || (bands != 1 && bands != 4) || result.across < 1 ||
        result.down < 1 || result.across > 4096 || result.down > 4096) {
        PyErr_SetString(PyExc_ValueError, "no such size");
        return NULL;
    }
    Py_ssize_t needed = (Py_ssize_t)width * height * bands, given = -1;
    if (PyCapsule_IsValid(lent, "arrow_array")) {
        const struct arrow_array *array = PyCapsule_GetPointer(lent, "arrow_array");
        if (bands == 4 && array->n_children == 1) array = array->children[0];
        if (array->n_children == 0 && array->n_buffers == 2) {
            given = (Py_ssize_t)array->length;
            picture.pixels = (const uint8_t *)array->buffers[1] + array->offset;
        }
    } else {
        if (PyObject_GetBuffer(lent, &buffers[0], PyBUF_SIMPLE) < 0) return NULL;
        given = buffers[0].len;
        picture.pixels = buffers[0].buf;
    }
    if (given < needed || picture.pixels == NULL) {
        PyErr_SetString(PyExc_ValueError, "the pixels are not RGBX, or grey");
        goto end;
    }
    if (PyObject_GetBuffer(columns, &buffers[1], PyBUF_SIMPLE) < 0) goto end;
    result.grid = (int)(buffers[1].len / (Py_ssize_t)sizeof(int32_t));
    if (!lend(rows, &buffers[2], buffers[1].len, PyBUF_SIMPLE, "rows")) goto end;
    if (!lend(histogram, &buffers[3], 256 * sizeof(int64_t), PyBUF_WRITABLE, "histogram")) goto end;
    if (!lend(small, &buffers[4], SMALL * SMALL * sizeof(float), PyBUF_WRITABLE, "small")) goto end;
    result.columns = buffers[1].buf;
    result.rows = buffers[2].buf;
    result.histogram = buffers[3].buf;
    result.small = buffers[4].buf;
    if (!within(result.columns, result.grid, width) || !within(result.rows, result.grid, height)) {
        PyErr_SetString(PyExc_ValueError, "the grid does not lie within the picture");
        goto end;
    }
    struct scratch scratch = {0};
    if (reserve(&scratch, &picture, &result)) {
        Py_BEGIN_ALLOW_THREADS
#ifdef HAS_AVX2
        if (__builtin_cpu_supports("avx2"))
            measure_avx2(&picture, &scratch, &result);
        else
#endif
            measure_plain(&picture, &scratch, &result);
        Py_END_ALLOW_THREADS
        const long *colours = result.colours;
        answer = Py_BuildValue(
            "L(lll)y#", (long long)result.edges, colours[0], colours[1], colours[2], (const char *)result.border,
            (Py_ssize_t)sizeof(result.border));
    } else
        PyErr_NoMemory();
    release(&scratch);
end:
    for (int i = 0; i < 5; i++)
        if (buffers[i].obj != NULL) PyBuffer_Release(&buffers[i]);
    return answer;
}

static PyMethodDef methods[] = {
    {"measure", measure, METH_VARARGS,
     "measure(pixels, width, height, bands, across, down, vertical_first, columns, rows, histogram, small): the sum of the\n"
     "squares of the Laplacian on every fourth row of the grey picture, the sums of red, green and blue at a grid, and\n"
     "the colours of eight cells of the grid, in the corners and in the middle of each side.\n\n"
     "`pixels` is Pillow's Arrow capsule, or bytes: RGBX (4 bands) or grey (1), which has no colours. The grid is where\n"
     "`columns` and `rows` (int32) cross. Written are `histogram`, int64 [256], how many cells of the grid have each grey\n"
     "level; and `small`, float32 [32, 32], the grey levels of a small copy: means of blocks of `across` x `down`,\n"
     "resized by rows or, with `vertical_first`, by columns first."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    return PyModule_AddIntConstant(module, "VERSION", VERSION);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "plantml.imaging._grey", "Grey levels of a picture in one pass.", 0, methods, slots, NULL,
    NULL, NULL};

PyMODINIT_FUNC PyInit__grey(void) { return PyModuleDef_Init(&definition); }
