/* The grey levels of a picture, in one call: box means, the histogram of a grid, and how sharp it is.
 *
 * Grey and box means are Pillow's `convert("L")` and `reduce` to the last bit. The lock of the interpreter is released.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The loops are plain C; where the processor has AVX2, they run as the compiler wrote them for it. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAS_AVX2 1
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

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

INLINE void to_grey(const uint8_t *pixels, uint8_t *grey, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint32_t pixel;
        memcpy(&pixel, pixels + 4 * i, 4);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        uint32_t red = pixel >> 24, green = pixel >> 16 & 255, blue = pixel >> 8 & 255;
#else
        uint32_t red = pixel & 255, green = pixel >> 8 & 255, blue = pixel >> 16 & 255;
#endif
        grey[i] = (uint8_t)((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16);
    }
}

/* Mean of blocks of `across` x `down` pixels, those at the right and the lower edge smaller. */
INLINE void reduce(const uint8_t *grey, int width, int height, int across, int down, uint8_t *out, uint32_t *sums) {
    int columns = (width + across - 1) / across;
    for (int top = 0; top < height; top += down, out += columns) {
        int lines = height - top < down ? height - top : down;
        const uint8_t *row = grey + (size_t)top * width;
        for (int x = 0; x < width; x++) sums[x] = row[x];
        for (int y = 1; y < lines; y++)
            for (int x = 0; x < width; x++) sums[x] += row[(size_t)y * width + x];
        int full = width / across; /* blocks */
        uint32_t area = (uint32_t)(across * lines), factor = (1u << 24) / area;
        const uint32_t *sum = sums;
        for (int i = 0; i < full; i++, sum += across) {
            uint32_t total = area / 2;
            for (int x = 0; x < across; x++) total += sum[x];
            out[i] = (uint8_t)(((uint64_t)total * factor) >> 24);
        }
        if (full < columns) {
            area = (uint32_t)((width - full * across) * lines);
            uint32_t total = area / 2;
            for (; sum < sums + width; sum++) total += *sum;
            out[full] = (uint8_t)(((uint64_t)total * ((1u << 24) / area)) >> 24);
        }
    }
}

/* Sum of the squares of the Laplacian, on every fourth row. */
INLINE int64_t edges(const uint8_t *grey, int width, int height) {
    int64_t total = 0;
    for (int y = 1; y + 1 < height; y += 4) {
        const uint8_t *at = grey + (size_t)y * width, *above = at - width, *below = at + width;
        for (int start = 1; start + 1 < width; start += 4096) { /* so many values up to 1020^2 are summed in 32 bits */
            int end = start + 4096 < width - 1 ? start + 4096 : width - 1;
            uint32_t sum = 0;
            for (int x = start; x < end; x++) {
                int32_t edge = above[x] + below[x] + at[x - 1] + at[x + 1] - 4 * at[x];
                sum += (uint32_t)(edge * edge);
            }
            total += sum;
        }
    }
    return total;
}

struct result {
    uint8_t *small;
    int across, down;
    const int32_t *columns, *rows;
    int grid;
    uint8_t *colours; /* RGB at the grid, or NULL */
    int64_t *histogram;
    int64_t edges;
};

INLINE void measure_all(const struct picture *picture, uint8_t *buffer, uint32_t *sums, struct result *result) {
    int width = picture->width, height = picture->height;
    const uint8_t *grey = picture->pixels;
    if (picture->bands == 4) {
        to_grey(picture->pixels, buffer, (size_t)width * height);
        grey = buffer;
    }
    reduce(grey, width, height, result->across, result->down, result->small, sums);
    result->edges = edges(grey, width, height);
    /* Copies, as a write to a byte may change anything for the compiler; two tables, as equal levels follow each other. */
    const int32_t *columns = result->columns;
    const uint8_t *pixels = picture->pixels;
    uint8_t *colours = result->colours;
    uint32_t even[256] = {0}, odd[256] = {0};
    int grid = result->grid;
    for (int i = 0; i < grid; i++) {
        size_t start = (size_t)result->rows[i] * width;
        for (int k = 0; k < grid; k++) ((k & 1) ? odd : even)[grey[start + columns[k]]]++;
        for (int k = 0; colours && k < grid; k++, colours += 3) {
            const uint8_t *pixel = pixels + 4 * (start + columns[k]);
            colours[0] = pixel[0];
            colours[1] = pixel[1];
            colours[2] = pixel[2];
        }
    }
    for (int i = 0; i < 256; i++) result->histogram[i] += even[i] + odd[i];
}

