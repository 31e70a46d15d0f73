/* The pixels of a part of a JPEG, at full, half, quarter or eighth scale, decoding little beyond that part.
 *
 * The decoder is the libjpeg-turbo that Pillow itself has loaded: one decoder in the process, the same pixels on either way, and
 * nothing to link against. So a C compiler is all that is needed to build this file, and no header of another library.
 */

#include <dlfcn.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* libjpeg's interface, version 6.2, 64-bit. Only the fields named here are touched. jpeg_CreateDecompress compares the version and
 * the size of the whole structure with its own before it writes anything, and refuses another layout. */

#define JPEG_LIB_VERSION 62
#define JPEG_HEADER_OK 1
#define JCS_GRAYSCALE 1
#define JCS_RGB 2
#define JCS_YCBCR 3

typedef struct jpeg_decompress jpeg_decompress;

struct jpeg_error {
    void (*error_exit)(jpeg_decompress *);
    void (*emit_message)(jpeg_decompress *, int level);
    void (*output_message)(jpeg_decompress *);
    void (*format_message)(jpeg_decompress *, char *text); /* at most 200 characters */
    void (*reset)(jpeg_decompress *);
    int code;
    union {
        int i[8];
        char s[80];
    } parameters;
    int trace_level;
    long warnings;
    const char *const *messages;
    int last_message;
    const char *const *added_messages;
    int first_added, last_added;
};

struct jpeg_source {
    const uint8_t *next;
    size_t left;
    void (*init)(jpeg_decompress *);
    int (*fill)(jpeg_decompress *);
    void (*skip)(jpeg_decompress *, long count);
    int (*resync)(jpeg_decompress *, int desired);
    void (*term)(jpeg_decompress *);
};

struct jpeg_decompress {
    struct jpeg_error *error;
    void *memory, *progress, *client;
    int is_decompressor, state;
    struct jpeg_source *source;
    unsigned image_width, image_height;
    int components, color_space, out_color_space;
    unsigned scale_num, scale_denom;
    double output_gamma;
    int buffered_image, raw_data_out, dct_method, fancy_upsampling, block_smoothing;
    int quantize_colors, dither_mode, two_pass_quantize, desired_colors;
    int enable_1pass, enable_external, enable_2pass;
    unsigned output_width, output_height;
    int out_color_components, output_components, rec_outbuf_height, actual_colors;
    uint8_t **colormap;
    unsigned output_scanline;
    uint8_t rest[456];
};
_Static_assert(sizeof(jpeg_decompress) == 632, "libjpeg 6.2 on a 64-bit machine");

static struct {
    struct jpeg_error *(*std_error)(struct jpeg_error *);
    void (*create)(jpeg_decompress *, int version, size_t size);
    int (*read_header)(jpeg_decompress *, int require_image);
    int (*start)(jpeg_decompress *);
    void (*crop)(jpeg_decompress *, unsigned *left, unsigned *width);
    unsigned (*skip)(jpeg_decompress *, unsigned rows);
    unsigned (*read)(jpeg_decompress *, uint8_t **rows, unsigned count);
    int (*finish)(jpeg_decompress *);
    int (*resync)(jpeg_decompress *, int desired);
    void (*destroy)(jpeg_decompress *);
} jpeg;

/* Find the functions of the libjpeg at `path`; 0 when all are there. */
EXPORT int vitlab_open(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return 1;
    *(void **)&jpeg.std_error = dlsym(library, "jpeg_std_error");
    *(void **)&jpeg.create = dlsym(library, "jpeg_CreateDecompress");
    *(void **)&jpeg.read_header = dlsym(library, "jpeg_read_header");
    *(void **)&jpeg.start = dlsym(library, "jpeg_start_decompress");
    *(void **)&jpeg.crop = dlsym(library, "jpeg_crop_scanline");
    *(void **)&jpeg.skip = dlsym(library, "jpeg_skip_scanlines");
    *(void **)&jpeg.read = dlsym(library, "jpeg_read_scanlines");
    *(void **)&jpeg.finish = dlsym(library, "jpeg_finish_decompress");
    *(void **)&jpeg.resync = dlsym(library, "jpeg_resync_to_restart");
    *(void **)&jpeg.destroy = dlsym(library, "jpeg_destroy_decompress");
    return !(jpeg.std_error && jpeg.create && jpeg.read_header && jpeg.start && jpeg.crop && jpeg.skip && jpeg.read &&
             jpeg.finish && jpeg.resync && jpeg.destroy);
}

