/* A network as a library, used from C: an image from standard input as raw numbers, what the
 * network makes of it to standard output, one number a line.
 *
 *     convdsl compile lenet5 --weights lenet5.safetensors --emit library -o liblenet5.so
 *     cc numbers.c -o numbers -L. -llenet5 -Wl,-rpath,'$ORIGIN'
 *     ./numbers < image.f32
 */
#include <stdio.h>

#include "lenet5.h"

static float image[LENET5_IMAGE_ELEMENTS];
static float logits[LENET5_LOGITS_ELEMENTS];

int main(void) {
    if (fread(image, sizeof *image, LENET5_IMAGE_ELEMENTS, stdin) != LENET5_IMAGE_ELEMENTS) {
        fprintf(stderr, "an image has %d numbers\n", LENET5_IMAGE_ELEMENTS);
        return 1;
    }
    lenet5 *network;
    int code = lenet5_create(&network, 2);
    if (!code) code = lenet5_run(network, image, logits);
    if (code) {
        fprintf(stderr, "%s\n", lenet5_message(code));
        return 1;
    }
    for (int number = 0; number < LENET5_LOGITS_ELEMENTS; number++) printf("%.9g\n", logits[number]);
    lenet5_destroy(network);
    return 0;
}
