// sam3i.hpp built with -fno-exceptions: a failure comes as a value.

#include <cstdio>

#include "sam3i.hpp"

int main() {
    const auto opened = sam3i::Segmenter::open("no such folder");
    if (opened || opened.failure().status != SAM3I_BAD_BUNDLE || opened.failure().line.empty()) return 1;
    std::puts(opened.failure().line.c_str());
    return 0;
}