#ifdef HAS_AVX2
__attribute__((target("avx2"))) static void measure_avx2(
    const struct picture *picture, uint8_t *buffer, uint32_t *sums, struct result *result) {
    measure_all(picture, buffer, sums, result);
}
#endif

static void measure_plain(const struct picture *picture, uint8_t *buffer, uint32_t *sums, struct result *result) {
    measure_all(picture, buffer, sums, result);
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
    PyObject *lent, *small, *columns, *rows, *colours, *histogram, *answer = NULL;
    struct picture picture;
    struct result result = {0};
    Py_buffer buffers[6] = {{0}};
    (void)self;
    if (!PyArg_ParseTuple(
            args, "OiiiiiOOOOO", &lent, &picture.width, &picture.height, &picture.bands, &result.across, &result.down,
            &small, &columns, &rows, &colours, &histogram))
        return NULL;
    int width = picture.width, height = picture.height, bands = picture.bands;
    if (width < 1 || height < 1 || width > 32767 || height > 32767 || (bands != 1 && bands != 4) || result.across < 1 ||
        result.down < 1 || result.across > 4096 || result.down > 4096) {
        PyErr_SetString(PyExc_ValueError, "no such size");
        return NULL;
    }
    Py_ssize_t needed = (Py_ssize_t)width * height * bands, given = -1;
    picture.pixels = NULL;
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
    Py_ssize_t cells = (Py_ssize_t)((width + result.across - 1) / result.across) *
                       ((height + result.down - 1) / result.down);
    if (!lend(small, &buffers[1], cells, PyBUF_WRITABLE, "small")) goto end;
    if (PyObject_GetBuffer(columns, &buffers[2], PyBUF_SIMPLE) < 0) goto end;
    result.grid = (int)(buffers[2].len / (Py_ssize_t)sizeof(int32_t));
    if (!lend(rows, &buffers[3], buffers[2].len, PyBUF_SIMPLE, "rows")) goto end;
    if (colours != Py_None) {
        Py_ssize_t size = bands == 4 ? (Py_ssize_t)result.grid * result.grid * 3 : 0;
        if (!lend(colours, &buffers[4], size, PyBUF_WRITABLE, "colours")) goto end;
        result.colours = buffers[4].buf;
    }
    if (!lend(histogram, &buffers[5], 256 * sizeof(int64_t), PyBUF_WRITABLE, "histogram")) goto end;
    result.small = buffers[1].buf;
    result.columns = buffers[2].buf;
    result.rows = buffers[3].buf;
    result.histogram = buffers[5].buf;
    if (!within(result.columns, result.grid, width) || !within(result.rows, result.grid, height)) {
        PyErr_SetString(PyExc_ValueError, "the grid does not lie within the picture");
        goto end;
    }
    uint32_t *sums = malloc((size_t)width * sizeof(uint32_t));
    uint8_t *buffer = bands == 4 ? malloc((size_t)width * height) : NULL;
    if (sums && (buffer || bands == 1)) {
        Py_BEGIN_ALLOW_THREADS
#ifdef HAS_AVX2
        if (__builtin_cpu_supports("avx2"))
            measure_avx2(&picture, buffer, sums, &result);
        else
#endif
            measure_plain(&picture, buffer, sums, &result);
        Py_END_ALLOW_THREADS
        answer = PyLong_FromLongLong(result.edges);
    } else
        PyErr_NoMemory();
    free(sums);
    free(buffer);
end:
    for (int i = 0; i < 6; i++)
        if (buffers[i].obj != NULL) PyBuffer_Release(&buffers[i]);
    return answer;
}

static PyMethodDef methods[] = {
    {"measure", measure, METH_VARARGS,
     "measure(pixels, width, height, bands, across, down, small, columns, rows, colours, histogram): the sum of the\n"
     "squares of the Laplacian on every fourth row of the grey picture.\n\n"
     "`pixels` is Pillow's Arrow capsule, or bytes: RGBX (4 bands) or grey (1). Written are `small`, means of blocks of\n"
     "`across` x `down`; `colours`, RGB at the grid of `columns` and `rows` (int32), or None; and `histogram`, int64 [256],\n"
     "to which the grey levels at the grid are added."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "plantml.imaging._grey", "Grey levels of a picture in one pass.", 0, methods, slots, NULL,
    NULL, NULL};

PyMODINIT_FUNC PyInit__grey(void) { return PyModuleDef_Init(&definition); }