struct failure {
    struct jpeg_error error; /* first: libjpeg hands back a pointer to it */
    jmp_buf back;
    char *message;
    int begun; /* the header is read */
};

static void on_error(jpeg_decompress *image) {
    struct failure *failure = (struct failure *)image->error;
    image->error->format_message(image, failure->message);
    longjmp(failure->back, 1);
}

/* A warning means that libjpeg invents what the file lacks: that is no picture. What passes is an unknown version of the header, any
 * bytes astray in it, and up to STRAY of them behind the picture, which some programs write; more of them are what is left of a
 * picture whose codes were read wrongly. */
#define STRAY 64

static void on_message(jpeg_decompress *image, int level) {
    const struct jpeg_error *error = image->error;
    if (level >= 0) return;
    const char *text = error->code > 0 && error->code <= error->last_message ? error->messages[error->code] : "";
    const int count = error->parameters.i[0], marker = error->parameters.i[1];
    const int stray = strstr(text, "extraneous bytes") && !(marker >= 0xD0 && marker <= 0xD7) &&
                      (count <= STRAY || !((const struct failure *)error)->begun);
    int damage = !strncmp(text, "Corrupt", 7) || !strncmp(text, "Premature", 9) || !strncmp(text, "Inconsistent", 12);
    if (damage && !stray) on_error(image);
}

static void on_output(jpeg_decompress *image) { (void)image; }
static void on_source(jpeg_decompress *image) { (void)image; }

/* Behind the last byte stands the end of the picture: a decoder that still needs more says so in a warning. */
static int on_fill(jpeg_decompress *image) {
    static const uint8_t end[] = {0xFF, 0xD9};
    image->source->next = end;
    image->source->left = sizeof end;
    return 1;
}

static void on_skip(jpeg_decompress *image, long count) {
    if (count <= 0) return;
    if ((size_t)count > image->source->left) {
        on_fill(image);
        return;
    }
    image->source->next += count;
    image->source->left -= (size_t)count;
}

/* Write the part (left, top) to (left + width, top + height) of the JPEG in `data`, in pixels of its 1 / `reduce` scale, to `out`
 * (RGB, width · 3 bytes a row). Return 0, or 1 with the reason in `message` (200 characters). */
EXPORT int vitlab_region(const uint8_t *data, size_t size, unsigned reduce, unsigned left, unsigned top, unsigned width,
                         unsigned height, uint8_t *out, char *message) {
    jpeg_decompress image;
    struct failure failure;
    struct jpeg_source source = {data, size, on_source, on_fill, on_skip, jpeg.resync, on_source};
    uint8_t *volatile row = NULL;
    memset(&image, 0, sizeof image);
    image.error = jpeg.std_error(&failure.error);
    failure.error.error_exit = on_error;
    failure.error.emit_message = on_message;
    failure.error.output_message = on_output;
    failure.message = message;
    failure.begun = 0;
    if (setjmp(failure.back)) {
        jpeg.destroy(&image);
        free(row);
        return 1;
    }
    jpeg.create(&image, JPEG_LIB_VERSION, sizeof image);
    image.source = &source;
    if (jpeg.read_header(&image, 1) != JPEG_HEADER_OK) return 1;
    failure.begun = 1;
    image.out_color_space = JCS_RGB;
    image.scale_num = 8 / reduce;
    image.scale_denom = 8;
    jpeg.start(&image);

    /* The first and the last decoded column are upsampled without their neighbours, so one more is decoded on either side. */
    unsigned first = left ? left - 1 : 0;
    unsigned count = left + width < image.output_width ? left + width + 1 - first : image.output_width - first;
    if (count < 4) count = image.output_width - first < 4 ? image.output_width - first : 4; /* chroma has half as many */
    if (first || first + count < image.output_width) jpeg.crop(&image, &first, &count);
    row = malloc((size_t)image.output_width * 3);
    if (!row || left < first || left + width > first + image.output_width || top + height > image.output_height) {
        snprintf(message, 200, "no such part");
        longjmp(failure.back, 1);
    }
    if (top) jpeg.skip(&image, top);
    while (image.output_scanline < top + height) {
        uint8_t *rows[1] = {row};
        const size_t place = (size_t)(image.output_scanline - top) * width * 3;
        jpeg.read(&image, rows, 1);
        memcpy(out + place, row + (size_t)(left - first) * 3, (size_t)width * 3);
    }
    if (image.output_scanline == image.output_height) jpeg.finish(&image); /* looks at what follows the picture */
    jpeg.destroy(&image);
    free(row);
    return 0;
}
