// A way to call every kernel of a module with pointers to its arguments, as a launch gives them.
#pragma once

#include "engine.h"

extern "C" {
extern char __ehdr_start, _end;  // of this module's library

// Runs one launch; 0, or 1 with a message.
CONVDSL_UNNOTED __attribute__((visibility("default"))) int convdsl_launch(const void *launch) {
    return convdsl_launch_of(launch, &__ehdr_start, &_end);
}
}

namespace convdsl {

template <int... I>
struct Numbers {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
    using type = Numbers<I...>;
};

template <class... A, int... I>
CONVDSL_UNNOTED void call(void (*kernel)(A...), void **arguments, Numbers<I...>) {
    kernel(*static_cast<A *>(arguments[I])...);
}
template <class... A>
CONVDSL_UNNOTED void call(void (*kernel)(A...), void **arguments) {
    call(kernel, arguments, typename Count<sizeof...(A)>::type());
}

}  // namespace convdsl

#define CONVDSL_KERNEL(name)                                                 \
    extern "C" CONVDSL_UNNOTED __attribute__((visibility("default"))) void convdsl_kernel_##name( \
        void **given) {                                                      \
        convdsl::call(name, given);                                          \
    }
